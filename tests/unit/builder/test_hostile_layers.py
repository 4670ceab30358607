"""What no layer should have, on its way through the real mkfs.erofs: refused with a reason, and nothing is left."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.builder.hostile import HOSTILE, ODD, file, header, packed
from uhm_builder import mkfs as mkfs_module
from uhm_builder.errors import ConversionFailed, InvalidLayer, LayerTooLarge
from uhm_builder.layers import LayerMaker
from uhm_builder.mkfs import Bounds, conversion
from uhm_builder.threads import in_thread


async def convert(maker: LayerMaker, archive: bytes):
    """Makes a layer of an archive that comes in pieces."""

    async def fill(into):
        for at in range(0, len(archive), 30_000):
            await in_thread(partial(into.write, archive[at : at + 30_000]), interrupt=into.interrupt)

    return await maker.make(f"sha256:{hashlib.sha256(archive).hexdigest()}", fill)


def left(artifacts) -> list[Path]:
    return [path for kind in ("staging", "layers") for path in (artifacts.root / kind).glob("*")]


@pytest.fixture
def dump(mkfs):
    found = shutil.which("dump.erofs", path=f"{Path(mkfs).parent}:/usr/bin")
    if found is None:
        pytest.skip("dump.erofs is not there")

    def shown(blob: Path, path: str) -> str:
        argv = [found, f"--path={path}", str(blob)]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    return shown


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_no_layer_should_have_is_refused(maker, artifacts, name):
    archive, said = HOSTILE[name]

    async with asyncio.timeout(20):
        with pytest.raises((InvalidLayer, LayerTooLarge)) as error:
            await convert(maker, archive)

    assert said is None or said in str(error.value)
    assert left(artifacts) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hard link to what is missing", "hard link to what does not come before it"),
        ("hard link to a directory", "hard link to a directory"),
        ("file through a symbolic link", "inside of one that is no directory"),
        ("wrong checksum", "checksum of a header is wrong"),
    ],
)
async def test_what_mkfs_finds_out_is_said_in_words(maker, name, said):
    with pytest.raises(InvalidLayer, match=said):
        await convert(maker, HOSTILE[name][0])


@pytest.mark.parametrize("name", ODD)
async def test_what_docker_takes_becomes_a_layer(maker, name):
    assert (await convert(maker, ODD[name])).size


async def test_entries_are_where_docker_puts_them(maker, artifacts, dump):
    archive = ODD["GNU"]
    await convert(maker, archive)
    blob = artifacts.layer(f"sha256:{hashlib.sha256(archive).hexdigest()}")

    assert "Size: 3" in dump(blob, "/absolute/f")
    assert "symlink" in dump(blob, "/s")
    assert "Links: 2" in dump(blob, "/d/f")
    assert "char dev" in dump(blob, "/d/gone")
    assert "Size: 3" in dump(blob, f"/{'l' * 90}/{'m' * 90}")


async def test_the_last_of_two_entries_counts(maker, artifacts, dump):
    archive = ODD["twice the same"]
    await convert(maker, archive)

    assert "Size: 4" in dump(artifacts.layer(f"sha256:{hashlib.sha256(archive).hexdigest()}"), "/f")


async def test_what_lacks_its_end_marker_is_a_layer(maker, artifacts, dump):
    archive = file("f")
    await convert(maker, archive)

    assert "Size: 7" in dump(artifacts.layer(f"sha256:{hashlib.sha256(archive).hexdigest()}"), "/f")


async def test_ten_million_entries_end_at_the_bound(artifacts, mkfs):
    maker = LayerMaker(artifacts, mkfs=mkfs, max_bytes=1 << 34, parallel=1, max_entries=20_000)
    block = header("d/f")
    written = 0

    async def fill(into):
        nonlocal written
        for _ in range(10_000):
            await in_thread(partial(into.write, block * 1000), interrupt=into.interrupt)
            written += 1000

    with pytest.raises(LayerTooLarge, match="more than 20000 entries"):
        await maker.make("sha256:0", fill)

    assert written == 20_000
    assert left(artifacts) == []


async def test_too_much_memory_is_refused(artifacts, mkfs, monkeypatch):
    monkeypatch.setattr(mkfs_module, "MEMORY_BYTES", 24 << 20)
    monkeypatch.setattr(mkfs_module, "ENTRY_BYTES", 0)
    maker = LayerMaker(artifacts, mkfs=mkfs, max_bytes=1 << 30, parallel=1)

    with pytest.raises((InvalidLayer, ConversionFailed), match=r"memory|mkfs\.erofs ended"):
        await convert(maker, packed(*(header(f"{number // 100}/{number:09}") for number in range(40_000))))

    assert left(artifacts) == []


async def test_too_much_time_is_refused(artifacts, mkfs, monkeypatch):
    monkeypatch.setattr(mkfs_module, "CPU_SECONDS", 1)
    maker = LayerMaker(artifacts, mkfs=mkfs, max_bytes=1 << 30, parallel=1)

    with pytest.raises(InvalidLayer, match="more than 1 s of processor time"):
        await convert(maker, packed(*(header(f"{number:09}") for number in range(60_000))))

    assert left(artifacts) == []


def test_mkfs_can_gain_nothing(tmp_path, mkfs):
    with conversion(mkfs, tmp_path / "blob", bounds=Bounds(max_bytes=1 << 20, max_entries=10)) as running:
        deadline = time.monotonic() + 10
        while "CapEff:\t0000000000000000" not in (status := Path(f"/proc/{running._process.pid}/status").read_text()):
            assert time.monotonic() < deadline
        limits = Path(f"/proc/{running._process.pid}/limits").read_text()

    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000000" in status or not mkfs_module._may_drop_capabilities()
    assert f"Max cpu time              {mkfs_module.CPU_SECONDS}" in limits


@settings(max_examples=40)
@given(
    st.sampled_from([archive for archive, _ in HOSTILE.values()] + list(ODD.values())),
    st.lists(st.tuples(st.integers(0, 1535), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3),
)
def test_a_damaged_archive_never_crashes_it(tmp_path_factory, archive, damages):
    mkfs = Path(__file__).resolve().parents[3] / "build" / "tools" / "mkfs.erofs"
    if not mkfs.exists():
        pytest.skip("mkfs.erofs is not there; `make setup` builds it")
    damaged = bytearray(archive[:8192])
    for at, with_what in damages:
        damaged[at : at + len(with_what)] = with_what
    for at in range(0, min(len(damaged), 2048) - 511, 512):  # so that what is inside of headers gets past the checksum
        if damaged[at + 257 : at + 262] == b"ustar":
            damaged[at + 148 : at + 156] = b" " * 8
            damaged[at + 148 : at + 156] = b"%06o\0 " % sum(damaged[at : at + 512])
    blob = tmp_path_factory.mktemp("fuzz") / "blob"

    with conversion(str(mkfs), blob, bounds=Bounds(max_bytes=1 << 24, max_entries=100)) as running:
        try:
            running.write(bytes(damaged))
            running.finish()
        except (InvalidLayer, LayerTooLarge):
            pass  # anything else, such as a signal, is a hole in the scanner
