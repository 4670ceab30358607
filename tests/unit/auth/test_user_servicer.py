"""User administration over real gRPC, wired as it is in production."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from uhm_auth.app import make_server
from uhm_auth.settings import AuthSettings
from uhmalguhm.auth.v1 import api_key_pb2, api_key_pb2_grpc, auth_pb2, auth_pb2_grpc, user_pb2, user_pb2_grpc

DAY = 24 * 3600


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


@dataclass
class Client:
    """A client, and what Ann, the first user, sends with her calls."""

    auth: auth_pb2_grpc.AuthServiceStub
    users: user_pb2_grpc.UserServiceStub
    keys: api_key_pb2_grpc.ApiKeyServiceStub
    ann: list[tuple[str, str]]

    async def token(self, username: str, password: str = "test") -> list[tuple[str, str]]:
        issued = await self.auth.IssueToken(auth_pb2.IssueTokenRequest(username=username, password=password))
        return bearer(issued.access_token)

    async def update(self, *mask: str, metadata=None, **user) -> user_pb2.User:
        request = user_pb2.UpdateUserRequest(user=user_pb2.User(**{"username": "bob", **user}))
        if mask:
            request.update_mask.CopyFrom(FieldMask(paths=mask))
        return (await self.users.UpdateUser(request, metadata=metadata or self.ann)).user

    async def user(self, username: str = "bob") -> user_pb2.User:
        request = user_pb2.GetUserRequest(username=username)
        return (await self.users.GetUser(request, metadata=self.ann)).user


@asynccontextmanager
async def served(tmp_path, **settings):
    """A client of a server that has what `make_server` gives it, on a port of its own."""
    async with make_server(AuthSettings(state_dir=tmp_path, bcrypt_cost=4, **settings)) as wired:
        server = grpc.aio.server(interceptors=wired.interceptors)
        wired.add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield Client(
                    auth_pb2_grpc.AuthServiceStub(channel),
                    user_pb2_grpc.UserServiceStub(channel),
                    api_key_pb2_grpc.ApiKeyServiceStub(channel),
                    ann=[],
                )
        finally:
            await server.stop(0)


@pytest.fixture
async def client(tmp_path):
    """Ann, an administrator, and Bob, a user."""
    async with served(tmp_path) as opened:
        for name in ("ann", "bob"):
            await opened.auth.CreateUser(auth_pb2.CreateUserRequest(username=name, password="test"))
        opened.ann = await opened.token("ann")
        yield opened


async def refusal(call) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details()


async def test_users_listed_and_looked_at(client):
    first = await client.users.ListUsers(user_pb2.ListUsersRequest(page_size=1), metadata=client.ann)
    more = user_pb2.ListUsersRequest(page_size=1, page_token=first.next_page_token)
    second = await client.users.ListUsers(more, metadata=client.ann)

    assert [user.username for page in (first, second) for user in page.users] == ["ann", "bob"]
    assert (second.next_page_token, bool(first.next_page_token)) == ("", True)
    ann, bob = await client.user("ann"), await client.user("bob")
    assert (ann.role, bob.role, ann.HasField("login_time"), bob.HasField("login_time")) == (
        "admin",
        "user",
        True,
        False,
    )
    assert bob.create_time.seconds > 1_700_000_000
    assert first.users[0] == ann


@pytest.mark.parametrize(
    ("mask", "fields", "role", "disabled"),
    [
        (["role"], {"role": "admin", "disabled": True}, "admin", False),
        (["disabled"], {"role": "admin", "disabled": True}, "user", True),
        (["role", "disabled"], {"role": "admin", "disabled": True}, "admin", True),
        (["*"], {"role": "admin", "disabled": True}, "admin", True),
        ([], {"role": "admin", "disabled": True}, "admin", True),
        ([], {"disabled": True}, "user", True),
        ([], {"role": "admin"}, "admin", False),
        ([], {}, "user", False),
        (["username", "create_time", "login_time"], {"role": "admin", "disabled": True}, "user", False),
    ],
)
async def test_what_a_mask_names_is_changed(client, mask, fields, role, disabled):
    changed = await client.update(*mask, **fields)
    assert (changed.role, changed.disabled) == (role, disabled)
    assert await client.user() == changed


async def test_what_is_empty_is_changed_only_where_a_mask_names_it(client):
    await client.update(disabled=True)
    assert (await client.update(role="admin")).disabled
    assert not (await client.update("disabled")).disabled
    assert (await client.update("*", role="user")).role == "user"


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (["password"], "update_mask has 'password', which is not a field of a user."),
        (["role", "user.role"], "update_mask has 'user.role'"),
        (["role", ""], "update_mask has ''"),
        (["*", "nothing"], "update_mask has 'nothing'"),
        (["x" * 1000], "update_mask has 'xxx"),
        (["*"], "'' is not a role."),
        (["role"], "'' is not a role."),
    ],
)
async def test_masks_that_cannot_be(client, mask, message):
    code, details = await refusal(client.update(*mask))
    assert (code, details[: len(message)]) == ("INVALID_ARGUMENT", message)
    assert len(details) < 300
    assert (await client.user()).role == "user"


async def test_who_is_no_administrator_administers_nothing(client):
    bob = await client.token("bob")
    calls = [
        client.users.ListUsers(user_pb2.ListUsersRequest(), metadata=bob),
        client.users.GetUser(user_pb2.GetUserRequest(username="bob"), metadata=bob),
        client.update(role="admin", metadata=bob),
        client.users.DeleteUser(user_pb2.DeleteUserRequest(username="ann"), metadata=bob),
        client.users.CreatePasswordReset(user_pb2.CreatePasswordResetRequest(username="ann"), metadata=bob),
        client.users.CreateInvitation(user_pb2.CreateInvitationRequest(), metadata=bob),
        client.users.ListInvitations(user_pb2.ListInvitationsRequest(), metadata=bob),
        client.users.DeleteInvitation(user_pb2.DeleteInvitationRequest(id="x"), metadata=bob),
    ]
    assert len(calls) == len(user_pb2.DESCRIPTOR.services_by_name["UserService"].methods)
    for call in calls:
        assert (await refusal(call))[0] == "PERMISSION_DENIED"
    assert (await refusal(client.users.ListUsers(user_pb2.ListUsersRequest())))[0] == "UNAUTHENTICATED"


async def test_a_demoted_administrator_is_out_at_once(client):
    await client.update(role="admin")
    bob = await client.token("bob")
    assert (await client.update(role="user", metadata=bob)).role == "user"
    assert (await refusal(client.update(role="admin", metadata=bob)))[0] == "UNAUTHENTICATED"


async def test_a_user_deleted(client):
    bob = await client.token("bob")
    await client.users.DeleteUser(user_pb2.DeleteUserRequest(username="bob"), metadata=client.ann)
    assert (await refusal(client.user()))[0] == "NOT_FOUND"
    assert (await refusal(client.auth.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bob)))[
        0
    ] == "UNAUTHENTICATED"
    code, details = await refusal(
        client.users.DeleteUser(user_pb2.DeleteUserRequest(username="ann"), metadata=client.ann)
    )
    assert (code, details) == (
        "FAILED_PRECONDITION",
        "'ann' is the last administrator. Make another user one first.",
    )


async def test_a_password_forgotten_and_reset(client):
    made = await client.users.CreatePasswordReset(
        user_pb2.CreatePasswordResetRequest(username="bob", ttl=Duration(seconds=600)), metadata=client.ann
    )
    me = await client.user("ann")
    assert 0 <= made.expire_time.seconds - me.login_time.seconds - 600 <= 60
    reset = auth_pb2.ResetPasswordRequest(username="bob", code=made.code, new_password="other")
    await client.auth.ResetPassword(reset)
    assert await client.token("bob", "other")
    assert (await refusal(client.auth.ResetPassword(reset)))[0] == "PERMISSION_DENIED"


@pytest.mark.parametrize("ttl", [Duration(nanos=5), Duration(seconds=-1), Duration(seconds=91 * DAY)])
async def test_times_to_live_that_cannot_be(client, ttl):
    for call in (
        client.users.CreateInvitation(user_pb2.CreateInvitationRequest(ttl=ttl), metadata=client.ann),
        client.users.CreatePasswordReset(
            user_pb2.CreatePasswordResetRequest(username="bob", ttl=ttl), metadata=client.ann
        ),
    ):
        code, details = await refusal(call)
        assert (code, details[:8]) == ("INVALID_ARGUMENT", "A ttl of")


async def test_invitations(tmp_path):
    code = "for the first one only"
    async with served(tmp_path, registration="invitation", bootstrap_invitation=code) as client:
        ann = auth_pb2.CreateUserRequest(username="ann", password="test")
        assert (await refusal(client.auth.CreateUser(ann)))[0] == "PERMISSION_DENIED"
        ann.invitation = code
        await client.auth.CreateUser(ann)
        client.ann = await client.token("ann")

        made = [
            await client.users.CreateInvitation(user_pb2.CreateInvitationRequest(**request), metadata=client.ann)
            for request in ({}, {"role": "admin", "ttl": Duration(seconds=60)})
        ]
        assert [(each.invitation.role, each.invitation.creator) for each in made] == [("user", "ann"), ("admin", "ann")]
        lifetimes = [each.invitation.expire_time.seconds - each.invitation.create_time.seconds for each in made]
        assert lifetimes == [7 * DAY, 60]

        bob = auth_pb2.CreateUserRequest(username="bob", password="test", invitation=made[1].code)
        answer = await client.auth.CreateUser(bob)
        assert (answer.status, answer.username, (await client.user()).role) == ("registered", "bob", "admin")
        listed = await client.users.ListInvitations(user_pb2.ListInvitationsRequest(), metadata=client.ann)
        assert [each.id for each in listed.invitations] == [made[0].invitation.id]
        gone = user_pb2.DeleteInvitationRequest(id=made[0].invitation.id)
        await client.users.DeleteInvitation(gone, metadata=client.ann)
        assert (await refusal(client.users.DeleteInvitation(gone, metadata=client.ann)))[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("settings", "answered"),
    [
        ({}, ("open", 1, 1024, 0)),
        ({"registration": "closed", "password_min_length": 12, "password_min_score": 3}, ("closed", 12, 1024, 3)),
    ],
)
async def test_the_policy_is_told_to_everybody(tmp_path, settings, answered):
    async with served(tmp_path, **settings) as client:
        policy = await client.auth.GetPolicy(auth_pb2.GetPolicyRequest())
    assert (
        policy.registration,
        policy.password_min_length,
        policy.password_max_length,
        policy.password_min_score,
    ) == answered


async def test_what_an_api_key_is_told_and_may_do(client):
    """It looks at users where it has the scope and its owner is an administrator, and changes no account."""
    keys = {}
    for name, owner, scopes in [
        ("bob", await client.token("bob"), ["account.read"]),
        ("ann", client.ann, ["users.read"]),
    ]:
        request = api_key_pb2.CreateApiKeyRequest(name="ci", scopes=scopes)
        keys[name] = bearer((await client.keys.CreateApiKey(request, metadata=owner)).key)

    me = await client.auth.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=keys["bob"])
    assert (me.username, me.role, list(me.scopes)) == ("bob", "user", ["account.read"])
    looked_at = await client.users.GetUser(user_pb2.GetUserRequest(username="bob"), metadata=keys["ann"])
    assert looked_at.user.username == "bob"
    leave = auth_pb2.DeleteCurrentUserRequest(password="test")
    change = auth_pb2.ChangePasswordRequest(current_password="test", new_password="other")
    for call in (
        client.users.GetUser(user_pb2.GetUserRequest(username="bob"), metadata=keys["bob"]),
        client.update(role="admin", metadata=keys["ann"]),
        client.auth.DeleteCurrentUser(leave, metadata=keys["bob"]),
        client.auth.ChangePassword(change, metadata=keys["bob"]),
    ):
        assert (await refusal(call))[0] == "PERMISSION_DENIED"


async def test_one_s_own_account(client):
    bob = await client.token("bob")
    me = await client.auth.GetCurrentUser(auth_pb2.GetCurrentUserRequest(), metadata=bob)
    assert (me.username, me.role, list(me.scopes)) == ("bob", "user", [])

    change = auth_pb2.ChangePasswordRequest(current_password="test", new_password="other")
    changed = await client.auth.ChangePassword(change, metadata=bob)
    assert (await refusal(client.auth.ChangePassword(change, metadata=bob)))[0] == "UNAUTHENTICATED"
    bob = bearer(changed.access_token)
    assert (await refusal(client.auth.ChangePassword(change, metadata=bob)))[0] == "PERMISSION_DENIED"
    refreshed = await client.auth.RefreshToken(auth_pb2.RefreshTokenRequest(), metadata=bearer(changed.refresh_token))
    assert refreshed.access_token

    leave = auth_pb2.DeleteCurrentUserRequest
    assert await refusal(client.auth.DeleteCurrentUser(leave(password="test"), metadata=bob)) == (
        "PERMISSION_DENIED",
        "The password is wrong. Send the one that you log in with.",
    )
    await client.auth.DeleteCurrentUser(leave(password="other"), metadata=bob)
    assert (await refusal(client.user()))[0] == "NOT_FOUND"
