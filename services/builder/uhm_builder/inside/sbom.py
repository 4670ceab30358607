"""A software bill of materials: the packages of an image, as CycloneDX 1.6 or SPDX 2.3, both JSON.

The same image gives the same document: its times are the image's, its identifiers derive from the disk's digest.
Licenses are told as the packages tell them, which is no SPDX expression, so they are declared by name, not by id.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from uhm_builder.inside.packages import Ecosystem
from uhm_common.errors import InvalidArgument

if TYPE_CHECKING:
    from uhm_builder.images import Image
    from uhm_builder.inside.packages import Inventory, Package

__all__ = ["Sbom", "SbomFormat", "sbom_document"]

TOOL = "uhmalguhm"
SPACE = "https://uhmalguhm.invalid/sbom/"
NAMESPACE = uuid.UUID("9f2f6a0e-1b86-5f3e-8a0c-5d2f5c8a4e11")
NO_ID = re.compile(r"[^A-Za-z0-9.-]")


class SbomFormat(StrEnum):
    """As the API names them."""

    CYCLONEDX = "cyclonedx"
    SPDX = "spdx"

    @classmethod
    def of(cls, name: str) -> Self:
        """The format of that name; the first one where it is empty. Raises InvalidArgument."""
        try:
            return cls(name or "cyclonedx")
        except ValueError:
            raise InvalidArgument(
                f"There is no format {name!r} of a bill of materials.", hint="There are cyclonedx and spdx."
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sbom:
    """A document."""

    content_type: str
    content: bytes


def sbom_document(image: Image, inventory: Inventory, kind: SbomFormat) -> Sbom:
    """The bill of materials of an image."""
    if kind is SbomFormat.SPDX:
        return Sbom(content_type="application/spdx+json", content=_json(_spdx(image, inventory)))
    text = JsonV1Dot6(_cyclonedx(image, inventory)).output_as_string(indent=2)
    return Sbom(content_type="application/vnd.cyclonedx+json; version=1.6", content=text.encode() + b"\n")


def package_url(package: Package, os_release: dict[str, str] | Any) -> PackageURL:
    """What names a package everywhere (purl specification): distributions' packages by the distribution, too."""
    qualifiers: dict[str, str] = {}
    name, namespace, release = package.name, None, package.version
    match package.ecosystem:
        case Ecosystem.DEB | Ecosystem.APK | Ecosystem.RPM:
            namespace = os_release.get("ID") or {"deb": "debian", "apk": "alpine"}.get(package.ecosystem, "unknown")
            if package.architecture:
                qualifiers["arch"] = package.architecture
            if version_id := os_release.get("VERSION_ID"):
                qualifiers["distro"] = f"{namespace}-{version_id}"
            if package.ecosystem is Ecosystem.RPM and ":" in release:
                qualifiers["epoch"], _, release = release.partition(":")
        case Ecosystem.NPM if "/" in name:
            namespace, _, name = name.rpartition("/")
        case Ecosystem.PYPI:
            name = name.lower().replace("_", "-")
    return PackageURL(package.ecosystem, namespace, name, release or None, qualifiers)


def _cyclonedx(image: Image, inventory: Inventory) -> Bom:
    described = Component(
        name=image.reference,
        version=image.digest,
        type=ComponentType.CONTAINER,
        bom_ref=image.disk_digest,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=image.disk_digest.removeprefix("sha256:"))],
    )
    tool = Component(name=TOOL, version=version("uhm-builder"), type=ComponentType.APPLICATION)
    metadata = BomMetaData(
        timestamp=_time(image),
        component=described,
        properties=[Property(name="uhmalguhm:omission", value=omission) for omission in inventory.omissions],
    )
    metadata.tools.components.add(tool)
    components = [_component(package, inventory) for package in inventory.packages]
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, image.disk_digest), metadata=metadata, components=_unique(components))
    bom.register_dependency(described, components)
    return bom


def _component(package: Package, inventory: Inventory) -> Component:
    url = package_url(package, inventory.os_release)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=url.to_string(),
        purl=url,
        supplier=OrganizationalEntity(name=package.supplier) if package.supplier else None,
        licenses=[DisjunctiveLicense(name=package.license)] if package.license else None,
    )


def _unique(components: list[Component]) -> list[Component]:
    """Components with a purl of their own: two packages may come to the same one."""
    return list({str(component.bom_ref.value): component for component in components}.values())


def _spdx(image: Image, inventory: Inventory) -> dict[str, Any]:
    identifier = uuid.uuid5(NAMESPACE, image.disk_digest)
    described = {
        "SPDXID": "SPDXRef-Image",
        "name": image.reference,
        "versionInfo": image.digest,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": image.disk_digest.removeprefix("sha256:")}],
    }
    packages = [_spdx_package(number, each, inventory) for number, each in enumerate(inventory.packages, start=1)]
    contains = [
        {"spdxElementId": "SPDXRef-Image", "relationshipType": "CONTAINS", "relatedSpdxElement": each["SPDXID"]}
        for each in packages
    ]
    describes = {
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-Image",
    }
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image.reference,
        "documentNamespace": f"{SPACE}{identifier}",
        "creationInfo": {
            "created": _time(image).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: {TOOL}-{version('uhm-builder')}"],
        },
        "packages": [described, *packages],
        "relationships": [describes, *contains],
    }
    if inventory.omissions:
        document["comment"] = " ".join(inventory.omissions)
    return document


def _spdx_package(number: int, package: Package, inventory: Inventory) -> dict[str, Any]:
    url = package_url(package, inventory.os_release).to_string()
    record = {
        "SPDXID": f"SPDXRef-{number}-{package.ecosystem}-{NO_ID.sub('-', package.name)}",
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseDeclared": "NOASSERTION",
        "supplier": f"Organization: {package.supplier}" if package.supplier else "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}],
    }
    if package.license:
        record["licenseComments"] = f"The package says: {package.license}"
    return record


def _time(image: Image) -> datetime:
    """When the image became ready, in whole seconds."""
    return datetime.fromtimestamp((image.ended_at or image.created_at) // 1_000_000_000, UTC)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
