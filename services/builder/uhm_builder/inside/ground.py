"""What a new layer stands on: the image's tree, and what the layer has put there already.

Paths are resolved as the kernel of a machine would: symbolic links of the image are followed inside of it, so that a
file written to /var/run/x lands in /run where the image says that they are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from uhm_builder.errors import CustomizationFailed, NoSuchFile
from uhm_builder.inside.entries import Entry, EntryKind, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Ground", "Looks"]

MAX_LINKS = 40
"""As many as Linux follows (path_resolution(7))."""


class Looks(Protocol):
    """What of a `Tree` is needed here."""

    def look(self, path: str) -> Entry:
        """What is at a path."""

    def names(self, directory: str) -> Iterable[str]:
        """The names in a directory. Raises NoSuchFile."""

    def look_at(self, directory: str, names: Sequence[str]) -> list[Entry]:
        """What these names are."""


class Ground:
    """Finds and resolves paths; remembers what it was told and what it has seen."""

    def __init__(self, tree: Looks) -> None:
        self._tree = tree
        self._planned: dict[str, Entry] = {}
        self._seen: dict[str, Entry] = {}
        self._names: dict[str, frozenset[str]] = {}

    def plan(self, entry: Entry) -> None:
        """Notes what the layer puts at a path."""
        self._planned[entry.path] = entry

    def find(self, path: str) -> Entry | None:
        """What is at a resolved path, symbolic links not followed."""
        if path in self._planned:
            return self._planned[path]
        if path == "/":
            return self._tree.look("/")
        directory, _, name = path.rpartition("/")
        directory = directory or "/"
        if name not in self.names(directory):
            return None
        if path not in self._seen:
            self._seen[path] = self._tree.look_at(directory, [name])[0]
        return self._seen[path]

    def names(self, directory: str) -> frozenset[str]:
        """The names that the image has in a resolved directory; none where it has no such directory."""
        if directory not in self._names:
            try:
                self._names[directory] = frozenset(self._tree.names(directory))
            except NoSuchFile:
                self._names[directory] = frozenset()
        return self._names[directory]

    def resolve(self, path: str, *, follow: bool = True) -> str:
        """The path without symbolic links, save the last one on demand; what is not there yet stays as it is.

        Raises CustomizationFailed where a file is in the way, or links lead in circles.
        """
        done: list[str] = []
        ahead = _parts(path)
        links = 0
        while ahead:
            part = ahead.pop()
            if part == "..":
                done = done[:-1]
                continue
            here = f"/{'/'.join([*done, part])}"
            entry = self.find(here)
            if entry is not None and entry.kind is EntryKind.SYMLINK and (ahead or follow):
                links += 1
                if links > MAX_LINKS:
                    raise CustomizationFailed(f"Symbolic links of the image lead from {shown(path)} in circles.")
                if entry.target.startswith("/"):
                    done = []
                ahead += _parts(entry.target)
            elif entry is not None and ahead and not entry.is_directory:
                raise CustomizationFailed(f"{shown(here)} is no directory in the image, so nothing can be below it.")
            else:
                done.append(part)
        return f"/{'/'.join(done)}"


def _parts(path: str) -> list[str]:
    """The parts of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]
