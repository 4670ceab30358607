"""HTTP headers as metadata and back."""

import pytest

from uhm_common.callers.calls import Call
from uhm_gateway.errors import BadRequest
from uhm_gateway.http.metadata import Allowed, initial_headers, request_id, seconds_of, to_metadata, trailing_headers

CALL = Call(request_id="id", address="192.0.2.1", user_agent="curl/8")
ABOUT = (("x-request-id", "id"), ("x-uhm-client-address", "192.0.2.1"), ("x-uhm-user-agent", "curl/8"))
SOME = Allowed.of(["Colour", "raw-bin", "acme-*", "x-request-id", "grpc-*", "x-*", "te"])


@pytest.mark.parametrize(
    ("header", "metadata"),
    [
        ((b"authorization", b"Bearer x"), ("authorization", "Bearer x")),
        ((b"traceparent", b"00-1-2-01"), ("traceparent", "00-1-2-01")),
        ((b"idempotency-key", b"k1"), ("idempotency-key", "k1")),
        ((b"grpc-metadata-colour", b"blue"), ("colour", "blue")),
        ((b"grpc-metadata-acme-size", b"9"), ("acme-size", "9")),
        ((b"grpc-metadata-x-other", b"1"), ("x-other", "1")),
        ((b"grpc-metadata-raw-bin", b"AP8="), ("raw-bin", b"\x00\xff")),
        ((b"grpc-metadata-raw-bin", b"AP8"), ("raw-bin", b"\x00\xff")),
        ((b"grpc-metadata-smell", b"x"), None),
        ((b"grpc-metadata-authorization", b"x"), None),
        ((b"cookie", b"a=b"), None),
        ((b"host", b"x"), None),
        ((b"x-uhm-client-address", b"198.51.100.9"), None),
        ((b"grpc-metadata-x-uhm-client-address", b"198.51.100.9"), None),
        ((b"grpc-metadata-grpc-timeout", b"1S"), None),
        ((b"grpc-metadata-te", b"trailers"), None),
        ((b"grpc-metadata-x-request-id", b"other"), None),
        ((b"grpc-metadata-acme-bad key", b"x"), None),
        ((b"grpc-metadata-acme-\xe9", b"x"), None),
    ],
)
def test_forwarded(header, metadata):
    assert to_metadata([header], call=CALL, allowed=SOME) == ABOUT + ((metadata,) if metadata else ())


def test_clients_set_no_metadata_of_their_own_unless_it_is_allowed():
    assert to_metadata([(b"grpc-metadata-colour", b"blue")], call=CALL, allowed=Allowed()) == ABOUT


def test_a_star_allows_all_but_what_is_not_the_clients():
    every = Allowed.of(["*"])
    assert [every.allows(key) for key in ("a", "x-uhm-user-agent", "grpc-status", "user-agent", "b c")] == [
        True,
        *[False] * 4,
    ]


@pytest.mark.parametrize(
    "header",
    [(b"authorization", b"Bearer \xe9"), (b"grpc-metadata-colour", b"a\x01"), (b"grpc-metadata-raw-bin", b"!")],
)
def test_not_forwardable(header):
    with pytest.raises(BadRequest):
        to_metadata([header], call=CALL, allowed=SOME)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("5m", 0.005), ("7u", 7e-6), ("9n", 9e-9), ("0S", 1e-9), ("99999999H", 1e8)],
)
def test_timeouts(text, seconds):
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "S", "5s", "1.5S", "123456789S", "-1S", " 1S"])
def test_timeouts_that_are_none(text):
    with pytest.raises(BadRequest):
        seconds_of(text)


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("", False), ("a b", False), ("x" * 129, False)])
def test_request_ids(given, kept):
    assert (request_id(given) == given) is kept


def test_metadata_as_headers():
    metadata = (
        ("colour", "blue"),
        ("raw-bin", b"\xff"),
        ("content-type", "x"),
        ("cache-control", "public"),
        ("grpc-status-details-bin", b"y"),
    )
    assert initial_headers(metadata) == [(b"grpc-metadata-colour", b"blue"), (b"grpc-metadata-raw-bin", b"/w==")]
    assert trailing_headers(metadata) == [(b"grpc-trailer-colour", b"blue"), (b"grpc-trailer-raw-bin", b"/w==")]
