"""What methods ask of their callers, as they say it themselves."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2

from uhm_common.callers.access import Access, access_of, check_access
from uhm_common.callers.identity import Identity
from uhm_common.errors import PermissionDenied
from uhmalguhm.auth.v1 import api_key_pb2, audit_pb2, auth_pb2, user_pb2, verification_pb2
from uhmalguhm.builder.v1 import image_pb2, registry_pb2, storage_pb2
from uhmalguhm.machines.v1 import machine_pb2

FILES = (
    api_key_pb2,
    audit_pb2,
    auth_pb2,
    user_pb2,
    verification_pb2,
    image_pb2,
    registry_pb2,
    storage_pb2,
    machine_pb2,
)
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("path", METHODS)
def test_every_method_says_who_may_call_it(path):
    access = access_of(path)
    assert access is not None
    assert not (access.public and (access.scope or access.admin))
    assert access.scope == "" or access.scope.endswith((".read", ".write"))


@pytest.mark.parametrize("path", ["/uhmalguhm.auth.v1.AuthService/Nothing", "/a.B/C", "", "/", "nonsense", "//"])
def test_what_is_no_method_says_nothing(path):
    assert access_of(path) is None


def test_a_method_without_the_option_says_nothing():
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    assert access_of(f"/{health}/Check") is None


def identity(scopes=None, role="user") -> Identity:
    return Identity(username="ann", session_id="s", token="t", role=role, scopes=scopes)


@pytest.mark.parametrize(
    ("access", "caller", "refusal"),
    [
        (Access(scope="images.write"), identity(), None),
        (Access(), identity(), None),
        (Access(admin=True), identity(), "Only an administrator"),
        (Access(admin=True), identity(role="admin"), None),
        (Access(scope="images.read"), identity(frozenset({"images.read"})), None),
        (Access(scope="images.read"), identity(frozenset({"images.write"})), None),
        (Access(scope="images.write"), identity(frozenset({"images.read"})), "lacks the scope images.write"),
        (Access(scope="images.read"), identity(frozenset()), "lacks the scope images.read"),
        (Access(), identity(frozenset({"images.write"})), "An API key cannot do this."),
        (Access(), identity(frozenset({""})), "An API key cannot do this."),
        (Access(scope="users.read", admin=True), identity(frozenset({"users.read"})), "Only an administrator"),
        (Access(scope="users.read", admin=True), identity(frozenset({"users.read"}), role="admin"), None),
    ],
)
def test_who_may_call(access, caller, refusal):
    if refusal is None:
        check_access(access, caller)
        return
    with pytest.raises(PermissionDenied, match=refusal):
        check_access(access, caller)
