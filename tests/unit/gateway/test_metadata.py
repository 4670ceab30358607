"""HTTP headers as metadata and back."""

import pytest

from uhm_gateway.errors import BadRequest
from uhm_gateway.metadata import request_id, timeout_of, to_headers, to_metadata


@pytest.mark.parametrize(
    ("header", "metadata"),
    [
        ((b"authorization", b"Bearer x"), ("authorization", "Bearer x")),
        ((b"traceparent", b"00-1-2-01"), ("traceparent", "00-1-2-01")),
        ((b"grpc-metadata-colour", b"blue"), ("colour", "blue")),
        ((b"grpc-metadata-raw-bin", b"AP8="), ("raw-bin", b"\x00\xff")),
        ((b"grpc-metadata-raw-bin", b"AP8"), ("raw-bin", b"\x00\xff")),
        ((b"cookie", b"a=b"), None),
        ((b"host", b"x"), None),
        ((b"grpc-metadata-grpc-timeout", b"1S"), None),
        ((b"grpc-metadata-x-request-id", b"other"), None),
        ((b"grpc-metadata-bad key", b"x"), None),
    ],
)
def test_forwarded(header, metadata):
    expected = (("x-request-id", "id"),) + ((metadata,) if metadata else ())
    assert to_metadata([header], identifier="id") == expected


@pytest.mark.parametrize(
    "header", [(b"authorization", b"Bearer \xe9"), (b"grpc-metadata-a", b"a\x01"), (b"grpc-metadata-a-bin", b"!")]
)
def test_not_forwardable(header):
    with pytest.raises(BadRequest):
        to_metadata([header], identifier="id")


@pytest.mark.parametrize(
    ("text", "seconds"), [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"5m", 0.005), (b"7u", 7e-6), (b"9n", 9e-9)]
)
def test_timeouts(text, seconds):
    assert timeout_of([(b"grpc-timeout", text)]) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"5", b"S", b"5s", b"1.5S", b"123456789S", b"-1S"])
def test_timeouts_that_are_none(text):
    with pytest.raises(BadRequest):
        timeout_of([(b"grpc-timeout", text)])


def test_no_timeout():
    assert timeout_of([(b"accept", b"x")]) is None


@pytest.mark.parametrize(("given", "kept"), [(b"abc-1", True), (b"", False), (b"a b", False), (b"x" * 129, False)])
def test_request_ids(given, kept):
    assert (request_id([(b"x-request-id", given)]) == given.decode()) is kept


def test_initial_metadata_as_headers():
    metadata = (("colour", "blue"), ("raw-bin", b"\xff"), ("content-type", "x"), ("grpc-encoding", "y"))
    assert to_headers(metadata) == [(b"grpc-metadata-colour", b"blue"), (b"grpc-metadata-raw-bin", b"/w==")]
