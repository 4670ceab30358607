"""What no customization may say, and what each of them is told."""

from __future__ import annotations

import pytest

from uhm_builder.customization import CopyIn, Customization, SshKey, UserAccount, WriteFile
from uhm_builder.errors import InvalidCustomization
from uhm_builder.inside.checks import check
from uhm_builder.inside.messages import wished_customization
from uhmalguhm.builder.v1 import image_pb2

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvbw a@b"


def write(path="/x", **more):
    return {"write": (WriteFile(path=path, content=b"", **more),)}


def user(name="ann", **more):
    return {"users": (UserAccount(name=name, **more),)}


@pytest.mark.parametrize(
    "wish",
    [
        {"hostname": "web-1.example.com"},
        write(owner="www-data:33", mode=0o4755),
        user(groups=("a", "b"), shell="/bin/sh", home="/h", password_hash="$6$a$b/.", uid=7),
        {"ssh_keys": (SshKey(key=KEY), SshKey(key=f'command="x" {KEY}', user="ann"))},
        {"copy_in": (CopyIn(context="c", directory="/"),)},
        {"run_first_boot": ("echo",)},
    ],
)
def test_what_is_fine(wish):
    check(Customization(image="i", **wish))


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "Nothing is asked for"),
        ({"hostname": "a_b"}, "no host name"),
        ({"hostname": "a" * 65}, "no host name"),
        (write("rel"), "no absolute path"),
        (write("/a/../b"), "no absolute path"),
        (write("/a\0"), "no absolute path"),
        (write("/a/"), "a directory's path"),
        (write("/" + "a" * 256), "too long"),
        (write("/a" * 2100), "too long"),
        (write(owner="a b"), "no owner"),
        (write(mode=0o10000), "no permission bits"),
        (user("Ann"), "'Ann' is no name"),
        (user("a:b"), "'a:b' is no name"),
        (user(groups=("a\nb",)), "is no name"),
        (user(shell="/bin/sh\nroot2:x:0:0"), "cannot be in /etc/passwd"),
        (user(home="/a:b"), "cannot be in /etc/passwd"),
        (user(password_hash="a:b"), "hash of ann is none"),
        (user(uid=-1), "-1 is no user's number"),
        ({"ssh_keys": (SshKey(key="hello"),)}, "no SSH public key"),
        ({"ssh_keys": (SshKey(key=f"{KEY}\n{KEY}"),)}, "no SSH public key"),
        ({"run_first_boot": ("x" * (5 << 20),)}, "--copy-in"),
        ({"run_first_boot": ("x",) * 1001}, "too many"),
    ],
)
def test_what_is_refused(wish, said):
    with pytest.raises(InvalidCustomization, match=said):
        check(Customization(image="i", **wish))


@pytest.mark.parametrize(("mode", "bits"), [("", 0o644), ("0600", 0o600), ("4755", 0o4755)])
def test_modes_of_messages(mode, bits):
    message = image_pb2.Customization(write=[image_pb2.WriteFile(path="/x", mode=mode)])
    (written,) = wished_customization(message).write
    assert (written.mode, written.owner) == (bits, "root")


@pytest.mark.parametrize("mode", ["rw", "0o644", "8", "-1"])
def test_modes_that_are_none(mode):
    with pytest.raises(InvalidCustomization, match="no permission bits"):
        wished_customization(image_pb2.Customization(write=[image_pb2.WriteFile(path="/x", mode=mode)]))
