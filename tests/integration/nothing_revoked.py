"""The part of an auth service that every service follows, for stand-ins that never revoke anything."""
# ruff: noqa: ARG002 - names and signatures are gRPC's

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uhmalguhm.auth.v1 import verification_pb2, verification_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

__all__ = ["add_nothing_revoked"]

BEAT_SECONDS = 1.0


class NothingRevoked(verification_pb2_grpc.VerificationServiceServicer):
    """Says every second that there is nothing to say."""

    async def WatchRevocations(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[verification_pb2.WatchRevocationsResponse]:
        while True:
            yield verification_pb2.WatchRevocationsResponse(complete=True)
            await asyncio.sleep(BEAT_SECONDS)


def add_nothing_revoked(server: grpc.aio.Server) -> None:
    """Has a server tell that nothing is revoked."""
    stand_in: Any = NothingRevoked
    verification_pb2_grpc.add_VerificationServiceServicer_to_server(stand_in(), server)
