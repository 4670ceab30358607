"""What the builder is told from outside."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from uhm_builder.settings import BuilderSettings


def test_mirrors_are_read(monkeypatch):
    monkeypatch.setenv("UHM_REGISTRY_MIRRORS", "docker.io=http://127.0.0.1:5001/, ghcr.io=https://mirror.example")

    assert BuilderSettings().registry_mirrors == {
        "docker.io": "http://127.0.0.1:5001",
        "ghcr.io": "https://mirror.example",
    }


def test_no_mirrors_are_none(monkeypatch):
    monkeypatch.setenv("UHM_REGISTRY_MIRRORS", "")

    assert BuilderSettings().registry_mirrors == {}


@pytest.mark.parametrize(("told", "kernel"), [("", None), ("/kernels/minimal", Path("/kernels/minimal"))])
def test_no_kernel_is_the_installed_one(monkeypatch, told, kernel):
    monkeypatch.setenv("UHM_GUEST_KERNEL", told)

    assert BuilderSettings().guest_kernel == kernel


@pytest.mark.parametrize("text", ["docker.io", "docker.io=mirror.example", "=http://x"])
def test_a_mirror_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("UHM_REGISTRY_MIRRORS", text)

    with pytest.raises(ValidationError, match="is not REGISTRY=URL"):
        BuilderSettings()


def test_the_api_serves_where_it_is_told(monkeypatch):
    assert BuilderSettings().api_address == "127.0.0.1:50062"
    monkeypatch.setenv("UHM_LISTEN", "127.0.0.1:1")
    assert BuilderSettings().api_address == "127.0.0.1:1"
