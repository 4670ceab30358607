"""How an image lies at a location: which objects make it up, in which order they come, and where they are found again.

In a directory, a bucket, a WebDAV collection:

    index.json                                what there is (`index`)
    images/nginx/latest/manifest.json         one image (`document`)
    images/nginx/latest/nginx-3f2a….qcow2     its disk
    layers/<digest>.erofs                     layers, each once, of all images

In a registry each image has a repository of its own below the location's:

    nginx:latest        a KubeVirt containerDisk: an image whose only layer holds /disk/nginx.qcow2
    nginx:latest-uhm    an artifact: the document as its configuration, EROFS file systems as its layers
    uhm-index:…         the documents of all images once more, so that one repository's tags list them, and the index

What is named by its content never changes. What is named by the image's name is written last, and small: so a name
never stands for something that is half there, and an image that is published again leaves nobody with a mixture. What
former versions of an image had stays.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from uhm_builder.errors import ContentMismatch, InvalidStorage, StorageRefused
from uhm_builder.sources.reference import Reference, parse_reference
from uhm_builder.storage.content import Content
from uhm_builder.storage.document import DOCUMENT_MAX, Document, DocumentDisk, DocumentLayer
from uhm_builder.storage.objects import read_document

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from uhm_builder.images import ImageConfig
    from uhm_builder.storage.objects import ObjectStore

__all__ = [
    "INDEX_MAX",
    "DiskFile",
    "Layout",
    "ObjectLayout",
    "Publishable",
    "RegistryLayout",
    "Upload",
    "path_of",
    "public",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
ARTIFACT = "application/vnd.uhmalguhm.image.v1+json"
INDEX = "application/vnd.uhmalguhm.index.v1+json"
EROFS = "application/vnd.uhmalguhm.layer.v1.erofs"
DIFF_ID = "io.uhmalguhm.diff-id"
EMPTY = Content.of(b"{}")

DOCUMENT = "manifest.json"
INDEX_FILE = "index.json"
INDEX_MAX = 16 << 20
ENTRY = "image-"
ENTRY_DIGITS = 40
TAG_MAX = 128
ARTIFACT_SUFFIX = "-uhm"
INDEX_REPOSITORY = "uhm-index"
QEMU = 107
"""The user and the group that KubeVirt runs QEMU as."""
CONTAINER_DISKS = ("qcow2", "raw")
FILE_SUFFIXES = (".json", ".qcow2", ".raw", ".vmdk", ".vhdx", ".vhd", ".vdi", ".ova")
DIGEST = re.compile(r"sha256:[a-f0-9]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An object that is to be put."""

    name: str
    content: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFile:
    """A disk that boots by itself, as it was exported."""

    path: Path
    size: int
    digest: str
    format: str
    suffix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishable:
    """All that is published of an image. `layers` are diffIDs and EROFS file systems, the bottom one first."""

    reference: Reference
    digest: str
    config: ImageConfig
    layers: tuple[tuple[str, Content], ...]
    disk: DiskFile
    published_at: datetime

    def document(self, *, layer_names: tuple[str, ...], disk: Upload) -> Document:
        """What is written of it, with what lies there as what."""
        layers = tuple(
            DocumentLayer(diff_id=diff_id, digest=content.digest, size=content.size, name=name)
            for (diff_id, content), name in zip(self.layers, layer_names, strict=True)
        )
        return Document(
            reference=str(self.reference),
            digest=self.digest,
            published_at=self.published_at,
            config=self.config,
            layers=layers,
            disk=DocumentDisk(
                format=self.disk.format, digest=disk.content.digest, size=disk.content.size, name=disk.name
            ),
        )


class Layout(Protocol):
    """Where things lie at a location of some kind."""

    listing: str
    """What the names of all documents, and of little else, begin with."""
    deletes: bool
    """Whether such a location can be counted on to delete what it is asked to."""

    def check(self, reference: Reference, *, format: str) -> None:  # noqa: A002
        """Raises InvalidStorage for an image, or a format, that cannot be published there."""

    def uploads(self, image: Publishable) -> tuple[Upload, ...]:
        """All objects, in the order in which they must come: what makes the image known is last. Blocks."""

    def layer(self, reference: Reference, digest: str) -> str:
        """The name of a layer's file system."""

    async def document(self, store: ObjectStore, reference: Reference) -> bytes:
        """An image's document. Raises NotAtStorage."""

    def is_document(self, name: str) -> bool:
        """Whether an object of the listing is a document."""

    async def listed(self, store: ObjectStore, name: str) -> bytes:
        """A document of the listing. Raises NotAtStorage."""

    def index(self, body: bytes) -> tuple[Upload, ...]:
        """The objects that make up an index."""

    async def read_index(self, store: ObjectStore) -> bytes:
        """The index. Raises NotAtStorage."""

    def probe(self, content: Content) -> str:
        """The name for something that is written to try a location out."""


