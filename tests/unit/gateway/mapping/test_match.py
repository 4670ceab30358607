"""Which binding a request's path means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uhm_gateway.errors import BadRequest, ConfigurationError, MethodNotAllowed, UnknownPath
from uhm_gateway.mapping.match import Router
from uhm_gateway.mapping.template import Wildcard, parse_template

BINDINGS = [
    "GET /",
    "GET /v1/images",
    "POST /v1/images",
    "GET /v1/images/{id}",
    "DELETE /v1/images/{id}",
    "GET /v1/images/{id}:watch",
    "POST /v1/images/{id}:cancel",
    "GET /v1/images/newest",
    "GET /v1/*/newest",
    "GET /v1/{name=shelves/*/books/*}",
    "GET /v1/{name=shelves/**}",
    "GET /v1/shelves/{id}/books",
    "GET /files/{path=**}",
    "GET /files/{path=**}:download",
    "GET /a/*/c/d",
    "GET /a/b/**",
    "* /any/{id}",
    "GET /any/{id}",
    "LIST /v1/images",
    "GET /with%20space/{id}",
]


@pytest.fixture(scope="module")
def router():
    made = Router()
    for binding in BINDINGS:
        method, path = binding.split(" ")
        made.add(method, parse_template(path), binding)
    return made


@pytest.mark.parametrize(
    ("request_line", "target", "captured"),
    [
        ("GET /", "GET /", ()),
        ("POST /v1/images", "POST /v1/images", ()),
        ("LIST /v1/images", "LIST /v1/images", ()),
        ("GET /v1/images/nginx", "GET /v1/images/{id}", ("nginx",)),
        ("GET /v1/images/newest", "GET /v1/images/newest", ()),
        ("GET /v1/other/newest", "GET /v1/*/newest", ()),
        ("GET /v1/images/nginx:latest", "GET /v1/images/{id}", ("nginx:latest",)),
        ("GET /v1/images/nginx:watch", "GET /v1/images/{id}:watch", ("nginx",)),
        ("GET /v1/images/nginx:latest:watch", "GET /v1/images/{id}:watch", ("nginx:latest",)),
        ("GET /v1/images/" + ":" * 50_000 + "%3A:watch", "GET /v1/images/{id}:watch", (":" * 50_001,)),
        ("GET /v1/images/nginx:w%61tch", "GET /v1/images/{id}:watch", ("nginx",)),
        ("GET /v1/images/nginx%3Awatch", "GET /v1/images/{id}", ("nginx:watch",)),
        ("GET /v1/images/nginx:cancel", "GET /v1/images/{id}", ("nginx:cancel",)),
        ("POST /v1/images/nginx:cancel", "POST /v1/images/{id}:cancel", ("nginx",)),
        ("GET /v1/images/ghcr.io%2Fowner%2fname", "GET /v1/images/{id}", ("ghcr.io/owner/name",)),
        ("GET /v1/images/%E2%82%AC%20", "GET /v1/images/{id}", ("€ ",)),
        ("GET /v1/shelves/1/books/2", "GET /v1/{name=shelves/*/books/*}", ("shelves/1/books/2",)),
        ("GET /v1/shelves/1/pens/2", "GET /v1/{name=shelves/**}", ("shelves/1/pens/2",)),
        ("GET /v1/shelves", "GET /v1/{name=shelves/**}", ("shelves",)),
        ("GET /v1/shelves/1/books", "GET /v1/shelves/{id}/books", ("1",)),
        ("GET /v1/shelves/a%2Fb/x%20y", "GET /v1/{name=shelves/**}", ("shelves/a%2Fb/x y",)),
        ("GET /v1/shelves/a%2fb%3Ac", "GET /v1/{name=shelves/**}", ("shelves/a%2fb:c",)),
        ("GET /files", "GET /files/{path=**}", ("",)),
        ("GET /files/", "GET /files/{path=**}", ("",)),
        ("GET /files/a/b:download", "GET /files/{path=**}:download", ("a/b",)),
        ("GET /a/b/c/d", "GET /a/b/**", ()),
        ("GET /a/x/c/d", "GET /a/*/c/d", ()),
        ("GET /any/1", "GET /any/{id}", ("1",)),
        ("PURGE /any/1", "* /any/{id}", ("1",)),
        ("GET /with%20space/1", "GET /with%20space/{id}", ("1",)),
        ("GET /v1/%69mages", "GET /v1/images", ()),
    ],
)
def test_the_most_specific_match_wins(router, request_line, target, captured):
    found = router.match(*request_line.split(" "))
    assert (found.target, found.captured) == (target, captured)


@pytest.mark.parametrize("path", ["/v2", "/v1/images/", "/v1/images//", "/v1//newest", "/v1/images/a/b", "//", "/a/b2"])
def test_unknown_paths(router, path):
    with pytest.raises(UnknownPath):
        router.match("GET", path)


@pytest.mark.parametrize(
    ("request_line", "allowed"),
    [
        ("PUT /v1/images", ("GET", "HEAD", "LIST", "POST")),
        ("PUT /v1/images/x", ("DELETE", "GET", "HEAD")),
        ("POST /v1/images/newest", ("DELETE", "GET", "HEAD")),
        ("PUT /v1/images/x:cancel", ("DELETE", "GET", "HEAD", "POST")),
        ("POST /", ("GET", "HEAD")),
    ],
)
def test_other_methods_are_told_what_is_allowed(router, request_line, allowed):
    with pytest.raises(MethodNotAllowed) as caught:
        router.match(*request_line.split(" "))
    assert caught.value.allowed == allowed


@pytest.mark.parametrize("path", ["/v1/images/%", "/v1/images/%2", "/v1/images/%zz", "/v1/images/%ff"])
def test_broken_escapes(router, path):
    with pytest.raises(BadRequest):
        router.match("GET", path)


@pytest.mark.parametrize(("length", "remembered"), [(10, True), (8000, False)])
def test_only_short_paths_are_remembered(router, length, remembered):
    path = "/v1/images/" + "x" * length
    assert (router.match("GET", path) is router.match("GET", path)) is remembered


def test_two_bindings_of_the_same_requests():
    router = Router()
    router.add("GET", parse_template("/v1/{a}"), 1)
    router.add("POST", parse_template("/v1/{a}"), 2)
    with pytest.raises(ConfigurationError, match="same requests"):
        router.add("GET", parse_template("/v1/{b=*}"), 3)


SEGMENTS = st.lists(st.sampled_from(["a", "b", "*"]), max_size=3)
TEMPLATES = st.builds(lambda inner, last: "/" + "/".join([*inner, *last]), SEGMENTS, st.sampled_from([[], ["**"]]))


def takes(segments, path):
    """Whether segments match a path's, told in the plainest way."""
    if segments and segments[-1] is Wildcard.REST:
        return len(path) >= len(segments) - 1 and takes(segments[:-1], path[: len(segments) - 1])
    return len(segments) == len(path) and all(
        one in (Wildcard.ONE, other) for one, other in zip(segments, path, strict=True)
    )


@given(st.sets(TEMPLATES, max_size=8), st.lists(st.sampled_from(["a", "b", "c"]), max_size=4))
def test_of_all_that_match_the_most_specific_wins(texts, path):
    """Literals before `*` before `**`, from the left."""
    router = Router()
    templates = [parse_template(text) for text in texts]
    for template in templates:
        router.add("GET", template, template)
    ranks = {Wildcard.ONE: 1, Wildcard.REST: 2}
    matching = [each for each in templates if takes(each.segments, path)]
    if not matching:
        with pytest.raises(UnknownPath):
            router.match("GET", "/" + "/".join(path))
        return
    best = min(matching, key=lambda template: [ranks.get(segment, 0) for segment in template.segments])
    assert router.match("GET", "/" + "/".join(path)).target is best


def test_what_is_known_of_a_path_does_not_hide_what_is_added_later():
    made = Router()
    made.add("GET", parse_template("/v1/{id}"), "any")
    assert made.match("GET", "/v1/newest").target == "any"
    made.add("GET", parse_template("/v1/newest"), "newest")
    assert made.match("GET", "/v1/newest").target == "newest"
