"""What `uhm customize` makes of its options, and how names of files are printed."""

from __future__ import annotations

import base64
import io
import tarfile

import click
import pytest

from uhm.commands.files import _listing
from uhm.customizations import open_copy, parse_keys, parse_users, parse_writes


def test_writes():
    (one, other) = parse_writes(["/a:x:y", "/b:z"], chmod=["0600:/a"], chown=["ann:users:/b"])
    assert one == {"path": "/a", "content": base64.b64encode(b"x:y").decode(), "mode": "0600"}
    assert other == {"path": "/b", "content": base64.b64encode(b"z").decode(), "owner": "ann:users"}


@pytest.mark.parametrize(
    ("writes", "chmod"), [(["/a"], []), ([":x"], []), (["/a:x"], ["0600:/b"]), (["/a:x"], ["0600"])]
)
def test_no_writes(writes, chmod):
    with pytest.raises(click.BadParameter):
        parse_writes(writes, chmod=chmod, chown=[])


def test_keys(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# comment\nssh-ed25519 A one\n\nssh-rsa B two\n")
    assert parse_keys([f"file:{keys}", "ann:string:ssh-rsa C: d"]) == [
        {"user": "root", "key": "ssh-ed25519 A one"},
        {"user": "root", "key": "ssh-rsa B two"},
        {"user": "ann", "key": "ssh-rsa C: d"},
    ]


@pytest.mark.parametrize("text", ["key", "ann:key", "ann:selector:x", "file:"])
def test_no_keys(text):
    with pytest.raises(click.BadParameter, match="is not"):
        parse_keys([text])


def test_users():
    assert parse_users(["ann", "bob:uid=7,groups=a+b,shell=/bin/sh,password_hash=$y$a,b=c"]) == [
        {"name": "ann"},
        {"name": "bob", "uid": 7, "groups": ["a", "b"], "shell": "/bin/sh", "password_hash": "$y$a,b=c"},
    ]


@pytest.mark.parametrize("text", ["ann:admin", "ann:uid=x", "ann:gid=7"])
def test_no_users(text):
    with pytest.raises(click.BadParameter):
        parse_users([text])


def entries(content):
    with tarfile.open(fileobj=io.BytesIO(b"".join(content.tar()))) as tar:
        return [(member.name, member.uid) for member in tar]


def test_copies(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("x")
    with open_copy(f"{tmp_path}/site:/srv/") as (content, directory):
        assert (entries(content), directory) == ([("index.html", 0)], "/srv/site")
    with open_copy(f"{tmp_path}/site/index.html:/srv") as (content, directory):
        assert (entries(content), directory) == ([("index.html", 0)], "/srv")
    with pytest.raises(click.BadParameter, match="no file"), open_copy(f"{tmp_path}/none:/srv"):
        pass


def test_a_listing_is_one_line_each_and_steers_no_terminal():
    files = [
        {"path": "/a\n\x1b[2J", "type": "file", "mode": "4755", "size_bytes": "10"},
        {"path": "/tmp", "type": "directory", "mode": "1777", "uid": 1000, "gid": 33},
        {"path": "/l", "type": "symlink", "mode": "0777", "target": "/tmp"},
        {"path": "/odd\\xff"},
    ]
    assert _listing(files) == [
        "-rwsr-xr-x 0:0     10 /a\\n\\x1b[2J",
        "drwxrwxrwt 1000:33  0 /tmp",
        "lrwxrwxrwx 0:0      0 /l -> /tmp",
        "?????????? 0:0      0 /odd\\xff",
    ]
