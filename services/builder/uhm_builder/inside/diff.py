"""What differs between two images, asked of an appliance that has the layers of both.

Each layer is mounted once, however many of the two images have it, and the layers of each are merged as in a machine,
without the base, which is no part of an image. Layers that both have at their bottom need no look: what no layer above
them mentions is the same in both. What is left is compared by kind, owner, mode, size and target, and only where these
agree by content.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from uhm_builder.errors import TooMuchInside
from uhm_builder.inside.entries import EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from uhm_builder.inside.entries import Entry
    from uhm_builder.inside.tree import Tree

__all__ = ["Change", "ChangeKind", "compare", "shared_bottom"]

MAX_CHANGES = 100_000
MAX_PATHS = 1_000_000


class ChangeKind(StrEnum):
    """As docker diff has them."""

    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A path, and what became of it from the one image to the other."""

    path: str
    kind: ChangeKind


def shared_bottom(before: Sequence[str], after: Sequence[str]) -> int:
    """How many layers both have at their bottom."""
    shared = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        shared += 1
    return shared


def compare(tree: Tree, *, sides: tuple[str, str], unshared: Sequence[str]) -> list[Change]:
    """The changes between two merged trees; `unshared` are the mounted layers that not both have at their bottom."""
    before, after = (_paths(tree, side) for side in sides)
    mentioned = set().union(*(_paths(tree, layer) for layer in unshared))
    kinds = dict.fromkeys(after - before, ChangeKind.ADDED) | dict.fromkeys(before - after, ChangeKind.DELETED)
    kinds |= dict.fromkeys(_changed(tree, sides, sorted(before & after & mentioned)), ChangeKind.CHANGED)
    if len(kinds) > MAX_CHANGES:
        raise TooMuchInside(
            f"The images differ in {len(kinds)} paths; at most {MAX_CHANGES} are told.",
            hint="Compare images that are more alike.",
        )
    return [Change(path=f"/{path}", kind=kinds[path]) for path in sorted(kinds)]


def _paths(tree: Tree, root: str) -> set[str]:
    """All paths below, relative. Raises TooMuchInside."""
    paths = set()
    for path in tree.below(root):
        paths.add(path)
        if len(paths) > MAX_PATHS:
            raise TooMuchInside(f"An image with more than {MAX_PATHS} paths is not compared.")
    return paths


def _changed(tree: Tree, sides: tuple[str, str], paths: Sequence[str]) -> Iterable[str]:
    before, after = (tree.look_below(side, paths) for side in sides)
    for path, one, other in zip(paths, before, after, strict=True):
        if _outside(one) != _outside(other) or not _same_content(tree, one, other):
            yield path


def _outside(entry: Entry) -> tuple[object, ...]:
    """What tells two entries apart without a look into them; a directory's size depends on how it is stored."""
    size = 0 if entry.is_directory else entry.size
    return entry.kind, entry.mode, entry.uid, entry.gid, size, entry.target


def _same_content(tree: Tree, one: Entry, other: Entry) -> bool:
    if one.kind is EntryKind.UNKNOWN:
        return False  # nobody can tell
    if one.kind is not EntryKind.FILE or not one.size:
        return True
    return tree.checksum(one.path) == tree.checksum(other.path)
