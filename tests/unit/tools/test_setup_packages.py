"""Packages are installed only where they are missing, and without root the user is told what to run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
TOOLS = ("basename", "cat", "chmod", "cut", "dirname", "env", "grep", "ls", "rm", "sed", "sh", "sleep", "tee", "uname")


@pytest.fixture
def programs(tmp_path):
    """A PATH of its own: real tools, and stand-ins that note how they are called."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in TOOLS:
        (directory / name).symlink_to(f"/usr/bin/{name}")
    stand_in(directory, "dpkg-query", "case $3 in mmdebstrap) exit 1;; *) printf installed;; esac")
    stand_in(directory, "dockerd", "exit 1")
    stand_in(directory, "id", "echo 1000")
    return directory


def stand_in(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{directory.parent}/calls"\n{script}\n')
    (directory / name).chmod(0o755)


def install(programs: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-eu", "-c", "exec 3>&2; . tools/setup/packages.sh"],
        cwd=PROJECT,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def calls(programs: Path, name: str) -> list[str]:
    return [line for line in (programs.parent / "calls").read_text().splitlines() if line.startswith(f"{name} ")]


def test_without_root_and_sudo_the_command_is_told(programs):
    failed = install(programs)
    assert failed.returncode == 1
    assert "apt-get install --no-install-recommends" in failed.stdout
    assert "mmdebstrap" in failed.stdout
    assert "qemu-utils" not in failed.stdout


def test_sudo_installs_only_what_is_missing(programs):
    stand_in(programs, "sudo", "exit 0")
    done = install(programs)
    assert done.returncode == 0
    assert "sudo is needed to install: mmdebstrap" in done.stderr
    [call] = [call for call in calls(programs, "sudo") if "apt-get" in call]
    assert call.split("--no-install-recommends ")[1].split()[0] == "mmdebstrap"
    assert "qemu-utils" not in call


def test_lists_are_fetched_only_where_installing_fails(programs):
    failing_once = 'case "$*" in *install*) [ -e "$0.tried" ] || { : >"$0.tried"; exit 100; };; esac'
    stand_in(programs, "sudo", failing_once)
    assert install(programs).returncode == 0
    verbs = [
        "update" if call.endswith(" update") else "install" for call in calls(programs, "sudo") if "apt-get" in call
    ]
    assert verbs == ["install", "update", "install"]


def test_an_engine_that_is_there_is_kept(programs):
    stand_in(programs, "dpkg-query", "exit 1")
    assert "docker.io" not in install(programs).stdout
    (programs / "dockerd").unlink()
    assert "docker.io" in install(programs).stdout


def test_nothing_missing_needs_no_root(programs):
    stand_in(programs, "dpkg-query", "printf installed")
    if not (list(Path("/boot").glob("vmlinuz-*")) and list(Path("/lib/modules").glob("*/modules.dep"))):
        pytest.skip("no kernel is installed, so one is missing")
    assert install(programs).returncode == 0


@pytest.fixture(autouse=True)
def _known_distribution():
    release = Path("/etc/os-release").read_text()
    if not any(known in release for known in ('VERSION_ID="12"', 'VERSION_ID="13"', 'VERSION_ID="24.04"')):
        pytest.skip("not a distribution that the set-up knows")
    if os.uname().machine != "x86_64":
        pytest.skip("not x86_64")
