"""Failed calls as HTTP answers."""

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from uhm_common.errors import NotFound, PermissionDenied, Unauthenticated, Unavailable
from uhm_gateway.errors import BadRequest, BodyTooLarge, MethodNotAllowed, UnknownPath, UnsupportedMediaType
from uhm_gateway.http.status import HTTP_STATUS, failure_of_call, failure_of_error

# google/rpc/code.proto, "HTTP Mapping".
TABLE = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}


def test_the_table():
    assert {code.name: status for code, status in HTTP_STATUS.items()} == TABLE
    assert set(HTTP_STATUS) == set(grpc.StatusCode)


def rpc_error(code, *trailers, details="why"):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details=details)


def packed(message):
    detail = any_pb2.Any()
    detail.Pack(message)
    return detail


@pytest.mark.parametrize(
    ("code", "trailers", "headers"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, (), {b"www-authenticate": b'Bearer realm="api"'}),
        (grpc.StatusCode.UNAVAILABLE, (), {b"retry-after": b"1"}),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            (("retry-after", "30"),),
            {b"retry-after": b"30", b"grpc-trailer-retry-after": b"30"},
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            (("retry-after", "soon"),),
            {b"retry-after": b"1", b"grpc-trailer-retry-after": b"soon"},
        ),
        (grpc.StatusCode.NOT_FOUND, (("farewell", "bye"),), {b"grpc-trailer-farewell": b"bye"}),
        (grpc.StatusCode.NOT_FOUND, (), {}),
    ],
)
def test_headers(code, trailers, headers):
    assert dict(failure_of_call(rpc_error(code, *trailers)).headers) == headers


@pytest.mark.parametrize(("seconds", "nanos", "shown"), [(5, 0, b"5"), (5, 1, b"6"), (0, 1, b"1"), (-1, 0, b"1")])
def test_retry_info(seconds, nanos, shown):
    delay = duration_pb2.Duration(seconds=seconds, nanos=nanos)
    status = status_pb2.Status(details=[packed(error_details_pb2.RetryInfo(retry_delay=delay))])
    trailer = ("grpc-status-details-bin", status.SerializeToString())
    assert dict(failure_of_call(rpc_error(grpc.StatusCode.UNAVAILABLE, trailer)).headers) == {b"retry-after": shown}


def test_details_as_json(api):
    known = packed(error_details_pb2.ErrorInfo(reason="R", domain="d", metadata={"some_key": "v"}))
    unknown = any_pb2.Any(type_url="type.googleapis.com/not.Known", value=b"\xff")
    broken = any_pb2.Any(type_url=known.type_url, value=b"\xff")
    status = status_pb2.Status(details=[known, unknown, broken])
    trailer = ("grpc-status-details-bin", status.SerializeToString())
    assert failure_of_call(rpc_error(grpc.StatusCode.NOT_FOUND, trailer)).to_json(api.pool) == {
        "code": 5,
        "message": "why",
        "details": [
            {"@type": known.type_url, "reason": "R", "domain": "d", "metadata": {"some_key": "v"}},
            {"@type": unknown.type_url, "value": "/w=="},
            {"@type": known.type_url, "value": "/w=="},
        ],
    }


def test_details_that_are_not_a_status():
    failure = failure_of_call(rpc_error(grpc.StatusCode.NOT_FOUND, ("grpc-status-details-bin", b"\xff")))
    assert failure.details == ()


def test_an_error_without_words_is_told_by_its_name():
    assert failure_of_call(rpc_error(grpc.StatusCode.ABORTED, details="")).message == "ABORTED"


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (BadRequest("x"), 3, 400),
        (UnknownPath("/x"), 5, 404),
        (MethodNotAllowed("PUT", path="/x", allowed=["POST", "GET"]), 12, 405),
        (BodyTooLarge(5), 8, 413),
        (UnsupportedMediaType("x"), 3, 415),
        (NotFound("x"), 5, 404),
        (Unauthenticated("x"), 16, 401),
        (Unavailable("x"), 14, 503),
    ],
)
def test_the_gateways_own_refusals(api, error, code, status):
    failure = failure_of_error(error)
    assert (failure.to_json(api.pool)["code"], failure.http_status) == (code, status)


def test_a_refused_method_is_told_what_is_allowed():
    failure = failure_of_error(MethodNotAllowed("PUT", path="/x", allowed=["POST", "GET"]))
    assert dict(failure.headers)[b"allow"] == b"GET, HEAD, POST"


def test_a_token_that_is_not_valid_is_told_from_none():
    failure = failure_of_call(rpc_error(grpc.StatusCode.UNAUTHENTICATED), token_sent=True)
    assert dict(failure.headers)[b"www-authenticate"] == b'Bearer realm="api", error="invalid_token"'
    failure = failure_of_error(Unauthenticated("x"), token_sent=True)
    assert dict(failure.headers)[b"www-authenticate"] == b'Bearer realm="api", error="invalid_token"'


@pytest.mark.parametrize(
    ("scope", "challenge"),
    [
        ("images.write", b'Bearer realm="api", error="insufficient_scope", scope="images.write"'),
        ("a b", b'Bearer realm="api", error="insufficient_scope", scope="a b"'),
        ("", None),
        ('a"b', None),
        ("a\r\nb", None),
    ],
)
def test_a_scope_that_is_lacking_is_named(scope, challenge):
    status = status_pb2.Status(details=[packed(error_details_pb2.ErrorInfo(metadata={"scope": scope}))])
    trailer = ("grpc-status-details-bin", status.SerializeToString())
    failure = failure_of_call(rpc_error(grpc.StatusCode.PERMISSION_DENIED, trailer))
    assert dict(failure.headers).get(b"www-authenticate") == challenge
    own = failure_of_error(PermissionDenied("x", **({"scope": scope} if scope else {})))
    assert dict(own.headers).get(b"www-authenticate") == challenge


@pytest.mark.parametrize(
    ("details", "status"),
    [
        ("CLIENT: Sent message larger than max (17000000 vs. 16777216)", 413),
        ("SERVER: Received message larger than max (17000000 vs. 16777216)", 413),
        ("grpc: received message larger than max (17000000 vs. 16777216)", 413),
        ("CLIENT: Received message larger than max (17000000 vs. 16777216)", 500),
        ("Decompressed message larger than max", 500),
        ("SERVER: Sent message larger than max (17000000 vs. 16777216)", 500),
        ("grpc: trying to send message larger than max (17000000 vs. 16777216)", 500),
        ("of the next service: CLIENT: Received message larger than max (17000000 vs. 16777216)", 500),
        ("too many machines", 429),
    ],
)
def test_messages_that_are_too_large_for_grpc(details, status):
    failure = failure_of_call(rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, details=details))
    assert failure.http_status == status
    assert (b"retry-after" in dict(failure.headers)) == (status == 429)


def test_an_error_of_ours_says_when_to_come_back():
    assert dict(failure_of_error(Unavailable("x", retry_after=4.2)).headers)[b"retry-after"] == b"5"


def test_encodings_that_are_taken():
    failure = failure_of_error(UnsupportedMediaType("x", accept_encoding="gzip"))
    assert dict(failure.headers)[b"accept-encoding"] == b"gzip"
    assert failure_of_error(UnsupportedMediaType("x")).headers == ()
