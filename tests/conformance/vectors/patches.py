"""PATCH, whose field mask is filled from the body, and bodies that are not JSON."""

from __future__ import annotations

from tests.conformance.vectors.kinds import Accepted, Refused

__all__ = ["PATCHES"]

_FILLED = "gateway: PATCH fills the field mask from the body"
_GIVEN = "gateway: a field mask that is given stays"
_ONLY = "gateway: only PATCH with one message field as body fills it"
_RAW = "http: google.api.HttpBody takes the body as it is"


def _update(kinds: str, *paths: str) -> str:
    mask = ", ".join(f'"{path}"' for path in paths)
    return f'kinds {{ text: "i" {kinds} }}' + (f" update_mask {{ paths: [{mask}] }}" if paths else "")


_PATCHED = [
    ("scalar", _FILLED, b'{"number": 1}', _update("number: 1", "number")),
    ("default-value", _FILLED, b'{"number": 0}', _update("", "number")),
    ("several-sorted", _FILLED, b'{"number": 1, "big": "2"}', _update("number: 1 big: 2", "big", "number")),
    (
        "json-name",
        _FILLED,
        b'{"bigPositive": "1", "otherName": "x"}',
        _update('big_positive: 1 renamed: "x"', "big_positive", "renamed"),
    ),
    ("nested", _FILLED, b'{"nested": {"text": "x"}}', _update('nested { text: "x" }', "nested.text")),
    (
        "nested-deeper",
        _FILLED,
        b'{"nested": {"nested": {"bigPositive": 1}, "flag": true}}',
        _update("nested { nested { big_positive: 1 } flag: true }", "nested.flag", "nested.nested.big_positive"),
    ),
    ("nested-empty", _FILLED, b'{"nested": {}}', _update("nested {}", "nested")),
    ("null", _FILLED, b'{"number": null, "nested": null}', _update("", "nested", "number")),
    (
        "repeated-stops",
        _FILLED,
        b'{"texts": ["a"], "many": [{"text": "x"}]}',
        _update('texts: "a" many { text: "x" }', "many", "texts"),
    ),
    ("map-stops", _FILLED, b'{"counts": {"a": 1}}', _update('counts { key: "a" value: 1 }', "counts")),
    (
        "well-known-stops",
        _FILLED,
        b'{"time": "1970-01-01T00:00:01Z", "wrapped": 7}',
        _update("time { seconds: 1 } wrapped { value: 7 }", "time", "wrapped"),
    ),
    (
        "struct-stops",
        _FILLED,
        b'{"object": {"a": null}}',
        _update('object { fields { key: "a" value { null_value: NULL_VALUE } } }', "object"),
    ),
    (
        "any-stops",
        _FILLED,
        b'{"any": {"@type": "type.googleapis.com/conformance.v1.Upload", "name": "x"}}',
        _update('any { [type.googleapis.com/conformance.v1.Upload] { name: "x" } }', "any"),
    ),
    ("oneof", _FILLED, b'{"third": {"number": 1}}', _update("third { number: 1 }", "third.number")),
    ("optional", _FILLED, b'{"maybe": 0}', _update("maybe: 0", "maybe")),
    ("path-variable-is-not-in-it", _FILLED, b'{"flag": true}', _update("flag: true", "flag")),
    ("path-variable-given-too", _FILLED, b'{"text": "body"}', _update("", "text")),
    ("empty-object", _FILLED, b"{}", _update("")),
    ("absent", _FILLED, b"", _update("")),
]
_OTHERS = [
    ("given", _GIVEN, "PATCH /v1/patch/i?update_mask=flag", "Patch", b'{"number": 1}', _update("number: 1", "flag")),
    (
        "given-camel-case",
        _GIVEN,
        "PATCH /v1/patch/i?updateMask=bigPositive",
        "Patch",
        b"{}",
        _update("", "big_positive"),
    ),
    (
        "given-empty",
        _FILLED,
        "PATCH /v1/patch/i?update_mask=",
        "Patch",
        b'{"number": 1}',
        _update("number: 1", "number"),
    ),
    (
        "other-parameters",
        _FILLED,
        "PATCH /v1/patch/i?force=true",
        "Patch",
        b'{"flag": true}',
        _update("flag: true", "flag") + " force: true",
    ),
    ("put", _ONLY, "PUT /v1/patch/i", "Patch", b'{"number": 1}', _update("number: 1")),
    ("whole-body", _ONLY, "PATCH /v1/patch", "Patch", b'{"kinds": {"number": 1}}', "kinds { number: 1 }"),
    ("no-body", _ONLY, "PATCH /v1/patch/i:query?kinds.number=1", "Patch", b"", _update("number: 1")),
    (
        "several-masks",
        _FILLED,
        "PATCH /v1/two_masks",
        "PatchTwoMasks",
        b'{"number": 1}',
        'kinds { number: 1 } update_mask { paths: "number" }',
    ),
    (
        "mask-of-another-name",
        _FILLED,
        "PATCH /v1/one_mask",
        "PatchOneMask",
        b'{"number": 1}',
        'nested { number: 1 } mask { paths: "number" }',
    ),
    ("repeated-body", _ONLY, "PATCH /v1/one_mask:texts", "PatchOneMask", b'["a"]', 'texts: "a"'),
    (
        "struct-body",
        _ONLY,
        "PATCH /v1/one_mask:object",
        "PatchOneMask",
        b'{"a": true}',
        'object { fields { key: "a" value { bool_value: true } } }',
    ),
    (
        "in-the-path",
        _GIVEN,
        "PATCH /v1/patch:mask/flag",
        "Patch",
        b'{"number": 1}',
        'kinds { number: 1 } update_mask { paths: "flag" }',
    ),
]
_RAWS = [
    (
        "field",
        "POST /v1/raw/n?tags=a",
        "Raw",
        b"\x00\xff",
        "text/plain",
        'name: "n" tags: "a" body { content_type: "text/plain" data: "\\000\\377" }',
    ),
    (
        "json-is-raw-too",
        "POST /v1/raw/n",
        "Raw",
        b"{}",
        "application/json",
        'name: "n" body { content_type: "application/json" data: "{}" }',
    ),
    (
        "parameters-of-the-type",
        "POST /v1/raw/n",
        "Raw",
        b"x",
        "text/csv; charset=utf-8",
        'name: "n" body { content_type: "text/csv; charset=utf-8" data: "x" }',
    ),
    ("empty", "POST /v1/raw/n", "Raw", b"", "image/png", 'name: "n" body { content_type: "image/png" }'),
    ("whole", "POST /v1/raw", "RawWhole", b"x", "a/b", 'content_type: "a/b" data: "x"'),
]

