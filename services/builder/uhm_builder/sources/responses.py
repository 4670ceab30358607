"""What a registry's answer means: fine, an error for the user, or worth another try; and reading it in pieces."""

from __future__ import annotations

import asyncio
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
from uhm_builder.pieces import PIECE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["HINT", "Transient", "check", "is_untrusted", "pieces", "read", "unreachable", "verify"]

HINT = "`uhm registry login` stores yours; UHM_REGISTRY_AUTH_FILE names a file with the operator's."
PIECE_SECONDS = 300.0
"""In which a piece must come: whoever sends so slowly would hold a worker for ever."""


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
            hint=HINT,
        )
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise Transient(status, host)
    plain = response.request.url.scheme == "http" and status == httpx.codes.BAD_REQUEST
    raise RegistryUnreachable(
        f"{host} answered {status} for {what}.",
        hint=f"If it speaks TLS, `uhm registry login {response.request.url.netloc.decode()} --ca FILE`."
        if plain
        else "",
    )


def unreachable(host: str, error: httpx.RequestError | httpx.InvalidURL) -> RegistryUnreachable | RateLimited:
    """The error for the user, after the last try."""
    if isinstance(error, Transient) and error.status == httpx.codes.TOO_MANY_REQUESTS:
        return RateLimited(f"{host} limits how often it may be asked.", hint="Try later, or configure credentials.")
    if is_untrusted(error):
        return RegistryUnreachable(
            f"The certificate of {host} is not from an authority that is trusted here: {error}.",
            hint=f"`uhm registry login {host} --ca FILE` adds the authority's certificate.",
        )
    return RegistryUnreachable(
        f"The registry {host} does not answer: {str(error) or type(error).__name__}.",
        hint="Check the name of the registry and the network.",
    )


def is_untrusted(error: httpx.RequestError | httpx.InvalidURL) -> bool:
    """Whether it is the other side's certificate, which another try does not make better."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


async def pieces(response: httpx.Response, *, skip: int = 0) -> AsyncGenerator[bytes, None]:
    """The body as it is sent, in pieces of about PIECE bytes, without its first `skip` bytes.

    What came before the connection broke is given, too. Raises httpx.TransportError, also for a body that trickles.
    """
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw())) as chunks:
        whole = False
        while not whole:
            gathered: list[bytes] = []
            broken: httpx.TransportError | None = None
            try:
                async with asyncio.timeout(PIECE_SECONDS):
                    whole = await _gather(chunks, gathered)
            except TimeoutError:
                broken = httpx.ReadTimeout(f"{PIECE} bytes did not come within {PIECE_SECONDS:.0f} s")
            except httpx.TransportError as error:
                broken = error
            piece = b"".join(gathered)
            if skip:
                piece, skip = piece[skip:], max(skip - len(piece), 0)
            if piece:
                yield piece
            if broken is not None:
                raise broken


async def _gather(chunks: AsyncGenerator[bytes, None], into: list[bytes]) -> bool:
    """Takes chunks until they are PIECE bytes; True where there are no more."""
    size = 0
    async for chunk in chunks:
        into.append(chunk)
        size += len(chunk)
        if size >= PIECE:
            return False
    return True


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
