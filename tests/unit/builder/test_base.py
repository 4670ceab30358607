"""The base's record and its name. That one is really made and boots, tests/integration/test_guest.py shows."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from uhm_builder import base as subject
from uhm_builder.base import Base, Ingredients, load_base, make_base
from uhm_common.artifacts import ArtifactStore
from uhm_common.errors import InternalError, NotFound
from uhm_guest.initramfs import MODULES
from uhm_guest.kernel import Kernel, read_built_kernel

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SEALS = b"".join(b"APPEND quiet uhm.seal=" + b"0" * 64 + b"\n" + bytes(100) for _ in range(2))


@pytest.fixture
def ingredients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ingredients:
    """Ingredients that are text, and stand-ins for the tools that would read them."""
    for name in ("init", "mkfs", "mbr", "loader", "vmlinuz"):
        (tmp_path / name).write_text(name)
    kernel = Kernel(version="6.1.0-test", image=tmp_path / "vmlinuz", modules=None)

    def write_root(path: Path, tar: bytes, _mkfs: Path, _digest: str) -> int:
        path.write_bytes(tar)
        return MIB

    def write_disks(directory: Path, _contents: object, _digest: str, *, kvm: bool) -> None:
        assert not kvm
        (directory / "boot.raw").write_bytes(SEALS)

    monkeypatch.setattr(subject, "choose_kernel", lambda built: read_built_kernel(built) if built else kernel)
    monkeypatch.setattr(subject, "extract_vmlinux", lambda image: image)
    monkeypatch.setattr(subject, "build_initramfs", lambda init, _kernel, **_modules: init.read_bytes())
    monkeypatch.setattr(subject, "_write_root", write_root)
    monkeypatch.setattr(subject, "_write_disks", write_disks)
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
        "base.erofs", "base.json", "boot.raw", "initramfs", "mbr.bin", "vmlinux",
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


def test_the_places_for_a_seal_are_found(tmp_path: Path, ingredients: Ingredients) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    base = make_base(store, ingredients, kvm=False)
    assert base.seal_offsets == (22, 209)
    assert [SEALS[offset - 9 : offset + 65] for offset in base.seal_offsets] == [b"uhm.seal=" + b"0" * 64 + b"\n"] * 2


def test_a_base_of_the_first_recipe_has_no_place_for_a_seal(tmp_path: Path, ingredients: Ingredients) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    base = make_base(store, ingredients, kvm=False)
    path = store.base(base.digest) / "base.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({name: record[name] for name in record.keys() - {"seal_offsets"}}))
    assert load_base(store, base.digest) == dataclasses.replace(base, seal_offsets=())


@pytest.mark.parametrize("boot", [SEALS[:150], SEALS[:50] + bytes(10) + SEALS[50:], SEALS * 2])
def test_a_place_for_a_seal_that_is_not_whole_is_noticed(
    tmp_path: Path, ingredients: Ingredients, monkeypatch: pytest.MonkeyPatch, boot: bytes
) -> None:
    def write(directory: Path, *_args: object, **_settings: object) -> None:
        (directory / "boot.raw").write_bytes(boot)

    monkeypatch.setattr(subject, "_write_disks", write)
    with pytest.raises(InternalError, match=r"has [14] places for a seal; each of syslinux and systemd-boot"):
        make_base(ArtifactStore(tmp_path / "artifacts"), ingredients, kvm=False)


def unpacked_kernel(directory: Path) -> Path:
    """A kernel as `make setup` unpacks it for disks that boot by themselves."""
    modules = directory / "lib/modules/6.1.0-generic"
    modules.mkdir(parents=True)
    (directory / "boot").mkdir()
    (directory / "boot/vmlinuz-6.1.0-generic").write_text("generic")
    names = ["crc32c_generic", *MODULES]
    (modules / "modules.dep").write_text("".join(f"k/{name}.ko:\n" for name in names))
    (modules / "modules.builtin").write_text("")
    (modules / "modules.alias").write_text("")
    return directory


def test_disks_of_their_own_have_the_kernel_with_drivers(tmp_path: Path, ingredients: Ingredients) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    absent = dataclasses.replace(ingredients, portable_kernel=tmp_path / "absent")
    without = make_base(store, ingredients, kvm=False)
    assert without == make_base(store, absent, kvm=False)
    assert without.portable_kernel_version == without.kernel_version
    unpacked = dataclasses.replace(ingredients, portable_kernel=unpacked_kernel(tmp_path / "generic"))
    base = make_base(store, unpacked, kvm=False)
    assert (base.kernel_version, base.portable_kernel_version) == ("6.1.0-test", "6.1.0-generic")
    assert base.digest != without.digest


def test_their_programs_are_part_of_the_base(tmp_path: Path, ingredients: Ingredients) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    programs = tmp_path / "programs"
    digests = {make_base(store, dataclasses.replace(ingredients, portable=programs), kvm=False).digest}
    programs.mkdir()
    for content in ("cloud", "another cloud"):
        (programs / "cloud").write_text(content)
        digests.add(make_base(store, dataclasses.replace(ingredients, portable=programs), kvm=False).digest)
    assert len(digests) == 3


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
