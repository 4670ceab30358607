"""The gRPC face of user administration: messages to the domain and back, nothing else."""

# ruff: noqa: ARG002, N802 - names and signatures are gRPC's

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from uhm_auth.accounts import Change
from uhm_auth.errors import InvalidUpdateMask
from uhm_common.callers.identity import USER, current_identity
from uhmalguhm.auth.v1 import user_pb2, user_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from uhm_auth.accounts import Accounts
    from uhm_auth.invitations import Invitations
    from uhm_auth.password_changes import PasswordChanges
    from uhm_auth.stores.invitations import Invitation
    from uhm_auth.stores.users import User

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["SERVICE_NAME", "UserServicer"]

SERVICE_NAME: str = user_pb2.DESCRIPTOR.services_by_name["UserService"].full_name

CHANGEABLE = frozenset({"role", "disabled"})
IGNORED = frozenset({"username", "create_time", "login_time"})
"""Named in a mask they change nothing (AIP-203), so that what GetUser answered can be sent back."""
EVERYTHING = "*"


class UserServicer(user_pb2_grpc.UserServiceServicer):
    """Implements uhmalguhm.auth.v1.UserService, for administrators: the boundary lets nobody else in."""

    def __init__(self, accounts: Accounts, invitations: Invitations, password_changes: PasswordChanges) -> None:
        self._accounts = accounts
        self._invitations = invitations
        self._password_changes = password_changes

    async def ListUsers(self, request: user_pb2.ListUsersRequest, context: Context) -> user_pb2.ListUsersResponse:
        """A page of users."""
        page = await self._accounts.page(size=request.page_size, token=request.page_token)
        return user_pb2.ListUsersResponse(
            users=[_user_message(user) for user in page.users], next_page_token=page.next_token
        )

    async def GetUser(self, request: user_pb2.GetUserRequest, context: Context) -> user_pb2.GetUserResponse:
        """One user."""
        return user_pb2.GetUserResponse(user=_user_message(await self._accounts.get(request.username)))

    async def UpdateUser(self, request: user_pb2.UpdateUserRequest, context: Context) -> user_pb2.UpdateUserResponse:
        """Changes a user."""
        user = await self._accounts.update(request.user.username, _change_of(request), actor=_actor())
        return user_pb2.UpdateUserResponse(user=_user_message(user))

    async def DeleteUser(self, request: user_pb2.DeleteUserRequest, context: Context) -> user_pb2.DeleteUserResponse:
        """Deletes a user."""
        await self._accounts.delete(request.username, actor=_actor())
        return user_pb2.DeleteUserResponse()

    async def CreatePasswordReset(
        self, request: user_pb2.CreatePasswordResetRequest, context: Context
    ) -> user_pb2.CreatePasswordResetResponse:
        """Makes a code that sets a new password."""
        ttl = request.ttl.seconds if request.HasField("ttl") else None
        made = await self._password_changes.create_reset(request.username, ttl=ttl, actor=_actor())
        return user_pb2.CreatePasswordResetResponse(code=made.code, expire_time=Timestamp(seconds=made.expires_at))

    async def CreateInvitation(
        self, request: user_pb2.CreateInvitationRequest, context: Context
    ) -> user_pb2.CreateInvitationResponse:
        """Makes an invitation."""
        ttl = request.ttl.seconds if request.HasField("ttl") else None
        made = await self._invitations.create(role=request.role or USER, ttl=ttl, creator=_actor())
        return user_pb2.CreateInvitationResponse(invitation=_invitation_message(made.invitation), code=made.code)

    async def ListInvitations(
        self, request: user_pb2.ListInvitationsRequest, context: Context
    ) -> user_pb2.ListInvitationsResponse:
        """A page of invitations."""
        page = await self._invitations.page(size=request.page_size, token=request.page_token)
        return user_pb2.ListInvitationsResponse(
            invitations=[_invitation_message(each) for each in page.invitations], next_page_token=page.next_token
        )

    async def DeleteInvitation(
        self, request: user_pb2.DeleteInvitationRequest, context: Context
    ) -> user_pb2.DeleteInvitationResponse:
        """Withdraws an invitation."""
        await self._invitations.delete(request.id, actor=_actor())
        return user_pb2.DeleteInvitationResponse()


def _actor() -> str:
    return current_identity().username


def _change_of(request: user_pb2.UpdateUserRequest) -> Change:
    """What the mask names; without one, the fields that are not empty (AIP-134). Raises InvalidUpdateMask."""
    user, named = request.user, set(request.update_mask.paths)
    if unknown := sorted(named - CHANGEABLE - IGNORED - {EVERYTHING}):
        raise InvalidUpdateMask(
            f"update_mask has {unknown[0][:80]!r}, which is not a field of a user.",
            hint=f"These can be changed: {', '.join(sorted(CHANGEABLE))}.",
        )
    if EVERYTHING in named:
        named = set(CHANGEABLE)
    elif not named:
        named = {field.name for field, _ in user.ListFields()}
    return Change(role=user.role if "role" in named else None, disabled=user.disabled if "disabled" in named else None)


def _user_message(user: User) -> user_pb2.User:
    return user_pb2.User(
        username=user.username,
        role=user.role,
        disabled=user.disabled,
        create_time=Timestamp(seconds=user.created_at),
        login_time=None if user.login_at is None else Timestamp(seconds=user.login_at),
    )


def _invitation_message(invitation: Invitation) -> user_pb2.Invitation:
    return user_pb2.Invitation(
        id=invitation.id,
        role=invitation.role,
        creator=invitation.creator,
        create_time=Timestamp(seconds=invitation.created_at),
        expire_time=Timestamp(seconds=invitation.expires_at),
    )
