"""`docker build` as a program: what it is told, and what is made of what it says."""
# ruff: noqa: ASYNC110 - what is tested runs in other processes

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from uhm_builder.errors import DockerfileFailed, EngineUnreachable
from uhm_builder.images import BuildContext
from uhm_builder.sources import buildkit
from uhm_builder.sources.buildkit import BuildKit, BuildOrder, find_program
from uhm_builder.threads import in_thread

ORDER = BuildOrder(
    context=BuildContext(id="c", dockerfile="a/Dockerfile", build_args={"A": "1 2"}, target="web", no_cache=True),
    host="unix:///run/docker.sock",
    network="host",
    platform="linux/amd64",
    tag="uhm-build:1",
)


class Docker:
    """A directory on the PATH with a program in place of docker's, which a test writes."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()

    def says(self, script: str) -> None:
        program = self.directory / "docker"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)


@pytest.fixture
def docker(tmp_path, monkeypatch):
    docker = Docker(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{docker.directory}:/usr/bin:/bin")
    return docker


@pytest.fixture
async def build(artifacts, docker, tmp_path):
    """Runs a build whose program is a script; answers its lines."""
    (tmp_path / "context").write_bytes(b"the context")

    async def build(script, *, order=ORDER, auth_file=None):
        docker.says(f'[ "$1" = build ] || {{ echo Docker version 20.10.1, build x; exit; }}\n{script}')
        kit = BuildKit(artifacts=artifacts, auth_file=auth_file)
        assert await kit.reaches(Engine())
        lines = []
        with kit.run(order, archive=tmp_path / "context") as running:
            await in_thread(lambda: running.follow(lines.append), interrupt=running.interrupt)
        return lines

    return build


class Engine:
    def has_buildkit(self):
        return True

    def interrupt(self):
        pass


async def test_what_the_program_is_told(build):
    lines = await build('printf "%s\\n" "$@"; cat; echo; echo $DOCKER_HOST $DOCKER_BUILDKIT')

    assert lines == [
        "build", "--progress=plain", "--tag=uhm-build:1", "--file=a/Dockerfile", "--build-arg=A=1 2", "--target=web",
        "--no-cache", "--network=host", "--platform=linux/amd64", "-", "the context", "unix:///run/docker.sock 1",
    ]  # fmt: skip


async def test_secrets_are_files_that_have_no_name(build, artifacts):
    order = replace(ORDER, secrets={"token": b"hush\0\n", "empty": b""})
    assert "hush" not in repr(order)

    lines = await build(
        'for word in "$@"; do\n'
        "  case $word in --secret=*) file=${word#*src=}; wc -c < $file; readlink $file; esac\n"
        "done; env",
        order=order,
    )

    assert lines[:4] == ["6", "/memfd:secret (deleted)", "0", "/memfd:secret (deleted)"]
    assert not any("hush" in line for line in lines)
    assert list(artifacts.root.glob("staging/*")) == []


async def test_credentials_of_whoever_runs_it_are_not_for_builds(build, tmp_path, monkeypatch):
    auth = tmp_path / "auth.json"
    auth.write_text('{"auths": {}}')
    lines = await build("ls -A $DOCKER_CONFIG; cat $DOCKER_CONFIG/config.json", auth_file=auth)
    assert lines[-1] == '{"auths": {}}'
    assert "config.json" not in await build("ls -A $DOCKER_CONFIG")


async def test_lines_are_plain_and_come_without_names_of_steps(build):
    lines = await build(r'printf "#1 [internal]\n#1 sha256:%064d\n\n#1 \033[31mred\033[0m\000\nno end" 7')
    assert lines == ["#1 [internal]", "#1 red", "no end"]


OLD = """#5 [2/2] RUN echo oh no; exit 3
#5 0.052 oh no
#5 ERROR: executor failed running
------
 > [2/2] RUN echo oh no; exit 3:
#5 0.052 oh no
------
executor failed running [/bin/sh -c exit 3]: exit code: 3"""
NEW = """#5 ERROR: process did not complete
------
 > [2/2] RUN echo oh no; exit 3:
0.052 oh no
------
Dockerfile:2
--------------------
   1 |     FROM debian
--------------------
ERROR: failed to solve: process "/bin/sh -c exit 3" did not complete successfully: exit code: 3"""


@pytest.mark.parametrize("said", [OLD, NEW])
async def test_a_failed_step_is_its_reason_and_what_it_wrote(build, said):
    with pytest.raises(DockerfileFailed) as failed:
        await build(f"cat <<'EOF'\n{said}\nEOF\nexit 1")
    first, *rest = str(failed.value).splitlines()
    assert first.endswith("exit code: 3")
    assert not first.startswith("ERROR")
    assert rest[-1] == "oh no"


async def test_an_engine_that_is_gone_is_said_so(build):
    with pytest.raises(EngineUnreachable, match=r"unix:///run/docker\.sock"):
        await build("echo 'ERROR: Cannot connect to the Docker daemon at unix:///run/docker.sock.'; exit 1")


async def test_silence_is_a_failure_too(build):
    with pytest.raises(DockerfileFailed, match="without a word"):
        await build("exit 1")


async def test_a_build_that_says_nothing_for_too_long_is_ended(build, monkeypatch):
    monkeypatch.setattr(buildkit, "SILENCE_SECONDS", 0.2)
    with pytest.raises(DockerfileFailed, match="said nothing"):
        await build("sleep 60")


async def test_a_cancelled_build_ends_with_all_it_has_started(build, tmp_path):
    task = asyncio.create_task(build(f"sleep 60 & echo $! > {tmp_path}/child; wait"))
    async with asyncio.timeout(10):
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            await asyncio.sleep(0.02)
    child = int((tmp_path / "child").read_text())

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with asyncio.timeout(5):
        while alive(child):
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - a pseudo-file
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo Docker version 20.10.24+dfsg1, build x", True),
        ("[ $1 = --version ] && echo Docker version 28.2.2, build x", False),
        ("[ $1 = --version ] && echo Docker version 28.2.2, build x; [ $1 != build ]", True),
        ("echo podman version 4", True),
        ("exit 1", False),
    ],
)
def test_a_program_without_buildkit_is_passed_over(docker, monkeypatch, script, found):
    monkeypatch.setattr(os, "get_exec_path", lambda: [str(docker.directory), "/nowhere"])
    docker.says(script)
    assert (find_program() == str(docker.directory / "docker")) is found
