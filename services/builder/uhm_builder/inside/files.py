"""Lists of what is in an image, in pages, and the content of its files."""

from __future__ import annotations

import base64
import binascii
import heapq
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.errors import InvalidPageToken, InvalidPath, NoSuchFile, NotReadable, TooMuchInside
from uhm_builder.inside.entries import Entry, EntryKind, shown
from uhm_builder.inside.tree import PIECE
from uhm_common.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from uhm_builder.inside.tree import Tree
    from uhm_builder.inside.views import Views

__all__ = ["FilePage", "Files", "checked_path"]

DEFAULT_SIZE = 1000
MAX_SIZE = 10_000
MAX_PATH = 4095
PIECES_AT_ONCE = 4
"""Pieces of a file that are read before its appliance is lent to somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePage:
    """A page of a list; the token is empty on the last one."""

    entries: list[Entry]
    next_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What to list, and after which name the page begins."""

    path: str
    recursive: bool
    size: int
    after: str = ""


class Files:
    """Files of disks."""

    def __init__(self, views: Views, *, max_bytes: int) -> None:
        """`max_bytes` bounds the files that are read."""
        self._views = views
        self._max_bytes = max_bytes

    async def page(self, disk_digest: str, *, path: str, recursive: bool, size: int, token: str) -> FilePage:
        """A page of a directory, or what else is at the path.

        Raises InvalidPath, InvalidPageToken, NoSuchFile, NotReadable, and what a view raises.
        """
        path = checked_path(path)
        listing = Listing(
            path=path,
            recursive=recursive,
            size=_page_size(size),
            after=_decode(token, path=path, recursive=recursive) if token else "",
        )
        return await self._views.ask(disk_digest, partial(_page, listing=listing))

    async def content(self, disk_digest: str, path: str) -> AsyncGenerator[bytes, None]:
        """A file's content, piece by piece, at the pace at which they are taken.

        Raises InvalidPath, NoSuchFile, NotReadable for what is no regular file, TooMuchInside, and what a view raises.
        """
        path = checked_path(path)
        path, size = await self._views.ask(disk_digest, partial(self._readable, path=path))
        done = 0
        while done < size:
            end = min(done + PIECES_AT_ONCE * PIECE, size)
            pieces = await self._views.ask(disk_digest, partial(_pieces, path=path, start=done, end=end))
            for piece in pieces:
                yield piece
            done = end

    def _readable(self, tree: Tree, *, path: str) -> tuple[str, int]:
        """A regular file's path without symbolic links, and its size."""
        entry = tree.look(tree.resolve(path))
        if entry.kind is not EntryKind.FILE:
            raise NotReadable(
                f"{shown(path)} is a {entry.kind or 'thing of unknown kind'}, and has no content.",
                hint="`uhm files` lists directories.",
            )
        if entry.size > self._max_bytes:
            raise TooMuchInside(
                f"{shown(path)} has {entry.size} bytes; at most {self._max_bytes} are read.",
                hint="UHM_MAX_FILE_BYTES is the bound.",
            )
        return entry.path, entry.size


def checked_path(path: str) -> str:
    """A path that can be asked for; empty stands for the root. Raises InvalidPath."""
    if path and not path.startswith("/"):
        raise InvalidPath(f"{path!r} is no absolute path.", hint=f"Begin with a slash: /{path}.")
    if "\0" in path or len(path.encode()) > MAX_PATH:
        raise InvalidPath(f"A path has at most {MAX_PATH} bytes, none of which is 0.")
    return path.rstrip("/") or "/"


def _pieces(tree: Tree, *, path: str, start: int, end: int) -> list[bytes]:
    pieces = [tree.read(path, offset=offset, count=min(PIECE, end - offset)) for offset in range(start, end, PIECE)]
    if sum(map(len, pieces)) != end - start:
        raise NotReadable(f"{shown(path)} ends before the size that it has.")
    return pieces


def _page(tree: Tree, *, listing: Listing) -> FilePage:
    entry = tree.look(listing.path)
    if entry.kind is EntryKind.SYMLINK:  # a listed link stands for the directory that it leads to, as with ls
        try:
            target = tree.look(listing.path, follow=True)
        except (NoSuchFile, NotReadable):  # it leads nowhere
            return FilePage(entries=[entry])
        entry = target if target.is_directory else entry
    if not entry.is_directory:
        return FilePage(entries=[entry])
    names = tree.below(listing.path) if listing.recursive else tree.names(listing.path)
    chosen = _next_names(names, after=listing.after, count=listing.size + 1)
    page = chosen[: listing.size]
    token = _encode(page[-1], listing) if len(chosen) > len(page) else ""
    return FilePage(entries=tree.look_below(listing.path, page), next_token=token)


def _next_names(names: Iterable[str], *, after: str, count: int) -> list[str]:
    """The first names behind one, in the order of their bytes."""
    return heapq.nsmallest(count, (name for name in names if _order(name) > _order(after)), key=_order)


def _order(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _page_size(wanted: int) -> int:
    if wanted < 0:
        raise InvalidArgument(f"page_size is {wanted}.", hint=f"It is between 1 and {MAX_SIZE}; 0 is {DEFAULT_SIZE}.")
    return min(wanted or DEFAULT_SIZE, MAX_SIZE)


def _encode(last: str, listing: Listing) -> str:
    text = json.dumps([last, listing.path, listing.recursive])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(token: str, *, path: str, recursive: bool) -> str:
    """The name that a page token of the same list ends with. Raises InvalidPageToken."""
    try:
        after, *made_for = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidPageToken(f"{token[:80]!r} is not a page token.", hint="Take it from next_page_token.") from error
    if type(after) is not str or made_for != [path, recursive]:
        raise InvalidPageToken(
            f"The page token {token[:80]!r} belongs to another list.", hint="Ask with the same path as before."
        )
    return after
