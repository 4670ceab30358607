"""HTTP to a storage location: a client that streams, and what answers mean."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from uhm_builder.errors import NotAtStorage, StorageDenied, StorageFull, StorageRefused, StorageUnreachable
from uhm_builder.sources.connections import connect, trust
from uhm_builder.sources.responses import pieces

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from uhm_builder.hosts import HostRules
    from uhm_builder.storage.content import Content
    from uhm_builder.storage.objects import Report

__all__ = ["Answer", "answered", "ask", "checked", "open_client", "received", "sent"]

TIMEOUT = httpx.Timeout(60, connect=5)
PASSING = (httpx.codes.LOCKED, httpx.codes.TOO_MANY_REQUESTS)
INSUFFICIENT_STORAGE = 507


def open_client(url: str, *, rules: HostRules) -> httpx.AsyncClient:
    """A client for a location that connects only where the rules allow, and through proxies only with TLS."""
    client = connect(rules, tls=trust(), proxies=url.startswith("https://"))
    client.timeout = TIMEOUT
    return client


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, and as much of the body as was asked for."""

    response: httpx.Response
    body: bytes = b""

    @property
    def status(self) -> int:
        """The status code."""
        return self.response.status_code

    def header(self, name: str) -> str:
        """A header; empty where there is none."""
        return str(self.response.headers.get(name, ""))


async def ask(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    where: str,
    headers: dict[str, str] | None = None,
    at_most: int = 0,
    **parameters: Any,
) -> Answer:
    """One request. Of the body not more than `at_most` bytes are read, whatever comes. Raises StorageUnreachable."""
    body = bytearray()
    headers = {"Accept-Encoding": "identity"} | (headers or {})
    with answered(where):
        async with client.stream(method, url, headers=headers, **parameters) as response:
            if at_most:
                async with aclosing(pieces(response)) as parts:
                    async for part in parts:
                        body += part
                        if len(body) > at_most:
                            raise StorageRefused(f"{where} answers more than {at_most} bytes for {method}.")
    return Answer(response=response, body=bytes(body))


async def received(
    client: httpx.AsyncClient,
    url: str,
    *,
    where: str,
    what: str,
    headers: dict[str, str] | None = None,
    offset: int = 0,
    length: int | None = None,
    follow_redirects: bool = False,
) -> AsyncGenerator[bytes, None]:
    """The body by GET, with a range where a part is asked for; a server that knows none sends all, which is cut."""
    headers = {"Accept-Encoding": "identity"} | (headers or {})
    if offset or length is not None:
        end = "" if length is None else str(offset + length - 1)
        headers["Range"] = f"bytes={offset}-{end}"
    with answered(where):
        async with client.stream("GET", url, headers=headers, follow_redirects=follow_redirects) as response:
            checked(response, where=where, what=what)
            skip = offset if response.status_code == httpx.codes.OK else 0
            async with aclosing(pieces(response, skip=skip)) as parts:
                async for part in parts:
                    piece = part if length is None else part[:length]
                    length = None if length is None else length - len(piece)
                    if piece:
                        yield piece
                    if length == 0:
                        return


async def sent(content: Content, *, offset: int, length: int, report: Report) -> AsyncIterator[bytes]:
    """A part of content as the body of a request; `report` hears the offset that has been passed on."""
    pieces = content.pieces(offset, length)
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
        offset += len(piece)
        report(offset)


@contextmanager
def answered(where: str) -> Iterator[None]:
    """Turns a request that fails into StorageUnreachable."""
    try:
        yield
    except httpx.RequestError as error:
        raise StorageUnreachable(
            f"{where} does not answer: {str(error).rstrip('.') or type(error).__name__}.",
            hint="Check its address, and that it is up.",
        ) from error
    except httpx.InvalidURL as error:
        raise StorageRefused(f"{where} is no address: {error}.") from error


def checked(response: httpx.Response, *, where: str, what: str) -> None:
    """Raises what the status of a response that is not good means."""
    status = response.status_code
    if response.is_success:
        return
    said = f"{where} answered {status} for {what}"
    if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        raise NotAtStorage(f"{where}: there is no {what}.")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise StorageDenied(f"{said}: access is denied.", hint="Check the user name and the password.")
    if status in (INSUFFICIENT_STORAGE, httpx.codes.REQUEST_ENTITY_TOO_LARGE):
        raise StorageFull(f"{said}: there is no room, or it takes nothing of this size.", hint="Make room there.")
    if status in PASSING or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise StorageUnreachable(f"{said}.", hint="Try again.")
    raise StorageRefused(f"{said}.")
