"""The path template grammar of google/api/http.proto."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uhm_gateway.errors import MalformedTemplate
from uhm_gateway.mapping.template import Variable, Wildcard, parse_template

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


LITERALS = st.text("aZ09-._~!$&'()+,;=@", min_size=1, max_size=4)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,2}(\.[a-z]{1,2})?", fullmatch=True)
SEGMENTS = st.lists(LITERALS | st.just("*"), min_size=1, max_size=3)


@st.composite
def templates(draw):
    """A template, its segments and its variables' names, made by the grammar."""
    pieces, segments, names = [], [], draw(st.lists(NAMES, unique=True, max_size=3))
    for name in names:
        inner = draw(SEGMENTS)
        pieces += [*draw(st.lists(LITERALS, max_size=2)), f"{{{name}={'/'.join(inner)}}}"]
    pieces += draw(SEGMENTS) + draw(st.sampled_from([[], ["**"]]))
    verb = draw(st.just("") | LITERALS)
    text = "/" + "/".join(pieces) + (f":{verb}" if verb else "")
    for piece in pieces:
        segments += piece.strip("{}").partition("=")[2].split("/") if piece.startswith("{") else [piece]
    kinds = {"*": ONE, "**": REST}
    return text, tuple(kinds.get(segment, segment) for segment in segments), verb, names


@given(templates())
def test_everything_that_the_grammar_makes(made):
    text, segments, verb, names = made
    template = parse_template(text)
    assert (template.segments, template.verb) == (segments, verb)
    assert [variable.field_path for variable in template.variables] == names
