"""A client for registries: manifests and blobs, by the OCI distribution specification 1.1.

Names lead to endpoints: mirrors first, then the registry itself. An endpoint on loopback is spoken to in plain HTTP, as
docker does; so is a mirror given as http://. Redirects are followed; httpx does not send our authorization to another
host. What is transient (no connection, a stream that breaks off, 5xx) is tried again a few times with growing pauses; a
blob goes on where it broke off.
"""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from uhm_builder.errors import ContentMismatch, NotInRegistry, RegistryUnreachable, UnsupportedImage
from uhm_builder.sources.challenge import Authorizer
from uhm_builder.sources.manifest import ACCEPTED
from uhm_builder.sources.reference import DEFAULT_REGISTRY
from uhm_builder.sources.responses import check, pieces, read, unreachable, verify
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from uhm_builder.sources.challenge import Credentials
    from uhm_builder.sources.manifest import Descriptor
    from uhm_builder.sources.reference import Reference

__all__ = ["RegistryClient", "Repository"]

log = get_logger()

HUB_HOST = "registry-1.docker.io"
DOCUMENT_MAX = 4 << 20
"""Largest manifest or configuration that is read (the specification has registries take manifests of 4 MiB)."""
PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds before the second try, the third, …"""
TIMEOUT = httpx.Timeout(30, connect=5, pool=None)


class Repository:
    """One repository at one endpoint."""

    def __init__(self, client: httpx.AsyncClient, authorizer: Authorizer, *, url: str, path: str) -> None:
        self._client = client
        self._authorizer = authorizer
        self._url = f"{url}/v2/{path}"
        self._scope = f"repository:{path}:pull"
        self.host = urlsplit(url).netloc
        self._name = f"{self.host}/{path}"

    async def manifest(self, target: str) -> tuple[bytes, str]:
        """A manifest by tag or digest, and its content type; a digest is verified."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        what = f"{self._name}{'@' if target.startswith('sha256:') else ':'}{target}"
        for pause in (*PAUSES, None):
            try:
                async with self._get(f"/manifests/{target}", headers, what=what) as response:
                    body = await read(response, at_most=DOCUMENT_MAX)
                break
            except httpx.TransportError as error:
                await self._pause(pause, error)
        expected = target if target.startswith("sha256:") else response.headers.get("Docker-Content-Digest", "")
        if expected.startswith("sha256:"):
            verify(body, expected, what="manifest")
        return body, response.headers.get("Content-Type", "")

    async def document(self, descriptor: Descriptor) -> bytes:
        """A small blob, whole and verified."""
        if descriptor.size > DOCUMENT_MAX:
            raise UnsupportedImage(f"The image's configuration has {descriptor.size} bytes.")
        async with aclosing(self.blob(descriptor)) as parts:
            body = b"".join([part async for part in parts])
        verify(body, descriptor.digest, what="configuration")
        return body

    async def blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """A blob's bytes in pieces of about a mebibyte; their digest is for the caller to verify."""
        done = 0
        pauses = iter(PAUSES)
        while done < descriptor.size:
            try:
                headers = {"Range": f"bytes={done}-"} if done else {}
                what = f"{self._name}'s blob {descriptor.digest}"
                async with self._get(f"/blobs/{descriptor.digest}", headers, what=what) as response:
                    skip = done if response.status_code == httpx.codes.OK else 0
                    async for piece in pieces(response, skip=skip):
                        done += len(piece)
                        if done > descriptor.size:
                            raise ContentMismatch(
                                f"{self.host} sent more for {descriptor.digest} than its manifest says."
                            )
                        yield piece
                        pauses = iter(PAUSES)
                if done < descriptor.size:
                    message = f"the blob ended after {done} of {descriptor.size} bytes"
                    raise httpx.ReadError(message)
            except httpx.TransportError as error:
                await self._pause(next(pauses, None), error)

    @asynccontextmanager
    async def _get(self, path: str, headers: Mapping[str, str], *, what: str) -> AsyncIterator[httpx.Response]:
        """An answer that is good, its body not read yet. Raises httpx.TransportError for what may pass."""
        headers = {**headers, "Accept-Encoding": "identity"}
        async with AsyncExitStack() as stack:
            response = await stack.enter_async_context(self._stream(path, headers))
            if response.status_code == httpx.codes.UNAUTHORIZED:
                await stack.aclose()
                authorization = await self._authorizer.answer(response, scope=self._scope)
                response = await stack.enter_async_context(self._stream(path, headers | authorization))
            if not response.is_success:
                await response.aread()
            check(response, what=what)
            yield response

    def _stream(self, path: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
        known = self._authorizer.header(self._scope)
        return self._client.stream("GET", self._url + path, headers={**known, **headers}, follow_redirects=True)

    async def _pause(self, seconds: float | None, error: httpx.TransportError) -> None:
        if seconds is None:
            raise unreachable(self.host, error) from error
        await asyncio.sleep(seconds)


class RegistryClient:
    """Finds where a reference can be got. One per process: it keeps connections and tokens."""

    def __init__(self, *, mirrors: Mapping[str, str], credentials: Mapping[str, Credentials]) -> None:
        self._mirrors = mirrors
        self._credentials = credentials
        self._proxied = httpx.AsyncClient(timeout=TIMEOUT, max_redirects=5)
        self._direct = httpx.AsyncClient(timeout=TIMEOUT, max_redirects=5, trust_env=False)
        self._authorizers: dict[str, Authorizer] = {}

    async def manifest(self, reference: Reference) -> tuple[Repository, bytes, str]:
        """The manifest of a reference, its content type, and the repository that had it."""
        repositories = [self._repository(reference, url) for url in self._endpoints(reference.registry)]
        misses: list[NotInRegistry] = []
        for repository in repositories[:-1]:
            try:
                return repository, *await repository.manifest(reference.target)
            except NotInRegistry as error:
                misses.append(error)
            except RegistryUnreachable as error:
                log.warning("registry.mirror_unreachable", host=repository.host, error=error.message)
        try:
            return repositories[-1], *await repositories[-1].manifest(reference.target)
        except RegistryUnreachable as error:
            if not misses:
                raise
            raise NotInRegistry(f"{misses[0].message} {error.message}", hint=misses[0].hint) from error

    def _endpoints(self, registry: str) -> list[str]:
        mirror = self._mirrors.get(registry)
        host = HUB_HOST if registry == DEFAULT_REGISTRY else registry
        own = f"{'http' if is_loopback(host) else 'https'}://{host}"
        return [mirror, own] if mirror else [own]

    def _repository(self, reference: Reference, url: str) -> Repository:
        client = self._direct if url.startswith("http://") else self._proxied
        if url not in self._authorizers:
            credentials = self._credentials.get(urlsplit(url).netloc)
            if credentials is None and url == self._endpoints(reference.registry)[-1]:
                credentials = self._credentials.get(reference.registry)
            self._authorizers[url] = Authorizer(client, credentials=credentials)
        return Repository(client, self._authorizers[url], url=url, path=reference.path)

    async def close(self) -> None:
        """Ends all connections."""
        await self._proxied.aclose()
        await self._direct.aclose()


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine: `localhost` or a loopback address."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
