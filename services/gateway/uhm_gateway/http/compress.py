"""gzip, in requests and in answers (RFC 9110, sections 8.4 and 12.5.3).

What is compressed is a whole answer of some size and of a type that shrinks; streams go out as they come. What a client
sends compressed is unpacked piece by piece, so that a small body cannot become a large one in memory.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from uhm_gateway.errors import BadRequest, UnsupportedMediaType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Gzipped", "gunzipped", "gzipped", "quality", "shrinks", "varying", "wants_gzip"]

LEAST_BYTES = 1024
LEVEL = 4
IN_A_THREAD_BYTES = 256 * 1024
PIECE_BYTES = 1024 * 1024
MEMBERS = 100  # of one body: each more costs a copy of all that follows it
_GZIP_WINDOW = 31
_SHRINKING = (b"text/", b"application/json", b"application/javascript", b"application/x-ndjson", b"image/svg+xml")


def quality(accepted: str, *names: str) -> float:
    """How much an Accept or Accept-Encoding header wants the first of these names that it mentions, from 0 to 1.

    A weight that is none counts as 0.
    """
    weights = {}
    for element in accepted.split(","):
        name, *parameters = (part.strip().lower() for part in element.split(";"))
        weights[name] = next((_weight(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
    return next((weights[name] for name in names if name in weights), 0.0)


def wants_gzip(accept_encoding: str) -> bool:
    """Whether a client that sent this header takes gzip."""
    return quality(accept_encoding, "gzip", "x-gzip", "*") > 0


def shrinks(content_type: bytes, size: int) -> bool:
    """Whether an answer is worth the work."""
    return size >= LEAST_BYTES and content_type.startswith(_SHRINKING)


def varying(content_type: bytes, size: int) -> list[tuple[bytes, bytes]]:
    """What an answer says of its encoding depending on what the client takes, as does a 304 instead of it."""
    return [(b"vary", b"accept-encoding")] if shrinks(content_type, size) else []


async def gzipped(body: bytes) -> bytes:
    """The body as gzip; others are served meanwhile where it is a large one."""
    return await asyncio.to_thread(_gzip, body) if len(body) > IN_A_THREAD_BYTES else _gzip(body)


async def gunzipped(pieces: AsyncIterator[bytes], *, encoding: str) -> AsyncIterator[bytes]:
    """The content of a body that came in an encoding, in pieces of bounded size.

    Raises UnsupportedMediaType where the encoding is not gzip, and BadRequest where the body is not what it says.
    """
    if encoding not in {"gzip", "x-gzip"}:
        raise UnsupportedMediaType(
            f"A body in encoding {encoding!r} is not taken here.",
            hint="Send it uncompressed, or as gzip.",
            accept_encoding="gzip",
        )
    unpacker = _Unpacker()
    async for piece in pieces:
        for content in unpacker.feed(piece):
            yield content
    if not unpacker.is_whole:
        raise BadRequest("The body ends before its gzip data does.")


class Gzipped:
    """An ASGI application whose whole answers are compressed where the client takes it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and its answer back."""
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
        if not wants_gzip(accepted.decode("latin-1")):
            await self._app(scope, receive, send)
            return
        head: Message = {}

        async def send_compressed(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = message
                return
            if head:
                message = await _compress(head, message)
                await send(head)
                head = {}
            await send(message)

        await self._app(scope, receive, send_compressed)


async def _compress(head: Message, message: Message) -> Message:
    """The first message of an answer's body, compressed where it is the only one; `head` is changed with it."""
    headers = dict(head["headers"])
    body: bytes = message.get("body", b"")
    content_type = headers.get(b"content-type", b"")
    if message.get("more_body") or b"content-encoding" in headers or not shrinks(content_type, len(body)):
        return message
    body = await gzipped(body)
    vary = [value for name, value in head["headers"] if name == b"vary"]
    kept = [pair for pair in head["headers"] if pair[0] not in {b"content-length", b"vary", b"etag"}]
    if (tag := headers.get(b"etag")) is not None:
        kept.append((b"etag", tag if tag.startswith(b"W/") else b"W/" + tag))
    head["headers"] = [
        *kept,
        (b"content-length", str(len(body)).encode()),
        (b"content-encoding", b"gzip"),
        (b"vary", b", ".join([*vary, b"accept-encoding"])),
    ]
    return {"type": "http.response.body", "body": body, "more_body": False}


class _Unpacker:
    """Unpacks gzip data, of one member or several (RFC 1952, section 2.2)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._members = 0

    @property
    def is_whole(self) -> bool:
        """Whether what came so far is no member or whole ones."""
        return not self._members or self._member.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Takes some data; yields its content. Raises BadRequest."""
        while piece:
            if not self._members or self._member.eof:
                self._member = zlib.decompressobj(_GZIP_WINDOW)
                self._members += 1
            if self._members > MEMBERS:
                raise BadRequest(f"The body's gzip data has more than {MEMBERS} members.")
            try:
                content = self._member.decompress(piece, PIECE_BYTES)
            except zlib.error as error:
                raise BadRequest("The body says that it is gzip, and is not.") from error
            piece = self._member.unconsumed_tail or self._member.unused_data
            if content:
                yield content


def _gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return compressor.compress(body) + compressor.flush()


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