PATCHES = (
    *(
        Accepted(
            id=f"patch-{name}", clause=clause, request="PATCH /v1/patch/i", method="Patch", message=message, body=body
        )
        for name, clause, body, message in _PATCHED
    ),
    *(
        Accepted(id=f"patch-{name}", clause=clause, request=request, method=method, message=message, body=body)
        for name, clause, request, method, body, message in _OTHERS
    ),
    Refused(
        id="patch-not-unknown", clause=_FILLED, request="PATCH /v1/patch/i", body=b'{"txt": 1}', names="'kinds.txt'"
    ),
    Refused(
        id="patch-not-unknown-nested",
        clause=_FILLED,
        request="PATCH /v1/patch/i",
        body=b'{"nested": {"x": 1}}',
        names="'kinds.nested.x'",
    ),
    Refused(id="patch-not-an-object", clause=_FILLED, request="PATCH /v1/patch/i", body=b"[1]", names="'kinds'"),
    Refused(
        id="patch-not-a-mask",
        clause=_GIVEN,
        request="PATCH /v1/patch/i?update_mask=a,,b",
        body=b"{}",
        names="'update_mask'",
    ),
    *(
        Accepted(
            id=f"raw-{name}",
            clause=_RAW,
            request=request,
            method=method,
            message=message,
            body=body,
            content_type=content_type,
        )
        for name, request, method, body, content_type, message in _RAWS
    ),
    Refused(id="raw-not-unknown-parameter", clause=_RAW, request="POST /v1/raw/n?x=1", body=b"x", names="'x'"),
    Refused(
        id="raw-not-parameter-of-a-whole-body", clause=_RAW, request="POST /v1/raw?data=eA==", body=b"x", names="'data'"
    ),
)
