"""Archives of container images: which images are in one, and where in the file everything of them is.

Three layouts are read. `docker save` writes `manifest.json`, which names a configuration and layers for each image:
engines up to 24 as `<hex>.json` and `<id>/layer.tar`, where a layer that several images share is a symbolic link in all
but the first; those from 25 on in `blobs/sha256/`. An OCI image layout (OCI image specification 1.1, image-layout.md)
has `index.json`, whose descriptors lead to manifests, perhaps over further indexes.

Nothing is unpacked: names in the archive are keys, never paths, and content is read where it is. What is in
`blobs/sha256/` has to have the digest that it is named by.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uhm_builder.errors import ContentMismatch, InvalidArchive, InvalidReference
from uhm_builder.pieces import PIECE
from uhm_builder.sources.manifest import Descriptor, Index, parse_manifest
from uhm_builder.sources.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uhm_builder.sources.platforms import Platform, TargetPlatform

__all__ = ["BLOBS", "JSON_MAX", "Entry", "PackedImage", "PackedImages", "PackedManifest"]

ENTRIES_MAX = 20_000
JSON_MAX = 4 << 20
EXTENDED_MAX = 1 << 20
"""Bytes of one extended header (pax, GNU long name), which tarfile reads as a whole."""
LINKS_MAX = 8
INDEXES_MAX = 4
BLOBS = "blobs/sha256/"
CONTAINERD_NAME = "io.containerd.image.name"
OCI_NAME = "org.opencontainers.image.ref.name"
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where content is in the file, and the digest that its name promises, if it does."""

    name: str
    offset: int
    size: int
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedManifest:
    """One image for one platform. The digest is the manifest's, or where there is none the configuration's."""

    digest: str
    config: bytes
    layers: tuple[Entry, ...]
    platform: Platform | None = None
    """As which an index has it, where one had to be chosen from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedImage:
    """An image in an archive, by all names that it can be asked for; `reference` is empty where none is complete."""

    names: tuple[str, ...]
    reference: str
    config: str = ""
    layers: tuple[str, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    """In an OCI layout; else `config` and `layers` are names in the archive."""

    def is_called(self, name: str) -> bool:
        """Whether it can be asked for by that name."""
        return name in self.names or (_complete(name) or name) in self.names


class _Member(tarfile.TarInfo):
    """An entry whose header does not make tarfile read without bound."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in EXTENDED and self.size > EXTENDED_MAX):
            raise tarfile.ReadError("a header has an impossible size")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        if member.size < 0:
            raise tarfile.ReadError("an entry has a negative size")
        return member


class PackedImages:
    """An open, uncompressed archive. Its methods block; `pieces` may be called from several threads at once."""

    def __init__(self, path: Path) -> None:
        """Reads the headers. Raises InvalidArchive where it is no tar archive, or one with too many entries."""
        self._path = path
        self._members: dict[str, tarfile.TarInfo] = {}
        entries = 0
        try:
            with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined] # else it keeps those of repeated names, too
                    entries += 1
                    if entries > ENTRIES_MAX:
                        raise InvalidArchive(f"The archive has more than {ENTRIES_MAX} entries.")
                    member.pax_headers = {}  # a global header would be in each of them
                    self._members[posixpath.normpath(member.name)] = member
        except (tarfile.TarError, RecursionError, ValueError) as error:
            raise InvalidArchive(
                f"The upload is not a tar archive that can be read: {error}.",
                hint="Send what `docker save` writes, or an OCI image layout in a tar archive.",
            ) from error

    def images(self) -> list[PackedImage]:
        """All images, in the archive's order. Raises InvalidArchive where it has none of the known layouts."""
        if "manifest.json" in self._members:
            return [_saved_image(record) for record in _records(self._json("manifest.json"))]
        if "index.json" in self._members:
            return _layout_images(self._json("index.json"))
        raise InvalidArchive(
            "The archive has neither a manifest.json nor an index.json, so it holds no container images.",
            hint="Send what `docker save` writes, not `docker export`; or an OCI image layout.",
        )

    def manifest(self, image: PackedImage, *, target: TargetPlatform) -> PackedManifest:
        """What the image is made of, for this platform where it has several.

        Raises what the rest here does, and UnsupportedImage.
        """
        if image.manifests:
            return self._manifest(Index(manifests=image.manifests), target=target)
        config = self._document(self._entry(image.config))
        layers = tuple(self._entry(name) for name in image.layers)
        return PackedManifest(digest=f"sha256:{hashlib.sha256(config).hexdigest()}", config=config, layers=layers)

    def pieces(self, entry: Entry) -> Iterator[bytes]:
        """Content, in pieces. Raises ContentMismatch at the end where it has another digest than its name."""
        sha256 = hashlib.sha256()
        with self._path.open("rb") as file:
            file.seek(entry.offset)
            left = entry.size
            while left:
                piece = file.read(min(left, PIECE))
                if not piece:
                    raise ContentMismatch(f"The archive ends in the middle of {entry.name}.")
                left -= len(piece)
                if entry.digest:
                    sha256.update(piece)
                yield piece
        if entry.digest and (found := f"sha256:{sha256.hexdigest()}") != entry.digest:
            raise ContentMismatch(f"{entry.name} in the archive has the digest {found}.", hint="It is damaged.")

    def _manifest(self, index: Index, *, target: TargetPlatform) -> PackedManifest:
        for _ in range(INDEXES_MAX):
            chosen, platform = _chosen(index, target=target)
            document = self._document(self._blob(chosen))
            found = parse_manifest(document, content_type=chosen.media_type)
            if not isinstance(found, Index):
                config = self._document(self._blob(found.config))
                layers = tuple(self._blob(layer) for layer in found.layers)
                return PackedManifest(digest=chosen.digest, config=config, layers=layers, platform=platform)
            index = found
        raise InvalidArchive(f"The archive has indexes in indexes, more than {INDEXES_MAX} deep.")

    def _blob(self, descriptor: Descriptor) -> Entry:
        entry = self._entry(BLOBS + descriptor.digest.removeprefix("sha256:"))
        if entry.size != descriptor.size:
            raise ContentMismatch(f"{entry.name} in the archive has {entry.size} bytes, not {descriptor.size}.")
        return entry

    def _entry(self, name: str) -> Entry:
        """The file of that name, where links lead to one. Raises InvalidArchive."""
        key = posixpath.normpath(name)
        for _ in range(LINKS_MAX):
            member = self._members.get(key)
            if member is None:
                break
            if member.issym():
                key = posixpath.normpath(posixpath.join(posixpath.dirname(key), member.linkname))
            elif member.islnk():
                key = posixpath.normpath(member.linkname)
            elif member.isreg() and not member.issparse():
                digest = f"sha256:{key.removeprefix(BLOBS)}" if key.startswith(BLOBS) else ""
                return Entry(name=key, offset=member.offset_data, size=member.size, digest=digest)
            else:
                break
        raise InvalidArchive(f"The archive should have a file {name[:200]!r}, but has none.", hint="It is incomplete.")

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._document(self._entry(name)))
        except (ValueError, RecursionError) as error:
            raise InvalidArchive(f"{name} in the archive is not valid JSON.") from error

    def _document(self, entry: Entry) -> bytes:
        if entry.size > JSON_MAX:
            raise InvalidArchive(f"{entry.name} in the archive has more than {JSON_MAX} bytes.")
        return b"".join(self.pieces(entry))


