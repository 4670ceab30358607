"""What can go wrong in the builder.

InvalidArgument      InvalidReference, AmbiguousId, InvalidContext, InvalidArchive,
                     InvalidStorage, InvalidPath, InvalidCustomization, InvalidExport, InvalidPlatform, InvalidRegistry
NotFound             NoSuchImage, NoSuchContext, NotInRegistry, NotInEngine,
                     NoSuchStorage, NoSuchPublication, NotAtStorage, NoSuchFile, NoSuchRegistry
AlreadyExists        StorageExists
PermissionDenied     RegistryDenied, StorageDenied, HostDenied
FailedPrecondition   ImageInUse, StillBuilding, UnsupportedImage, DockerfileFailed,
                     WorkLost (BuildLost, PublicationLost), StorageRefused, NotReadable, DamagedImage,
                     CustomizationFailed, InvalidLayer, StaleImage, UnfitDisk, SecretsLost, UploadUnderWay, UploadsLeft
ResourceExhausted    ContextTooLarge, LayerTooLarge, NoSpace, RateLimited, StorageFull, AppliancesBusy, TooMuchInside,
                     QuotaReached, TooManyRegistries, SecretsTooMany, ClientStalled
Unavailable          RegistryUnreachable, EngineUnreachable, StorageUnreachable
InternalError        ContentMismatch, ConversionFailed

What ends a build becomes its reason: message and hint.
"""

from __future__ import annotations

from uhm_common.errors import (
    AlreadyExists,
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
    "AppliancesBusy",
    "BuildLost",
    "ClientStalled",
    "ContentMismatch",
    "ContextTooLarge",
    "ConversionFailed",
    "CustomizationFailed",
    "DamagedImage",
    "DockerfileFailed",
    "EngineUnreachable",
    "HostDenied",
    "ImageInUse",
    "InvalidArchive",
    "InvalidContext",
    "InvalidCustomization",
    "InvalidExport",
    "InvalidLayer",
    "InvalidPath",
    "InvalidPlatform",
    "InvalidReference",
    "InvalidRegistry",
    "InvalidStorage",
    "LayerTooLarge",
    "NoSpace",
    "NoSuchContext",
    "NoSuchFile",
    "NoSuchImage",
    "NoSuchPublication",
    "NoSuchRegistry",
    "NoSuchStorage",
    "NotAtStorage",
    "NotInEngine",
    "NotInRegistry",
    "NotReadable",
    "PublicationLost",
    "QuotaReached",
    "RateLimited",
    "RegistryDenied",
    "RegistryUnreachable",
    "SecretsLost",
    "SecretsTooMany",
    "StaleImage",
    "StillBuilding",
    "StorageDenied",
    "StorageExists",
    "StorageFull",
    "StorageRefused",
    "StorageUnreachable",
    "TooManyRegistries",
    "TooMuchInside",
    "UnfitDisk",
    "UnsupportedImage",
    "UploadUnderWay",
    "UploadsLeft",
    "WorkLost",
]


class InvalidReference(InvalidArgument):
    """A text that names no image."""


class AmbiguousId(InvalidArgument):
    """The beginning of more than one id."""


class InvalidContext(InvalidArgument):
    """An upload that is no build context, or a wish that no context can have."""


class InvalidExport(InvalidArgument):
    """A format, compression or size that no disk can have."""


class InvalidPlatform(InvalidArgument):
    """A text that names no platform."""


class InvalidRegistry(InvalidArgument):
    """A host, credentials or certificates that no registry can have."""


class InvalidArchive(InvalidArgument):
    """An upload that is no archive of container images, or does not have the one that was asked for."""


class NoSuchImage(NotFound):
    """No image of the caller has this id or reference."""


class NoSuchContext(NotFound):
    """No upload of the caller has this id."""


class NoSuchRegistry(NotFound):
    """The caller has not added this registry."""


class NotInRegistry(NotFound):
    """The registry has no such name, tag or digest."""


class NotInEngine(NotFound):
    """The Docker Engine has no such image."""


class RegistryDenied(PermissionDenied):
    """The registry wants credentials, or other ones."""


class HostDenied(PermissionDenied):
    """A host, or an address, that the operator does not let images come from."""


class ImageInUse(FailedPrecondition):
    """A machine uses the image's disk."""


class StillBuilding(FailedPrecondition):
    """What was asked needs a build that has ended."""


class UnsupportedImage(FailedPrecondition):
    """A manifest of a kind that no machine can be made of, or none for this architecture."""


class InvalidLayer(FailedPrecondition):
    """A layer's archive that is damaged, or has what no file system is made of."""


class WorkLost(FailedPrecondition):
    """Somebody else has the work now, or it has ended: whoever gets this must stop and write nothing."""


class BuildLost(WorkLost):
    """The work was a build."""


class PublicationLost(WorkLost):
    """The work was a publication."""


class StaleImage(FailedPrecondition):
    """An image of an earlier version, which lacks what is asked of it."""


class UnfitDisk(FailedPrecondition):
    """A disk that libguestfs has looked at and that would not boot, or not to its command."""


class DockerfileFailed(FailedPrecondition):
    """A step of a Dockerfile failed."""


class SecretsLost(FailedPrecondition):
    """A build's secrets are not in anybody's memory any more."""


class UploadUnderWay(FailedPrecondition):
    """Another connection of the caller is sending the same archive."""


class UploadsLeft(FailedPrecondition):
    """What ended publications began to upload is still there, so their locations have to stay."""


class ContextTooLarge(ResourceExhausted):
    """An upload went past the bound."""


class SecretsTooMany(ResourceExhausted):
    """The memory for build secrets is full."""


class LayerTooLarge(ResourceExhausted):
    """A layer is larger than the bound, uncompressed."""


class QuotaReached(ResourceExhausted):
    """A user has all that one user may have."""


class ClientStalled(ResourceExhausted):
    """A client that asked for a disk and does not take it."""


class NoSpace(ResourceExhausted):
    """The file system of the artifact store is full."""


class TooManyRegistries(ResourceExhausted):
    """The caller has added as many registries as one may."""


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


class InvalidStorage(InvalidArgument):
    """What cannot be a storage location."""


class NoSuchStorage(NotFound):
    """No storage location of the caller has this name."""


class NoSuchPublication(NotFound):
    """No publication of the caller has this id."""


class NotAtStorage(NotFound):
    """A storage location does not have what was asked of it."""


class StorageExists(AlreadyExists):
    """The caller has a storage location of this name."""


class StorageDenied(PermissionDenied):
    """A storage location wants credentials, or other ones."""


class StorageRefused(FailedPrecondition):
    """A storage location answers in a way that trying again will not change."""


class StorageFull(ResourceExhausted):
    """A storage location has no room left."""


class StorageUnreachable(Unavailable):
    """A storage location does not answer, or breaks off: trying again may help."""


class InvalidPath(InvalidArgument):
    """What is no path in an image."""


class InvalidCustomization(InvalidArgument):
    """What cannot be put on top of any image."""


class NoSuchFile(NotFound):
    """Nothing is at that path in the image."""


class NotReadable(FailedPrecondition):
    """What is at that path in the image is nothing that can be read, or listed."""


class DamagedImage(FailedPrecondition):
    """An image's file systems cannot be mounted or read."""


class CustomizationFailed(FailedPrecondition):
    """What was asked for cannot be put on top of this image."""


class AppliancesBusy(ResourceExhausted):
    """No appliance is free, and enough others wait."""


class TooMuchInside(ResourceExhausted):
    """An answer about the inside of an image would be larger than the bound."""
