"""Page tokens are good for the list that they were made for, and only we can make them."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uhm_common.errors import InvalidArgument
from uhm_common.paging import MAX_LENGTH, InvalidPageToken, Listing, PageTokens, page_size, pair
from uhm_common.vault import Vault

TOKENS = PageTokens(Vault(bytes(32)))
LISTING = Listing(name="images", owner="alice", filter=("nginx",))
OTHERS = [
    replace(LISTING, name="machines"),
    replace(LISTING, owner="bob"),
    replace(LISTING, filter=()),
    replace(LISTING, filter=("nginx", "")),
    replace(LISTING, owner="", filter=("alice", "nginx")),
]


@given(st.binary(max_size=4095).map(lambda raw: raw.decode(errors="surrogateescape")))
def test_a_position_comes_back_as_it_was(position):
    """Also the longest path of a file, with any bytes in it."""
    token = TOKENS.make(position, of=LISTING)

    assert TOKENS.read(token, of=LISTING) == position
    assert len(token) <= MAX_LENGTH


def test_numbers_come_back_as_numbers():
    assert TOKENS.read_number(TOKENS.make(17, of=LISTING), of=LISTING) == 17


def test_no_token_is_the_first_page():
    assert TOKENS.read("", of=LISTING) == ""
    assert TOKENS.read_number("", of=LISTING) is None


@pytest.mark.parametrize("other", OTHERS)
def test_a_token_of_another_list_is_refused(other):
    with pytest.raises(InvalidPageToken, match="same filter"):
        TOKENS.read(TOKENS.make(17, of=LISTING), of=other)


def test_a_token_of_another_key_is_refused():
    with pytest.raises(InvalidPageToken):
        TOKENS.read(PageTokens(Vault(b"x" * 32)).make(17, of=LISTING), of=LISTING)


@given(st.data())
def test_a_token_that_was_changed_anywhere_is_refused(data):
    raw = bytearray(base64.urlsafe_b64decode(TOKENS.make("1234567", of=LISTING) + "=="))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidPageToken):
        TOKENS.read(base64.urlsafe_b64encode(raw).decode().rstrip("="), of=LISTING)


@given(st.text(min_size=1))
def test_any_other_text_is_refused(text):
    with pytest.raises(InvalidPageToken):
        TOKENS.read(text, of=LISTING)


@pytest.mark.parametrize("change", ["{}=", "{}==", " {}", "{}\n", "{}!", "{}A", "{}" + "A" * MAX_LENGTH])
def test_a_token_is_spelled_in_one_way(change):
    with pytest.raises(InvalidPageToken):
        TOKENS.read(change.format(TOKENS.make(1234, of=LISTING)), of=LISTING)


@pytest.mark.parametrize(("wanted", "size"), [(0, 50), (1, 1), (1000, 1000), (9999, 1000)])
def test_pages_are_bounded(wanted, size):
    assert page_size(wanted) == size


def test_a_list_may_have_other_bounds():
    assert (page_size(0, default=7, most=9), page_size(10, default=7, most=9)) == (7, 9)


def test_no_page_has_a_negative_size():
    with pytest.raises(InvalidArgument, match="-1"):
        page_size(-1)


@pytest.mark.parametrize(
    ("found", "page", "more"), [([], [], False), ([9, 8], [9, 8], False), ([9, 8, 7], [9, 8], True)]
)
def test_a_page_is_cut_where_there_is_more(found, page, more):
    tokens, listing = PageTokens(Vault(bytes(32))), Listing(name="things")
    cut, token = tokens.cut(found, size=2, of=listing, position=lambda last: pair(last, "id"))
    assert cut == page
    assert bool(token) is more
    assert tokens.read_pair(token, of=listing) == ((8, "id") if more else None)
