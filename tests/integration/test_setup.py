"""What the set-up has put into place works, and running it again does nothing."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]


def set_up() -> str:
    return subprocess.run(
        ["make", "setup"],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    ).stdout


def test_running_it_again_changes_nothing_and_takes_no_time():
    set_up()
    started = time.monotonic()
    assert set_up().count("up to date") == 5
    assert time.monotonic() - started < 5


def test_mkfs_erofs_makes_images_out_of_tars(tmp_path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    subprocess.run(
        [PROJECT / "build/tools/mkfs.erofs", "--tar=f", "--aufs", "--quiet", "-zzstd,3", tmp_path / "image"],
        input=archive.getvalue(),
        check=True,
        timeout=30,
    )
    magic = (tmp_path / "image").read_bytes()[1024:1028]
    assert magic == bytes.fromhex("e2e1f5e0")


def test_nothing_generated_is_committed():
    if not (PROJECT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--", "build", "protos/gen", ".venv"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert listed.stdout == b""