def public(reference: str) -> Reference:
    """An image's name without where it came from."""
    return replace(parse_reference(reference), in_engine=False, location="")


def path_of(reference: Reference) -> tuple[str, str]:
    """An image's name and tag as parts of paths: a registry's port is parted with `_`, a digest's kind with `-`."""
    return reference.name.lower().replace(":", "_"), reference.target.replace(":", "-")


class ObjectLayout:
    """In a directory, a bucket, a WebDAV collection."""

    listing = "images/"
    deletes = True

    def check(self, reference: Reference, *, format: str) -> None:  # noqa: A002
        """Any format goes; a tag must not look like one of our files."""
        del format
        if reference.target.endswith(FILE_SUFFIXES):
            raise InvalidStorage(
                f"An image with the tag {reference.target!r} cannot be published there.", hint="Give it another tag."
            )

    def uploads(self, image: Publishable) -> tuple[Upload, ...]:
        """Layers, disk, document."""
        layers = tuple(
            Upload(name=self.layer(image.reference, content.digest), content=content) for _, content in image.layers
        )
        directory = _directory(image.reference)
        title = path_of(image.reference)[0].rpartition("/")[2]
        disk = Upload(
            name=f"{directory}/{title}-{_hex(image.disk.digest)[:16]}.{image.disk.suffix}",
            content=Content.of(image.disk.path, digest=image.disk.digest),
        )
        document = image.document(layer_names=tuple(layer.name for layer in layers), disk=disk)
        known = Upload(name=f"{directory}/{DOCUMENT}", content=Content.of(document.encoded()))
        return (*layers, disk, known)

    def layer(self, reference: Reference, digest: str) -> str:
        """One for all images."""
        del reference
        return f"layers/{_hex(digest)}.erofs"

    async def document(self, store: ObjectStore, reference: Reference) -> bytes:
        """The file in the image's directory."""
        return await read_document(store, f"{_directory(reference)}/{DOCUMENT}", at_most=DOCUMENT_MAX)

    def is_document(self, name: str) -> bool:
        """By its name."""
        return name.endswith(f"/{DOCUMENT}")

    async def listed(self, store: ObjectStore, name: str) -> bytes:
        """The file itself."""
        return await read_document(store, name, at_most=DOCUMENT_MAX)

    def index(self, body: bytes) -> tuple[Upload, ...]:
        """One file."""
        return (Upload(name=INDEX_FILE, content=Content.of(body)),)

    async def read_index(self, store: ObjectStore) -> bytes:
        """That file."""
        return await read_document(store, INDEX_FILE, at_most=INDEX_MAX)

    def probe(self, content: Content) -> str:
        """A file of its own, for there may be several who try."""
        return f"uhm-probe-{_hex(content.digest)[:ENTRY_DIGITS]}"


class RegistryLayout:
    """In a registry."""

    listing = f"{INDEX_REPOSITORY}/manifests/"
    deletes = False  # many registries keep what nothing refers to until their operator collects garbage

    def check(self, reference: Reference, *, format: str) -> None:  # noqa: A002
        """A containerDisk holds what KubeVirt reads, and there must be room in the tag for what we put behind it."""
        name, tag = path_of(reference)
        if format not in CONTAINER_DISKS:
            raise InvalidStorage(
                f"A disk in format {format} cannot be published in a registry.",
                hint=f"KubeVirt reads {' and '.join(CONTAINER_DISKS)}.",
            )
        if name == INDEX_REPOSITORY:
            raise InvalidStorage(
                f"An image named {reference} cannot be published in a registry.", hint="The index has this name there."
            )
        if len(tag) + len(ARTIFACT_SUFFIX) > TAG_MAX or tag.endswith(ARTIFACT_SUFFIX):
            raise InvalidStorage(
                f"An image with the tag {tag!r} cannot be published in a registry.",
                hint=f"Give it one of up to {TAG_MAX - len(ARTIFACT_SUFFIX)} characters without "
                f"{ARTIFACT_SUFFIX!r} at its end: that is what is put behind the tags of artifacts.",
            )

    def uploads(self, image: Publishable) -> tuple[Upload, ...]:
        """Layers; the containerDisk, the artifact, and the document for the index."""
        name, tag = path_of(image.reference)
        layers = tuple(_blob(name, content) for _, content in image.layers)
        archive = _container_disk(name.rpartition("/")[2], image.disk)
        disk = _blob(name, archive)
        document = image.document(layer_names=tuple(layer.name for layer in layers), disk=disk).encoded()
        described = [
            _descriptor(EROFS, content) | {"annotations": {DIFF_ID: diff_id}} for diff_id, content in image.layers
        ]
        entry = hashlib.sha256(f"{name}:{tag}".encode()).hexdigest()[:ENTRY_DIGITS]
        return (
            *layers,
            disk,
            *_image(name, tag, archive, architecture=image.config.architecture),
            *_artifact(name, f"{tag}{ARTIFACT_SUFFIX}", ARTIFACT, document, layers=described),
            *_artifact(INDEX_REPOSITORY, f"{ENTRY}{entry}", ARTIFACT, document),
        )

    def layer(self, reference: Reference, digest: str) -> str:
        """A blob of the image's repository."""
        return f"{path_of(reference)[0]}/blobs/{digest}"

    async def document(self, store: ObjectStore, reference: Reference) -> bytes:
        """The artifact's configuration."""
        name, tag = path_of(reference)
        return await self.listed(store, f"{name}/manifests/{tag}{ARTIFACT_SUFFIX}")

    def is_document(self, name: str) -> bool:
        """By the tag."""
        return name.startswith(f"{self.listing}{ENTRY}")

    async def listed(self, store: ObjectStore, name: str) -> bytes:
        """The configuration of the artifact with that name."""
        return await _configuration(store, name, ARTIFACT, at_most=DOCUMENT_MAX)

    def index(self, body: bytes) -> tuple[Upload, ...]:
        """An artifact whose configuration it is."""
        return _artifact(INDEX_REPOSITORY, "index", INDEX, body)

    async def read_index(self, store: ObjectStore) -> bytes:
        """That configuration."""
        return await _configuration(store, f"{self.listing}index", INDEX, at_most=INDEX_MAX)

    def probe(self, content: Content) -> str:
        """A blob of the index's repository."""
        return f"{INDEX_REPOSITORY}/blobs/{content.digest}"


