"""One run of mkfs.erofs: a tar archive goes in through a pipe, piece by piece, an EROFS image comes out.

Whiteouts become overlayfs's (`--aufs`). A fixed UUID and time make the output depend on the input alone. The image is
padded to whole mebibytes, which is what a partition needs. erofs-utils 1.8: mkfs.erofs(1).

It does not notice an archive that ends in the middle of a file, and spins for ever: so its end has a time limit, and it
dies with the process that feeds it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from uhm_builder.errors import ConversionFailed, LayerTooLarge, NoSpace
from uhm_builder.gpt import ALIGNMENT
from uhm_common.process import child_environment, describe_exit, tail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Conversion", "conversion", "space_checked"]

UUID = "6f1b0c86-5d5b-4a53-9d3b-7d0b7a7a2f10"
OPTIONS = ("--tar=f", "--aufs", "--quiet", "-Enoinline_data", "-T0", f"-U{UUID}", "--sort=none")
PIPE_BYTES = 1 << 20
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""setpriv(1) of util-linux. The signal comes when the thread that started the program ends: it must be the main one."""
FINISH_SECONDS = 20.0
FINISH_BYTES_PER_SECOND = 20_000_000
FULL = (errno.ENOSPC, errno.EDQUOT)


class Conversion:
    """A running mkfs.erofs. Its methods block; only `interrupt` may be called from another thread meanwhile."""

    def __init__(self, process: subprocess.Popen[bytes], *, output: Path, messages: IO[bytes], max_bytes: int) -> None:
        self._process = process
        self._output = output
        self._messages = messages
        self._max_bytes = max_bytes
        self._sha256 = hashlib.sha256()
        self._reads = True
        self.taken = 0

    def write(self, piece: bytes) -> None:
        """Takes a piece of the archive. Raises LayerTooLarge, ConversionFailed, NoSpace."""
        self.taken += len(piece)
        if self.taken > self._max_bytes:
            raise LayerTooLarge(
                f"A layer has more than {self._max_bytes} bytes, uncompressed.",
                hint="UHM_MAX_LAYER_BYTES is the bound.",
            )
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
        """Waits for the image; answers the diffID of what was written. Raises ConversionFailed, NoSpace."""
        assert self._process.stdin is not None
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
                "A layer could not be converted: its archive ends in the middle of a file."
            ) from error
        self._messages.seek(0)
        said = tail(self._messages.read(), lines=3)
        if os.strerror(errno.ENOSPC) in said or os.strerror(errno.EDQUOT) in said:
            raise _no_space(self._output)
        raise ConversionFailed(
            f"A layer could not be converted: mkfs.erofs ended with {describe_exit(self._process.returncode)}: {said}"
        )


@contextmanager
def conversion(mkfs: str, output: Path, *, max_bytes: int) -> Iterator[Conversion]:
    """Starts mkfs.erofs for one layer; it is gone at the end of the block, however that comes. For the main thread."""
    if shutil.which(mkfs) is None:
        raise ConversionFailed(f"{mkfs} is not installed.", hint="`make setup` builds it.")
    argv = [*DIES_WITH_US, mkfs, *OPTIONS, str(output)]
    with os.fdopen(os.memfd_create("mkfs.erofs"), "w+b") as messages:  # in memory: the file system may be full
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=messages, stderr=messages, env=child_environment(), bufsize=0
        )
        with process:
            assert process.stdin is not None
            fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            try:
                yield Conversion(process, output=output, messages=messages, max_bytes=max_bytes)
            finally:
                process.kill()


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
