"""Packages as documents that their own validators accept."""

from __future__ import annotations

import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st

from uhm_builder.images import Image, Status
from uhm_builder.inside.packages import Ecosystem, Inventory, Package, parse_apk, parse_dpkg, parse_os_release
from uhm_builder.inside.sbom import SbomFormat, package_url, sbom_document
from uhm_common.errors import InvalidArgument

IMAGE = Image(
    number=1,
    id="a" * 32,
    owner="ann",
    reference="nginx:latest",
    status=Status.READY,
    created_at=1,
    ended_at=1_700_000_000_123_456_789,
    digest=f"sha256:{'c' * 64}",
    disk_digest=f"sha256:{'d' * 64}",
)
DEBIAN = {"ID": "debian", "VERSION_ID": "12"}
INVENTORY = Inventory(
    packages=(
        Package(
            ecosystem=Ecosystem.DEB, name="libc6", version="2.36-9+deb12u1", architecture="amd64", supplier="Ann <a@b>"
        ),
        Package(ecosystem=Ecosystem.NPM, name="@scope/left", version="1.3.0", license="MIT OR Apache-2.0"),
        Package(ecosystem=Ecosystem.PYPI, name="Six_Pack", version="1"),
        Package(ecosystem=Ecosystem.PYPI, name="six-pack", version="1"),  # the same to everybody but its installer
        Package(ecosystem=Ecosystem.RPM, name="odd name é", version="", architecture="noarch"),
    ),
    os_release=DEBIAN,
    omissions=("Something could not be read.",),
)


def test_cyclonedx_is_valid_and_complete():
    content = sbom_document(IMAGE, INVENTORY, SbomFormat.CYCLONEDX).content.decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content) is None
    document = json.loads(content)
    assert document["metadata"]["component"]["name"] == "nginx:latest"
    assert document["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
    assert document["metadata"]["properties"][0]["value"] == "Something could not be read."
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12" in {
        component["purl"] for component in document["components"]
    }
    assert len(document["components"]) == 4


def test_spdx_says_what_the_specification_wants():
    document = json.loads(sbom_document(IMAGE, INVENTORY, SbomFormat.SPDX).content)
    assert (document["spdxVersion"], document["dataLicense"]) == ("SPDX-2.3", "CC0-1.0")
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    ids = [package["SPDXID"] for package in document["packages"]]
    assert len(ids) == len(set(ids)) == 6
    related = {each["relatedSpdxElement"] for each in document["relationships"]}
    assert related == set(ids)


@pytest.mark.parametrize("kind", list(SbomFormat))
def test_the_same_image_gives_the_same_document(kind):
    assert sbom_document(IMAGE, INVENTORY, kind) == sbom_document(IMAGE, INVENTORY, kind)


@pytest.mark.parametrize("kind", list(SbomFormat))
def test_an_image_without_packages_has_a_document(kind):
    json.loads(sbom_document(IMAGE, Inventory(packages=()), kind).content)


def test_formats():
    assert SbomFormat.of("") is SbomFormat.CYCLONEDX
    with pytest.raises(InvalidArgument, match="cyclonedx and spdx"):
        SbomFormat.of("syft")


@pytest.mark.parametrize(
    ("package", "url"),
    [
        (Package(ecosystem=Ecosystem.APK, name="musl", version="1-r0"), "pkg:apk/debian/musl@1-r0?distro=debian-12"),
        (
            Package(ecosystem=Ecosystem.RPM, name="hello", version="2:1.0-3", architecture="x86_64"),
            "pkg:rpm/debian/hello@1.0-3?arch=x86_64&distro=debian-12&epoch=2",
        ),
        (Package(ecosystem=Ecosystem.NPM, name="@a/b", version="1"), "pkg:npm/%40a/b@1"),
        (Package(ecosystem=Ecosystem.PYPI, name="My_Lib", version="1"), "pkg:pypi/my-lib@1"),
    ],
)
def test_package_urls(package, url):
    assert package_url(package, DEBIAN).to_string() == url


def test_dpkg_without_a_status_is_installed():
    content = (
        b"Package: base-files\nVersion: 12\n\nPackage: half\nStatus: install ok half-installed\nVersion: 1\n\n\xff\n"
    )
    assert [package.name for package in parse_dpkg(content)] == ["base-files"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"P\n\nX:y", b":" * 1000])
def test_garbage_is_no_package(content):
    assert list(parse_apk(content)) == []
    assert list(parse_dpkg(content)) == []


@given(st.binary())
def test_no_database_breaks_its_parser(content):
    list(parse_apk(content))
    list(parse_dpkg(content))
    list(parse_dpkg(b"Package: a\n" + content))
    parse_os_release(content)


def test_os_release():
    content = b'# comment\nID=alpine\nNAME="A \\"B\\""\nVERSION_ID=\'3.20\'\nbroken\n'
    found = parse_os_release(content)
    assert (found["ID"], found["VERSION_ID"]) == ("alpine", "3.20")
