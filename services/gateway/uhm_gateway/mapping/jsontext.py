"""JSON texts, decoded as the JSON mapping of Protocol Buffers asks, which is stricter than Python's json module.

No NaN or Infinity outside strings, no key twice in an object, UTF-8 only. Numbers keep how they were written where a
double could not: `9007199254740993.0` is an int64.
"""

from __future__ import annotations

import json
from typing import Any, Self

from uhm_gateway.errors import BadRequest

__all__ = ["Real", "decode", "loads"]


class Real(float):
    """A number with a fraction or an exponent, and its text."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        """The nearest double; infinite where there is none."""
        self = super().__new__(cls, text)
        self.text = text
        return self


def loads(text: bytes) -> Any:
    """Decodes a body. Raises BadRequest with line and column."""
    try:
        return decode(text.decode())
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno} (character {error.pos})."
        ) from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not JSON: it is not UTF-8 at byte {error.start}.") from error
    except ValueError as error:
        raise BadRequest(f"The body is not JSON that this takes: {error}.") from error


def decode(text: str) -> Any:
    """Decodes JSON. Raises ValueError, of which json.JSONDecodeError is a kind."""
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError | _RefusedError):
            raise
        raise ValueError("an integer has too many digits") from error


class _RefusedError(ValueError):
    """JSON, but not what the mapping allows."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    given: set[str] = set()
    for name, _ in pairs:
        if name in given:
            raise _RefusedError(f"key {name!r} is there twice")
        given.add(name)
    return found


def _no_constant(name: str) -> Any:
    raise _RefusedError(f'{name} is only known as a string, "{name}"')


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=Real)
