"""A client for registries: manifests and blobs, by the OCI distribution specification 1.1.

Names lead to endpoints: mirrors first, then the registry itself. An endpoint on loopback is spoken to in plain HTTP, as
docker does, unless its user has given a certificate for it; so is a mirror given as http://. Redirects are followed;
httpx does not send our authorization to another host. What is transient (no connection, a stream that breaks off, 5xx)
is tried again a few times with growing pauses; a blob goes on where it broke off.

A client serves one build. Its connections and tokens end with it, so what one user may see never serves another.
"""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from uhm_builder.errors import (
    ContentMismatch,
    NotInRegistry,
    RegistryDenied,
    RegistryUnreachable,
    UnsupportedImage,
)
from uhm_builder.hosts import HostRules
from uhm_builder.pieces import PIECE
from uhm_builder.sources.challenge import Authorizer
from uhm_builder.sources.connections import connect, trust
from uhm_builder.sources.manifest import ACCEPTED
from uhm_builder.sources.reference import DEFAULT_REGISTRY
from uhm_builder.sources.responses import check, is_untrusted, pieces, read, unreachable, verify
from uhm_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from uhm_builder.sources.challenge import Credentials
    from uhm_builder.sources.manifest import Descriptor
    from uhm_builder.sources.reference import Reference

__all__ = ["Account", "RegistryClient", "Repository"]

log = get_logger()

HUB_HOST = "registry-1.docker.io"
DOCUMENT_MAX = 4 << 20
"""Largest manifest or configuration that is read (the specification has registries take manifests of 4 MiB)."""
PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds before the second try, the third, …"""
DOCUMENT_SECONDS = 120.0
"""For a manifest, all tries together."""
LOGIN_MAX = 1 << 20
LOGIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a user's builds know of a registry: credentials, if there are any, and certificates to trust, as PEM."""

    credentials: Credentials | None = None
    ca_certificate: str = ""


async def no_account(_registry: str) -> Account | None:
    """Of a user who has added no registry."""
    return None