def _directory(reference: Reference) -> str:
    name, tag = path_of(reference)
    return f"images/{name}/{tag}"


def _container_disk(title: str, disk: DiskFile) -> Content:
    """The layer of a KubeVirt containerDisk: /disk/NAME.qcow2, which belongs to QEMU. Nothing of it is copied."""
    head = io.BytesIO()
    with tarfile.open(fileobj=head, mode="w", format=tarfile.PAX_FORMAT) as tar:
        directory = tarfile.TarInfo("disk")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o555
        file = tarfile.TarInfo(f"disk/{title}.{disk.suffix}")
        file.size, file.mode = disk.size, 0o440
        for member in (directory, file):
            member.uid = member.gid = QEMU
            tar.addfile(member)
        start = tar.offset
    padding = -disk.size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE
    return Content.of(head.getvalue()[:start], disk.path, bytes(padding))


def _image(name: str, tag: str, layer: Content, *, architecture: str) -> tuple[Upload, ...]:
    """A container image of one layer: its configuration, and the manifest under its tag."""
    record = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }
    config = Content.of(_json(record))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(OCI_CONFIG, config),
        "layers": [_descriptor(OCI_TAR, layer)],
    }
    return _blob(name, config), Upload(name=f"{name}/manifests/{tag}", content=Content.of(_json(manifest)))


def _artifact(
    name: str, tag: str, kind: str, body: bytes, *, layers: list[dict[str, Any]] | None = None
) -> tuple[Upload, ...]:
    """An artifact (OCI image specification 1.1, manifest.md): `body` is its configuration."""
    config = Content.of(body)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": _descriptor(kind, config),
        "layers": layers or [_descriptor(OCI_EMPTY, EMPTY)],
    }
    empty = () if layers else (_blob(name, EMPTY),)
    tagged = Upload(name=f"{name}/manifests/{tag}", content=Content.of(_json(manifest)))
    return (_blob(name, config), *empty, tagged)


async def _configuration(store: ObjectStore, name: str, kind: str, *, at_most: int) -> bytes:
    """What `_artifact` was given as its body. Raises NotAtStorage, StorageRefused."""
    manifest = await read_document(store, name, at_most=DOCUMENT_MAX)
    try:
        config = json.loads(manifest)["config"]
        digest = str(config["digest"])
        good = config["mediaType"] == kind and DIGEST.fullmatch(digest)
    except (ValueError, KeyError, TypeError):
        good = None
    if not good:
        raise StorageRefused(f"{name} in the registry is not what uhmalguhm publishes.")
    body = await read_document(store, f"{name.rpartition('/manifests/')[0]}/blobs/{digest}", at_most=at_most)
    if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
        raise ContentMismatch(f"What the registry sent for {name} is not {digest}.")
    return body


def _blob(name: str, content: Content) -> Upload:
    return Upload(name=f"{name}/blobs/{content.digest}", content=content)


def _descriptor(media_type: str, content: Content) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": content.digest, "size": content.size}


def _json(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
