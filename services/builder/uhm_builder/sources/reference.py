"""Names of container images, by the grammar that docker uses.

    reference  := name [":" tag] ["@" digest]
    name       := [domain "/"] component ("/" component)*
    component  := [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*
    tag        := [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
    digest     := "sha256:" 64 hexadecimal digits

The first component is a registry's domain where it has a dot, a colon or an upper-case letter, or is `localhost`; else
the registry is docker.io, and a name of one component there begins with `library/` (github.com/distribution/reference).
`docker-daemon:` before a name stands for an image that the local Docker Engine holds (containers-transports(5)),
`storage:LOCATION/` for one at a storage location of the user's. What the engine holds of builds here is their owners'
alone, and has names that nobody can ask for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from uhm_builder.errors import InvalidReference

__all__ = [
    "BUILDS",
    "CACHE",
    "DEFAULT_REGISTRY",
    "DEFAULT_TAG",
    "ENGINE_PREFIX",
    "STORAGE_PREFIX",
    "Reference",
    "parse_reference",
    "repository",
]

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
ENGINE_PREFIX = "docker-daemon:"
STORAGE_PREFIX = "storage:"
LEGACY_REGISTRY = "index.docker.io"
OFFICIAL = "library/"
CACHE, BUILDS = "uhm-cache", "uhm-build"
"""Repositories of the engine that have what builds of all users leave there (`uhm_builder.sources.dockerfile`)."""
NAME_MAX = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_LOCATION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")

_HINT = "A reference is NAME[:TAG][@sha256:DIGEST], such as nginx, nginx:1.27 or ghcr.io/owner/name:tag."


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A name that is complete: registry and path, and a tag, a digest or both."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""
    in_engine: bool = False
    """Whether the local Docker Engine holds it."""
    location: str = ""
    """The storage location that has it; empty where it is elsewhere."""

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag

    @property
    def name(self) -> str:
        """As docker shows it, without tag and digest: `nginx`, `ghcr.io/owner/name`.

        docker.io is told too where it would be read as something else: as a registry, or as one of the prefixes.
        """
        rest = self.path.removeprefix(OFFICIAL)
        short = self.path if "/" in rest else rest
        first, slash, _ = short.partition("/")
        is_ambiguous = bool(slash and _is_domain(first)) or f"{short}:" in (ENGINE_PREFIX, STORAGE_PREFIX)
        return short if self.registry == DEFAULT_REGISTRY and not is_ambiguous else f"{self.registry}/{self.path}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        place = ENGINE_PREFIX if self.in_engine else f"{STORAGE_PREFIX}{self.location}/" if self.location else ""
        return f"{place}{self.name}{tag}{digest}"


def parse_reference(text: str, *, tag: str = "", default_tag: str = DEFAULT_TAG) -> Reference:
    """Read a reference; `tag` is one given beside it, `default_tag` is for when there is none and no digest either.

    Raises InvalidReference with what is wrong and what is right.
    """
    if not text:
        raise InvalidReference("The image's name is empty.", hint=_HINT)
    in_engine = text.startswith(ENGINE_PREFIX)
    location, rest = _location(text)
    name, in_text, digest = _split(text, rest.removeprefix(ENGINE_PREFIX))
    if tag and (in_text or digest):
        given = "tag" if in_text else "digest"
        raise InvalidReference(f"{text!r} has a {given} already, so the tag {tag!r} cannot be given beside it.")
    tag = tag or in_text
    if tag and not _TAG.fullmatch(tag):
        raise InvalidReference(
            f"{tag!r} is not a tag.",
            hint="A tag has up to 128 letters, digits, underscores, dots and dashes; dot and dash cannot be first.",
        )
    registry, path = _domain_and_path(name)
    _check_name(text, registry, path)
    if in_engine and registry == DEFAULT_REGISTRY and path.removeprefix(OFFICIAL) in {CACHE, BUILDS}:
        raise InvalidReference(
            f"{text!r} is what the Docker Engine holds of a build here, and no image to take from it.",
            hint="Name the image that the build made.",
        )
    if not tag and not digest:
        tag = default_tag
    return Reference(registry=registry, path=path, tag=tag, digest=digest, in_engine=in_engine, location=location)


def repository(reference: str) -> str:
    """A complete reference without tag and digest, or what is no reference as it is."""
    try:
        return str(replace(parse_reference(reference), tag="", digest=""))
    except InvalidReference:
        return reference


def _location(text: str) -> tuple[str, str]:
    """The storage location, or none, and the rest."""
    if not text.startswith(STORAGE_PREFIX):
        return "", text
    location, _, rest = text.removeprefix(STORAGE_PREFIX).partition("/")
    if not _LOCATION.fullmatch(location) or not rest or rest.startswith(ENGINE_PREFIX):
        raise InvalidReference(
            f"{text!r} names no image at a storage location.", hint="It is storage:LOCATION/NAME[:TAG]."
        )
    return location, rest


def _split(text: str, rest: str) -> tuple[str, str, str]:
    """Name, tag and digest."""
    name, at, digest = rest.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidReference(
            f"{digest!r} in {text!r} is not a digest.", hint="A digest is sha256: and 64 hexadecimal digits."
        )
    before, colon, last = name.rpartition(":")
    if colon and "/" not in last:
        if not last:
            raise InvalidReference(f"{text!r} ends with a colon, but no tag follows it.", hint=_HINT)
        return before, last, digest
    return name, "", digest


def _domain_and_path(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not _is_domain(first):
        return DEFAULT_REGISTRY, name if slash else f"{OFFICIAL}{name}"
    if first in (DEFAULT_REGISTRY, LEGACY_REGISTRY):
        return DEFAULT_REGISTRY, rest if "/" in rest else f"{OFFICIAL}{rest}"
    return first, rest


def _is_domain(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _check_name(text: str, registry: str, path: str) -> None:
    if not _DOMAIN.fullmatch(registry):
        raise InvalidReference(f"{registry!r} in {text!r} is not the address of a registry.", hint=_HINT)
    if not _PATH.fullmatch(path):
        shown = path.removeprefix(OFFICIAL)
        if path != path.lower():
            raise InvalidReference(
                f"{shown!r} in {text!r} has upper-case letters.", hint=f"Names are lower-case: {shown.lower()!r}."
            )
        raise InvalidReference(f"{text!r} is not the name of an image.", hint=_HINT)
    if len(registry) + 1 + len(path) > NAME_MAX:
        raise InvalidReference(f"The name has more than {NAME_MAX} characters.", hint=_HINT)
    if _IDENTIFIER.fullmatch(path.removeprefix(OFFICIAL)):
        raise InvalidReference(
            f"{text!r} is an image's id, not its name.", hint="Name the image by NAME@sha256:DIGEST."
        )
