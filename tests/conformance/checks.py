"""What tests of the vectors, with servers and without, compare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from tests.conformance.api import mapping

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tests.conformance.vectors import Answered

__all__ = ["check_answer", "expected", "same"]


def expected(text: str, kind: Any) -> Any:
    """A message in text format."""
    return text_format.Parse(text, kind(), descriptor_pool=mapping().api.pool)


def same(one: Message, other: Message) -> bool:
    """Whether two messages are the same over the wire, where NaN is NaN."""
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def check_answer(vector: Answered, content_type: str, body: bytes) -> None:
    """Asserts that an answer is what its vector says."""
    assert content_type == vector.content_type
    if isinstance(vector.body, bytes):
        assert body == vector.body
        return
    answered = json.loads(body)
    if isinstance(vector.body, dict):
        assert set(vector.body) <= set(answered)
        assert not set(vector.absent) & set(answered)
        answered = {name: answered[name] for name in vector.body}
    assert _matches(answered, vector.body), answered


def _matches(value: Any, wanted: Any) -> bool:
    """Equal, also in type, where `...` is anything: JSON tells 0 from false and from 0.0."""
    if isinstance(wanted, dict) and isinstance(value, dict):
        return wanted.keys() == value.keys() and all(_matches(value[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list) and isinstance(value, list):
        return len(wanted) == len(value) and all(map(_matches, value, wanted))
    return wanted is ... or (type(value) is type(wanted) and value == wanted)
