"""Requests by their path: which binding they mean, and what its variables get."""

from __future__ import annotations

from tests.conformance.vectors.kinds import Accepted, Refused

__all__ = ["PATHS"]

_MATCH = "http: Path template syntax"
_SPECIFIC = "ours: the most specific match wins, from the left, literal over * over **"
_VERBS = "http: Verb"
_SINGLE = "http: a variable of one segment, fully decoded"
_MULTI = "http: a variable of several segments, decoded but for %2F"
_TYPED = "http: path variables are fields of a primitive type"
_BINDINGS = "http: additional_bindings"
_CUSTOM = "http: custom patterns"

_MATCHED = [
    ("literal", _MATCH, "GET /v1/literal", "Literal", ""),
    ("literal-escaped-in-the-request", _MATCH, "GET /v1/%6Citer%61l", "Literal", ""),
    ("literal-escaped-in-the-template", _MATCH, "GET /v1/a%20b/x", "Escaped", 'text: "x"'),
    ("one", _MATCH, "GET /v1/one/x", "One", 'text: "x"'),
    ("explicit-one", "http: {var} is {var=*}", "GET /v1/explicit/x", "Explicit", 'text: "x"'),
    ("fixed", _MATCH, "GET /v1/fixed/end", "Fixed", 'text: "fixed"'),
    ("wildcard-is-not-bound", _MATCH, "GET /v1/wild/a/b", "Wild", 'text: "b"'),
    ("rest-of-none", "http: ** matches zero or more segments", "GET /v1/rest", "WildRest", ""),
    ("rest-of-one", "http: ** matches zero or more segments", "GET /v1/rest/a", "WildRest", ""),
    ("rest-of-several", "http: ** matches zero or more segments", "GET /v1/rest/a/b/c", "WildRest", ""),
    ("two", _MATCH, "GET /v1/two/a/b", "Two", 'text: "a" renamed: "b"'),
    ("nested-fields", "http: FieldPath", "GET /v1/nested/a/b", "Nested", 'nested { text: "a" nested { text: "b" } }'),
    ("several-segments", _MATCH, "GET /v1/shelves/1/books/2", "Books", 'text: "shelves/1/books/2"'),
    ("several-segments-rest", _MATCH, "GET /v1/shelves/1/pens/2", "Shelf", 'text: "shelves/1/pens/2"'),
    ("several-segments-none", "http: ** matches zero or more segments", "GET /v1/shelves", "Shelf", 'text: "shelves"'),
    ("files", _MATCH, "GET /v1/files/a/b.txt", "Files", 'text: "a/b.txt"'),
    (
        "no-leading-slash",
        "http: path variables must not capture the leading /",
        "GET /v1/files/a",
        "Files",
        'text: "a"',
    ),
    ("files-none", "http: ** matches zero or more segments", "GET /v1/files", "Files", 'text: ""'),
    ("files-trailing-slash", "http: ** matches zero or more segments", "GET /v1/files/a/", "Files", 'text: "a/"'),
    ("files-empty-inside", "http: ** matches zero or more segments", "GET /v1/files/a//b", "Files", 'text: "a//b"'),
    ("literal-over-one", _SPECIFIC, "GET /v1/one/newest", "OneNewest", ""),
    ("literal-over-rest", _SPECIFIC, "GET /v1/shelves/1/books", "ShelfBooks", 'text: "1"'),
    ("segments-over-rest", _SPECIFIC, "GET /v1/shelves/a/books/b", "Books", 'text: "shelves/a/books/b"'),
    ("escaped-literal-over-one", _SPECIFIC, "GET /v1/one/ne%77est", "OneNewest", ""),
    ("method-of-the-literal-only", _SPECIFIC, "DELETE /v1/one/newest", "One", 'text: "newest"'),
    ("verb", _VERBS, "GET /v1/one/x:watch", "OneWatch", 'text: "x"'),
    ("verb-after-colon", _VERBS, "GET /v1/one/a:b:watch", "OneWatch", 'text: "a:b"'),
    ("verb-longest-first", _VERBS, "GET /v1/one/x:re:watch", "OneRewatch", 'text: "x"'),
    ("verb-of-another-method", _VERBS, "GET /v1/one/x:cancel", "One", 'text: "x:cancel"'),
    ("verb-unknown", _VERBS, "GET /v1/one/nginx:latest", "One", 'text: "nginx:latest"'),
    ("verb-escaped-colon", _VERBS, "GET /v1/one/x%3Awatch", "One", 'text: "x:watch"'),
    ("verb-escaped-letter", _VERBS, "GET /v1/one/x:w%61tch", "OneWatch", 'text: "x"'),
    ("verb-of-a-literal", _VERBS, "GET /v1/literal:verb", "LiteralVerb", ""),
    ("verb-after-rest", _VERBS, "GET /v1/files/a/b:download", "FilesDownload", 'text: "a/b"'),
    ("verb-after-rest-of-none", _VERBS, "GET /v1/files/:download", "FilesDownload", 'text: ""'),
    ("verb-before-the-end", _VERBS, "GET /v1/files/a:download/b", "Files", 'text: "a:download/b"'),
    ("single-slash", _SINGLE, "GET /v1/one/a%2Fb", "One", 'text: "a/b"'),
    ("single-slash-lower", _SINGLE, "GET /v1/one/a%2fb", "One", 'text: "a/b"'),
    ("single-space", _SINGLE, "GET /v1/one/a%20b", "One", 'text: "a b"'),
    ("single-plus", "uri: + is a literal in a path", "GET /v1/one/a+b", "One", 'text: "a+b"'),
    ("single-plus-escaped", _SINGLE, "GET /v1/one/a%2Bb", "One", 'text: "a+b"'),
    ("single-percent", _SINGLE, "GET /v1/one/100%25", "One", 'text: "100%"'),
    ("single-decoded-once", _SINGLE, "GET /v1/one/a%252Fb", "One", 'text: "a%2Fb"'),
    ("single-question", _SINGLE, "GET /v1/one/a%3Fb%23c", "One", 'text: "a?b#c"'),
    ("single-utf-8", _SINGLE, "GET /v1/one/%E2%82%AC", "One", 'text: "€"'),
    ("single-sub-delims", "uri: pchar", "GET /v1/one/!$&'()*,;=:@", "One", 'text: "!$&\'()*,;=:@"'),
    ("single-dots", "uri: pchar", "GET /v1/one/a.b~c_d-e", "One", 'text: "a.b~c_d-e"'),
    ("single-fixed", _SINGLE, "GET /v1/f%69xed/end", "Fixed", 'text: "fixed"'),
    ("multi-slash", _MULTI, "GET /v1/files/a%2Fb", "Files", 'text: "a%2Fb"'),
    ("multi-slash-lower", _MULTI, "GET /v1/files/a%2fb", "Files", 'text: "a%2fb"'),
    ("multi-space", _MULTI, "GET /v1/files/a%20b/c", "Files", 'text: "a b/c"'),
    ("multi-colon", _MULTI, "GET /v1/files/a%3Ab", "Files", 'text: "a:b"'),
    ("multi-question", _MULTI, "GET /v1/files/a%3Fb%23c", "Files", 'text: "a?b#c"'),
    ("multi-plus", "uri: + is a literal in a path", "GET /v1/files/a+b", "Files", 'text: "a+b"'),
    ("multi-percent", _MULTI, "GET /v1/files/a%252Fb", "Files", 'text: "a%2Fb"'),
    ("multi-utf-8", _MULTI, "GET /v1/files/%E2%82%AC", "Files", 'text: "€"'),
    ("multi-segments", _MULTI, "GET /v1/shelves/a%2Fb/books/c%20d", "Books", 'text: "shelves/a%2Fb/books/c d"'),
    ("typed-number", _TYPED, "GET /v1/typed/number/-7", "Typed", "number: -7"),
    ("typed-big", _TYPED, "GET /v1/typed/big/9223372036854775807", "Typed", "big: 9223372036854775807"),
    ("typed-flag", _TYPED, "GET /v1/typed/flag/true", "Typed", "flag: true"),
    ("typed-exact", _TYPED, "GET /v1/typed/exact/-1.5e3", "Typed", "exact: -1500"),
    ("typed-infinity", _TYPED, "GET /v1/typed/exact/-Infinity", "Typed", "exact: -inf"),
    ("typed-enum-name", _TYPED, "GET /v1/typed/colour/BLUE", "Typed", "colour: BLUE"),
    ("typed-enum-alias", _TYPED, "GET /v1/typed/colour/AZURE", "Typed", "colour: BLUE"),
    ("typed-enum-number", _TYPED, "GET /v1/typed/colour/1", "Typed", "colour: RED"),
    ("typed-bytes", _TYPED, "GET /v1/typed/data/aGk_", "Typed", 'data: "hi?"'),
    ("typed-bytes-standard", _TYPED, "GET /v1/typed/data/aGk%2F", "Typed", 'data: "hi?"'),
    (
        "typed-time",
        "gateway: well-known types in paths",
        "GET /v1/typed/time/1970-01-01T00:00:01Z",
        "Typed",
        "time { seconds: 1 }",
    ),
    (
        "typed-wait",
        "gateway: well-known types in paths",
        "GET /v1/typed/wait/1.5s",
        "Typed",
        "wait { seconds: 1 nanos: 500000000 }",
    ),
    (
        "typed-mask",
        "gateway: well-known types in paths",
        "GET /v1/typed/mask/a,bC.d",
        "Typed",
        'mask { paths: ["a", "b_c.d"] }',
    ),
    ("typed-wrapped", "gateway: well-known types in paths", "GET /v1/typed/wrapped/7", "Typed", "wrapped { value: 7 }"),
    ("typed-optional", _TYPED, "GET /v1/typed/maybe/0", "Typed", "maybe: 0"),
    ("typed-oneof", _TYPED, "GET /v1/typed/one/x", "Typed", 'one: "x"'),
    ("additional", _BINDINGS, "GET /v1/also/x/5", "One", 'text: "x" number: 5'),
    ("additional-method", _BINDINGS, "DELETE /v1/one/x", "One", 'text: "x"'),
    ("custom-kind", _CUSTOM, "LIST /v1/methods", "ListMethod", ""),
    ("custom-any", _CUSTOM, "PURGE /v1/methods/x", "AnyMethod", 'text: "x"'),
    ("custom-any-is-less-specific", _SPECIFIC, "GET /v1/methods/x", "GetMethod", 'text: "x"'),
]
_REFUSED = [
    ("unknown", _MATCH, "GET /v2", 404, "/v2"),
    ("trailing-slash", _MATCH, "GET /v1/literal/", 404, "/v1/literal/"),
    ("longer", _MATCH, "GET /v1/one/x/y", 404, "/v1/one/x/y"),
    ("shorter", _MATCH, "GET /v1/two/a", 404, "/v1/two/a"),
    ("case", _MATCH, "GET /V1/literal", 404, "/V1/literal"),
    ("one-of-nothing", "ours: * takes a segment that is not empty", "GET /v1/one/", 404, "/v1/one/"),
    ("wildcard-of-nothing", "ours: * takes a segment that is not empty", "GET /v1/wild//b", 404, "/v1/wild//b"),
    ("escaped-slash-separates-nothing", _MATCH, "GET /v1%2Fliteral", 404, "/v1%2Fliteral"),
    ("only-with-verb", _VERBS, "GET /v1/a%20b:watch", 404, "watch"),
    ("other-method", _MATCH, "POST /v1/literal", 405, "GET"),
    ("other-method-of-verb", _VERBS, "PUT /v1/one/x:cancel", 405, "POST"),
    ("escape-cut", "uri: pct-encoded", "GET /v1/one/%2", 400, "two hexadecimal digits"),
    ("escape-not-hexadecimal", "uri: pct-encoded", "GET /v1/one/%zz", 400, "two hexadecimal digits"),
    ("escape-not-utf-8", "http: strings are UTF-8", "GET /v1/one/%ff", 400, "UTF-8"),
    ("escape-surrogate", "http: strings are UTF-8", "GET /v1/one/%ED%A0%80", 400, "UTF-8"),
    ("number-is-text", _TYPED, "GET /v1/typed/number/x", 400, "'number'"),
    ("number-too-large", _TYPED, "GET /v1/typed/number/2147483648", 400, "'number'"),
    ("number-with-space", _TYPED, "GET /v1/typed/number/%201", 400, "'number'"),
    ("number-of-another-script", _TYPED, "GET /v1/typed/number/%D9%A3", 400, "'number'"),
    ("flag-is-number", _TYPED, "GET /v1/typed/flag/1", 400, "'flag'"),
    ("flag-upper-case", _TYPED, "GET /v1/typed/flag/TRUE", 400, "'flag'"),
    ("enum-unknown-name", _TYPED, "GET /v1/typed/colour/red", 400, "'colour'"),
    ("bytes-not-base64", _TYPED, "GET /v1/typed/data/!", 400, "'data'"),
    ("time-without-zone", _TYPED, "GET /v1/typed/time/1970-01-01T00:00:01", 400, "'time'"),
    ("wait-without-unit", _TYPED, "GET /v1/typed/wait/5", 400, "'wait'"),
]

PATHS = (
    *(
        Accepted(id=f"path-{name}", clause=clause, request=request, method=method, message=message)
        for name, clause, request, method, message in _MATCHED
    ),
    *(
        Refused(id=f"path-not-{name}", clause=clause, request=request, status=status, names=names)
        for name, clause, request, status, names in _REFUSED
    ),
)
