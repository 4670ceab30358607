"""What `uhm doctor` says of the kernel that guests boot."""

from __future__ import annotations

import pytest

from uhm.system import findings


@pytest.fixture(autouse=True)
def _nothing_built(monkeypatch):
    monkeypatch.delenv("UHM_GUEST_KERNEL", raising=False)
    monkeypatch.setattr(findings, "built_tools", dict)


def install(monkeypatch, version: str) -> None:
    """Lets the distribution have this kernel; what is built is really read."""
    real = findings._kernel_name

    def name(expression: str, *arguments: str) -> str:
        return version if expression == "find_kernel()" else real(expression, *arguments)

    monkeypatch.setattr(findings, "_kernel_name", name)


def test_the_distributions_comes_with_a_hint(monkeypatch):
    install(monkeypatch, "6.1.0-49-cloud-amd64")
    found = findings.guest_kernel(None)
    assert found.ok
    assert found.detail.startswith("6.1.0-49-cloud-amd64, the distribution's")
    assert "make kernel" in found.detail


def test_a_built_one_is_named(monkeypatch, tmp_path):
    install(monkeypatch, "6.1.0-49-cloud-amd64")
    (tmp_path / "kernel.json").write_text('{"version": "6.1.192", "profile": "full", "digest": "sha256:0"}')
    monkeypatch.setenv("UHM_GUEST_KERNEL", str(tmp_path))
    found = findings.guest_kernel(None)
    assert (found.ok, found.detail) == (True, "tuned, 6.1.192 full")


def test_one_that_is_not_there_is_missed(monkeypatch, tmp_path):
    install(monkeypatch, "6.1.0-49-cloud-amd64")
    monkeypatch.setenv("UHM_GUEST_KERNEL", str(tmp_path / "absent"))
    found = findings.guest_kernel(None)
    assert not found.ok
    assert "absent holds no kernel" in found.detail


def test_an_empty_variable_chooses_the_distributions(monkeypatch):
    install(monkeypatch, "6.1.0-49-cloud-amd64")
    monkeypatch.setattr(findings, "built_tools", lambda: {"UHM_GUEST_KERNEL": "/built"})
    monkeypatch.setenv("UHM_GUEST_KERNEL", "")
    assert "the distribution's" in findings.guest_kernel(None).detail


def test_libguestfs_needs_the_distributions(monkeypatch):
    install(monkeypatch, "")
    assert not findings.guest_kernel(None).ok