def _chosen(index: Index, *, target: TargetPlatform) -> tuple[Descriptor, Platform | None]:
    """The entry to go on with, and as what; an only one may say nothing, or lead to an index."""
    if len(index.manifests) == 1:
        return index.manifests[0], index.manifests[0].made_for
    if not target.runnable or (found := index.find(target.platform)) is None:
        raise target.refusal(index.offered)
    return found, found.made_for


def _records(document: Any, *, key: str = "") -> list[dict[str, Any]]:
    """The objects in a list. Raises InvalidArchive for what is no such list, or an empty one."""
    records = document.get(key) if key and isinstance(document, dict) else document
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise InvalidArchive("The archive lists no images.")
    return records


def _saved_image(record: dict[str, Any]) -> PackedImage:
    config, layers, tags = record.get("Config"), record.get("Layers") or [], record.get("RepoTags") or []
    if not isinstance(config, str) or not all(isinstance(name, str) for name in [*layers, *tags]):
        raise InvalidArchive("manifest.json in the archive is not what `docker save` writes.")
    complete = [name for tag in tags if (name := _complete(tag))]
    image_id = posixpath.basename(config).removesuffix(".json").removeprefix("sha256:")
    return PackedImage(
        names=(*complete, image_id, image_id[:12]),
        reference=complete[0] if complete else "",
        config=config,
        layers=tuple(layers),
    )


def _layout_images(document: Any) -> list[PackedImage]:
    """Descriptors with the same name, or with none but a platform, are one image for several platforms."""
    named: dict[tuple[str, str], list[Descriptor]] = {}
    for record in _records(document, key="manifests"):
        annotations = record.get("annotations") or {}
        if not isinstance(annotations, dict):
            raise InvalidArchive("index.json in the archive is not that of an OCI image layout.")
        (descriptor,) = _descriptors(record)
        if descriptor.platform.startswith("unknown"):  # an attestation (BuildKit)
            continue
        short = str(annotations.get(OCI_NAME, ""))
        name = str(annotations.get(CONTAINERD_NAME, "")) or (short if set(short) & set(":/") else "")
        if not name and not short and not descriptor.platform:
            short = descriptor.digest
        named.setdefault((_complete(name), short), []).append(descriptor)
    return [
        PackedImage(
            names=tuple(name for name in (reference, short) if name), reference=reference, manifests=tuple(manifests)
        )
        for (reference, short), manifests in named.items()
    ]


def _descriptors(record: dict[str, Any]) -> tuple[Descriptor, ...]:
    found = parse_manifest(json.dumps({"manifests": [record]}).encode(), content_type="")
    assert isinstance(found, Index)
    return found.manifests


def _complete(name: str) -> str:
    """A name as a complete reference; empty where it is none that an image can have here."""
    try:
        reference = parse_reference(name)
    except InvalidReference:
        return ""
    return "" if reference.in_engine or reference.digest else str(reference)
