"""The gRPC face of the auth service: messages to the domain and back, nothing else."""

# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm_common.identity import bearer_token, current_identity
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from uhm_auth.keys import KeyRing
    from uhm_auth.service import AuthService

__all__ = ["PUBLIC_METHODS", "SERVICE_NAME", "AuthServicer"]

SERVICE_NAME: str = auth_pb2.DESCRIPTOR.services_by_name["AuthService"].full_name

# What needs no access token: it is how one is got, or the call itself looks at the bearer.
PUBLIC_METHODS = frozenset(
    f"/{SERVICE_NAME}/{method}" for method in ("CreateUser", "IssueToken", "RefreshToken", "RevokeToken", "GetKeys")
)


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Implements uhmalguhm.auth.v1.AuthService."""

    def __init__(self, service: AuthService, keys: KeyRing) -> None:
        self._service = service
        self._keys = keys

    async def CreateUser(
        self, request: auth_pb2.CreateUserRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.CreateUserResponse:
        """Registers a user."""
        await self._service.register(request.username, request.password)
        return auth_pb2.CreateUserResponse(status="registered", username=request.username)

    async def GetCurrentUser(
        self, request: auth_pb2.GetCurrentUserRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.GetCurrentUserResponse:
        """Who the bearer is."""
        return auth_pb2.GetCurrentUserResponse(username=current_identity().username)

    async def IssueToken(
        self, request: auth_pb2.IssueTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.IssueTokenResponse:
        """Begins a session."""
        issued = await self._service.log_in(request.username, request.password, rotate=request.rotate)
        return auth_pb2.IssueTokenResponse(access_token=issued.access, refresh_token=issued.refresh or "")

    async def RefreshToken(
        self, request: auth_pb2.RefreshTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.RefreshTokenResponse:
        """Goes on with the session of the bearer's refresh token."""
        issued = await self._service.refresh(_bearer(context))
        return auth_pb2.RefreshTokenResponse(access_token=issued.access, refresh_token=issued.refresh)

    async def RevokeToken(
        self, request: auth_pb2.RevokeTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.RevokeTokenResponse:
        """Ends the session of the bearer's token."""
        await self._service.revoke(_bearer(context))
        return auth_pb2.RevokeTokenResponse()

    async def GetKeys(
        self, request: auth_pb2.GetKeysRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.GetKeysResponse:
        """The public keys."""
        return auth_pb2.GetKeysResponse(keys=[auth_pb2.JsonWebKey(**jwk) for jwk in self._keys.public()])


def _bearer(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The token of the call. Raises Unauthenticated."""
    metadata = context.invocation_metadata() or ()
    return bearer_token({key: value for key, value in metadata if isinstance(value, str)})
