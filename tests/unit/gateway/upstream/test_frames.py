"""HTTP/2 frames and header blocks."""

from __future__ import annotations

import contextlib

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from uhm_gateway.upstream.frames import (
    DATA,
    END_HEADERS,
    HEADERS,
    MAX_PAYLOAD,
    PING,
    FrameError,
    Splitter,
    decode_headers,
    frame,
    literal,
    named,
)

HEADERS_EXAMPLES = [
    [(b":status", b"200"), (b"content-type", b"application/grpc")],
    [(b"grpc-status", b"0"), (b"grpc-message", b"")],
    [(b"x-id", b"a" * 126), (b"y", b"b" * 127), (b"z", b"c" * 300), (b"bin-bin", bytes(range(256)))],
]


@pytest.mark.parametrize("headers", HEADERS_EXAMPLES)
@pytest.mark.parametrize("huffman", [False, True])
def test_header_blocks_of_an_encoder_without_a_table(headers: list[tuple[bytes, bytes]], huffman: bool) -> None:
    encoder = Encoder()
    encoder.header_table_size = 0
    assert decode_headers(encoder.encode(headers, huffman=huffman)) == tuple(headers)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=200), st.binary(max_size=70_000)), max_size=4))
def test_literals_are_what_a_decoder_reads(headers: list[tuple[bytes, bytes]]) -> None:
    block = b"".join(literal(name, value) for name, value in headers)
    assert [tuple(pair) for pair in Decoder(max_header_list_size=2**20).decode(block, raw=True)] == headers
    assert list(decode_headers(block)) == headers


def test_a_name_by_its_place() -> None:
    assert decode_headers(named(4, b"/echo.v1.Echo/Say")) == ((b":path", b"/echo.v1.Echo/Say"),)


@pytest.mark.parametrize(("size", "kept"), [(10, True), (10_000, False)])
@pytest.mark.parametrize("huffman", [False, True])
def test_only_short_blocks_are_kept(size: int, kept: bool, huffman: bool) -> None:
    block = Encoder().encode([(b"x", b"y" * size)], huffman=huffman)
    again = bytes(bytearray(block))
    assert decode_headers(block) == decode_headers(again) == ((b"x", b"y" * size),)
    assert (decode_headers(block) is decode_headers(again)) is kept


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # an index of 0
        b"\xbe",  # the first entry of a dynamic table
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x3f\xe1\x1f",  # a dynamic table of 4096 bytes
        b"\x00\x05abc",
        b"\x00\x03abc",
        b"\x00\x83\xff\xff\xff\x00",  # Huffman's end of string
        b"\x0f",
    ],
)
def test_blocks_that_are_none(block: bytes) -> None:
    with pytest.raises(FrameError):
        decode_headers(block)


@given(st.binary(max_size=64))
def test_any_bytes_are_headers_or_refused(block: bytes) -> None:
    with contextlib.suppress(FrameError):
        decode_headers(block)


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 17))
def test_frames_are_put_together_however_they_come(payloads: list[bytes], size: int) -> None:
    sent = b"".join(frame(DATA, 0, number, payload) for number, payload in enumerate(payloads))
    splitter = Splitter()
    got = [received for at in range(0, len(sent), size) for received in splitter.feed(sent[at : at + size])]
    assert [(each.stream, each.payload) for each in got] == list(enumerate(payloads))


def test_padding_and_priority_are_taken_off_and_counted() -> None:
    padded = frame(DATA, 0x8, 1, b"\x03body\0\0\0")
    both = frame(HEADERS, END_HEADERS | 0x28, 1, b"\x01" + b"\0\0\0\0\x10" + b"block\0")
    got = list(Splitter().feed(padded + both))
    assert [(each.payload, each.length) for each in got] == [(b"body", 8), (b"block", 12)]


@pytest.mark.parametrize(
    "sent",
    [
        (MAX_PAYLOAD + 1).to_bytes(3, "big") + bytes((PING, 0, 0, 0, 0, 0)),
        frame(DATA, 0x8, 1, b""),
        frame(DATA, 0x8, 1, b"\x09body"),
    ],
)
def test_frames_that_are_none(sent: bytes) -> None:
    with pytest.raises(FrameError):
        list(Splitter().feed(sent))
