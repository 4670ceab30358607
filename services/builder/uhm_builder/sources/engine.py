"""One conversation with the Docker Engine, through the docker SDK.

Its calls block, so they run in threads; `interrupt` ends whatever call is under way by shutting its socket down. When a
client goes away, the engine cancels the build that it was waiting for.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool

from uhm_builder.errors import EngineUnreachable, NotInEngine
from uhm_builder.pieces import PIECE
from uhm_common.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Engine", "EngineFailed"]

ANSWER_SECONDS = 3600
"""How long a step of a build may say nothing."""
API_VERSION = "1.41"
"""Of Docker Engine 20.10; later ones speak it too."""


class EngineFailed(InternalError):
    """The Docker Engine answered with an error that is not the user's."""


class Engine:
    """A client of its own for each build."""

    def __init__(self, host: str) -> None:
        """`host` is as in DOCKER_HOST: `unix:///var/run/docker.sock`. Nothing is sent yet."""
        self._host = host
        self._sockets: list[socket.socket] = []
        self._interrupted = False

    @cached_property
    def client(self) -> Any:
        """The SDK's client (docker.APIClient, which has no types that hold)."""
        client: Any = docker.APIClient(base_url=self._host, timeout=ANSWER_SECONDS, version=API_VERSION)
        if self._host.startswith("unix://"):
            adapter = _Adapter(self._host.replace("unix://", "http+unix://"), self._opened)
            client._custom_adapter = adapter  # noqa: SLF001 - get_adapter() answers this one
            client.mount("http+docker://", adapter)
        return client

    def _opened(self, connection: socket.socket) -> None:
        self._sockets.append(connection)
        if self._interrupted:
            connection.shutdown(socket.SHUT_RDWR)

    def interrupt(self) -> None:
        """Ends every call that is under way, and every later one. May be called from any thread."""
        self._interrupted = True
        for connection in self._sockets:
            with suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def errors(self, name: str) -> Iterator[None]:
        """Turns the SDK's errors about an image into ours."""
        try:
            yield
        except ImageNotFound as error:
            raise NotInEngine(
                f"The Docker Engine at {self._host} has no image {name}.", hint="`docker images` lists what it has."
            ) from error
        except APIError as error:
            raise EngineFailed(f"The Docker Engine refused: {error.explanation or error}.") from error
        except (DockerException, requests.RequestException, OSError) as error:
            raise EngineUnreachable(
                f"The Docker Engine at {self._host} does not answer.", hint="Start it, or set UHM_DOCKER_HOST."
            ) from error

    @property
    def host(self) -> str:
        """As in DOCKER_HOST."""
        return self._host

    def has_buildkit(self) -> bool:
        """Whether it is Docker's engine, which has BuildKit in it since 18.09. Raises EngineUnreachable."""
        with self.errors("BuildKit"):
            parts = self.client.version().get("Components") or []
            return any(part.get("Name") == "Engine" for part in parts)

    def inspect(self, name: str) -> dict[str, Any]:
        """What the engine knows of an image. Raises NotInEngine, EngineUnreachable."""
        with self.errors(name):
            found: dict[str, Any] = self.client.inspect_image(name)
            return found

    def save(self, name: str) -> Iterator[bytes]:
        """The archive that `docker save` makes, in pieces. Raises NotInEngine, EngineUnreachable."""
        with self.errors(name):
            yield from self.client.get_image(name, chunk_size=PIECE)

    def renewed(self) -> Engine:
        """Another conversation with the same engine, which was not interrupted."""
        return Engine(self._host)

    def close(self) -> None:
        """Ends all connections."""
        if "client" in self.__dict__:
            self.client.close()


class _Connection(UnixHTTPConnection):
    """Tells which socket it has opened."""

    def __init__(self, pool: _Pool) -> None:
        super().__init__(pool.base_url, pool.socket_path, ANSWER_SECONDS)
        self._opened = pool.opened

    def connect(self) -> None:
        super().connect()
        assert self.sock is not None
        self._opened(self.sock)


class _Pool(UnixHTTPConnectionPool):
    def __init__(self, url: str, socket_path: str, opened: Callable[[socket.socket], None]) -> None:
        super().__init__(url, socket_path, timeout=ANSWER_SECONDS)
        self.opened = opened

    def _new_conn(self) -> Any:
        return _Connection(self)


class _Adapter(UnixHTTPAdapter):
    """The SDK's adapter for Unix sockets, with connections that can be found again."""

    def __init__(self, url: str, opened: Callable[[socket.socket], None]) -> None:
        super().__init__(url, timeout=ANSWER_SECONDS)
        self._opened = opened

    def get_connection(self, url: Any, proxies: Any = None) -> Any:  # noqa: ARG002 - the SDK's signature
        with self.pools.lock:
            if url not in self.pools:
                self.pools[url] = _Pool(url, self.socket_path, self._opened)
            return self.pools[url]
