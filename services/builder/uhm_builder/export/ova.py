"""An appliance of virtual machines (OVA): a tar archive of a description (OVF), checksums, and a disk.

Specification: DMTF DSP0243 1.1 and DSP8023, the namespace of OVF 1; ustar, the description first. VMware and VirtualBox
import it. Nothing in it depends on when or by whom it was made.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from uhm_builder.export.identities import guid

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["describe", "write_ova"]

_OVF = "http://schemas.dmtf.org/ovf/envelope/1"
_CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2"
_RASD, _VSSD = f"{_CIM}/CIM_ResourceAllocationSettingData", f"{_CIM}/CIM_VirtualSystemSettingData"
_STREAM_OPTIMIZED = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
_NAMESPACES = {"xmlns": _OVF, "xmlns:ovf": _OVF, "xmlns:rasd": _RASD, "xmlns:vssd": _VSSD}
"""Declared as most programs write it, with OVF's as the default for elements: not every importer resolves prefixes."""

PROCESSORS, MEMORY_MIB = 1, 1024

USTAR_MAX = 8 << 30
"""Bytes, of a member: its size has eleven octal digits. GNU's format, which tars of any kind read, has more."""

# Resource types of CIM: 3 processor, 4 memory, 6 SCSI controller, 10 network card, 17 disk. Elements of an item are
# sorted by name, which the schema demands.
_ITEMS: tuple[dict[str, str], ...] = (
    {"ElementName": f"{PROCESSORS} processor", "InstanceID": "1", "ResourceType": "3",
     "VirtualQuantity": str(PROCESSORS)},
    {"AllocationUnits": "byte * 2^20", "ElementName": f"{MEMORY_MIB} MB of memory", "InstanceID": "2",
     "ResourceType": "4", "VirtualQuantity": str(MEMORY_MIB)},
    {"Address": "0", "ElementName": "SCSI controller", "InstanceID": "3", "ResourceSubType": "lsilogic",
     "ResourceType": "6"},
    {"AddressOnParent": "0", "ElementName": "disk", "HostResource": "ovf:/disk/disk", "InstanceID": "4", "Parent": "3",
     "ResourceType": "17"},
    {"AutomaticAllocation": "true", "Connection": "network", "ElementName": "network card", "InstanceID": "5",
     "ResourceSubType": "E1000", "ResourceType": "10"},
)  # fmt: skip


def write_ova(path: Path, disk: Path, *, name: str, seed: str, virtual_size: int) -> None:
    """Write the archive around a stream-optimised vmdk. `name` is what the machine and the files in it are called."""
    description = describe(name=name, seed=seed, virtual_size=virtual_size, file_size=disk.stat().st_size)
    with disk.open("rb") as content:
        sums = {f"{name}.ovf": hashlib.sha256(description), f"{name}.vmdk": hashlib.file_digest(content, "sha256")}
    manifest = "".join(f"SHA256({file})= {digest.hexdigest()}\n" for file, digest in sums.items()).encode()
    tar_format = tarfile.USTAR_FORMAT if disk.stat().st_size < USTAR_MAX else tarfile.GNU_FORMAT
    with tarfile.open(path, "w", format=tar_format) as archive:
        for file, text in ((f"{name}.ovf", description), (f"{name}.mf", manifest)):
            archive.addfile(_member(file, len(text)), io.BytesIO(text))
        with disk.open("rb") as content:
            archive.addfile(_member(f"{name}.vmdk", disk.stat().st_size), content)


def describe(*, name: str, seed: str, virtual_size: int, file_size: int) -> bytes:
    """The description of a machine with this disk."""
    envelope = ElementTree.Element("Envelope", _NAMESPACES)
    references = _add(envelope, "References")
    _add(references, "File", href=f"{name}.vmdk", id="file", size=str(file_size))
    disks = _add(envelope, "DiskSection")
    _add(disks, "Info", text="Disks")
    _add(
        disks,
        "Disk",
        capacity=str(virtual_size),
        capacityAllocationUnits="byte",
        diskId="disk",
        fileRef="file",
        format=_STREAM_OPTIMIZED,
    )
    networks = _add(envelope, "NetworkSection")
    _add(networks, "Info", text="Networks")
    network = _add(networks, "Network", name="network")
    _add(network, "Description", text="Any network with DHCP")
    _describe_system(envelope, name=name, identity=str(guid(seed, "ova")))
    ElementTree.indent(envelope)
    document: bytes = ElementTree.tostring(envelope, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _describe_system(envelope: ElementTree.Element, *, name: str, identity: str) -> None:
    system = _add(envelope, "VirtualSystem", id=name)
    _add(system, "Info", text="A container image as a machine")
    _add(system, "Name", text=name)
    kind = _add(system, "OperatingSystemSection", id="101")  # CIM_OperatingSystem: 64-bit Linux
    _add(kind, "Info", text="The guest's operating system")
    hardware = _add(system, "VirtualHardwareSection")
    _add(hardware, "Info", text="Virtual hardware")
    settings = _add(hardware, "System")
    values = {"InstanceID": "0", "VirtualSystemIdentifier": identity, "VirtualSystemType": "vmx-10"}
    _fill(settings, "vssd", {"ElementName": "Virtual hardware"} | values)
    for item in _ITEMS:
        _fill(_add(hardware, "Item"), "rasd", item)


def _add(parent: ElementTree.Element, tag: str, *, text: str | None = None, **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, {f"ovf:{key}": value for key, value in attributes.items()})
    element.text = text
    return element


def _fill(element: ElementTree.Element, prefix: str, values: dict[str, str]) -> None:
    for key, value in values.items():
        ElementTree.SubElement(element, f"{prefix}:{key}").text = value


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member
