"""What an exported disk is called."""

from __future__ import annotations

import pytest

from uhm_builder.export.exporter import _file_name


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("nginx:latest", "nginx"),
        ("registry.example:5000/owner/shop:1.2", "shop-1.2"),
        (f"registry.example/shop@sha256:{'0' * 64}", "shop"),
        ("Shop Front:v1", "shop-front-v1"),
        ("...", "disk"),
        (f"{'a' * 63}.b:{'c' * 128}", "a" * 63),
        (f"a:{'t' * 128}", f"a-{'t' * 62}"),
    ],
)
def test_a_name_is_short_and_plain(reference: str, name: str) -> None:
    assert _file_name(reference) == name
