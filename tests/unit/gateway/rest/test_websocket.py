"""WebSockets: whose pages may open them, and how their tokens come."""

import pytest

from uhm_common.errors import PermissionDenied
from uhm_gateway.http.exchange import ClientDisconnectedError
from uhm_gateway.rest.websocket import Socket, UnsupportedFrame, check_origin


def socket(*, headers=(), subprotocols=(), events=(), send=None):
    coming = iter(events)

    async def receive():
        return next(coming)

    scope = {
        "type": "websocket",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "raw_path": b"/v1/chat",
        "query_string": b"",
        "client": ("192.0.2.1", 4711),
        "subprotocols": list(subprotocols),
    }
    return Socket(scope, receive, send)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, ()),
        ("http://here:5000", ()),
        ("https://here:5000", ()),  # through a proxy that ends TLS
        ("https://console.example", ("https://console.example",)),
        ("https://any.example", ("*",)),
    ],
)
def test_origins_that_may(origin, allowed):
    headers = [("host", "Here:5000"), *([("origin", origin)] if origin else [])]
    check_origin(socket(headers=headers), allowed=allowed)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://here",
        "http://here:5000.evil.example",
        "http://evil@here:5000",
        "null",
        "http://[x",
    ],
)
def test_origins_that_may_not(origin):
    with pytest.raises(PermissionDenied):
        check_origin(socket(headers=[("host", "here:5000"), ("origin", origin)]), allowed=("https://console.example",))


def test_an_origin_that_has_no_host_is_not_that_of_a_request_without_one():
    with pytest.raises(PermissionDenied):
        check_origin(socket(headers=[("origin", "null")]), allowed=())


@pytest.mark.parametrize(
    ("headers", "subprotocols", "token"),
    [
        ([], ["bearer", "abc"], "Bearer abc"),
        ([], ["Bearer", "abc"], "Bearer abc"),
        ([("authorization", "Bearer one")], ["bearer", "two"], "Bearer one"),
        ([], ["bearer"], ""),
        ([], ["graphql", "abc"], ""),
        ([], [], ""),
    ],
)
def test_tokens(headers, subprotocols, token):
    opened = socket(headers=headers, subprotocols=subprotocols)
    assert opened.header(b"authorization") == token
    assert opened.values(b"authorization") == ([token] if token else [])


def text(content):
    return {"type": "websocket.receive", "text": content}


def binary(content):
    return {"type": "websocket.receive", "bytes": content, "text": None}


GONE = {"type": "websocket.disconnect", "code": 1001}


async def frames(*events, raw):
    return [frame async for frame in socket(events=events).frames(binary=raw)]


async def test_frames_end_with_an_empty_one():
    assert await frames(text("a"), text("é"), text(""), text("b"), raw=False) == [b"a", "é".encode()]
    assert await frames(binary(b"\x00"), text("a"), binary(b""), raw=True) == [b"\x00", b"a"]


async def test_a_binary_frame_is_no_json():
    with pytest.raises(UnsupportedFrame):
        await frames(binary(b"{}"), raw=False)


async def test_a_client_that_goes_has_not_ended():
    with pytest.raises(ClientDisconnectedError):
        await frames(text("a"), GONE, raw=False)


async def test_a_client_that_has_gone_is_not_written_to():
    async def send(_event):
        raise OSError

    with pytest.raises(ClientDisconnectedError):
        await socket(send=send).send(b"x", binary=False)
