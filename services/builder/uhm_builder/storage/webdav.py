"""A WebDAV server (RFC 4918) as a storage location, or any server that takes HTTP PUT.

Where the server says that it does WebDAV, an object goes up under another name in the same collection, is read back,
and is then moved to its name. Elsewhere PUT goes to the name itself, and the listing has only what the index has.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from uhm_builder.errors import ContentMismatch, NotAtStorage, StorageRefused, StorageUnreachable
from uhm_builder.storage.http import ask, checked, open_client, received, sent
from uhm_builder.storage.objects import Stored, hashed, ignore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from typing import Any

    from uhm_builder.hosts import HostRules
    from uhm_builder.storage.content import Content
    from uhm_builder.storage.http import Answer
    from uhm_builder.storage.objects import Report, Resume
    from uhm_builder.storage.places import WebDavPlace

__all__ = ["WebDavStore"]

STAGED = ".uhm-"
LISTING_MAX = 32 << 20
DEPTH_MAX = 32
LOCKED_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
PROPFIND = (
    b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>'
    b"<resourcetype/><getcontentlength/><getetag/><getlastmodified/></prop></propfind>"
)


class WebDavStore:
    """An `ObjectStore` below a URL."""

    def __init__(self, place: WebDavPlace, *, rules: HostRules) -> None:
        self._url = place.url.rstrip("/")
        self._where = self._url
        self._client = open_client(self._url, rules=rules)
        if place.username:
            self._client.auth = (place.username, place.secret)
        self._collections: set[str] = set()
        self._dav: bool | None = None

    async def put(self, name: str, content: Content, *, resume: Resume, report: Report = ignore) -> None:
        """By PUT of the whole, read back before it has its name; begins anew where it was interrupted."""
        del resume
        if await self._holds(name, content):
            report(content.size)
            return
        if not await self._is_dav():
            await self._send(name, content, report)
            await hashed(self, name, content)
            return
        path = PurePosixPath(name)
        await self._make_collections(str(path.parent))
        staged = str(path.with_name(f"{STAGED}{uuid.uuid4().hex}"))
        try:
            await self._send(staged, content, report)
            await hashed(self, staged, content)
            await self._move(staged, name)
        except BaseException:
            with suppress(StorageUnreachable):
                await self.delete(staged)
            raise

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """By GET, with a range where one is asked for."""
        return received(self._client, self._address(name), where=self._where, what=name, offset=offset, length=length)

    async def stat(self, name: str) -> Stored | None:
        """By HEAD."""
        answer = await self._request("HEAD", name)
        if answer.status in (httpx.codes.NOT_FOUND, httpx.codes.GONE, httpx.codes.CONFLICT):
            return None
        checked(answer.response, where=self._where, what=name)
        version = answer.header("ETag") or answer.header("Last-Modified")
        return Stored(name=name, size=_size(answer.header("Content-Length")), version=version)

    async def listing(self, prefix: str) -> list[Stored]:
        """By PROPFIND, collection by collection: servers refuse a depth of infinity. Nothing where it knows none."""
        if not await self._is_dav():
            return []
        return [stored async for stored in self._walk(prefix.strip("/"), depth=0)]

    async def delete(self, name: str) -> None:
        """By DELETE."""
        answer = await self._request("DELETE", name)
        with suppress(NotAtStorage):
            checked(answer.response, where=self._where, what=f"deleting {name}")

    async def abandon(self, name: str, token: str) -> None:
        """Nothing is kept of an upload that broke off."""

    async def close(self) -> None:
        """Ends connections."""
        await self._client.aclose()

    async def _is_dav(self) -> bool:
        """What the server says of itself. Raises where it says nothing: an object's name is not for trying that out."""
        if self._dav is None:
            answer = await self._request("OPTIONS", "")
            if answer.status != httpx.codes.NOT_IMPLEMENTED:
                with suppress(NotAtStorage, StorageRefused):  # one that does not know the method does no WebDAV
                    checked(answer.response, where=self._where, what="OPTIONS")
            self._dav = answer.response.is_success and "1" in answer.header("DAV")
        return self._dav

    async def _holds(self, name: str, content: Content) -> bool:
        stored = await self.stat(name)
        if stored is None or stored.size != content.size:
            return False
        try:
            await hashed(self, name, content)
        except (ContentMismatch, NotAtStorage):
            return False
        return True

    async def _send(self, name: str, content: Content, report: Report) -> None:
        body = sent(content, offset=0, length=content.size, report=report)
        headers = {"Content-Length": str(content.size)}
        answer = await self._request("PUT", name, content=body, headers=headers)
        checked(answer.response, where=self._where, what=f"PUT of {name}")

    async def _move(self, staged: str, name: str) -> None:
        headers = {"Destination": self._address(name), "Overwrite": "T"}
        answer = await self._request("MOVE", staged, headers=headers)
        checked(answer.response, where=self._where, what=f"moving to {name}")

    async def _make_collections(self, path: str) -> None:
        """The collections that an object needs, and the one that the URL names."""
        if "" not in self._collections:
            await self._make_ancestors()
        steps = [step for step in PurePosixPath(path).parts if step != "."]
        for count in range(len(steps) + 1):
            collection = "/".join(steps[:count])
            if collection in self._collections:
                continue
            answer = await self._request("MKCOL", f"{collection}/" if collection else "")
            if answer.status != httpx.codes.METHOD_NOT_ALLOWED:  # which says that it exists
                checked(answer.response, where=self._where, what=f"making {collection or 'the directory'}")
            self._collections.add(collection)

    async def _make_ancestors(self) -> None:
        """The collections above the URL's, where that is not there: as far as they lack, and as we may."""
        if (await self._request("PROPFIND", "", content=PROPFIND, headers={"Depth": "0"})).response.is_success:
            self._collections.add("")
            return
        parts = urlsplit(self._url)
        for ancestor in reversed(PurePosixPath(parts.path).parents):
            url = urlunsplit(parts._replace(path=str(ancestor)))
            await ask(self._client, "MKCOL", url, where=self._where)

    async def _walk(self, path: str, *, depth: int) -> AsyncGenerator[Stored, None]:
        if depth > DEPTH_MAX:
            raise StorageRefused(f"{self._where}: {path[:80]} lies too deep.")
        answer = await self._request(
            "PROPFIND", f"{path}/", content=PROPFIND, headers={"Depth": "1"}, at_most=LISTING_MAX
        )
        if answer.status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            return
        checked(answer.response, where=self._where, what=f"the list of {path}")
        for name, entry in self._entries(answer.body, path):
            if entry.find(".//{DAV:}resourcetype/{DAV:}collection") is not None:
                async for stored in self._walk(name, depth=depth + 1):
                    yield stored
            elif not PurePosixPath(name).name.startswith(STAGED):
                size = entry.findtext(".//{DAV:}getcontentlength") or "-1"
                version = entry.findtext(".//{DAV:}getetag") or entry.findtext(".//{DAV:}getlastmodified") or ""
                yield Stored(name=name, size=_size(size), version=version)

    def _entries(self, document: bytes, path: str) -> Iterator[tuple[str, Any]]:
        """What is directly in a collection, and nothing else, whatever the server says."""
        try:
            answer = ElementTree.fromstring(document)
        except (ElementTree.ParseError, DefusedXmlException, ValueError) as error:
            raise StorageRefused(f"{self._where} answers a list that is no XML: {error}.") from error
        base = unquote(urlsplit(self._url).path).rstrip("/")
        for entry in answer.findall("{DAV:}response"):
            href = unquote(urlsplit(cast("str", entry.findtext("{DAV:}href") or "")).path).rstrip("/")
            name = href.removeprefix(base).strip("/")
            if href.startswith(f"{base}/") and str(PurePosixPath(name).parent) == path and name != path:
                yield name, entry

    async def _request(self, method: str, name: str, *, at_most: int = 0, **parameters: Any) -> Answer:
        """One request, and others where somebody has the collection locked for a moment, unless it sends an object."""
        for pause in (*LOCKED_PAUSES, None):
            answer = await ask(
                self._client, method, self._address(name), where=self._where, at_most=at_most, **parameters
            )
            if answer.status != httpx.codes.LOCKED or pause is None or method == "PUT":
                break
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - so that they do not meet again
        return answer

    def _address(self, name: str) -> str:
        return f"{self._url}/{quote(name)}"


def _size(text: str) -> int:
    """A number of bytes that a server told; -1, which no content has, where it did not."""
    return int(text) if text.isdecimal() else -1
