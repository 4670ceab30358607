"""The path template grammar of google/api/http.proto."""

import pytest

from uhm_gateway.errors import MalformedTemplate
from uhm_gateway.template import Variable, Wildcard, parse_template

ONE, REST = Wildcard.ONE, Wildcard.REST


@pytest.mark.parametrize(
    ("text", "segments", "verb"),
    [
        ("/", (), ""),
        ("/v1", ("v1",), ""),
        ("/v1/shelves/*/books", ("v1", "shelves", ONE, "books"), ""),
        ("/v1/**", ("v1", REST), ""),
        ("/v1/**:download", ("v1", REST), "download"),
        ("/v1/{id}", ("v1", ONE), ""),
        ("/v1/{id=*}", ("v1", ONE), ""),
        ("/v1/{name=shelves/*/books/*}", ("v1", "shelves", ONE, "books", ONE), ""),
        ("/v1/{name=shelves/**}", ("v1", "shelves", REST), ""),
        ("/v1/{book.name=**}:read", ("v1", REST), "read"),
        ("/v1/{a}/{b.c_d}", ("v1", ONE, ONE), ""),
        ("/v1/{id}:cancel", ("v1", ONE), "cancel"),
        ("/v1/{id}:a:b", ("v1", ONE), "a:b"),
        ("/v1/operations:cancel", ("v1", "operations"), "cancel"),
        ("/v1/a:b:c", ("v1", "a:b"), "c"),
        ("/v1/a:b/c", ("v1", "a:b", "c"), ""),
        ("/v1/{name=a:b}", ("v1", "a:b"), ""),
        ("/a%20b/c", ("a b", "c"), ""),
        ("/v1/.well-known/~x@y", ("v1", ".well-known", "~x@y"), ""),
        ("/{id}", (ONE,), ""),
    ],
)
def test_well_formed(text, segments, verb):
    template = parse_template(text)
    assert (template.segments, template.verb, template.text) == (segments, verb, text)


def test_variables_take_their_segments():
    template = parse_template("/v1/{a}/x/{b.c=y/*}/{d=**}")
    assert template.variables == (
        Variable(field_path="a", start=1, end=2),
        Variable(field_path="b.c", start=3, end=5),
        Variable(field_path="d", start=5, end=None),
    )
    assert [variable.is_single for variable in template.variables] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "begins with '/'"),
        ("v1", 0, "begins with '/'"),
        (":verb", 0, "begins with '/'"),
        ("//", 1, "segment is empty"),
        ("/v1/", 4, "segment is empty"),
        ("/v1//x", 4, "segment is empty"),
        ("/:verb", 1, "segment is empty"),
        ("/v1:", 3, "verb is empty"),
        ("/{a}:", 5, "verb was expected"),
        ("/{a}:b/c", 6, "unexpected '/'"),
        ("/{a}:b{c}", 6, "unexpected '{'"),
        ("/{", 2, "field name was expected"),
        ("/{}", 2, "field name was expected"),
        ("/{=x}", 2, "field name was expected"),
        ("/{1a}", 2, "field name was expected"),
        ("/{.a}", 2, "field name was expected"),
        ("/{a.}", 4, "field name was expected"),
        ("/{a..b}", 4, "field name was expected"),
        ("/{a", 3, "not closed"),
        ("/{a=b", 5, "not closed"),
        ("/{a-b}", 3, "unexpected '-'"),
        ("/{a=}", 4, "segment is empty"),
        ("/{a=b/}", 6, "segment is empty"),
        ("/{a=/b}", 4, "segment is empty"),
        ("/{a={b}}", 4, "contains another variable"),
        ("/{a=x/{b}}", 6, "contains another variable"),
        ("/{a}/{a}", 5, "bound twice"),
        ("/{a}b", 4, "whole segment"),
        ("/b{a}", 2, "whole segment"),
        ("/{a}{b}", 4, "whole segment"),
        ("/}", 1, "segment is empty"),
        ("/a}", 2, "unexpected '}'"),
        ("/***", 3, "whole segment"),
        ("/*a", 2, "whole segment"),
        ("/a*", 2, "whole segment"),
        ("/**/a", 4, "last segment"),
        ("/{a=**}/b", 8, "last segment"),
        ("/{a=**/b}", 7, "last segment"),
        ("/a b", 2, "unexpected ' '"),
        ("/a?b=c", 2, "unexpected '?'"),
        ("/a#b", 2, "unexpected '#'"),
        ("/é", 1, "percent-encoded"),
        ("/a%2", 2, "two hexadecimal digits"),
        ("/%zz", 1, "two hexadecimal digits"),
    ],
)
def test_malformed(text, position, problem):
    with pytest.raises(MalformedTemplate) as caught:
        parse_template(text)
    assert problem in str(caught.value)
    assert caught.value.position == position
