"""Path templates of google.api.http, parsed as google/api/http.proto defines them.

    Template  = "/" Segments [ Verb ] ;
    Segments  = Segment { "/" Segment } ;
    Segment   = "*" | "**" | LITERAL | Variable ;
    Variable  = "{" FieldPath [ "=" Segments ] "}" ;
    FieldPath = IDENT { "." IDENT } ;
    Verb      = ":" LITERAL ;

Where the grammar leaves room: LITERAL is RFC 3986's `pchar` without `*`; in the last segment a literal's last `:`
begins the verb, elsewhere it is part of the literal; `/` alone is the root path; `**` must be the last segment; a
field path may be bound once. Literals and verbs are kept percent-decoded, since requests are compared decoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn
from urllib.parse import unquote

from uhm_gateway.errors import MalformedTemplate
from uhm_gateway.mapping.percent import is_well_formed

__all__ = ["Segment", "Template", "Variable", "Wildcard", "parse_template"]


class Wildcard(Enum):
    """A segment that matches more than one text."""

    ONE = "*"
    REST = "**"


Segment = str | Wildcard


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A field path and the segments `start` up to `end` that it takes; `end` is None where they end in `**`."""

    field_path: str
    start: int
    end: int | None

    @property
    def is_single(self) -> bool:
        """Whether it takes exactly one segment, which decides how it is percent-decoded."""
        return self.end is not None and self.end - self.start == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A parsed template; `verb` is empty where it has none."""

    text: str
    segments: tuple[Segment, ...]
    variables: tuple[Variable, ...]
    verb: str


_IDENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LITERAL = re.compile(r"[A-Za-z0-9\-._~!$&'()+,;=:@%]+")


def parse_template(text: str) -> Template:
    """Parses a template. Raises MalformedTemplate with the position of what does not fit."""
    return _Parser(text).template()


class _Parser:
    """Recursive descent over one template; `_at` is the next character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._segments: list[Segment] = []
        self._variables: list[Variable] = []
        self._verb = ""

    def template(self) -> Template:
        if not self._take("/"):
            self._fail("a template begins with '/'")
        if self._next():
            self._segments_until_end()
        return Template(
            text=self._text, segments=tuple(self._segments), variables=tuple(self._variables), verb=self._verb
        )

    def _segments_until_end(self) -> None:
        self._sequence(inside=None)
        if self._take(":"):
            self._verb = unquote(self._literal("a verb"))
        if self._next():
            self._fail(f"unexpected {self._next()!r}")

    def _sequence(self, *, inside: str | None) -> None:
        """Segments up to what cannot continue them; `inside` names the variable they belong to."""
        self._segment(inside=inside)
        while self._take("/"):
            if self._segments[-1] is Wildcard.REST:
                self._fail("'**' must be the last segment")
            self._segment(inside=inside)

    def _segment(self, *, inside: str | None) -> None:
        match self._next():
            case "*":
                self._wildcard()
            case "{" if inside is not None:
                self._fail(f"variable {inside!r} contains another variable")
            case "{":
                self._variable()
            case "" | "/" | "}":
                self._fail("a segment is empty")
            case _:
                self._literal_segment(inside=inside)

    def _wildcard(self) -> None:
        self._at += 1
        self._segments.append(Wildcard.REST if self._take("*") else Wildcard.ONE)
        if self._next() not in {"", "/", ":", "}"}:
            self._fail("a wildcard must be a whole segment")

    def _variable(self) -> None:
        begin = self._at
        self._at += 1
        names = [self._ident()]
        while self._take("."):
            names.append(self._ident())
        field_path = ".".join(names)
        if any(variable.field_path == field_path for variable in self._variables):
            self._fail(f"variable {field_path!r} is bound twice", position=begin)
        start = len(self._segments)
        if self._take("="):
            self._sequence(inside=field_path)
        else:
            self._segments.append(Wildcard.ONE)
        if not self._take("}"):
            self._fail(f"variable {field_path!r} is not closed" if not self._next() else f"unexpected {self._next()!r}")
        if self._next() not in {"", "/", ":"}:
            self._fail("a variable must be a whole segment")
        end = None if self._segments[-1] is Wildcard.REST else len(self._segments)
        self._variables.append(Variable(field_path=field_path, start=start, end=end))

    def _literal_segment(self, *, inside: str | None) -> None:
        begin = self._at
        literal = self._literal("a segment")
        if self._next() in {"{", "*"}:
            self._fail("a variable or wildcard must be a whole segment")
        if inside is None and not self._next() and ":" in literal:
            literal, _, verb = literal.rpartition(":")
            self._at = begin + len(literal)
            if not literal:
                self._fail("a segment is empty")
            if not verb:
                self._fail("the verb is empty")
            self._verb = unquote(verb)
            self._at = len(self._text)
        self._segments.append(unquote(literal))

    def _ident(self) -> str:
        found = _IDENT.match(self._text, self._at)
        if found is None:
            self._fail("a field name was expected")
        self._at = found.end()
        return found.group()

    def _literal(self, what: str) -> str:
        found = _LITERAL.match(self._text, self._at)
        if found is None:
            self._fail(f"{what} was expected" if not self._next() else f"{self._next()!r} must be percent-encoded")
        if not is_well_formed(found.group()):
            self._fail("'%' must be followed by two hexadecimal digits", position=self._text.index("%", self._at))
        if "\N{REPLACEMENT CHARACTER}" in unquote(found.group()):
            self._fail("what is percent-encoded must be UTF-8")
        self._at = found.end()
        return found.group()

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, char: str) -> bool:
        taken = self._next() == char
        self._at += taken
        return taken

    def _fail(self, problem: str, *, position: int | None = None) -> NoReturn:
        at = self._at if position is None else position
        raise MalformedTemplate(self._text, position=at, problem=problem)
