"""Path templates: the grammar of google/api/http.proto, and what is not in it."""

from __future__ import annotations

from tests.conformance.vectors.kinds import Malformed, WellFormed
from uhm_gateway.mapping.template import Variable, Wildcard

__all__ = ["MALFORMED", "WELL_FORMED"]

ONE, REST = Wildcard.ONE, Wildcard.REST


def _variable(field_path: str, start: int, end: int | None = None) -> Variable:
    return Variable(field_path=field_path, start=start, end=end)


WELL_FORMED = tuple(
    WellFormed(
        id=f"template-{name}", clause=f"http: {clause}", text=text, segments=segments, variables=tuple(v), verb=verb
    )
    for name, clause, text, segments, v, verb in [
        ("literal", "Segments = Segment", "/v1", ("v1",), [], ""),
        ("literals", 'Segments = Segment { "/" Segment }', "/v1/a/b", ("v1", "a", "b"), [], ""),
        ("one", 'Segment = "*"', "/v1/*", ("v1", ONE), [], ""),
        ("one-inside", 'Segment = "*"', "/v1/*/books", ("v1", ONE, "books"), [], ""),
        ("rest", 'Segment = "**"', "/v1/**", ("v1", REST), [], ""),
        ("rest-alone", 'Segment = "**"', "/**", (REST,), [], ""),
        ("rest-verb", "** is last except the Verb", "/v1/**:go", ("v1", REST), [], "go"),
        ("variable", 'Variable = "{" FieldPath "}"', "/v1/{a}", ("v1", ONE), [_variable("a", 1, 2)], ""),
        ("variable-first", "Segment = Variable", "/{a}", (ONE,), [_variable("a", 0, 1)], ""),
        ("variable-one", "{var} is {var=*}", "/v1/{a=*}", ("v1", ONE), [_variable("a", 1, 2)], ""),
        ("variable-rest", '"=" Segments', "/v1/{a=**}", ("v1", REST), [_variable("a", 1)], ""),
        ("variable-literal", '"=" Segments', "/v1/{a=b}", ("v1", "b"), [_variable("a", 1, 2)], ""),
        (
            "variable-segments",
            '"=" Segments',
            "/v1/{a=b/*/c/*}",
            ("v1", "b", ONE, "c", ONE),
            [_variable("a", 1, 5)],
            "",
        ),
        ("variable-mixed-rest", '"=" Segments', "/v1/{a=b/**}", ("v1", "b", REST), [_variable("a", 1)], ""),
        ("variable-then-literal", "Segments", "/v1/{a=b/*}/c", ("v1", "b", ONE, "c"), [_variable("a", 1, 3)], ""),
        (
            "variables",
            "Segments",
            "/v1/{a}/{b=x/*}",
            ("v1", ONE, "x", ONE),
            [_variable("a", 1, 2), _variable("b", 2, 4)],
            "",
        ),
        ("field-path", 'FieldPath = IDENT { "." IDENT }', "/{a.b_c.d1}", (ONE,), [_variable("a.b_c.d1", 0, 1)], ""),
        ("ident-underscore", "IDENT", "/{_a}", (ONE,), [_variable("_a", 0, 1)], ""),
        ("ident-upper", "IDENT", "/{A9}", (ONE,), [_variable("A9", 0, 1)], ""),
        ("verb", 'Verb = ":" LITERAL', "/v1/a:go", ("v1", "a"), [], "go"),
        ("verb-after-variable", "Verb", "/v1/{a}:go", ("v1", ONE), [_variable("a", 1, 2)], "go"),
        ("verb-after-one", "Verb", "/v1/*:go", ("v1", ONE), [], "go"),
        ("verb-of-a-single-segment", "Verb", "/a:go", ("a",), [], "go"),
        ("verb-with-colon", "Verb, LITERAL", "/{a}:re:go", (ONE,), [_variable("a", 0, 1)], "re:go"),
        ("verb-is-after-the-last-colon", "Verb, LITERAL", "/a:b:go", ("a:b",), [], "go"),
        ("verb-escaped", "LITERAL", "/{a}:g%6F", (ONE,), [_variable("a", 0, 1)], "go"),
        ("colon-inside", "LITERAL", "/a:b/c", ("a:b", "c"), [], ""),
        ("colon-in-variable", "LITERAL", "/{a=b:c}", ("b:c",), [_variable("a", 0, 1)], ""),
        ("escaped", "LITERAL, percent-encoded before matching", "/a%20b/%E2%82%AC", ("a b", "€"), [], ""),
        ("escaped-slash", "LITERAL, percent-encoded before matching", "/a%2Fb", ("a/b",), [], ""),
        ("escaped-brace", "LITERAL, percent-encoded before matching", "/%7Ba%7D", ("{a}",), [], ""),
        ("unreserved", "LITERAL", "/-._~", ("-._~",), [], ""),
        ("sub-delims", "LITERAL", "/!$&'()+,;=@", ("!$&'()+,;=@",), [], ""),
        ("dots", "LITERAL", "/.well-known/jwks.json", (".well-known", "jwks.json"), [], ""),
        ("root", "Segments may be empty (grpc-gateway)", "/", (), [], ""),
    ]
)

