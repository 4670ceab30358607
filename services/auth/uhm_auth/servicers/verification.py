"""What the other services ask: what is revoked, and whether an API key is good."""

# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhmalguhm.auth.v1 import verification_pb2, verification_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from uhm_auth.revocation_feed import RevocationFeed
    from uhm_common.callers.api_keys import ApiKeySource
    from uhm_common.callers.revocations import Revocation

__all__ = ["SERVICE_NAME", "VerificationServicer"]

SERVICE_NAME: str = verification_pb2.DESCRIPTOR.services_by_name["VerificationService"].full_name


class VerificationServicer(verification_pb2_grpc.VerificationServiceServicer):
    """Implements uhmalguhm.auth.v1.VerificationService."""

    def __init__(self, feed: RevocationFeed, api_keys: ApiKeySource) -> None:
        self._feed = feed
        self._api_keys = api_keys

    async def WatchRevocations(
        self, request: verification_pb2.WatchRevocationsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[verification_pb2.WatchRevocationsResponse]:
        """What is revoked, and what is revoked from now on."""
        async for revocations, complete in self._feed.watch():
            yield verification_pb2.WatchRevocationsResponse(
                revocations=[_message(revocation) for revocation in revocations], complete=complete
            )

    async def VerifyApiKey(
        self, request: verification_pb2.VerifyApiKeyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> verification_pb2.VerifyApiKeyResponse:
        """Whose a key is."""
        key = await self._api_keys.verify(request.key)
        answer = verification_pb2.VerifyApiKeyResponse(
            id=key.id, username=key.username, role=key.role, scopes=sorted(key.scopes)
        )
        if key.expires_at is not None:
            answer.expire_time.FromSeconds(key.expires_at)
        return answer


def _message(revocation: Revocation) -> verification_pb2.Revocation:
    message = verification_pb2.Revocation(id=revocation.id)
    message.expire_time.FromSeconds(int(revocation.expires_at))
    return message
