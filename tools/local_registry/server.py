"""Runs Debian's `docker-registry` on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tools.local_registry.paths import BUILD_TOOLS, DIRECTORY
from uhm_common.errors import FailedPrecondition, Unavailable
from uhm_common.process import child_environment, tail

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["registry"]

CONFIG = Path(__file__).with_name("registry.yml")
READY_SECONDS = 20.0
STOP_SECONDS = 5.0


@contextmanager
def registry(*, port: int = 0, directory: Path = DIRECTORY) -> Iterator[str]:
    """Serves the registry's data and answers its URL; port 0 stands for a free one.

    Many may serve the same data at a time. Raises Unavailable with what the registry wrote where it does not come up.
    """
    port = port or _free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(directory / "data"),
    }
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [_program(), "serve", CONFIG],
            env=child_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            if not _answers(url, process):
                output.seek(0)
                raise Unavailable(f"The registry on port {port} did not come up:\n{tail(output.read())}")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _program() -> str:
    """The registry that set-up has put into `build/tools`, else the installed one."""
    found = shutil.which("docker-registry", path=f"{BUILD_TOOLS}{os.pathsep}{os.defpath}")
    if found is None:
        raise FailedPrecondition("docker-registry is not installed.", hint="`make setup` gets it.")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Waits until the registry answers; False where it ended or took too long."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with direct.open(f"{url}/v2/", timeout=1):
                return process.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    return False
