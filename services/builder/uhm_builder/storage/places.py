"""Where a storage location is: values, what is wrong with one, and their form in the database without the secret."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from uhm_builder.errors import InvalidReference, InvalidStorage
from uhm_builder.sources.reference import parse_reference

__all__ = ["DirectoryPlace", "Place", "RegistryPlace", "S3Place", "WebDavPlace", "checked", "place_of", "record_of"]

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|[A-Za-z0-9._-]{3,255}")
PREFIX_MAX = 256
TEXT_MAX = 2048
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryPlace:
    """A directory of the builder's host."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """A bucket; no endpoint stands for Amazon's."""

    endpoint: str
    bucket: str
    prefix: str
    region: str
    access_key_id: str
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPlace:
    """A repository of a registry, below which each image has its own."""

    repository: str
    username: str
    secret: str = field(default="", repr=False)

    @property
    def registry(self) -> str:
        """`registry.example.com`, `docker.io`."""
        return parse_reference(self.repository).registry

    @property
    def path(self) -> str:
        """What follows the registry's name."""
        return parse_reference(self.repository).path.removeprefix("library/")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebDavPlace:
    """A directory of a server."""

    url: str
    username: str
    secret: str = field(default="", repr=False)


Place = DirectoryPlace | S3Place | RegistryPlace | WebDavPlace

KINDS: dict[str, type[Place]] = {
    "directory": DirectoryPlace,
    "s3": S3Place,
    "registry": RegistryPlace,
    "webdav": WebDavPlace,
}


def record_of(place: Place) -> dict[str, Any]:
    """As JSON can hold it, without the secret."""
    kind = next(name for name, type_ in KINDS.items() if isinstance(place, type_))
    return {"kind": kind} | {name: value for name, value in asdict(place).items() if name != "secret"}


def place_of(record: dict[str, Any], *, secret: str = "") -> Place:
    """From what `record_of` and JSON made of it."""
    values = {name: value for name, value in record.items() if name != "kind"}
    type_: Any = KINDS[record["kind"]]
    return cast("Place", type_(**values) if type_ is DirectoryPlace else type_(**values, secret=secret))


def checked(place: Place) -> Place:
    """The place. Raises InvalidStorage for what cannot be one, before anything is asked of it."""
    for name, value in asdict(place).items():
        if CONTROL.search(value) or len(value) > TEXT_MAX:
            raise InvalidStorage(f"The location's {name} is too long, or has characters that cannot be there.")
    match place:
        case S3Place():
            _check_s3(place)
        case WebDavPlace():
            _check_url(place.url, what="WebDAV URL")
        case RegistryPlace():
            _check_repository(place)
        case DirectoryPlace():
            pass  # where it may be, `locations` knows
    return place


def _check_s3(place: S3Place) -> None:
    if place.endpoint:
        _check_url(place.endpoint, what="S3 endpoint")
    if not BUCKET.fullmatch(place.bucket):
        raise InvalidStorage(f"{place.bucket!r} is not the name of a bucket.")
    if len(place.prefix) > PREFIX_MAX or ".." in place.prefix.split("/"):
        raise InvalidStorage(f"The prefix {place.prefix[:80]!r} cannot be used.", hint="It is a path such as team/vms.")
    if not place.access_key_id or not place.secret:
        raise InvalidStorage(
            "An S3 location needs an access key and its secret.", hint="Those of this host are never used."
        )


def _check_url(url: str, *, what: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or parts.username or parts.password:
        raise InvalidStorage(
            f"{url[:200]!r} is not a {what}.", hint="It is http:// or https://, a host and a path; users go beside it."
        )


def _check_repository(place: RegistryPlace) -> None:
    try:
        reference = parse_reference(place.repository, default_tag="")
    except InvalidReference as error:
        raise InvalidStorage(error.message, hint=error.hint) from error
    if (
        reference.tag
        or reference.digest
        or reference.in_engine
        or not str(place.repository).startswith(reference.registry)
    ):
        raise InvalidStorage(
            f"{place.repository!r} is not a registry's repository.",
            hint="It is REGISTRY/PATH without a tag, as in registry.example.com/team/disks.",
        )
