"""Pushing to a container registry, by the OCI distribution specification 1.1.

Names of objects are a registry's own: `nginx/blobs/sha256:…` and `nginx/manifests/latest` below the repository that
the location names. A registry takes a blob only under its digest, and a manifest only when its blobs are there.

Blobs go up in chunks (PATCH with Content-Range); the upload's address is the token to go on with, and the registry says
how much it has. One that has forgotten the upload, as some do when they are restarted, makes it begin anew.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx

from uhm_builder.errors import (
    ContentMismatch,
    NotAtStorage,
    RegistryDenied,
    RegistryUnreachable,
    StorageDenied,
    StorageRefused,
    StorageUnreachable,
)
from uhm_builder.sources.challenge import Authorizer, Credentials
from uhm_builder.sources.manifest import ACCEPTED
from uhm_builder.sources.registry import HUB_HOST, is_loopback
from uhm_builder.storage.http import ask, checked, open_client, received, sent
from uhm_builder.storage.objects import Stored, hashed, ignore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from uhm_builder.hosts import HostRules
    from uhm_builder.storage.content import Content
    from uhm_builder.storage.http import Answer
    from uhm_builder.storage.objects import Report, Resume
    from uhm_builder.storage.places import RegistryPlace

__all__ = ["RegistryStore"]

CHUNK = 32 << 20
TAGS_MAX = 32 << 20
TAGS_PAGE = 1000
HEADS_AT_ONCE = 8
PAUSES = (0.1, 0.3, 1.0)
NAME = re.compile(r"(?P<repository>.+)/(?P<kind>blobs|manifests)/(?P<target>[^/]*)")


class RegistryStore:
    """An `ObjectStore` in a registry."""

    def __init__(self, place: RegistryPlace, *, rules: HostRules) -> None:
        self._path = place.path
        host = HUB_HOST if place.registry == "docker.io" else place.registry
        self._url = f"{'http' if is_loopback(host) else 'https'}://{host}"
        self._where = f"The registry {place.registry}"
        self._client = open_client(self._url, rules=rules)
        credentials = Credentials(place.username, place.secret) if place.username else None
        self._authorizer = Authorizer(self._client, credentials=credentials)

    async def put(self, name: str, content: Content, *, resume: Resume, report: Report = ignore) -> None:
        """A blob in chunks, where the registry does not have it; a manifest in one request."""
        repository, kind, target = self._split(name)
        if kind == "manifests":
            await self._put_manifest(repository, name, content)
        elif target != content.digest:
            raise ContentMismatch(f"{name} is not the digest of what shall be stored there, {content.digest}.")
        elif await self.stat(name) is None:
            await self._put_blob(repository, content, resume=resume, report=report)
        report(content.size)

    async def get(self, name: str, *, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """By GET, with a range where one is asked for; a registry may send us elsewhere for it."""
        repository, _, _ = self._split(name)
        await self.stat(name)  # gets a token where one is wanted
        headers = {"Accept": ", ".join(ACCEPTED)} | self._authorizer.header(_scope(repository))
        content = received(
            self._client,
            self._address(name),
            where=self._where,
            what=name,
            headers=headers,
            offset=offset,
            length=length,
            follow_redirects=True,
        )
        async with aclosing(content) as pieces:
            async for piece in pieces:
                yield piece

    async def stat(self, name: str) -> Stored | None:
        """By HEAD."""
        repository, _, _ = self._split(name)
        headers = {"Accept": ", ".join(ACCEPTED)}
        answer = await self._authorized(repository, "HEAD", self._address(name), headers=headers)
        if answer.status == httpx.codes.NOT_FOUND:
            return None
        checked(answer.response, where=self._where, what=name)
        size = answer.header("Content-Length")
        return Stored(
            name=name, size=int(size) if size.isdecimal() else -1, version=answer.header("Docker-Content-Digest")
        )

    async def listing(self, prefix: str) -> list[Stored]:
        """The tags of a repository; a registry does not tell the names of its blobs."""
        repository, kind, _ = self._split(prefix)
        if kind != "manifests":
            return []
        found: list[Stored] = []
        url: str = f"{self._url}/v2/{repository}/tags/list?n={TAGS_PAGE}"
        while url:
            answer = await self._authorized(repository, "GET", url, at_most=TAGS_MAX)
            if answer.status == httpx.codes.NOT_FOUND:
                return found
            checked(answer.response, where=self._where, what=f"the tags of {repository}")
            found += await self._versions([f"{prefix}{tag}" for tag in self._tags(answer.body)])
            following = answer.response.links.get("next", {}).get("url", "")
            url = self._absolute(url, following) if following else ""
        return found

    async def _versions(self, names: list[str]) -> list[Stored]:
        slots = asyncio.Semaphore(HEADS_AT_ONCE)

        async def stat(name: str) -> Stored | None:
            async with slots:
                return await self.stat(name)

        return [stored for stored in await asyncio.gather(*map(stat, names)) if stored is not None]

    async def delete(self, name: str) -> None:
        """By DELETE of the digest. Raises StorageRefused where the registry deletes nothing."""
        repository, kind, target = self._split(name)
        if kind == "manifests":
            stored = await self.stat(name)
            target = stored.version if stored else ""
        if not target:
            return
        answer = await self._authorized(repository, "DELETE", f"{self._url}/v2/{repository}/{kind}/{target}")
        with suppress(NotAtStorage):
            checked(answer.response, where=self._where, what=f"deleting {name}")

    async def abandon(self, name: str, token: str) -> None:
        """By DELETE of the upload."""
        repository, _, _ = self._split(name)
        with suppress(NotAtStorage, StorageRefused):
            await self._authorized(repository, "DELETE", self._absolute(self._url, token))

    async def close(self) -> None:
        """Ends connections."""
        await self._client.aclose()

    async def _put_manifest(self, repository: str, name: str, content: Content) -> None:
        body = content.read(0, content.size)
        headers = {"Content-Type": str(json.loads(body)["mediaType"])}
        answer = await self._authorized(repository, "PUT", self._address(name), content=body, headers=headers)
        checked(answer.response, where=self._where, what=f"the manifest {name}")
        stored = await self.stat(name)
        if stored is None or stored.version != content.digest:
            await hashed(self, name, content)

    async def _put_blob(self, repository: str, content: Content, *, resume: Resume, report: Report) -> None:
        offset = await self._offset(repository, resume.token) if resume.token else None
        if offset is None or offset > content.size:
            offset = 0
            answer = await self._authorized(repository, "POST", f"{self._url}/v2/{repository}/blobs/uploads/")
            checked(answer.response, where=self._where, what=f"an upload to {repository}")
            await resume.keep(self._location(answer))
        while offset < content.size:
            length = min(CHUNK, content.size - offset)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(length),
                "Content-Range": f"{offset}-{offset + length - 1}",
            }
            body = partial(sent, content, offset=offset, length=length, report=report)
            answer = await self._authorized(repository, "PATCH", resume.token, body=body, headers=headers)
            checked(answer.response, where=self._where, what=f"a part of {content.digest}")
            await resume.keep(self._location(answer))
            offset += length
        last = httpx.URL(resume.token).copy_merge_params({"digest": content.digest})
        answer = await self._authorized(repository, "PUT", str(last))
        await resume.keep("")
        if answer.status == httpx.codes.BAD_REQUEST:
            raise ContentMismatch(f"{self._where} says that {content.digest} arrived damaged.", hint="Publish again.")
        checked(answer.response, where=self._where, what=f"the blob {content.digest}")
        if await self.stat(f"{repository.removeprefix(f'{self._path}/')}/blobs/{content.digest}") is None:
            raise StorageUnreachable(f"{self._where} does not have {content.digest} after it took it.")

    async def _offset(self, repository: str, token: str) -> int | None:
        """How much the registry has of an upload; None where it does not know it any more."""
        answer = await self._authorized(repository, "GET", token)
        if not answer.response.is_success:
            return None
        _, _, last = answer.header("Range").partition("-")
        return int(last) + 1 if last.isdecimal() and last != "0" else 0

    async def _authorized(self, repository: str, method: str, url: str, **parameters: Any) -> Answer:
        """A request, and once more where the registry wants a (new) token.

        One that only asks is sent again where the registry stumbles, as some do while another one writes a tag.
        """
        for pause in (*PAUSES, None):
            answer = await self._request(repository, method, url, **parameters)
            if answer.status == httpx.codes.UNAUTHORIZED:
                await self._log_in(repository, answer)
                answer = await self._request(repository, method, url, **parameters)
            if answer.status < httpx.codes.INTERNAL_SERVER_ERROR or pause is None or method not in ("GET", "HEAD"):
                break
            await asyncio.sleep(pause)
        return answer

    async def _log_in(self, repository: str, answer: Answer) -> None:
        try:
            await self._authorizer.answer(answer.response, scope=_scope(repository))
        except RegistryDenied as error:
            raise StorageDenied(
                f"{self._where} denies access to {repository}.", hint="Check the user name and the password."
            ) from error
        except RegistryUnreachable as error:
            raise StorageUnreachable(error.message) from error

    async def _request(
        self,
        repository: str,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: Callable[[], AsyncIterator[bytes]] | None = None,
        **parameters: Any,
    ) -> Answer:
        headers = headers or {}
        if body is not None:
            parameters["content"] = body()
        if url.startswith(f"{self._url}/"):  # elsewhere our authorization has no business
            headers = headers | self._authorizer.header(_scope(repository))
        return await ask(self._client, method, url, where=self._where, headers=headers, **parameters)

    def _location(self, answer: Answer) -> str:
        location = answer.header("Location")
        if not location:
            raise StorageRefused(f"{self._where} does not say where an upload goes on.")
        return self._absolute(str(answer.response.request.url), location)

    def _absolute(self, base: str, location: str) -> str:
        """An address that the registry gave, which must be its own."""
        url = urljoin(base, location)
        if urlsplit(url).hostname != urlsplit(self._url).hostname:
            raise StorageRefused(f"{self._where} sends us to another host, {urlsplit(url).netloc}.")
        return url

    def _tags(self, document: bytes) -> list[str]:
        try:
            return [str(tag) for tag in json.loads(document)["tags"] or ()]
        except (ValueError, KeyError, TypeError) as error:
            raise StorageRefused(f"{self._where} answers a list of tags that is none.") from error

    def _split(self, name: str) -> tuple[str, str, str]:
        match = NAME.fullmatch(name)
        assert match is not None, name
        return f"{self._path}/{match['repository']}", match["kind"], match["target"]

    def _address(self, name: str) -> str:
        return f"{self._url}/v2/{self._path}/{name}"


def _scope(repository: str) -> str:
    return f"repository:{repository}:pull,push"
