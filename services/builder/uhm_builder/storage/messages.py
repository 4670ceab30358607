"""Storage locations and publications as messages, and messages as what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from uhm_builder.errors import InvalidStorage
from uhm_builder.messages import timestamp
from uhm_builder.storage.places import DirectoryPlace, RegistryPlace, S3Place, WebDavPlace
from uhmalguhm.builder.v1 import storage_pb2

if TYPE_CHECKING:
    from uhm_builder.storage.index import Entry
    from uhm_builder.storage.locations import Location
    from uhm_builder.storage.places import Place
    from uhm_builder.storage.publications import Publication

__all__ = ["place_asked_for", "publication_message", "published_message", "storage_message"]


def place_asked_for(storage: storage_pb2.Storage) -> Place:
    """Where the location is to be. Raises InvalidStorage where that is not said."""
    match storage.WhichOneof("location"):
        case "directory":
            return DirectoryPlace(path=storage.directory.path)
        case "s3":
            s3 = storage.s3
            return S3Place(
                endpoint=s3.endpoint,
                bucket=s3.bucket,
                prefix=s3.prefix,
                region=s3.region,
                access_key_id=s3.access_key_id,
                secret=s3.secret_access_key,
            )
        case "registry":
            registry = storage.registry
            return RegistryPlace(repository=registry.repository, username=registry.username, secret=registry.password)
        case "webdav":
            webdav = storage.webdav
            return WebDavPlace(url=webdav.url, username=webdav.username, secret=webdav.password)
    raise InvalidStorage(
        "The storage location does not say where it is.", hint="Give it one of directory, s3, registry and webdav."
    )


def storage_message(location: Location) -> storage_pb2.Storage:
    """A location, without its secret."""
    message = storage_pb2.Storage(name=location.name, create_time=timestamp(location.created_at))
    match location.place:
        case DirectoryPlace(path=path):
            message.directory.path = path
        case S3Place() as place:
            message.s3.CopyFrom(
                storage_pb2.S3Location(
                    endpoint=place.endpoint,
                    bucket=place.bucket,
                    prefix=place.prefix,
                    region=place.region,
                    access_key_id=place.access_key_id,
                )
            )
        case RegistryPlace() as place:
            message.registry.CopyFrom(
                storage_pb2.RegistryLocation(repository=place.repository, username=place.username)
            )
        case WebDavPlace() as place:
            message.webdav.CopyFrom(storage_pb2.WebDavLocation(url=place.url, username=place.username))
    return message


def publication_message(publication: Publication) -> storage_pb2.Publication:
    """A publication."""
    return storage_pb2.Publication(
        id=publication.id,
        image=publication.image_id,
        reference=publication.reference,
        storage=publication.location,
        format=publication.format,
        status=publication.status,
        reason=publication.reason,
        done_bytes=publication.done_bytes,
        total_bytes=publication.total_bytes,
        create_time=timestamp(publication.created_at),
        end_time=None if publication.ended_at is None else timestamp(publication.ended_at),
    )


def published_message(entry: Entry) -> storage_pb2.PublishedImage:
    """An image of a location's index."""
    image = entry.image
    time = Timestamp()
    time.FromDatetime(image.published_at)
    objects = [
        storage_pb2.PublishedObject(name=layer.name, kind="layer", size_bytes=layer.size, digest=layer.digest)
        for layer in image.layers
    ]
    if image.disk is not None:
        disk = image.disk
        objects.append(
            storage_pb2.PublishedObject(name=disk.name, kind="disk", size_bytes=disk.size, digest=disk.digest)
        )
    objects.append(storage_pb2.PublishedObject(name=entry.name, kind="manifest"))
    return storage_pb2.PublishedImage(
        reference=image.reference, digest=image.digest, publish_time=time, objects=objects
    )
