"""Layers made with the real mkfs.erofs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import pytest

from uhm_builder.errors import ContentMismatch, ConversionFailed, InvalidLayer, LayerTooLarge
from uhm_builder.gpt import ALIGNMENT
from uhm_builder.layers import LayerMaker
from uhm_builder.threads import in_thread
from uhm_common.artifacts import ArtifactStore


def diff_id(tar: bytes) -> str:
    return f"sha256:{hashlib.sha256(tar).hexdigest()}"


def filler(tar: bytes, calls: list | None = None):
    async def fill(into):
        if calls is not None:
            calls.append(1)
        await in_thread(partial(into.write, tar), interrupt=into.interrupt)

    return fill


def staged(artifacts):
    return list((artifacts.root / "staging").glob("*"))


async def test_a_layer_is_made_once_and_padded(maker, artifacts, make_tar):
    tar, calls = make_tar({"a": b"x" * 5000, "dir/b": b"y"}), []

    made = await maker.make(diff_id(tar), filler(tar, calls), digest="sha256:c")
    again = await maker.make(diff_id(tar), filler(tar, calls))

    blob = artifacts.layer(diff_id(tar))
    assert (made.size, made.reused, made.digest) == (blob.stat().st_size, False, "sha256:c")
    assert again.reused
    assert len(calls) == 1
    assert blob.stat().st_size % ALIGNMENT == 0
    assert blob.read_bytes()[1024:1028] == bytes.fromhex("e2e1f5e0")
    assert staged(artifacts) == []


async def test_an_archive_that_ends_in_the_middle_of_a_file(maker, artifacts, make_tar):
    cut = make_tar({"a": b"x" * 100_000})[:50_000]

    with pytest.raises(InvalidLayer, match="middle of a file"):
        await maker.make(diff_id(cut), filler(cut))

    assert staged(artifacts) == []


def test_nobody_converts_for_a_process_that_is_gone(tmp_path, mkfs):
    script = (
        "import os, pathlib, signal, sys, tarfile\n"
        "from uhm_builder.mkfs import Bounds, conversion\n"
        "bounds = Bounds(max_bytes=1 << 30, max_entries=9)\n"
        "with conversion(sys.argv[1], pathlib.Path(sys.argv[2]), bounds=bounds) as running:\n"
        "    running.write(tarfile.TarInfo('a').tobuf())\n"
        "    print(running._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    argv = [sys.executable, "-c", script, str(mkfs), str(tmp_path / "blob")]
    converting = int(subprocess.run(argv, capture_output=True, text=True, check=False).stdout)
    deadline = time.monotonic() + 5
    while alive(converting) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(converting)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_the_same_archive_makes_the_same_blob(tmp_path, mkfs, make_tar):
    tar = make_tar({f"file{number}": bytes([number]) * 9000 for number in range(50)})
    blobs = []
    for name in ("one", "two"):
        artifacts = ArtifactStore(tmp_path / name)
        maker = LayerMaker(artifacts, mkfs=mkfs, max_bytes=1 << 30, parallel=1)
        await maker.make(diff_id(tar), filler(tar))
        blobs.append(artifacts.layer(diff_id(tar)).read_bytes())

    assert blobs[0] == blobs[1]


async def test_an_empty_layer_is_a_layer(maker, make_tar):
    tar = make_tar({})

    made = await maker.make(diff_id(tar), filler(tar))

    assert made.size == ALIGNMENT


async def test_bytes_behind_the_end_marker_count_for_the_digest_only(maker, make_tar):
    tar = make_tar({"a": b"x"}) + bytes(4 << 20)

    assert (await maker.make(diff_id(tar), filler(tar))).size == ALIGNMENT


async def test_several_who_want_a_layer_make_it_once(maker, make_tar):
    tar, calls = make_tar({"a": b"x" * 100_000}), []

    made = await asyncio.gather(*(maker.make(diff_id(tar), filler(tar, calls)) for _ in range(5)))

    assert len(calls) == 1
    assert [layer.reused for layer in made].count(False) == 1


async def test_where_one_fails_the_next_one_makes_it(maker, artifacts, make_tar):
    tar = make_tar({"a": b"x"})

    async def broken(into):
        await asyncio.sleep(0.05)
        raise ConversionFailed("broken")

    results = await asyncio.gather(
        maker.make(diff_id(tar), broken), maker.make(diff_id(tar), filler(tar)), return_exceptions=True
    )

    assert isinstance(results[0], ConversionFailed)
    assert results[1].reused is False
    assert staged(artifacts) == []


async def test_another_content_is_not_committed(maker, artifacts, make_tar):
    wanted = diff_id(b"something else")

    with pytest.raises(ContentMismatch, match="configuration says"):
        await maker.make(wanted, filler(make_tar({"a": b"x"})))

    assert not artifacts.layer(wanted).exists()
    assert staged(artifacts) == []


async def test_what_is_no_archive_is_said(maker, artifacts):
    garbage = b"not a tar" * 10_000

    with pytest.raises(InvalidLayer, match="not a tar archive"):
        await maker.make(diff_id(garbage), filler(garbage))

    assert staged(artifacts) == []


async def test_an_archive_past_the_bound_ends(artifacts, mkfs, make_tar):
    maker = LayerMaker(artifacts, mkfs=mkfs, max_bytes=10_000, parallel=1)
    tar = make_tar({"a": b"x" * 20_000})

    with pytest.raises(LayerTooLarge, match="10000 bytes"):
        await maker.make(diff_id(tar), filler(tar))

    assert staged(artifacts) == []


async def test_a_cancelled_layer_leaves_nothing(maker, artifacts, make_tar):
    tar = make_tar({"a": b"x"})
    begun = asyncio.Event()

    async def stuck(into):
        begun.set()
        await asyncio.sleep(60)

    making = asyncio.create_task(maker.make(diff_id(tar), stuck))
    await begun.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making

    assert staged(artifacts) == []
    assert not (await maker.make(diff_id(tar), filler(tar))).reused


async def test_a_missing_program_is_named(artifacts):
    maker = LayerMaker(artifacts, mkfs="/nowhere/mkfs.erofs", max_bytes=1, parallel=1)

    with pytest.raises(ConversionFailed, match=r"/nowhere/mkfs\.erofs is not installed"):
        await maker.make(diff_id(b""), filler(b""))


async def test_a_layer_is_known_by_its_content(maker, make_tar):
    tar = make_tar({"a": b"x"})

    assert (await maker.make_unknown({diff_id(tar)}, filler(tar))).diff_id == diff_id(tar)
    assert await maker.make_unknown({"sha256:other"}, filler(tar)) is None


def peculiar_tar() -> bytes:
    """What layers have: whiteouts, an opaque directory, hard links, extended attributes, very long names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        directory = tarfile.TarInfo("opaque")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        for name in ("opaque/.wh..wh..opq", ".wh.gone"):
            tar.addfile(tarfile.TarInfo(name))
        first = tarfile.TarInfo("first")
        first.size, first.mode = 4, 0o4755
        first.pax_headers = {"SCHILY.xattr.user.colour": "blue"}
        tar.addfile(first, io.BytesIO(b"same"))
        link = tarfile.TarInfo("second")
        link.type, link.linkname = tarfile.LNKTYPE, "first"
        tar.addfile(link)
        long = tarfile.TarInfo("/".join(["d" * 200] * 5) + "/" + "n" * 255)
        long.size = 1
        tar.addfile(long, io.BytesIO(b"!"))
    return buffer.getvalue()


