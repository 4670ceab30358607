"""What is written beside a published image, for whoever takes it: JSON, read back as if a stranger had written it.

    {"schema": 1, "reference": "nginx:latest", "digest": "sha256:…", "published_at": "2026-11-24T17:00:00Z",
     "config": {"entrypoint": […], …},
     "layers": [{"diff_id": "sha256:…", "digest": "sha256:…", "size": 1048576, "name": "layers/….erofs"}, …],
     "disk": {"format": "qcow2", "digest": "sha256:…", "size": 118489088, "name": "images/nginx/latest/….qcow2"}}

`digest` of a layer and of the disk is that of what lies there: an EROFS file system, a disk in its format. `name` is
where it lies, for people and other programs; we find it by its digest.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from uhm_builder.disk import MAX_LAYERS
from uhm_builder.errors import StorageRefused
from uhm_builder.gpt import ALIGNMENT
from uhm_builder.images import ImageConfig

__all__ = ["DOCUMENT_MAX", "Document", "DocumentDisk", "DocumentLayer", "parse_document"]

DOCUMENT_MAX = 4 << 20


def _whole_mebibytes(size: int) -> int:
    if size <= 0 or size % ALIGNMENT:
        message = "is not a number of whole mebibytes"
        raise ValueError(message)
    return size


Digest = Annotated[str, Field(pattern=re.compile(r"^sha256:[a-f0-9]{64}\Z"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLayer:
    """A layer as an EROFS file system."""

    diff_id: Digest
    digest: Digest
    size: Annotated[int, AfterValidator(_whole_mebibytes)]
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentDisk:
    """The image as a disk that boots by itself."""

    format: str
    digest: Digest
    size: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A published image."""

    reference: str
    digest: str
    published_at: datetime
    config: ImageConfig
    layers: Annotated[tuple[DocumentLayer, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    disk: DocumentDisk | None = None
    schema: Literal[1] = 1

    def encoded(self) -> bytes:
        """As it is written."""
        record = asdict(self)
        record["published_at"] = self.published_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return json.dumps(record, indent=1, sort_keys=True).encode() + b"\n"


_ADAPTER = TypeAdapter(Document)


def parse_document(body: bytes, *, name: str) -> Document:
    """Read a document. Raises StorageRefused with what is wrong with it."""
    try:
        return _ADAPTER.validate_json(body)
    except (ValidationError, RecursionError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "too deep"}
        where = ".".join(str(part) for part in problem["loc"])
        raise StorageRefused(
            f"{name} at the storage location does not describe an image: {where[:80]}: {problem['msg'][:200]}.",
            hint="Publish the image again.",
        ) from error
