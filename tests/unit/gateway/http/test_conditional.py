"""Answers that a client has already."""

import pytest

from uhm_gateway.http.conditional import etag_of, is_known

TAG = etag_of(b"body")


def test_a_tag_is_the_contents():
    assert etag_of(b"body") == TAG
    assert etag_of(b"other") != TAG
    assert TAG.startswith('W/"')


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (TAG, True),
        (TAG.removeprefix("W/"), True),
        (f'"a", {TAG}', True),
        (f'W/"a,b",{TAG},"c"', True),
        ("*", True),
        (" * ", True),
        ("", False),
        ('"a"', False),
        (TAG.strip('W/"'), False),
        (f'"*", "x{TAG[3:]}', False),
    ],
)
def test_if_none_match(header, known):
    assert is_known(TAG, header) is known
