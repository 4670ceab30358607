"""Finds the binding that a request's path means: a trie of segments, the most specific match first.

Which of several matching templates is the most specific is decided from the left: at the first segment in which they
differ, a literal goes before `*`, and `*` before `**`; which variables the segments belong to does not matter. A path
whose last segment ends in a known `:verb` is tried with that verb, the longest first, before it is tried as a whole, so
that `/images/nginx:latest` and `/images/nginx:latest:watch` both work; an encoded `:` begins no verb. Every HTTP method
searches for itself: a binding of another method hides nothing. At the same template a binding of the very method goes
before one of any method. `*` takes a segment that is not empty, `**` also none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote

from uhm_gateway.errors import ConfigurationError, MethodNotAllowed, UnknownPath
from uhm_gateway.mapping.percent import decode, decode_but_slashes
from uhm_gateway.mapping.template import Template, Wildcard

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ANY_METHOD", "Match", "Router"]

ANY_METHOD = "*"
# Longer paths are found anew, or those of one client would fill the memory.
REMEMBERED, REMEMBERED_LENGTH = 1024, 256

Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class Match(Generic[Target]):
    """What was found, and the decoded texts of the template's variables, in their order."""

    target: Target
    captured: tuple[str, ...]


@dataclass(slots=True)
class _Node(Generic[Target]):
    """A place in the trie; `ends` holds the templates that end here, by verb and HTTP method."""

    literals: dict[str, _Node[Target]] = field(default_factory=dict)
    one: _Node[Target] | None = None
    rest: _Node[Target] | None = None
    ends: dict[str, dict[str, tuple[Template, Target]]] = field(default_factory=dict)

    def child(self, segment: str | Wildcard) -> _Node[Target]:
        """The node below, made where it is missing."""
        if isinstance(segment, str):
            return self.literals.setdefault(segment, _Node())
        if segment is Wildcard.ONE:
            self.one = self.one or _Node()
            return self.one
        self.rest = self.rest or _Node()
        return self.rest


class Router(Generic[Target]):
    """Bindings by path and HTTP method."""

    def __init__(self) -> None:
        self._root: _Node[Target] = _Node()
        self._verbs: set[str] = set()
        self._longest_verb = 0
        self._remembered = lru_cache(REMEMBERED)(self._find)

    def add(self, method: str, template: Template, target: Target) -> None:
        """Adds a binding; `method` may be ANY_METHOD.

        Raises ConfigurationError where another one matches exactly the same requests.
        """
        node = self._root
        for segment in template.segments:
            node = node.child(segment)
        methods = node.ends.setdefault(template.verb, {})
        if method in methods:
            raise ConfigurationError(
                f"{method} {template.text} matches the same requests as {methods[method][0].text}."
            )
        methods[method] = (template, target)
        self._remembered.cache_clear()
        if template.verb:
            self._verbs.add(template.verb)
            self._longest_verb = max(self._longest_verb, len(quote(template.verb, safe="")))

    def match(self, method: str, path: str) -> Match[Target]:
        """Finds the binding for a raw (still percent-encoded) path; what was found lately is still known.

        Raises MethodNotAllowed where only other methods have the path, UnknownPath where none has, and BadRequest
        where the path's escapes are broken.
        """
        return (self._remembered if len(path) <= REMEMBERED_LENGTH else self._find)(method, path)

    def _find(self, method: str, path: str) -> Match[Target]:
        allowed: set[str] = set()
        for verb, raw in self._readings(path):
            segments = [decode(segment) for segment in raw] if "%" in path else raw
            for node in _ends(self._root, segments, 0):
                methods = node.ends.get(verb)
                if not methods:
                    continue
                found = methods.get(method) or methods.get(ANY_METHOD)
                if found is not None:
                    return Match(found[1], _capture(found[0], raw))
                allowed.update(methods)
        if allowed:
            raise MethodNotAllowed(method, path=path, allowed=allowed)
        raise UnknownPath(path)

    def _readings(self, path: str) -> Iterator[tuple[str, list[str]]]:
        """The path as verb and segments, in every way that it can be read."""
        segments = path.split("/")[1:] if path != "/" else []
        last = segments[-1] if segments else ""
        colon = last.find(":", max(0, len(last) - 1 - self._longest_verb))
        while colon >= 0:
            verb = decode(last[colon + 1 :])
            if verb in self._verbs:
                yield verb, [*segments[:-1], last[:colon]]
            colon = last.find(":", colon + 1)
        yield "", segments


def _ends(node: _Node[Target], segments: list[str], at: int) -> Iterator[_Node[Target]]:
    """The nodes at which the segments can end, the most specific first."""
    if at == len(segments):
        yield node
    else:
        literal = node.literals.get(segments[at])
        if literal is not None:
            yield from _ends(literal, segments, at + 1)
        if node.one is not None and segments[at]:
            yield from _ends(node.one, segments, at + 1)
    if node.rest is not None:
        yield node.rest


def _capture(template: Template, raw: list[str]) -> tuple[str, ...]:
    return tuple(
        decode(raw[variable.start])
        if variable.is_single
        else decode_but_slashes("/".join(raw[variable.start : variable.end]))
        for variable in template.variables
    )
