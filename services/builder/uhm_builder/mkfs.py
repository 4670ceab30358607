"""One run of mkfs.erofs: a tar archive goes in through a pipe, piece by piece, an EROFS image comes out.

Whiteouts become overlayfs's (`--aufs`). A fixed UUID and time make the output depend on the input alone. The image is
padded to whole mebibytes, which is what a partition needs. erofs-utils 1.8: mkfs.erofs(1).

It is a C program that reads what strangers have packed: a `TarScanner` stands in front of it, and it runs with bounds
on memory and processor time, no capabilities, and no way to gain any. Its temporary file, where it makes one, is beside
the image. It dies with the process that feeds it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from uhm_builder.errors import ConversionFailed, InvalidLayer, LayerTooLarge, NoSpace
from uhm_builder.gpt import ALIGNMENT
from uhm_builder.tarscan import TarScanner
from uhm_common.process import child_environment, describe_exit, tail

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Bounds", "Conversion", "conversion", "space_checked"]

UUID = "6f1b0c86-5d5b-4a53-9d3b-7d0b7a7a2f10"
OPTIONS = ("--tar=f", "--aufs", "--quiet", "-Enoinline_data", "-T0", f"-U{UUID}", "--sort=none")
PIPE_BYTES = 1 << 20
CONFINED = ("setpriv", "--pdeathsig", "KILL", "--no-new-privs")
"""setpriv(1) of util-linux. The signal comes when the thread that started the program ends: it must be the main one."""
WITHOUT_CAPABILITIES = ("--inh-caps=-all", "--bounding-set=-all")
CAP_SETPCAP = 8
CPU_SECONDS = 300
"""A directory of 100,000 entries takes ten seconds, growing with the square; a gigabyte of content takes two."""
MEMORY_BYTES, ENTRY_BYTES = 256 << 20, 1 << 10
"""Address space of mkfs.erofs, and for each entry that a layer may have: 450 bytes, and what its path is longer."""
FINISH_SECONDS = 60.0
FINISH_BYTES_PER_SECOND = 20_000_000
FULL = (errno.ENOSPC, errno.EDQUOT)
MEANINGS = {
    errno.ENOENT: "has a hard link to what does not come before it",
    errno.EISDIR: "has a hard link to a directory",
    errno.EIO: "has an entry inside of one that is no directory",
    errno.ENOTDIR: "has an entry inside of one that is no directory",
    errno.EBADMSG: "is damaged: the checksum of a header is wrong",
    errno.ENOMEM: "needs more memory than mkfs.erofs may have",
}
"""What mkfs.erofs means by an error, in an archive that its scanner has let through."""

_ERROR = re.compile(r"\[Error (\d+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a layer may have at most, uncompressed."""

    max_bytes: int
    max_entries: int


