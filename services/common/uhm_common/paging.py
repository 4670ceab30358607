"""Page tokens (AIP-158): where the next page of a list begins, signed, so that nobody makes one or moves it elsewhere.

A token is base64url of a version, a tag and the position. The tag is HMAC-SHA256 (RFC 2104), shortened to 128 bits, of
the version, the list that it was made for, and the position. Its key is derived from the service's key file, so that
replicas read each other's tokens, and no service reads another's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from uhm_common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from uhm_common.vault import Vault

__all__ = ["InvalidPageToken", "Listing", "PageTokens", "page_size", "pair"]

Item = TypeVar("Item")

DEFAULT_SIZE = 50
MAX_SIZE = 1000
VERSION = b"\x01"
TAG_BYTES = 16
MAX_LENGTH = 8192
"""Characters of a token. The longest position is a path of 4,095 bytes."""
PURPOSE = "page tokens"


class InvalidPageToken(InvalidArgument):
    """A page token that was not made for this list, or not by us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a token belongs to: the list's name, whose list it is, and everything that it is filtered by."""

    name: str
    owner: str = ""
    filter: tuple[str, ...] = ()


class PageTokens:
    """Makes and reads the page tokens of a service."""

    def __init__(self, vault: Vault) -> None:
        self._key = vault.derive(PURPOSE)

    def make(self, position: str | int, *, of: Listing) -> str:
        """The token of the page that begins behind this position."""
        told = str(position).encode(errors="surrogateescape")
        return _text(VERSION + self._tag(told, of) + told)

    def read(self, token: str, *, of: Listing) -> str:
        """The position that `make` was given for the same list; empty for the first page. Raises InvalidPageToken."""
        if not token:
            return ""
        raw = _bytes(token)
        version, tag, told = raw[:1], raw[1 : 1 + TAG_BYTES], raw[1 + TAG_BYTES :]
        if version != VERSION or not hmac.compare_digest(tag, self._tag(told, of)):
            raise InvalidPageToken(
                f"{token[:80]!r} is not a page token of this list.",
                hint="Take it from next_page_token, and ask with the same filter as before.",
            )
        return told.decode(errors="surrogateescape")

    def read_number(self, token: str, *, of: Listing) -> int | None:
        """Like `read`, where the positions are numbers; None for the first page."""
        position = self.read(token, of=of)
        return int(position) if position else None

    def read_pair(self, token: str, *, of: Listing) -> tuple[int, str] | None:
        """Like `read`, where the positions are what `pair` makes: a time and an id; None for the first page."""
        made, _, last_id = self.read(token, of=of).partition(" ")
        return (int(made), last_id) if made else None

    def cut(
        self, found: list[Item], *, size: int, of: Listing, position: Callable[[Item], str | int]
    ) -> tuple[list[Item], str]:
        """A page and the next one's token, or nothing, of what was found: one more than the size if there is more."""
        if len(found) <= size:
            return found, ""
        return found[:size], self.make(position(found[size - 1]), of=of)

    def _tag(self, told: bytes, of: Listing) -> bytes:
        signed = json.dumps([VERSION.hex(), of.name, of.owner, of.filter, told.hex()]).encode()
        return hmac.digest(self._key, signed, hashlib.sha256)[:TAG_BYTES]


def pair(made: int, item_id: str) -> str:
    """The position in a list that is ordered by time, and by id among what has the same."""
    return f"{made} {item_id}"


def page_size(wanted: int, *, default: int = DEFAULT_SIZE, most: int = MAX_SIZE) -> int:
    """The size of a page, from what was asked for: 0 is the default, and there is a most. Raises InvalidArgument."""
    if wanted < 0:
        raise InvalidArgument(f"page_size is {wanted}.", hint=f"It is between 1 and {most}; 0 is {default}.")
    return min(wanted or default, most)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(token: str) -> bytes:
    """What a token has in it; nothing where it is not spelled as `make` spells them."""
    if len(token) > MAX_LENGTH:
        return b""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (ValueError, binascii.Error):
        return b""
    return raw if _text(raw) == token else b""
