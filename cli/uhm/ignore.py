"""`.dockerignore` as Docker has it (moby/patternmatcher): which paths of a build context are left out.

Patterns are Go's `filepath.Match` with `**`, and the last one that matches decides; `!` takes back. A pattern that
matches a directory matches what is below it.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uhm.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["IgnorePattern", "IgnoreRules", "read_patterns"]

ESCAPED = frozenset(".+()|{}$^")
WILDCARDS = frozenset("*?[\\")


def read_patterns(text: str) -> list[str]:
    """The patterns of a file: no comments, no blank lines, cleaned paths, relative to the context."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        pattern = line.strip()
        negated = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip()
        if pattern:
            pattern = posixpath.normpath(pattern)
            # normpath keeps two leading slashes, as POSIX has it.
            pattern = pattern.lstrip("/") or "/"
        patterns.append(f"!{pattern}" if negated else pattern)
    return patterns


@dataclass(frozen=True, slots=True)
class IgnorePattern:
    """One compiled pattern; `negated` for one that takes back."""

    text: str
    negated: bool
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, pattern: str) -> IgnorePattern:
        """Raises CommandError for one that is not valid."""
        negated = pattern.startswith("!")
        text = pattern.removeprefix("!")
        if not text:
            raise CommandError('.dockerignore has an illegal exclusion pattern: "!".')
        try:
            return cls(text, negated, re.compile(_translate(text), re.DOTALL))
        except re.error as error:
            raise CommandError(f".dockerignore has a malformed pattern {pattern!r}: {error}.") from error

    def matches(self, path: str) -> bool:
        """Whether it matches this very path."""
        return self.regex.fullmatch(path) is not None

    def may_match_below(self, directory: str) -> bool:
        """Whether something below a directory could match."""
        if WILDCARDS & set(self.text):
            return True
        return f"{self.text}/".startswith(f"{directory}/") or f"{directory}/".startswith(f"{self.text}/")


class IgnoreRules:
    """All patterns of a context, in order."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [IgnorePattern.parse(pattern) for pattern in patterns if pattern not in {".", "!."}]

    def excludes(self, path: str) -> bool:
        """Whether a path, relative to the context, is left out."""
        parts = path.split("/")
        paths = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        excluded = False
        for pattern in self._patterns:
            if pattern.negated == excluded and any(pattern.matches(each) for each in paths):
                excluded = not pattern.negated
        return excluded

    def excludes_below(self, directory: str) -> bool:
        """Whether everything below an excluded directory is left out, so that nobody need look."""
        return not any(pattern.negated and pattern.may_match_below(directory) for pattern in self._patterns)

    def keeping(self, paths: Sequence[str]) -> IgnoreRules:
        """The same rules, except that these paths are never left out: the engine needs its Dockerfile."""
        kept = IgnoreRules(())
        kept._patterns = [*self._patterns, *(IgnorePattern.parse(f"!{path}") for path in paths if self.excludes(path))]
        return kept


def _translate(pattern: str) -> str:
    """The pattern as a regular expression for a whole path."""
    at, written = 0, ""
    in_class = False
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign == "\\":
            written += re.escape(pattern[at : at + 1] or "\\")
            at += 1
        elif in_class:
            in_class = sign != "]"
            written += "\\[" if sign == "[" else sign
        elif sign == "*" and pattern[at : at + 1] == "*":
            at += 1
            slash = pattern[at : at + 1] == "/"
            # Docker takes a leading `**` before plain text for "ends with": `**name` also matches `othername`.
            is_suffix = at == 2 and not slash and not WILDCARDS & set(pattern[at:])
            at += slash
            written += ".*" if at >= len(pattern) or is_suffix else "(?:.*/)?"
        elif sign == "*":
            written += "[^/]*"
        elif sign == "?":
            written += "[^/]"
        elif sign == "[":
            in_class = True
            written += sign
        else:
            written += f"\\{sign}" if sign in ESCAPED else sign
    return written
