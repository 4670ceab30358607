"""The base's record and its name. That one is really made and boots, tests/integration/test_guest.py shows."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from uhm_builder import base as subject
from uhm_builder.base import Base, Ingredients, load_base, make_base
from uhm_common.artifacts import ArtifactStore
from uhm_common.errors import NotFound
from uhm_guest.kernel import Kernel, read_built_kernel

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture
def ingredients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ingredients:
    """Ingredients that are text, and stand-ins for the tools that would read them."""
    for name in ("init", "mkfs", "mbr", "loader", "vmlinuz"):
        (tmp_path / name).write_text(name)
    kernel = Kernel(version="6.1.0-test", image=tmp_path / "vmlinuz", modules=tmp_path)

    def write_root(path: Path, tar: bytes, _mkfs: Path, _digest: str) -> int:
        path.write_bytes(tar)
        return MIB

    monkeypatch.setattr(subject, "choose_kernel", lambda built: read_built_kernel(built) if built else kernel)
    monkeypatch.setattr(subject, "extract_vmlinux", lambda image: image)
    monkeypatch.setattr(subject, "build_initramfs", lambda init, _kernel: init.read_bytes())
    monkeypatch.setattr(subject, "_write_root", write_root)
    monkeypatch.setattr(subject, "_write_disks", lambda *_args, **_settings: None)
    return Ingredients(
        init=tmp_path / "init", mkfs_erofs=tmp_path / "mkfs", mbr=tmp_path / "mbr", systemd_boot=tmp_path / "loader"
    )


def test_a_base_is_made_once_and_read_back(tmp_path: Path, ingredients: Ingredients) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    base = make_base(store, ingredients, kvm=False)
    record = store.base(base.digest) / "base.json"
    before = record.stat()
    assert make_base(store, ingredients, kvm=False) == base == load_base(store, base.digest)
    assert record.stat() == before
    assert json.loads(record.read_text())["kernel_version"] == "6.1.0-test"
    assert {path.name for path in record.parent.iterdir()} == {
        "base.erofs", "base.json", "initramfs", "mbr.bin", "vmlinux",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["init", "mbr", "loader", "vmlinuz"])
def test_another_ingredient_makes_another_base(tmp_path: Path, ingredients: Ingredients, name: str) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    first = make_base(store, ingredients, kvm=False)
    (tmp_path / name).write_text("another")
    assert make_base(store, ingredients, kvm=False).digest != first.digest


def test_a_built_kernel_makes_another_base_and_is_named(tmp_path: Path, ingredients: Ingredients) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    first = make_base(store, ingredients, kvm=False)
    (tmp_path / "bzImage").write_text("vmlinuz")
    (tmp_path / "kernel.json").write_text('{"version": "6.1.0-test", "profile": "minimal", "digest": "sha256:0"}')
    second = make_base(store, dataclasses.replace(ingredients, kernel=tmp_path), kvm=False)
    assert first.digest != second.digest
    assert load_base(store, second.digest).kernel_version == "6.1.0-test minimal"


@pytest.mark.parametrize("field", ["init", "mkfs_erofs", "mbr", "systemd_boot"])
def test_a_missing_ingredient_is_named(tmp_path: Path, ingredients: Ingredients, field: str) -> None:
    lacking = dataclasses.replace(ingredients, **{field: tmp_path / "absent"})
    with pytest.raises(NotFound, match=r"absent is missing.*make setup"):
        make_base(ArtifactStore(tmp_path / "artifacts"), lacking, kvm=False)


def test_a_base_that_fails_leaves_nothing(
    tmp_path: Path, ingredients: Ingredients, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_settings: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(subject, "_write_disks", fail)
    store = ArtifactStore(tmp_path / "artifacts")
    with pytest.raises(OSError, match="disk full"):
        make_base(store, ingredients, kvm=False)
    assert not (store.root / "bases").exists()
    assert not list((store.root / "staging").iterdir())


def test_an_unknown_base_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no base sha256:0"):
        load_base(ArtifactStore(tmp_path), "sha256:0")


def test_the_record_is_frozen() -> None:
    assert Base.__dataclass_params__.frozen  # type: ignore[attr-defined]