class Conversion:
    """A running mkfs.erofs. Its methods block; only `interrupt` may be called from another thread meanwhile."""

    def __init__(self, process: subprocess.Popen[bytes], *, output: Path, messages: IO[bytes], bounds: Bounds) -> None:
        self._process = process
        self._output = output
        self._messages = messages
        self._max_bytes = bounds.max_bytes
        self._scanner = TarScanner(max_entries=bounds.max_entries, max_bytes=bounds.max_bytes)
        self._sha256 = hashlib.sha256()
        self._reads = True
        self.taken = 0

    def write(self, piece: bytes) -> None:
        """Takes a piece of the archive. Raises InvalidLayer, LayerTooLarge, ConversionFailed, NoSpace."""
        self.taken += len(piece)
        if self.taken > self._max_bytes:
            raise LayerTooLarge(
                f"A layer has more than {self._max_bytes} bytes, uncompressed.",
                hint="UHM_MAX_LAYER_BYTES is the bound.",
            )
        self._scanner.feed(piece)
        self._sha256.update(piece)
        if self._reads:
            self._pipe(memoryview(piece))

    def _pipe(self, rest: memoryview) -> None:
        assert self._process.stdin is not None
        try:
            while rest:
                rest = rest[os.write(self._process.stdin.fileno(), rest) :]
        except BrokenPipeError:
            # Right where the archive's end marker is followed by padding, which mkfs.erofs does not read.
            self._reads = False
            self._check_exit()

    def finish(self) -> str:
        """Waits for the image; answers the diffID of what was written. Raises as `write` does."""
        assert self._process.stdin is not None
        if self._reads:
            self._pipe(memoryview(self._scanner.finish()))
        self._process.stdin.close()
        self._check_exit(within=FINISH_SECONDS + self.taken / FINISH_BYTES_PER_SECOND)
        size = self._output.stat().st_size
        os.truncate(self._output, max(size + -size % ALIGNMENT, ALIGNMENT))
        return f"sha256:{self._sha256.hexdigest()}"

    def interrupt(self) -> None:
        """Kills the program, so that a `write` which waits for it ends."""
        self._process.kill()

    def _check_exit(self, *, within: float | None = None) -> None:
        try:
            if self._process.wait(within) == 0:
                return
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            raise ConversionFailed(
                f"A layer could not be converted: mkfs.erofs does not end in {within:.0f} s."
            ) from error
        self._messages.seek(0)
        said = tail(self._messages.read(), lines=3)
        if any(os.strerror(number) in said for number in FULL):
            raise _no_space(self._output)
        raise _failure(self._process.returncode, said)


@contextmanager
def conversion(mkfs: str, output: Path, *, bounds: Bounds) -> Iterator[Conversion]:
    """Starts mkfs.erofs for one layer; it is gone at the end of the block, however that comes. For the main thread."""
    if shutil.which(mkfs) is None:
        raise ConversionFailed(f"{mkfs} is not installed.", hint="`make setup` builds it.")
    argv = [*CONFINED, *(WITHOUT_CAPABILITIES if _may_drop_capabilities() else ()), "--", mkfs, *OPTIONS, str(output)]
    with os.fdopen(os.memfd_create("mkfs.erofs"), "w+b") as messages:  # in memory: the file system may be full
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=messages,
            stderr=messages,
            env=child_environment({"TMPDIR": str(output.parent)}),
            bufsize=0,
        )
        with process:
            assert process.stdin is not None
            _limit(process.pid, bounds)
            fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            try:
                yield Conversion(process, output=output, messages=messages, bounds=bounds)
            finally:
                process.kill()


def _limit(pid: int, bounds: Bounds) -> None:
    """Bounds a program that waits for its input; what it executes first keeps the limits."""
    memory = MEMORY_BYTES + ENTRY_BYTES * bounds.max_entries
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: CPU_SECONDS, resource.RLIMIT_CORE: 0}
    for limit, value in limits.items():
        resource.prlimit(pid, limit, (value, value))


@cache
def _may_drop_capabilities() -> bool:
    """Whether this process has CAP_SETPCAP, which it takes to give capabilities up for good."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> CAP_SETPCAP & 1)


def _failure(returncode: int, said: str) -> InvalidLayer | ConversionFailed:
    """What an end of mkfs.erofs means that was no success, and no full file system."""
    if returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return InvalidLayer(
            f"A layer takes more than {CPU_SECONDS} s of processor time to convert.",
            hint="Has it a directory with hundreds of thousands of entries?",
        )
    error = _ERROR.search(said)
    if error and (meaning := MEANINGS.get(int(error[1]))) and "erofs_io" not in said:
        return InvalidLayer(f"A layer {meaning}.", hint="Make the image again.")
    return ConversionFailed(
        f"A layer could not be converted: mkfs.erofs ended with {describe_exit(returncode)}: {said}"
    )


@contextmanager
def space_checked(directory: Path) -> Iterator[None]:
    """Turns the kernel's word for a full file system into the user's."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise _no_space(directory) from error
        raise


def _no_space(path: Path) -> NoSpace:
    return NoSpace(
        f"There is no space left on the file system of {path.parent}.",
        hint="Delete images that are not needed, or make room.",
    )
