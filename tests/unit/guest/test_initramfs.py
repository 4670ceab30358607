"""The archive, read back by the specification and by cpio where there is one."""

from __future__ import annotations

import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from uhm_guest.initramfs import Entry, build_initramfs, pack_cpio
from uhm_guest.kernel import Kernel

if TYPE_CHECKING:
    from pathlib import Path


def unpack(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Mode, content and device of each entry."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    position = 0
    while True:
        assert archive[position : position + 6] == b"070701"
        fields = [int(archive[at : at + 8], 16) for at in range(position + 6, position + 110, 8)]
        name_end = position + 110 + fields[11]
        name = archive[position + 110 : name_end - 1].decode()
        start = name_end + -name_end % 4
        content = archive[start : start + fields[6]]
        position = start + fields[6] + -fields[6] % 4
        if name == "TRAILER!!!":
            assert archive[position:].strip(b"\0") == b""
            return found
        assert (fields[2], fields[3], fields[5]) == (0, 0, 0), "owned by root, without a time"
        found[name] = (fields[1], content, (fields[9], fields[10]))


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    (tmp_path / "init").write_bytes(b"\x7fELF")
    (tmp_path / "modules.dep").write_text("k/virtio-rng.ko: k/virtio.ko\nk/virtio.ko:\n")
    (tmp_path / "modules.builtin").write_text("")
    (tmp_path / "k").mkdir()
    for name in ("virtio-rng", "virtio"):
        (tmp_path / "k" / f"{name}.ko").write_text(f"{name}!")
    kernel = Kernel(version="6.1", image=tmp_path / "vmlinuz", modules=tmp_path)
    return build_initramfs(tmp_path / "init", kernel, modules=["virtio_rng"])


def test_what_the_guest_finds(archive: bytes) -> None:
    entries = unpack(archive)
    assert entries["init"] == (stat.S_IFREG | 0o755, b"\x7fELF", (0, 0))
    assert entries["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert entries["modules.list"][1] == b"/m/virtio.ko\n/m/virtio-rng.ko\n"
    assert entries["m/virtio-rng.ko"][1] == b"virtio-rng!"
    assert list(entries).index("m") < list(entries).index("m/virtio.ko"), "a directory comes before what is in it"


def test_without_modules_there_is_only_init(tmp_path: Path) -> None:
    (tmp_path / "init").write_bytes(b"\x7fELF")
    kernel = Kernel(version="6.1", image=tmp_path / "bzImage", modules=None)
    assert list(unpack(build_initramfs(tmp_path / "init", kernel))) == ["dev", "dev/console", "init"]


def test_the_last_page_is_left_to_the_firmware(archive: bytes) -> None:
    assert len(archive) % 4096 == 4
    assert not archive[-3 * 4 :].strip(b"\0"), "what fills it up is zeros"


@pytest.mark.parametrize("length", range(5))
def test_contents_of_any_length_are_aligned(length: int) -> None:
    content = b"x" * length
    entries = [Entry(path="a" * (length + 1), mode=stat.S_IFREG, content=content), Entry(path="b", mode=stat.S_IFREG)]
    assert [entry[1] for entry in unpack(pack_cpio(entries)).values()] == [content, b""]


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio")
def test_cpio_agrees(archive: bytes) -> None:
    done = subprocess.run(["cpio", "-t", "--quiet"], input=archive, capture_output=True, check=True)
    assert done.stdout.decode().split() == list(unpack(archive))
