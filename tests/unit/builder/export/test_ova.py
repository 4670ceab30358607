"""The appliance: its archive and its description."""

from __future__ import annotations

import hashlib
import tarfile
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from uhm_builder.export import ova
from uhm_builder.export.ova import describe, write_ova

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"


def test_the_archive_has_its_parts_in_the_order_of_the_standard(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"KDMV" + bytes(100_000))

    write_ova(tmp_path / "a.ova", disk, name="shop", seed="s", virtual_size=1 << 30)
    write_ova(tmp_path / "b.ova", disk, name="shop", seed="s", virtual_size=1 << 30)

    assert (tmp_path / "a.ova").read_bytes() == (tmp_path / "b.ova").read_bytes()
    with tarfile.open(tmp_path / "a.ova") as archive:
        assert archive.getnames() == ["shop.ovf", "shop.mf", "shop.vmdk"]
        content = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    assert content["shop.vmdk"] == disk.read_bytes()
    sums = dict(line.split("= ") for line in content["shop.mf"].decode().splitlines())
    assert sums == {f"SHA256({name})": hashlib.sha256(content[name]).hexdigest() for name in ("shop.ovf", "shop.vmdk")}


def test_a_disk_that_is_too_large_for_ustar_is_in_the_archive_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ova, "USTAR_MAX", 512)
    disk = tmp_path / "disk"
    disk.write_bytes(b"KDMV" + bytes(1000))

    write_ova(tmp_path / "a.ova", disk, name="shop", seed="s", virtual_size=1 << 30)

    with tarfile.open(tmp_path / "a.ova") as archive:
        assert archive.getnames() == ["shop.ovf", "shop.mf", "shop.vmdk"]
        assert archive.extractfile("shop.vmdk").read() == disk.read_bytes()  # type: ignore[union-attr]
    assert (tmp_path / "a.ova").read_bytes()[257:265] == b"ustar  \0", "GNU's magic"


def test_the_description_names_the_disk_and_its_references_hold() -> None:
    root = ElementTree.fromstring(describe(name="shop", seed="s", virtual_size=123 << 20, file_size=456))

    file = root.find(f"{OVF}References/{OVF}File")
    disk = root.find(f"{OVF}DiskSection/{OVF}Disk")
    assert file is not None
    assert disk is not None
    assert (file.get(f"{OVF}href"), file.get(f"{OVF}size")) == ("shop.vmdk", "456")
    assert disk.get(f"{OVF}fileRef") == file.get(f"{OVF}id")
    assert disk.get(f"{OVF}capacity") == str(123 << 20)
    items = root.findall(f"{OVF}VirtualSystem/{OVF}VirtualHardwareSection/{OVF}Item")
    by_id = {item.findtext(f"{RASD}InstanceID"): item for item in items}
    assert len(by_id) == len(items)
    for item in items:
        names = [child.tag for child in item]
        assert names == sorted(names), "the schema wants them sorted"
        assert item.findtext(f"{RASD}Parent") in {None, *by_id}
    drive = next(item for item in items if item.findtext(f"{RASD}ResourceType") == "17")
    assert drive.findtext(f"{RASD}HostResource") == f"ovf:/disk/{disk.get(f'{OVF}diskId')}"
    network = next(item for item in items if item.findtext(f"{RASD}ResourceType") == "10")
    assert network.findtext(f"{RASD}Connection") == root.find(f"{OVF}NetworkSection/{OVF}Network").get(f"{OVF}name")  # type: ignore[union-attr]
