"""Uploads of build contexts."""

from __future__ import annotations

import os
import time

import pytest

from uhm_builder.errors import ContextTooLarge, InvalidContext, NoSuchContext


async def pieces(*parts):
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "contexts").iterdir())


async def test_an_upload_is_kept_whole(contexts, tmp_path):
    upload = await contexts.receive(pieces(b"abc", b"", b"def"), owner="alice")

    path = await contexts.path(upload.id, owner="alice")
    assert upload.size == 6
    assert path.read_bytes() == b"abcdef"
    assert files(tmp_path) == [upload.id]


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([b"x" * 600, b"x" * 600], ContextTooLarge),
        ([], InvalidContext),
        ([b"x", ConnectionError("cut")], ConnectionError),
    ],
)
async def test_an_upload_that_fails_leaves_nothing(contexts, tmp_path, parts, error):
    with pytest.raises(error):
        await contexts.receive(pieces(*parts), owner="alice")

    assert files(tmp_path) == []


async def test_an_upload_is_its_owners(contexts):
    upload = await contexts.receive(pieces(b"x"), owner="alice")

    with pytest.raises(NoSuchContext):
        await contexts.path(upload.id, owner="bob")


async def test_a_used_upload_is_gone(contexts, tmp_path):
    upload = await contexts.receive(pieces(b"x"), owner="alice")

    await contexts.delete(upload.id)
    await contexts.delete(upload.id)
    await contexts.delete("../state")

    assert files(tmp_path) == []
    with pytest.raises(NoSuchContext):
        await contexts.path(upload.id, owner="alice")


async def test_a_day_later_it_is_swept(contexts, tmp_path, monkeypatch):
    old, new = [(await contexts.receive(pieces(b"x"), owner="alice")).id for _ in range(2)]
    leftover = tmp_path / "contexts" / ".incoming-crash"
    leftover.touch()
    for path in (leftover, tmp_path / "contexts" / old):
        os.utime(path, (time.time() - 90_000,) * 2)

    await contexts.sweep()

    assert files(tmp_path) == [new]
