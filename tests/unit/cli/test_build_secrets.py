"""`--secret`, as docker writes it."""

from __future__ import annotations

import base64

import click
import pytest

from uhm.build_secrets import BYTES_MAX, parse_secrets


def parsed(*entries, **own):
    return {name: base64.b64decode(content) for name, content in parse_secrets(entries, own=own).items()}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_bytes(b"of the file\0\xff")
    return tmp_path / "token"


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        ("id=a,src={file}", b"of the file\0\xff"),
        ("type=file,id=a,source=token", b"of the file\0\xff"),
        ('id=a,"src={file}"', b"of the file\0\xff"),
        ("id=a,env=TOKEN", b"of the variable"),
        ("id=TOKEN", b"of the variable"),
        ("id=token", b"of the file\0\xff"),
    ],
)
def test_where_it_comes_from(file, entry, content):
    assert list(parsed(entry.format(file=file), TOKEN="of the variable").values()) == [content]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("", "no id"),
        ("src=token", "no id"),
        ("token", "'token' is not one of"),
        ("id=a,mode=0400", "'mode=0400'"),
        ("id=a,src=token,env=TOKEN", "exclude each other"),
        ("id=a,env=ABSENT", "ABSENT is not set"),
        ("id=a,src=absent", "No such file"),
        ("id=absent", "No such file"),
        ("id=a,src=large", f"{BYTES_MAX} bytes"),
    ],
)
def test_what_it_cannot_be(file, entry, said):
    file.with_name("large").write_bytes(bytes(BYTES_MAX + 1))
    with pytest.raises(click.BadParameter, match=said):
        parsed(entry)
