"""`docker build` with BuildKit, through docker's command line: BuildKit takes its secrets, and gives its output, over a
session of its own that the SDK cannot hold.

The command line has BuildKit built in up to version 22, and needs its plugin `buildx` from 23 on. The context goes in
through standard input as it was uploaded. Secrets are files in memory that have no name (memfd_create(2)): the command
line opens them through /proc, and they are gone with the last of us that has them open.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uhm_builder.errors import DockerfileFailed, EngineUnreachable
from uhm_builder.threads import in_thread
from uhm_common.process import DIES_WITH_US, ProcessFailed, child_environment, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from uhm_builder.images import BuildContext
    from uhm_builder.sources.engine import Engine
    from uhm_common.artifacts import ArtifactStore

__all__ = ["BuildKit", "BuildOrder", "BuildRun", "find_program"]

PROGRAM = "docker"
BUILT_IN_BEFORE = 23
ASK_SECONDS = 20.0
SILENCE_SECONDS = 3600.0
"""How long a build may say nothing."""
END_SECONDS = 10.0
LINE_MAX = 1 << 16
LAST_LINES = 60
TOLD_LINES = 12
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
VERTEX = re.compile(r"#\d+ sha256:[0-9a-f]{64}")
"""BuildKit's own name of a step, which some versions print below the step."""
SPOKEN = re.compile(r"(?:#\d+ )?\d+\.\d+ (.*)")
SWITCHES = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "DOCKER_CLI_HINTS": "false"}
UNREACHABLE = ("Cannot connect to the Docker daemon", "error during connect", "transport is closing", "EOF")
VERSION = re.compile(r"Docker version (\d+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """What to build, how, and what to call it in the engine."""

    context: BuildContext
    host: str
    network: str
    platform: str
    tag: str
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def arguments(self, *, secrets: Mapping[str, str]) -> list[str]:
        """Those of `docker build`; `secrets` are the paths of their files by id."""
        wanted = self.context
        return [
            "--progress=plain",
            f"--tag={self.tag}",
            f"--file={wanted.dockerfile}",
            *(f"--build-arg={name}={value}" for name, value in wanted.build_args.items()),
            *(f"--secret=id={name},src={path}" for name, path in secrets.items()),
            *([f"--target={wanted.target}"] if wanted.target else []),
            *(["--no-cache"] if wanted.no_cache else []),
            *([f"--network={self.network}"] if self.network else []),
            *([f"--platform={self.platform}"] if self.platform else []),
            "-",
        ]


def find_program() -> str:
    """The first docker command line on the PATH that can build with BuildKit; empty where none can. Blocks."""
    for directory in os.get_exec_path():
        program = shutil.which(PROGRAM, path=directory)
        if program and _has_buildkit(program):
            return program
    return ""


def _has_buildkit(program: str) -> bool:
    with suppress(ProcessFailed):
        version = VERSION.match(run([program, "--version"], timeout=ASK_SECONDS).stdout.decode(errors="replace"))
        if version is not None and int(version[1]) < BUILT_IN_BEFORE:
            return True
        run([program, "buildx", "version"], timeout=ASK_SECONDS)
        return True
    return False


class BuildRun:
    """A running `docker build`. `follow` blocks; `interrupt` may be called from another thread meanwhile."""

    def __init__(self, process: subprocess.Popen[bytes], *, host: str) -> None:
        self._process = process
        self._host = host

    def follow(self, tell: Callable[[str], None]) -> None:
        """Tells each line of the output as it comes, to the end. Raises DockerfileFailed, EngineUnreachable."""
        last: deque[str] = deque(maxlen=LAST_LINES)
        for raw in self._lines():
            line = ANSI.sub("", raw.decode(errors="replace").replace("\0", "")).rstrip()
            if line and not VERTEX.fullmatch(line):
                last.append(line)
                tell(line)
        if self._process.wait(END_SECONDS) != 0:
            raise self._failure(list(last))

    def _lines(self) -> Iterator[bytes]:
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        rest = b""
        while True:
            if not select.select([output], [], [], SILENCE_SECONDS)[0]:
                self.interrupt()
                raise DockerfileFailed(
                    f"The build said nothing for {SILENCE_SECONDS / 60:g} minutes and was ended.",
                    hint="A step that takes longer must say so now and then.",
                )
            piece = os.read(output, LINE_MAX)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            if len(rest) >= LINE_MAX:
                yield rest
                rest = b""
        if rest:
            yield rest

    def interrupt(self) -> None:
        """Kills the command line and what it has started; without it the engine ends the build."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _failure(self, lines: list[str]) -> Exception:
        """The last line says what failed; what the step wrote comes between two rules, or is what came before."""
        reason = lines.pop().removeprefix("ERROR: ") if lines else "docker build failed without a word."
        if any(word in reason for word in UNREACHABLE):
            return EngineUnreachable(
                f"The Docker Engine at {self._host} does not answer, or broke off: {reason}",
                hint="Start it, or set UHM_DOCKER_HOST.",
            )
        rules = [number for number, line in enumerate(lines) if line == "------"]
        if len(rules) >= 2:
            lines = lines[rules[-2] + 1 : rules[-1]]
        said = [match[1] if (match := SPOKEN.fullmatch(line)) else line for line in lines[-TOLD_LINES:]]
        return DockerfileFailed("\n".join([reason, *said]))


class BuildKit:
    """The way to BuildKit that a worker has; what of it is found out once is shared by its builds."""

    def __init__(self, *, artifacts: ArtifactStore, auth_file: Path | None) -> None:
        """`auth_file` has credentials of registries for base images, in the form of docker's config.json."""
        self._artifacts = artifacts
        self._auth_file = auth_file
        self._program: str | None = None

    async def reaches(self, engine: Engine) -> bool:
        """Whether builds of this engine can have BuildKit. Raises EngineUnreachable."""
        if self._program is None:
            self._program = await in_thread(find_program)
        return bool(self._program) and await in_thread(engine.has_buildkit, interrupt=engine.interrupt)

    @contextmanager
    def run(self, order: BuildOrder, *, archive: Path) -> Iterator[BuildRun]:
        """Starts `docker build` on an uploaded context; it is gone at the end of the block. For the main thread.

        What the command line would find in the home directory of whoever runs this, credentials above all, is not for
        users' builds: it has directories of its own instead.
        """
        assert self._program
        with ExitStack() as stack:
            secrets = {name: stack.enter_context(_in_memory(content)) for name, content in order.secrets.items()}
            context = stack.enter_context(archive.open("rb"))
            scratch = stack.enter_context(self._artifacts.stage())
            config, empty = scratch / "config", scratch / "empty"
            config.mkdir()
            empty.mkdir()
            if self._auth_file is not None:
                (config / "config.json").symlink_to(self._auth_file.absolute())
            process = stack.enter_context(
                subprocess.Popen(
                    [*DIES_WITH_US, self._program, "build", *order.arguments(secrets=secrets)],
                    stdin=context,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=child_environment(SWITCHES | {"DOCKER_HOST": order.host, "DOCKER_CONFIG": str(config)}),
                    cwd=empty,
                    bufsize=0,
                    start_new_session=True,
                )
            )
            running = BuildRun(process, host=order.host)
            stack.callback(running.interrupt)
            yield running


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A file that only its path under /proc leads to."""
    with os.fdopen(os.memfd_create("secret"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"
