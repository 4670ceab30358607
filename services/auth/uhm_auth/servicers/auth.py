"""The gRPC face of the auth service: messages to the domain and back, nothing else."""

# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uhm_auth.policy import MAX_PASSWORD_BYTES
from uhm_common.callers.identity import bearer_token, current_identity
from uhm_common.paging import page_size
from uhmalguhm.auth.v1 import auth_pb2, auth_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from uhm_auth.accounts import Accounts
    from uhm_auth.keys import SigningKeys
    from uhm_auth.logins import Introspection, Logins
    from uhm_auth.password_changes import PasswordChanges
    from uhm_auth.registrar import Registrar
    from uhm_auth.sessions import Sessions
    from uhm_auth.stores.sessions import Session

__all__ = ["SERVICE_NAME", "AuthServicer"]

SERVICE_NAME: str = auth_pb2.DESCRIPTOR.services_by_name["AuthService"].full_name
# How long caches may keep the key set (RFC 9111, section 5.2.2).
KEYS_FRESH_SECONDS = 60


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Implements uhmalguhm.auth.v1.AuthService."""

    def __init__(
        self,
        logins: Logins,
        keys: SigningKeys,
        *,
        sessions: Sessions,
        registrar: Registrar,
        accounts: Accounts,
        password_changes: PasswordChanges,
    ) -> None:
        self._logins = logins
        self._keys = keys
        self._sessions = sessions
        self._registrar = registrar
        self._accounts = accounts
        self._password_changes = password_changes

    async def CreateUser(
        self, request: auth_pb2.CreateUserRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.CreateUserResponse:
        """Registers a user."""
        await self._registrar.register(request.username, request.password, invitation=request.invitation)
        return auth_pb2.CreateUserResponse(status="registered", username=request.username)

    async def GetPolicy(
        self, request: auth_pb2.GetPolicyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.GetPolicyResponse:
        """Who may register, and with what passwords."""
        policy = self._registrar.policy
        return auth_pb2.GetPolicyResponse(
            registration=policy.registration.value,
            password_min_length=policy.password_min_length,
            password_max_length=MAX_PASSWORD_BYTES,
            password_min_score=policy.password_min_score,
        )

    async def GetCurrentUser(
        self, request: auth_pb2.GetCurrentUserRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.GetCurrentUserResponse:
        """Who the bearer is."""
        caller = current_identity()
        return auth_pb2.GetCurrentUserResponse(
            username=caller.username, role=caller.role, scopes=sorted(caller.scopes or ())
        )

    async def ChangePassword(
        self, request: auth_pb2.ChangePasswordRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.ChangePasswordResponse:
        """Gives the bearer another password and a new session."""
        issued = await self._password_changes.change(
            current_identity(), current=request.current_password, new=request.new_password
        )
        return auth_pb2.ChangePasswordResponse(access_token=issued.access, refresh_token=issued.refresh or "")

    async def ResetPassword(
        self, request: auth_pb2.ResetPasswordRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.ResetPasswordResponse:
        """Sets a password with a code."""
        await self._password_changes.reset(request.username, code=request.code, new=request.new_password)
        return auth_pb2.ResetPasswordResponse()

    async def DeleteCurrentUser(
        self, request: auth_pb2.DeleteCurrentUserRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.DeleteCurrentUserResponse:
        """Deletes the bearer."""
        await self._accounts.delete_caller(current_identity().username, request.password)
        return auth_pb2.DeleteCurrentUserResponse()

    async def IssueToken(
        self, request: auth_pb2.IssueTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.IssueTokenResponse:
        """Begins a session."""
        issued = await self._logins.log_in(request.username, request.password, rotate=request.rotate)
        return auth_pb2.IssueTokenResponse(access_token=issued.access, refresh_token=issued.refresh or "")

    async def RefreshToken(
        self, request: auth_pb2.RefreshTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.RefreshTokenResponse:
        """Goes on with the session of the bearer's refresh token."""
        issued = await self._sessions.refresh(_bearer(context))
        return auth_pb2.RefreshTokenResponse(access_token=issued.access, refresh_token=issued.refresh)

    async def RevokeToken(
        self, request: auth_pb2.RevokeTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.RevokeTokenResponse:
        """Ends the session of the bearer's token, or all of its user."""
        end = self._sessions.end_everywhere if request.everywhere else self._sessions.end
        await end(_bearer(context))
        return auth_pb2.RevokeTokenResponse()

    async def IntrospectToken(
        self, request: auth_pb2.IntrospectTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.IntrospectTokenResponse:
        """What a token is good for."""
        found = await self._logins.introspect(request.token, caller=current_identity())
        return auth_pb2.IntrospectTokenResponse() if found is None else _introspection(found)

    async def ListSessions(
        self, request: auth_pb2.ListSessionsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.ListSessionsResponse:
        """The bearer's sessions."""
        caller = current_identity()
        size = page_size(request.page_size)
        sessions, next_token = await self._sessions.page(caller, size=size, token=request.page_token)
        return auth_pb2.ListSessionsResponse(
            sessions=[_session(session, current=session.id == caller.session_id) for session in sessions],
            next_page_token=next_token,
        )

    async def DeleteSession(
        self, request: auth_pb2.DeleteSessionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.DeleteSessionResponse:
        """Ends one of the bearer's sessions."""
        await self._sessions.delete(current_identity(), request.id)
        return auth_pb2.DeleteSessionResponse()

    async def GetKeys(
        self, request: auth_pb2.GetKeysRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.GetKeysResponse:
        """The public keys, which may be kept for a moment: the next one is among them long before it signs."""
        await context.send_initial_metadata((("cache-control", f"public, max-age={KEYS_FRESH_SECONDS}"),))
        return auth_pb2.GetKeysResponse(keys=[auth_pb2.JsonWebKey(**jwk) for jwk in await self._keys.published()])

    async def RotateKeys(
        self, request: auth_pb2.RotateKeysRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> auth_pb2.RotateKeysResponse:
        """Signs with the next key."""
        kid = await self._keys.rotate(actor=current_identity().username, reason="command")
        return auth_pb2.RotateKeysResponse(kid=kid)


def _bearer(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The token of the call. Raises Unauthenticated."""
    metadata = context.invocation_metadata() or ()
    return bearer_token({key: value for key, value in metadata if isinstance(value, str)})


def _session(session: Session, *, current: bool) -> auth_pb2.Session:
    message = auth_pb2.Session(
        id=session.id,
        address=session.address,
        user_agent=session.user_agent,
        rotates=session.rotates,
        current=current,
    )
    message.create_time.FromSeconds(session.created_at)
    message.use_time.FromSeconds(session.used_at)
    message.expire_time.FromSeconds(session.expires_at)
    return message


def _introspection(found: Introspection) -> auth_pb2.IntrospectTokenResponse:
    """As RFC 7662, section 2.2."""
    message = auth_pb2.IntrospectTokenResponse(active=True, username=found.username, sub=found.username)
    if (key := found.api_key) is not None:
        message.token_type = "api_key"  # noqa: S105 - not a secret
        message.scope = " ".join(sorted(key.scopes))
        message.jti = key.id
        message.exp = key.expires_at or 0
    if (claims := found.claims) is not None:
        message.token_type = claims.kind.value
        message.iss, message.aud, message.jti = claims.issuer, claims.audience, claims.token_id
        message.iat, message.nbf, message.exp = claims.issued_at, claims.not_before, claims.expires_at
    return message
