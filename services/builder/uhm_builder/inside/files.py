"""Lists of what is in an image, in pages, and the content of its files."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from uhm_builder.errors import InvalidPath, NoSuchFile, NotReadable, TooMuchInside
from uhm_builder.inside.entries import Entry, EntryKind, shown
from uhm_builder.inside.tree import PIECE
from uhm_common.paging import Listing, page_size

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from uhm_builder.inside.tree import Tree
    from uhm_builder.inside.views import Views
    from uhm_common.paging import PageTokens

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
class _Wanted:
    """What to list, and after which name the page begins."""

    path: str
    recursive: bool
    size: int
    after: str


class Files:
    """Files of disks."""

    def __init__(self, views: Views, *, page_tokens: PageTokens, max_bytes: int) -> None:
        """`max_bytes` bounds the files that are read."""
        self._views = views
        self._page_tokens = page_tokens
        self._max_bytes = max_bytes

    async def page(self, disk_digest: str, *, path: str, recursive: bool, size: int, token: str) -> FilePage:
        """A page of a directory, or what else is at the path.

        Raises InvalidPath, InvalidPageToken, NoSuchFile, NotReadable, and what a view raises.
        """
        path = checked_path(path)
        listing = Listing(name="files", owner=disk_digest, filter=(path, str(recursive)))
        wanted = _Wanted(
            path=path,
            recursive=recursive,
            size=page_size(size, default=DEFAULT_SIZE, most=MAX_SIZE),
            after=self._page_tokens.read(token, of=listing),
        )
        entries, more = await self._views.ask(disk_digest, partial(_look, wanted=wanted))
        return FilePage(entries=entries, next_token=self._page_tokens.make(more, of=listing) if more else "")

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


def _look(tree: Tree, *, wanted: _Wanted) -> tuple[list[Entry], str]:
    """The entries of a page, and the name after which the next one begins; empty where there is none."""
    entry = tree.look(wanted.path)
    if entry.kind is EntryKind.SYMLINK:  # a listed link stands for the directory that it leads to, as with ls
        try:
            target = tree.look(wanted.path, follow=True)
        except (NoSuchFile, NotReadable):  # it leads nowhere
            return [entry], ""
        entry = target if target.is_directory else entry
    if not entry.is_directory:
        return [entry], ""
    names = tree.below(wanted.path) if wanted.recursive else tree.names(wanted.path)
    chosen = _next_names(names, after=wanted.after, count=wanted.size + 1)
    page = chosen[: wanted.size]
    return tree.look_below(wanted.path, page), page[-1] if len(chosen) > len(page) else ""


def _next_names(names: Iterable[str], *, after: str, count: int) -> list[str]:
    """The first names behind one, in the order of their bytes."""
    return heapq.nsmallest(count, (name for name in names if _order(name) > _order(after)), key=_order)


def _order(name: str) -> bytes:
    return name.encode(errors="surrogateescape")
