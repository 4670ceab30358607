"""The scanner of layers' archives: what it lets through, what it refuses, and that it reads as tarfile does."""

from __future__ import annotations

import io
import tarfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.builder.hostile import EXTENSION, HOSTILE, ODD, header, packed
from uhm_builder.errors import InvalidLayer, LayerTooLarge
from uhm_builder.tarscan import TarScanner

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/."), min_size=1, max_size=60
).filter(lambda name: len(name.encode()) < 200)
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)


def scan(archive: bytes, *, step: int = 1 << 20, max_entries: int = 1000) -> TarScanner:
    scanner = TarScanner(max_entries=max_entries, max_bytes=1 << 30)
    for at in range(0, len(archive), step):
        scanner.feed(archive[at : at + step])
    scanner.finish()
    return scanner


def outcome(archive: bytes, *, step: int = 1 << 20) -> object:
    """What comes of an archive: how many entries, or what is said against it."""
    try:
        return scan(archive, step=step).entries
    except (InvalidLayer, LayerTooLarge) as error:
        return str(error)


@pytest.mark.parametrize("name", [name for name, (_, said) in HOSTILE.items() if said])
def test_what_would_do_harm_is_refused_however_it_comes(name):
    archive, said = HOSTILE[name]
    whole = outcome(archive)

    assert isinstance(whole, str)
    assert said in whole
    assert outcome(archive, step=1) == outcome(archive, step=512) == outcome(archive, step=700) == whole


@pytest.mark.parametrize("name", ODD)
def test_what_docker_takes_is_let_through(name):
    with tarfile.open(fileobj=io.BytesIO(ODD[name])) as tar:
        expected = len(tar.getmembers())

    assert outcome(ODD[name]) == outcome(ODD[name], step=1) == expected


@given(
    st.lists(st.tuples(PATHS, st.integers(0, 3000)), max_size=8, unique_by=lambda each: each[0]),
    st.sampled_from(FORMATS),
    st.integers(1, 2000),
)
def test_it_sees_what_tarfile_sees(files, archive_format, step):
    buffer = io.BytesIO()
    packable = []
    with tarfile.open(fileobj=buffer, mode="w", format=archive_format) as tar:
        for path, size in files:
            member = tarfile.TarInfo(path)
            member.size = size
            try:
                member.tobuf(format=archive_format)
            except ValueError:  # too long a name for ustar
                continue
            tar.addfile(member, io.BytesIO(b"\xff" * size))
            packable.append(path)

    assert scan(buffer.getvalue(), step=step).entries == len(packable)


@given(st.binary(max_size=3000), st.integers(1, 600))
def test_garbage_ends_with_an_error_that_is_ours(garbage, step):
    assert outcome(garbage, step=step) == outcome(garbage)


@given(
    st.sampled_from([archive for archive, _ in HOSTILE.values()] + list(ODD.values())),
    st.lists(st.tuples(st.integers(0, 2047), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4),
    st.integers(1, 600),
)
def test_a_damaged_archive_is_read_the_same_way_in_any_pieces(archive, damages, step):
    damaged = bytearray(archive[:4096])
    for at, with_what in damages:
        damaged[at : at + len(with_what)] = with_what

    assert outcome(bytes(damaged), step=step) == outcome(bytes(damaged))


@pytest.mark.parametrize(("archive", "lacks"), [(b"", 1024), (header("a"), 1024), (header("a") + bytes(512), 512)])
def test_what_lacks_its_end_marker_gets_it(archive, lacks):
    scanner = TarScanner(max_entries=1, max_bytes=1)
    scanner.feed(archive)

    assert scanner.finish() == bytes(lacks)


def test_nothing_is_read_behind_the_end():
    scanner = TarScanner(max_entries=1, max_bytes=1)
    scanner.feed(packed(header("a")) + b"anything" * 1000)

    assert scanner.finish() == b""
    assert scanner.entries == 1


def test_entries_are_counted():
    archive = packed(header("a"), header("b"), header("c"))
    assert scan(archive, max_entries=3).entries == 3

    with pytest.raises(LayerTooLarge, match=r"more than 2 entries.*UHM_MAX_LAYER_ENTRIES"):
        scan(archive, max_entries=2)


def test_extended_headers_are_no_entries():
    archive = packed(EXTENSION("path=a/b"), header("x"))

    assert scan(archive, max_entries=1).entries == 1


def test_content_costs_nothing():
    scanner = TarScanner(max_entries=1, max_bytes=1 << 40)
    scanner.feed(header("big", size=1 << 32))
    piece = bytes(1 << 20)
    began = time.process_time()
    for _ in range(1 << 12):
        scanner.feed(piece)

    assert time.process_time() - began < 2  # 4 GiB: it takes milliseconds
    assert scanner.finish() == bytes(1024)
