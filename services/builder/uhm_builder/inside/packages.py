"""The packages that are installed in an image, as its package managers' own databases tell.

dpkg (its status file, and the `status.d` of images without a package manager), apk, rpm, and what Python and npm have
installed beside them. All of it is the image's word: it is parsed within bounds, and never run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from debian.deb822 import Packages

from uhm_builder.errors import NoSuchFile, NotReadable, TooMuchInside
from uhm_builder.inside.entries import is_utf8
from uhm_builder.inside.rpmdb import read_rpm_packages

if TYPE_CHECKING:
    from uhm_builder.inside.tree import Tree

__all__ = ["Ecosystem", "Inventory", "Package", "find_packages", "parse_apk", "parse_dpkg", "parse_os_release"]

MAX_DATABASE_BYTES = 64 << 20
MAX_RECORD_BYTES = 1 << 20
MAX_RECORDS = 10_000
"""Most files that are read one by one."""

DPKG_STATUS = "/var/lib/dpkg/status"
DPKG_PARTS = "/var/lib/dpkg/status.d"
APK_DATABASES = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
PYTHON = re.compile(
    r"(?:.*/)?(?P<name>[^/]+?)-(?P<version>[^/-]+)(?:-py[\d.]+)?\.(?:dist-info/METADATA|egg-info/PKG-INFO)"
)
NPM = re.compile(r"(?:.*/)?node_modules/(?:@[^/]+/)?[^/@]+/package\.json")


class Ecosystem(StrEnum):
    """Who has installed a package; the type in its package URL (purl)."""

    DEB = "deb"
    APK = "apk"
    RPM = "rpm"
    PYPI = "pypi"
    NPM = "npm"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Package:
    """An installed package."""

    ecosystem: Ecosystem
    name: str
    version: str
    architecture: str = ""
    license: str = ""
    """As the package says it, in whatever words."""
    supplier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What was found, and of which distribution it is."""

    packages: tuple[Package, ...]
    os_release: Mapping[str, str] = field(default_factory=dict)
    """os-release(5)."""
    omissions: tuple[str, ...] = ()
    """What is there but could not be read, as sentences."""


def find_packages(tree: Tree) -> Inventory:
    """Looks for packages in a tree; blocks. Raises TooMuchInside where a database is absurdly large."""
    found: set[Package] = set()
    if content := _content(tree, DPKG_STATUS):
        found.update(parse_dpkg(content))
    for name in _names(tree, DPKG_PARTS):
        if not name.endswith(".md5sums"):
            found.update(parse_dpkg(_content(tree, f"{DPKG_PARTS}/{name}", limit=MAX_RECORD_BYTES)))
    for database in APK_DATABASES:
        found.update(parse_apk(_content(tree, database)))
    rpm, omissions = read_rpm_packages(tree)
    found.update(Package(ecosystem=Ecosystem.RPM, **each) for each in rpm)
    found.update(_language_packages(tree))
    return Inventory(packages=tuple(sorted(found)), os_release=_os_release(tree), omissions=omissions)


def parse_dpkg(content: bytes) -> Iterator[Package]:
    """The installed packages of a status file (deb-control(5)); a paragraph without status is installed, too."""
    for text in content.decode(errors="replace").split("\n\n"):
        try:
            paragraph = Packages(text)
        except ValueError:  # no package manager has written that
            continue
        status = paragraph.get("Status", "install ok installed")
        if "Package" in paragraph and status.split()[-1:] == ["installed"]:
            yield Package(
                ecosystem=Ecosystem.DEB,
                name=paragraph["Package"],
                version=paragraph.get("Version", ""),
                architecture=paragraph.get("Architecture", ""),
                supplier=paragraph.get("Maintainer", ""),
            )


def parse_apk(content: bytes) -> Iterator[Package]:
    """The packages of apk's database: lines `X:value`, a blank line between packages."""
    for paragraph in content.decode(errors="replace").split("\n\n"):
        lines = (line.partition(":") for line in paragraph.splitlines())
        values = {key: value for key, colon, value in lines if colon}
        if "P" in values:
            yield Package(
                ecosystem=Ecosystem.APK,
                name=values["P"],
                version=values.get("V", ""),
                architecture=values.get("A", ""),
                license=values.get("L", ""),
                supplier=values.get("m", ""),
            )


def parse_os_release(content: bytes) -> dict[str, str]:
    """os-release(5), with the quotes taken off."""
    lines = (line.strip().partition("=") for line in content.decode(errors="replace").splitlines())
    return {key: value.strip("\"'") for key, equals, value in lines if equals and not key.startswith("#")}


def _language_packages(tree: Tree) -> Iterator[Package]:
    """What Python's and npm's installers have left, wherever that is."""
    manifests = []
    for path in tree.below("/"):
        if (named := PYTHON.fullmatch(path)) and is_utf8(path):
            yield Package(ecosystem=Ecosystem.PYPI, name=named["name"], version=named["version"])
        elif NPM.fullmatch(path) and is_utf8(path):
            manifests.append(f"/{path}")
    if len(manifests) > MAX_RECORDS:
        raise TooMuchInside(f"The image has {len(manifests)} npm packages; at most {MAX_RECORDS} are read.")
    for path in manifests:
        yield from _npm_package(_content(tree, path, limit=MAX_RECORD_BYTES))


def _npm_package(content: bytes) -> Iterator[Package]:
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(manifest, dict):
        name, version, terms = (manifest.get(key) for key in ("name", "version", "license"))
        if isinstance(name, str) and isinstance(version, str):
            said = terms if isinstance(terms, str) else ""
            yield Package(ecosystem=Ecosystem.NPM, name=name, version=version, license=said)


def _os_release(tree: Tree) -> dict[str, str]:
    for path in OS_RELEASE:
        if content := _content(tree, path, limit=MAX_RECORD_BYTES):
            return parse_os_release(content)
    return {}


def _content(tree: Tree, path: str, *, limit: int = MAX_DATABASE_BYTES) -> bytes:
    """A file's content; nothing where there is none."""
    try:
        return tree.read_whole(path, limit=limit)
    except (NoSuchFile, NotReadable):
        return b""


def _names(tree: Tree, directory: str) -> list[str]:
    try:
        names = [name for name in tree.names(directory) if is_utf8(name)]
    except (NoSuchFile, NotReadable):
        return []
    if len(names) > MAX_RECORDS:
        raise TooMuchInside(f"{directory} has {len(names)} entries; at most {MAX_RECORDS} are read.")
    return sorted(names)
