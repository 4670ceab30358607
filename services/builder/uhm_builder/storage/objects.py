"""What every storage location can do with objects, whatever it is.

Names are relative paths, `images/nginx/latest/manifest.json`; those of a registry are `nginx/blobs/sha256:…` and
`nginx/manifests/latest`, as in its own addresses. Names come from `layouts`, never from what a location says.

All methods raise StorageUnreachable for what may pass, and StorageDenied, StorageFull or StorageRefused for what will
not; the sentence says what the location answered.
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from uhm_builder.errors import ContentMismatch, StorageRefused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from uhm_builder.storage.content import Content

    Report = Callable[[int], None]

__all__ = ["ObjectStore", "Resume", "Stored", "hashed", "ignore", "read_document"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object at a location."""

    name: str
    size: int
    version: str
    """Another one whenever the content is another; empty where the location does not tell."""


def ignore(_done: int) -> None:
    """Hears of progress and does nothing."""


class Resume:
    """Where an upload that broke off can go on: a token of the location's, kept for whoever tries again."""

    def __init__(self, token: str = "") -> None:
        self.token = token

    async def keep(self, token: str) -> None:
        """Notes a token; an empty one when the upload has ended."""
        self.token = token


class ObjectStore(Protocol):
    """An opened location."""

    async def put(self, name: str, content: Content, *, resume: Resume, report: Report = ignore) -> None:
        """Stores an object, or finds it stored. When this returns, the location was seen to hold exactly this content.

        The name has the former object, or none, until the new one is whole. `report` hears how many bytes are there.
        Raises ContentMismatch where the location holds something else afterwards.
        """

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """An object's bytes, or some of them. Raises NotAtStorage."""

    async def stat(self, name: str) -> Stored | None:
        """An object, if it is there."""

    async def listing(self, prefix: str) -> list[Stored]:
        """All objects whose names begin with a prefix that ends with a slash."""

    async def delete(self, name: str) -> None:
        """Deletes an object; one that is not there is deleted already."""

    async def abandon(self, name: str, token: str) -> None:
        """Gives up an upload that broke off, where the location keeps a part of it. Never raises for what is gone."""

    async def close(self) -> None:
        """Ends connections."""


async def read_document(store: ObjectStore, name: str, *, at_most: int) -> bytes:
    """A small object, whole. Raises NotAtStorage, StorageRefused for one that is larger."""
    body = bytearray()
    async with aclosing(store.get(name)) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > at_most:
                raise StorageRefused(f"{name} at the storage location has more than {at_most} bytes.")
    return bytes(body)


async def hashed(store: ObjectStore, name: str, content: Content) -> None:
    """Reads an object back and compares. Raises ContentMismatch, NotAtStorage."""
    sha256 = hashlib.sha256()
    size = 0
    async with aclosing(store.get(name)) as pieces:
        async for piece in pieces:
            sha256.update(piece)
            size += len(piece)
            if size > content.size:
                break
    if size != content.size or f"sha256:{sha256.hexdigest()}" != content.digest:
        raise ContentMismatch(
            f"What the storage location holds as {name} is not what was sent.",
            hint="Publish again; if that does not help, the location is broken.",
        )