class Repository:
    """One repository at one endpoint."""

    def __init__(self, authorizer: Authorizer, *, url: str, path: str) -> None:
        self._client = authorizer.client
        self._authorizer = authorizer
        self._url = f"{url}/v2/{path}"
        self._scope = f"repository:{path}:pull"
        self.host = urlsplit(url).netloc
        self._name = f"{self.host}/{path}"

    async def manifest(self, target: str) -> tuple[bytes, str]:
        """A manifest by tag or digest, and its content type; a digest is verified."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        what = f"{self._name}{'@' if target.startswith('sha256:') else ':'}{target}"
        try:
            async with asyncio.timeout(DOCUMENT_SECONDS):
                response, body = await self._read(f"/manifests/{target}", headers, what=what)
        except TimeoutError as error:
            raise RegistryUnreachable(f"{self.host} does not give {what} within {DOCUMENT_SECONDS:.0f} s.") from error
        expected = target if target.startswith("sha256:") else response.headers.get("Docker-Content-Digest", "")
        if expected.startswith("sha256:"):
            verify(body, expected, what="manifest")
        return body, response.headers.get("Content-Type", "")

    async def _read(self, path: str, headers: Mapping[str, str], *, what: str) -> tuple[httpx.Response, bytes]:
        for pause in (*PAUSES, None):
            try:
                async with self._get(path, headers, what=what) as response:
                    return response, await read(response, at_most=DOCUMENT_MAX)
            except httpx.TransportError as error:
                await self._pause(pause, error)
        raise AssertionError(path)

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
        done = steady = 0  # bytes that have come, and until when there was no reason to give up
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
                        if done - steady >= PIECE:
                            steady, pauses = done, iter(PAUSES)
                if done < descriptor.size:
                    message = f"the blob ended after {done} of {descriptor.size} bytes"
                    raise httpx.ReadError(message)
            except httpx.TransportError as error:
                await self._pause(next(pauses, None), error)

    @asynccontextmanager
    async def _get(self, path: str, headers: Mapping[str, str], *, what: str) -> AsyncIterator[httpx.Response]:
        """An answer that is good, its body not read yet. Raises httpx.TransportError for what may pass."""
        headers = {**headers, "Accept-Encoding": "identity"}
        with _redirects_end(self.host):
            async with AsyncExitStack() as stack:
                response = await stack.enter_async_context(self._stream(path, headers))
                if response.status_code == httpx.codes.UNAUTHORIZED:
                    await read(response, at_most=DOCUMENT_MAX)  # so that the connection can be used again
                    await stack.aclose()
                    authorization = await self._authorizer.answer(response, scope=self._scope)
                    response = await stack.enter_async_context(self._stream(path, headers | authorization))
                check(response, what=what)
                yield response

    def _stream(self, path: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
        known = self._authorizer.header(self._scope)
        return self._client.stream("GET", self._url + path, headers={**known, **headers}, follow_redirects=True)

    async def _pause(self, seconds: float | None, error: httpx.TransportError) -> None:
        if seconds is None or is_untrusted(error):
            raise unreachable(self.host, error) from error
        await asyncio.sleep(seconds)


@contextmanager
def _redirects_end(host: str) -> Iterator[None]:
    try:
        yield
    except httpx.TooManyRedirects as error:
        raise RegistryUnreachable(f"The registry {host} redirects again and again.") from error


class RegistryClient:
    """Finds where a reference can be got, for one build of one user."""

    def __init__(
        self,
        *,
        mirrors: Mapping[str, str],
        credentials: Mapping[str, Credentials],
        rules: HostRules | None = None,
        account: Callable[[str], Awaitable[Account | None]] = no_account,
    ) -> None:
        """`credentials` are the operator's; `account` answers the user's own of a registry, which then count alone."""
        self._mirrors = mirrors
        self._credentials = credentials
        self._rules = rules or HostRules()
        self._account = account
        self._clients = AsyncExitStack()

    async def manifest(self, reference: Reference) -> tuple[Repository, bytes, str]:
        """The manifest of a reference, its content type, and the repository that had it."""
        misses: list[NotInRegistry | RegistryDenied] = []
        if mirror := self._mirrors.get(reference.registry):
            authorizer = Authorizer(self._connect(mirror), credentials=self._credentials.get(urlsplit(mirror).netloc))
            repository = Repository(authorizer, url=mirror, path=reference.path)
            try:
                return repository, *await repository.manifest(reference.target)
            except (NotInRegistry, RegistryDenied) as error:
                misses.append(error)
            except RegistryUnreachable as error:
                log.warning("registry.mirror_unreachable", host=repository.host, error=error.message)
        url, authorizer = await self._registry(reference.registry)
        repository = Repository(authorizer, url=url, path=reference.path)
        try:
            return repository, *await repository.manifest(reference.target)
        except RegistryUnreachable as error:
            if not misses:
                raise
            raise NotInRegistry(f"{misses[0].message} {error.message}", hint=misses[0].hint) from error

    async def log_in(self, registry: str) -> None:
        """Shows the user's credentials to a registry. Raises RegistryDenied, RegistryUnreachable, NotInRegistry."""
        url, authorizer = await self._registry(registry)
        host = urlsplit(url).netloc
        ask = partial(_look, authorizer.client, f"{url}/v2/")
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                response = await ask()
                if response.status_code == httpx.codes.UNAUTHORIZED:
                    response = await ask(await authorizer.answer(response, scope=""))
            check(response, what=f"registry at {host}")
        except RegistryDenied as error:
            raise RegistryDenied(
                f"The registry {host} refuses these credentials.",
                hint="Check them; some registries want an access token in the password's place.",
            ) from error
        except TimeoutError as error:
            raise RegistryUnreachable(f"The registry {host} does not answer.") from error
        except UnsupportedImage as error:
            raise RegistryUnreachable(f"{host} answers too much for a registry: {error.message}") from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise unreachable(host, error) from error

    async def _registry(self, registry: str) -> tuple[str, Authorizer]:
        """A registry's own address, and what gets past its challenges."""
        account = await self._account(registry)
        host = HUB_HOST if registry == DEFAULT_REGISTRY else registry
        ca_certificate = account.ca_certificate if account else ""
        url = f"{'http' if is_loopback(host) and not ca_certificate else 'https'}://{host}"
        credentials = account.credentials if account else self._credentials.get(host) or self._credentials.get(registry)
        return url, Authorizer(self._connect(url, ca_certificate=ca_certificate), credentials=credentials)

    def _connect(self, url: str, *, ca_certificate: str = "") -> httpx.AsyncClient:
        client = connect(self._rules, tls=trust(ca_certificate), proxies=url.startswith("https://"))
        self._clients.push_async_callback(client.aclose)
        return client

    async def close(self) -> None:
        """Ends all connections."""
        await self._clients.aclose()


async def _look(client: httpx.AsyncClient, url: str, authorization: Mapping[str, str] | None = None) -> httpx.Response:
    """The answer to GET, whose body is passed over. Raises UnsupportedImage for one without end."""
    headers = {"Accept-Encoding": "identity", **(authorization or {})}
    async with client.stream("GET", url, headers=headers, follow_redirects=True) as response:
        await read(response, at_most=LOGIN_MAX)
    return response


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine: `localhost` or a loopback address."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
