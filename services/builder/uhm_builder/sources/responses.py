"""What a registry's answer means: fine, an error for the user, or worth another try; and reading it in pieces."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import httpx

from uhm_builder.errors import (
    ContentMismatch,
    NotInRegistry,
    RateLimited,
    RegistryDenied,
    RegistryUnreachable,
    UnsupportedImage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Transient", "check", "pieces", "read", "unreachable", "verify"]

PIECE = 1 << 20


class Transient(httpx.TransportError):
    """An answer that is worth another try: 5xx, or too many requests."""

    def __init__(self, status: int, host: str) -> None:
        super().__init__(f"{host} answered {status}")
        self.status = status


def check(response: httpx.Response, *, what: str) -> None:
    """Raises what an answer that is not good means; `what` names the thing that was asked for."""
    status = response.status_code
    if response.is_success:
        return
    host = response.request.url.host
    if status == httpx.codes.NOT_FOUND:
        raise NotInRegistry(f"There is no {what}.", hint="Check the name and the tag.")
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise RegistryDenied(
            f"{host} denies access to {what}, or it does not exist.",
            hint="UHM_REGISTRY_AUTH_FILE names a file with credentials.",
        )
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise Transient(status, host)
    raise RegistryUnreachable(f"{host} answered {status} for {what}.")


def unreachable(host: str, error: httpx.TransportError) -> RegistryUnreachable | RateLimited:
    """The error for the user, after the last try."""
    if isinstance(error, Transient) and error.status == httpx.codes.TOO_MANY_REQUESTS:
        return RateLimited(f"{host} limits how often it may be asked.", hint="Try later, or configure credentials.")
    return RegistryUnreachable(
        f"The registry {host} does not answer: {error or type(error).__name__}.",
        hint="Check the name of the registry and the network.",
    )


async def pieces(response: httpx.Response, *, skip: int = 0) -> AsyncGenerator[bytes, None]:
    """The body as it is sent, in pieces of about PIECE bytes, without its first `skip` bytes."""
    gathered: list[bytes] = []
    size = 0
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw())) as chunks:
        async for chunk in chunks:
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            gathered.append(chunk[skip:] if skip else chunk)
            size += len(gathered[-1])
            skip = 0
            if size >= PIECE:
                yield b"".join(gathered)
                gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


async def read(response: httpx.Response, *, at_most: int) -> bytes:
    """The whole body. Raises UnsupportedImage where it is larger."""
    body = bytearray()
    async with aclosing(pieces(response)) as parts:
        async for part in parts:
            body += part
            if len(body) > at_most:
                raise UnsupportedImage(f"{response.request.url} has more than {at_most} bytes.")
    return bytes(body)


def verify(body: bytes, digest: str, *, what: str) -> None:
    """Raises ContentMismatch where bytes are not what their digest says."""
    if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
        raise ContentMismatch(
            f"The {what} that the registry sent is not {digest}.", hint="The registry, or something between, is broken."
        )
