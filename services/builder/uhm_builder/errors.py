"""What can go wrong in the builder.

InvalidArgument      InvalidReference, InvalidPageToken, AmbiguousId, InvalidContext
NotFound             NoSuchImage, NoSuchContext, NotInRegistry, NotInEngine
PermissionDenied     RegistryDenied
FailedPrecondition   ImageInUse, StillBuilding, UnsupportedImage, DockerfileFailed, BuildLost
ResourceExhausted    ContextTooLarge, LayerTooLarge, NoSpace, RateLimited
Unavailable          RegistryUnreachable, EngineUnreachable
InternalError        ContentMismatch, ConversionFailed

What ends a build becomes its reason: message and hint.
"""

from __future__ import annotations

from uhm_common.errors import (
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)

__all__ = [
    "AmbiguousId",
    "BuildLost",
    "ContentMismatch",
    "ContextTooLarge",
    "ConversionFailed",
    "DockerfileFailed",
    "EngineUnreachable",
    "ImageInUse",
    "InvalidContext",
    "InvalidPageToken",
    "InvalidReference",
    "LayerTooLarge",
    "NoSpace",
    "NoSuchContext",
    "NoSuchImage",
    "NotInEngine",
    "NotInRegistry",
    "RateLimited",
    "RegistryDenied",
    "RegistryUnreachable",
    "StillBuilding",
    "UnsupportedImage",
]


class InvalidReference(InvalidArgument):
    """A text that names no image."""


class InvalidPageToken(InvalidArgument):
    """A page token that this service has not given."""


class AmbiguousId(InvalidArgument):
    """The beginning of more than one id."""


class InvalidContext(InvalidArgument):
    """An upload that is no build context, or a wish that no context can have."""


class NoSuchImage(NotFound):
    """No image of the caller has this id or reference."""


class NoSuchContext(NotFound):
    """No upload of the caller has this id."""


class NotInRegistry(NotFound):
    """The registry has no such name, tag or digest."""


class NotInEngine(NotFound):
    """The Docker Engine has no such image."""


class RegistryDenied(PermissionDenied):
    """The registry wants credentials, or other ones."""


class ImageInUse(FailedPrecondition):
    """A machine uses the image's disk."""


class StillBuilding(FailedPrecondition):
    """What was asked needs a build that has ended."""


class UnsupportedImage(FailedPrecondition):
    """A manifest of a kind that no machine can be made of, or none for this architecture."""


class BuildLost(FailedPrecondition):
    """Somebody else has the build now, or it has ended: whoever gets this must stop and write nothing."""


class DockerfileFailed(FailedPrecondition):
    """A step of a Dockerfile failed."""


class ContextTooLarge(ResourceExhausted):
    """An upload went past the bound."""


class LayerTooLarge(ResourceExhausted):
    """A layer is larger than the bound, uncompressed."""


class NoSpace(ResourceExhausted):
    """The file system of the artifact store is full."""


class RateLimited(ResourceExhausted):
    """The registry has had enough of us for now."""


class RegistryUnreachable(Unavailable):
    """The registry does not answer, or breaks off again and again."""


class EngineUnreachable(Unavailable):
    """The Docker Engine does not answer."""


class ContentMismatch(InternalError):
    """What came is not what its digest says."""


class ConversionFailed(InternalError):
    """mkfs.erofs could not make a file system of a layer."""