_SLASH = 'Template = "/" Segments [ Verb ]'
_SEGMENTS = 'Segments = Segment { "/" Segment }'
_SEGMENT = 'Segment = "*" | "**" | LITERAL | Variable'
_VARIABLE = 'Variable = "{" FieldPath [ "=" Segments ] "}"'
_FIELD_PATH = 'FieldPath = IDENT { "." IDENT }'
_VERB = 'Verb = ":" LITERAL'
_LAST = "** must be the last part of the path except the Verb"
_NESTED = "a variable template must not contain other variables"
_LITERAL = "LITERAL, reserved characters are percent-encoded"

MALFORMED = tuple(
    Malformed(id=f"malformed-{name}", clause=f"http: {clause}", text=text, position=position, problem=problem)
    for name, clause, text, position, problem in [
        ("empty", _SLASH, "", 0, "begins with '/'"),
        ("no-slash", _SLASH, "v1/a", 0, "begins with '/'"),
        ("only-a-verb", _SLASH, ":go", 0, "begins with '/'"),
        ("only-a-variable", _SLASH, "{a}", 0, "begins with '/'"),
        ("only-a-wildcard", _SLASH, "*", 0, "begins with '/'"),
        ("space-first", _SLASH, " /v1", 0, "begins with '/'"),
        ("two-slashes", _SEGMENTS, "//", 1, "a segment is empty"),
        ("two-slashes-first", _SEGMENTS, "//v1", 1, "a segment is empty"),
        ("two-slashes-inside", _SEGMENTS, "/v1//a", 4, "a segment is empty"),
        ("slash-last", _SEGMENTS, "/v1/", 4, "a segment is empty"),
        ("slash-after-variable", _SEGMENTS, "/{a}/", 5, "a segment is empty"),
        ("verb-without-a-segment", _SEGMENTS, "/:go", 1, "a segment is empty"),
        ("verb-after-a-slash", _SEGMENTS, "/v1/:go", 4, "a segment is empty"),
        ("three-stars", _SEGMENT, "/***", 3, "a wildcard must be a whole segment"),
        ("star-then-text", _SEGMENT, "/*a", 2, "a wildcard must be a whole segment"),
        ("text-then-star", _SEGMENT, "/a*", 2, "a variable or wildcard must be a whole segment"),
        ("star-inside-text", _SEGMENT, "/a*b", 2, "a variable or wildcard must be a whole segment"),
        ("two-stars-then-text", _SEGMENT, "/**a", 3, "a wildcard must be a whole segment"),
        ("text-then-variable", _SEGMENT, "/a{b}", 2, "a variable or wildcard must be a whole segment"),
        ("variable-then-text", _SEGMENT, "/{a}b", 4, "a variable must be a whole segment"),
        ("two-variables-in-one", _SEGMENT, "/{a}{b}", 4, "a variable must be a whole segment"),
        ("variable-then-star", _SEGMENT, "/{a}*", 4, "a variable must be a whole segment"),
        ("brace-closes-nothing", _SEGMENT, "/}", 1, "a segment is empty"),
        ("brace-closes-nothing-after-text", _SEGMENT, "/a}", 2, "unexpected '}'"),
        ("not-closed", _VARIABLE, "/{a", 3, "variable 'a' is not closed"),
        ("not-closed-after-equals", _VARIABLE, "/{a=", 4, "a segment is empty"),
        ("not-closed-after-segments", _VARIABLE, "/{a=b", 5, "variable 'a' is not closed"),
        ("not-closed-before-slash", _VARIABLE, "/{a/b}", 3, "unexpected '/'"),
        ("closed-twice", _VARIABLE, "/{a}}", 4, "a variable must be a whole segment"),
        ("opened-twice", _VARIABLE, "/{{a}}", 2, "a field name was expected"),
        ("no-segments", _VARIABLE, "/{a=}", 4, "a segment is empty"),
        ("segments-begin-with-a-slash", _VARIABLE, "/{a=/b}", 4, "a segment is empty"),
        ("segments-end-with-a-slash", _VARIABLE, "/{a=b/}", 6, "a segment is empty"),
        ("segments-with-two-slashes", _VARIABLE, "/{a=b//c}", 6, "a segment is empty"),
        ("space-in-variable", _VARIABLE, "/{a }", 3, "unexpected ' '"),
        ("colon-in-field", _VARIABLE, "/{a:b}", 3, "unexpected ':'"),
        ("pattern-in-variable", _VARIABLE, "/{a:[0-9]+}", 3, "unexpected ':'"),
        ("no-name", _FIELD_PATH, "/{}", 2, "a field name was expected"),
        ("no-name-but-segments", _FIELD_PATH, "/{=a}", 2, "a field name was expected"),
        ("no-name-at-the-end", _FIELD_PATH, "/{", 2, "a field name was expected"),
        ("digit-first", _FIELD_PATH, "/{1a}", 2, "a field name was expected"),
        ("dash", _FIELD_PATH, "/{a-b}", 3, "unexpected '-'"),
        ("dot-first", _FIELD_PATH, "/{.a}", 2, "a field name was expected"),
        ("dot-last", _FIELD_PATH, "/{a.}", 4, "a field name was expected"),
        ("two-dots", _FIELD_PATH, "/{a..b}", 4, "a field name was expected"),
        ("star-as-name", _FIELD_PATH, "/{*}", 2, "a field name was expected"),
        ("name-not-ascii", _FIELD_PATH, "/{ä}", 2, "a field name was expected"),
        ("verb-empty", _VERB, "/v1:", 3, "the verb is empty"),
        ("verb-empty-after-variable", _VERB, "/{a}:", 5, "a verb was expected"),
        ("verb-empty-after-wildcard", _VERB, "/**:", 4, "a verb was expected"),
        ("verb-then-slash", _VERB, "/{a}:go/b", 7, "unexpected '/'"),
        ("verb-is-a-variable", _VERB, "/{a}:{b}", 5, "'{' must be percent-encoded"),
        ("verb-is-a-star", _VERB, "/{a}:*", 5, "'*' must be percent-encoded"),
        ("verb-inside-variable", _VERB, "/{a=*:go}", 5, "unexpected ':'"),
        ("rest-then-literal", _LAST, "/**/a", 4, "'**' must be the last segment"),
        ("rest-then-one", _LAST, "/**/*", 4, "'**' must be the last segment"),
        ("rest-then-rest", _LAST, "/**/**", 4, "'**' must be the last segment"),
        ("rest-inside-variable-then-literal", _LAST, "/{a=**/b}", 7, "'**' must be the last segment"),
        ("variable-of-rest-then-literal", _LAST, "/{a=**}/b", 8, "'**' must be the last segment"),
        ("variable-of-rest-then-variable", _LAST, "/{a=b/**}/{c}", 10, "'**' must be the last segment"),
        ("variable-in-variable", _NESTED, "/{a={b}}", 4, "contains another variable"),
        ("variable-in-segments", _NESTED, "/{a=x/{b}}", 6, "contains another variable"),
        ("bound-twice", "FieldPath, one place for one field", "/{a}/{a}", 5, "variable 'a' is bound twice"),
        ("bound-twice-nested", "FieldPath, one place for one field", "/{a.b}/{a.b=x/*}", 7, "bound twice"),
        ("space", _LITERAL, "/a b", 2, "unexpected ' '"),
        ("query", _LITERAL, "/a?b=c", 2, "unexpected '?'"),
        ("fragment", _LITERAL, "/a#b", 2, "unexpected '#'"),
        ("bracket", _LITERAL, "/a[b]", 2, "unexpected '['"),
        ("backslash", _LITERAL, "/a\\b", 2, "unexpected '\\\\'"),
        ("quote", _LITERAL, '/"a"', 1, "must be percent-encoded"),
        ("control", _LITERAL, "/a\n", 2, "unexpected '\\n'"),
        ("not-ascii", _LITERAL, "/é", 1, "'é' must be percent-encoded"),
        ("escape-cut", _LITERAL, "/a%2", 2, "two hexadecimal digits"),
        ("escape-at-the-end", _LITERAL, "/a%", 2, "two hexadecimal digits"),
        ("escape-not-hexadecimal", _LITERAL, "/%zz", 1, "two hexadecimal digits"),
        ("escape-not-utf-8", _LITERAL, "/%ff", 1, "must be UTF-8"),
        ("escape-cut-in-verb", _LITERAL, "/{a}:%2", 5, "two hexadecimal digits"),
    ]
)
