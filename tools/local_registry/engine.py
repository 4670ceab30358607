"""A Docker Engine to build with: the one that runs, or a private one for as long as it is needed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import docker
from docker.errors import BuildError, DockerException

from uhm_common.dockerd import PrivateDockerd, engine_answers
from uhm_common.errors import Unavailable
from uhm_common.process import tail

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["engine"]

DEFAULT_SOCKET = Path("/var/run/docker.sock")
TIMEOUT_SECONDS = 600


@contextmanager
def engine(host: str | None, *, scratch: Path) -> Iterator[docker.DockerClient]:
    """A client of the engine at `host`, else at DOCKER_HOST, else at the default socket, else of one of our own.

    Our own keeps its images in `scratch` and is deleted with them at the end.
    """
    running = (
        host
        or os.environ.get("DOCKER_HOST")
        or (f"unix://{DEFAULT_SOCKET}" if engine_answers(DEFAULT_SOCKET) else None)
    )
    if running:
        with _client(running) as client:
            yield client
        return
    own = PrivateDockerd(scratch)
    own.remove()  # what an interrupted run has left
    try:
        with own, _client(own.host) as client:
            yield client
    finally:
        own.remove()


@contextmanager
def _client(host: str) -> Iterator[docker.DockerClient]:
    """A client, closed at the end. Raises Unavailable for what the engine refuses, with the end of a build's output."""
    try:
        client = docker.DockerClient(base_url=host, timeout=TIMEOUT_SECONDS)
        try:
            yield client
        finally:
            client.close()
    except BuildError as error:
        output = "".join(entry.get("stream", "") for entry in error.build_log if isinstance(entry, dict))
        raise Unavailable(f"The Docker Engine at {host} could not build: {error}\n{tail(output.encode())}") from error
    except DockerException as error:
        raise Unavailable(f"The Docker Engine at {host} could not do it: {error}") from error