def mode_of(blob: bytes, nid: int) -> int:
    """An inode's mode, which dump.erofs shows without the set-user-id bit (struct erofs_super_block, erofs_inode)."""
    (metadata_block,) = struct.unpack_from("<I", blob, 1024 + 40)
    (mode,) = struct.unpack_from("<H", blob, metadata_block * 4096 + nid * 32 + 4)
    return mode


async def test_what_layers_have_survives(maker, artifacts, tmp_path, mkfs):
    tar = peculiar_tar()
    await maker.make(diff_id(tar), filler(tar))
    dump = shutil.which("dump.erofs", path=f"{Path(mkfs).parent}:{os.environ['PATH']}")
    if dump is None:
        pytest.skip("dump.erofs is not there")

    def shown(path: str) -> str:
        argv = [dump, f"--path={path}", str(artifacts.layer(diff_id(tar)))]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    nid = [line for line in shown("/first").splitlines() if line.startswith("NID")]
    assert nid == [line for line in shown("/second").splitlines() if line.startswith("NID")]
    assert "Links: 2" in shown("/first")
    assert mode_of(artifacts.layer(diff_id(tar)).read_bytes(), int(nid[0].split()[1])) & 0o7777 == 0o4755
    assert "char dev" in shown("/gone")
    assert "Xattr size: 0" not in shown("/opaque")
    assert "Xattr size: 0" not in shown("/first")
    assert "Size: 1" in shown("/" + "/".join(["d" * 200] * 5) + "/" + "n" * 255)
