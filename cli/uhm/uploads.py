"""Sending an archive to the server: what it has is not sent, and what broke off goes on where it ended.

The archive is made twice, first for its digest, then to be sent, so it must come out the same both times; the server
compares the digest. A small one is kept from the first time, and sent without asking.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from uhm.client import segment
from uhm.errors import ServerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uhm.client import Client

    Content = Callable[[], Iterator[bytes]]

__all__ = ["upload"]

PATH = "/api/v1/contexts"
TYPE = "application/x-tar"
SMALL = 1 << 20
TRIES = 5
PAUSE_SECONDS = 1.0


def upload(client: Client, content: Content) -> dict[str, Any]:
    """The server's answer for an archive that it has now, with `id` in it. Raises CommandError."""
    digest, kept = _digested(content)
    if kept:
        return _send(client, lambda: iter(kept), digest=digest, offset=0)
    for _ in range(TRIES - 1):
        found = client.get(f"{PATH}/{segment(digest)}")
        if found.get("complete"):
            return found
        with suppress(ServerUnreachable):
            return _send(client, content, digest=digest, offset=int(found.get("received_bytes", 0)))
        time.sleep(PAUSE_SECONDS)
    found = client.get(f"{PATH}/{segment(digest)}")
    return _send(client, content, digest=digest, offset=int(found.get("received_bytes", 0)))


def _send(client: Client, content: Content, *, digest: str, offset: int) -> dict[str, Any]:
    return client.upload(PATH, lambda: _from(content(), offset), content_type=TYPE, digest=digest, offset=offset)


def _digested(content: Content) -> tuple[str, list[bytes]]:
    """The digest of an archive, and the archive itself where it is small."""
    sha256, kept, size = hashlib.sha256(), [], 0
    for piece in content():
        sha256.update(piece)
        size += len(piece)
        if size <= SMALL:
            kept.append(piece)
    return f"sha256:{sha256.hexdigest()}", [b"".join(kept)] if size <= SMALL else []


def _from(pieces: Iterator[bytes], offset: int) -> Iterator[bytes]:
    """What comes after so many bytes."""
    for piece in pieces:
        if offset < len(piece):
            yield piece[offset:]
        offset = max(offset - len(piece), 0)
