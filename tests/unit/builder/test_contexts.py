"""Uploads of build contexts."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time

import pytest
from sqlalchemy import update

from uhm_builder.contexts import Contexts
from uhm_builder.errors import ContextTooLarge, InvalidContext, NoSuchContext, UploadUnderWay
from uhm_builder.models import ContextRow

CONTENT = b"abc" * 100
CUT = ConnectionError("cut")


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


DIGEST = sha256(CONTENT)


async def pieces(*parts):
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


@pytest.fixture
def files(tmp_path):
    def files():
        return sorted(path.name for path in (tmp_path / "contexts").iterdir() if path.name != "lock")

    return files


async def cut_off(contexts, *, at, owner="alice", content=CONTENT, offset=0):
    """An upload that breaks off."""
    with pytest.raises(ConnectionError):
        await contexts.receive(pieces(content[offset:at], CUT), owner=owner, digest=sha256(content), offset=offset)


async def used(database, *, seconds_ago):
    async with database.write() as session:
        await session.execute(update(ContextRow).values(used_at=time.time_ns() - int(seconds_ago * 1e9)))


async def test_an_upload_is_kept_whole(contexts, files):
    upload = await contexts.receive(pieces(b"abc", b"", b"def"), owner="alice")

    path = await contexts.path(upload.id, owner="alice")
    assert (upload.size, upload.digest) == (6, sha256(b"abcdef"))
    assert path.read_bytes() == b"abcdef"
    assert files() == [path.name] == [upload.digest.removeprefix("sha256:")]


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([b"x" * 600, b"x" * 600], ContextTooLarge),
        ([], InvalidContext),
        ([b"x", CUT], ConnectionError),
    ],
)
async def test_an_upload_that_fails_leaves_nothing(contexts, files, parts, error):
    with pytest.raises(error):
        await contexts.receive(pieces(*parts), owner="alice")

    assert files() == []


async def test_an_upload_that_is_too_large_says_what_the_bound_is(contexts):
    """In words that are right for a build context and for an archive of images."""
    with pytest.raises(ContextTooLarge, match=r"The upload has more than 1000 bytes.*UHM_MAX_CONTEXT_BYTES"):
        await contexts.receive(pieces(b"x" * 1001), owner="alice")


async def test_an_upload_is_its_owners(contexts):
    upload = await contexts.receive(pieces(b"x"), owner="alice")

    with pytest.raises(NoSuchContext):
        await contexts.path(upload.id, owner="bob")
    with pytest.raises(NoSuchContext):
        await contexts.path("../lock", owner="alice")


async def test_what_broke_off_goes_on(contexts, files):
    await cut_off(contexts, at=100)
    assert (await contexts.received(DIGEST, owner="alice")).size == 100
    await cut_off(contexts, at=250, offset=100)

    found = await contexts.received(DIGEST, owner="alice")
    assert (found.size, found.id) == (250, "")
    upload = await contexts.receive(pieces(CONTENT[250:]), owner="alice", digest=DIGEST, offset=250)

    assert (await contexts.path(upload.id, owner="alice")).read_bytes() == CONTENT
    assert (await contexts.received(DIGEST, owner="alice")).id == upload.id
    assert files() == [DIGEST.removeprefix("sha256:")]


async def test_what_was_cancelled_goes_on(contexts):
    async def stuck():
        yield CONTENT[:200]
        await asyncio.sleep(60)

    task = asyncio.create_task(contexts.receive(stuck(), owner="alice", digest=DIGEST))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (await contexts.received(DIGEST, owner="alice")).size == 200


async def test_going_on_earlier_drops_the_rest(contexts):
    await cut_off(contexts, at=250)
    upload = await contexts.receive(pieces(CONTENT[100:]), owner="alice", digest=DIGEST, offset=100)
    assert upload.size == len(CONTENT)


@pytest.mark.parametrize(
    ("sent", "offset"),
    [
        (CONTENT[50:], 100),
        (CONTENT[101:], 101),
        (b"", 0),
        (CONTENT[99:], -1),
        (CONTENT[100:] + b"x", 100),
        (b"x" * 900, 100),
    ],
)
async def test_what_comes_out_wrong_is_refused_and_forgotten(contexts, files, sent, offset):
    await cut_off(contexts, at=100)

    with pytest.raises((InvalidContext, ContextTooLarge)):
        await contexts.receive(pieces(sent), owner="alice", digest=DIGEST, offset=offset)

    assert files() == []


@pytest.mark.parametrize("digest", ["sha256:abc", "md5:" + "a" * 64, "sha256:../../x", "sha256:" + "A" * 64])
async def test_what_is_no_digest_is_refused(contexts, digest):
    with pytest.raises(InvalidContext, match="no digest"):
        await contexts.receive(pieces(b"x"), owner="alice", digest=digest)
    with pytest.raises(InvalidContext, match="no digest"):
        await contexts.received(digest, owner="alice")


async def test_a_digest_tells_nothing_of_what_others_have(contexts, files):
    theirs = await contexts.receive(pieces(CONTENT), owner="alice", digest=DIGEST)

    found = await contexts.received(DIGEST, owner="bob")
    assert (found.size, found.id) == (0, "")
    with pytest.raises(InvalidContext):
        await contexts.receive(pieces(b"guess"), owner="bob", digest=DIGEST)
    await cut_off(contexts, at=10, owner="bob")
    assert (await contexts.received(DIGEST, owner="bob")).size == 10

    ours = await contexts.receive(pieces(CONTENT[10:]), owner="bob", digest=DIGEST, offset=10)
    assert ours.id != theirs.id
    assert await contexts.path(ours.id, owner="bob") == await contexts.path(theirs.id, owner="alice")
    assert len(files()) == 1


async def test_the_same_owner_has_it_once(contexts, files):
    first = await contexts.receive(pieces(CONTENT), owner="alice")

    async def nobody_reads():
        raise AssertionError
        yield b""

    assert (await contexts.receive(nobody_reads(), owner="alice", digest=DIGEST)).id == first.id
    assert (await contexts.receive(pieces(CONTENT), owner="alice")).id == first.id
    assert len(files()) == 1


async def test_two_connections_do_not_mix(contexts, monkeypatch):
    monkeypatch.setattr("uhm_builder.contexts.BROKEN_OFF_SECONDS", 0.1)
    going_on = asyncio.Event()

    async def slowly():
        yield CONTENT[:100]
        await going_on.wait()
        yield CONTENT[100:]

    first = asyncio.create_task(contexts.receive(slowly(), owner="alice", digest=DIGEST))
    await asyncio.sleep(0.1)
    with pytest.raises(UploadUnderWay):
        await contexts.receive(pieces(CONTENT), owner="alice", digest=DIGEST)
    going_on.set()
    assert (await first).digest == DIGEST


async def test_a_day_after_its_last_use_it_is_swept(contexts, files, database, tmp_path):
    upload = await contexts.receive(pieces(CONTENT), owner="alice")
    await used(database, seconds_ago=23 * 3600)
    await contexts.path(upload.id, owner="alice")
    await contexts.sweep()
    assert len(files()) == 1

    await used(database, seconds_ago=25 * 3600)
    await cut_off(contexts, at=4, content=b"another")
    for name in (".incoming-crash", "e" * 64):
        (tmp_path / "contexts" / name).touch()
    for name in files():
        os.utime(tmp_path / "contexts" / name, (time.time() - 90_000,) * 2)
    await contexts.receive(pieces(b"new"), owner="alice")
    await contexts.sweep()

    assert files() == [sha256(b"new").removeprefix("sha256:")]
    with pytest.raises(NoSuchContext):
        await contexts.path(upload.id, owner="alice")


async def test_content_stays_while_somebody_has_it(contexts, files, database):
    await contexts.receive(pieces(CONTENT), owner="alice")
    await used(database, seconds_ago=25 * 3600)
    theirs = await contexts.receive(pieces(CONTENT), owner="bob")

    await contexts.sweep()

    assert (await contexts.path(theirs.id, owner="bob")).read_bytes() == CONTENT
    assert (await contexts.received(DIGEST, owner="alice")).size == 0


async def test_what_is_renamed_while_it_is_measured_counts_nothing(contexts, tmp_path, files):
    (tmp_path / "contexts").mkdir()
    (tmp_path / "contexts" / ".incoming-x").symlink_to("renamed")  # is listed, and cannot be found
    await contexts.receive(pieces(CONTENT), owner="alice")
    assert DIGEST.removeprefix("sha256:") in files()


async def test_all_together_are_bounded(tmp_path, database, files):
    contexts = Contexts(tmp_path / "contexts", database=database, max_bytes=1000, max_bytes_in_all=1500)
    old = await contexts.receive(pieces(b"o" * 1000), owner="alice")
    await cut_off(contexts, at=600, content=b"p" * 700)

    await contexts.receive(pieces(b"a" * 1000), owner="alice")  # what broke off went for it
    with pytest.raises(ContextTooLarge, match="all of the 1500"):
        await contexts.receive(pieces(b"b"), owner="alice")
    assert not any(name.startswith(".partial") for name in files())

    await used(database, seconds_ago=3 * 3600)
    new = await contexts.receive(pieces(b"c" * 1000), owner="alice")
    assert (await contexts.path(new.id, owner="alice")).stat().st_size == 1000
    with pytest.raises(NoSuchContext):
        await contexts.path(old.id, owner="alice")
