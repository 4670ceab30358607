"""The tables. Times are nanoseconds since the epoch; JSON has the form of the values in `uhm_builder.images`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, MetaData, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from uhm_common.idempotency import idempotency_table
from uhm_common.outbox import outbox_table

__all__ = [
    "IDEMPOTENCY_KEYS",
    "OUTBOX",
    "VERSION_TABLE",
    "AliasRow",
    "Base",
    "ContextRow",
    "ImageRow",
    "LocationRow",
    "OutputRow",
    "PublicationRow",
    "RegistryRow",
    "UnneededRow",
]

VERSION_TABLE = "builder_schema_version"

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The schema of the builder."""

    metadata = MetaData(naming_convention=NAMING)


class ImageRow(Base):
    """An image, from the wish for it on. `number` is the order of creation."""

    __tablename__ = "builder_images"
    __table_args__ = (Index("ix_builder_images_owner_reference", "owner", "reference"),)

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    id: Mapped[str] = mapped_column(String(32), unique=True)
    owner: Mapped[str] = mapped_column(String(64))
    reference: Mapped[str] = mapped_column(String(512))
    context: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(String, default="")
    attempt: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(80), default="")
    disk_digest: Mapped[str] = mapped_column(String(80), default="", index=True)
    layers: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    stages: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    config: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    archive: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    customization: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    platform: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    publish: Mapped[list[str]] = mapped_column(JSON, default=list, server_default="[]")
    untagged_at: Mapped[int | None] = mapped_column(BigInteger)


class AliasRow(Base):
    """A former id of an image that was made again and came out the same: one image is left, both ids name it."""

    __tablename__ = "builder_aliases"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("builder_images.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)


class ContextRow(Base):
    """An archive that an owner has uploaded; its content is named by the digest, and may be others' too."""

    __tablename__ = "builder_contexts"
    __table_args__ = (Index("ix_builder_contexts_owner_digest", "owner", "digest", unique=True),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(80))
    size: Mapped[int] = mapped_column(BigInteger)
    used_at: Mapped[int] = mapped_column(BigInteger, index=True)


class OutputRow(Base):
    """The end of what the Docker Engine said while it built an image."""

    __tablename__ = "builder_outputs"

    image_id: Mapped[str] = mapped_column(ForeignKey("builder_images.id", ondelete="CASCADE"), primary_key=True)
    text: Mapped[str] = mapped_column(String)


class UnneededRow(Base):
    """A layer, a base or a disk in the store that no image needs, and since when."""

    __tablename__ = "builder_unneeded"

    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    since: Mapped[int] = mapped_column(BigInteger)


class RegistryRow(Base):
    """A registry that a user has added; the secret is encrypted (`uhm_builder.registries`)."""

    __tablename__ = "builder_registries"
    __table_args__ = (Index("ix_builder_registries_owner_host", "owner", "host", unique=True),)

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    owner: Mapped[str] = mapped_column(String(64))
    host: Mapped[str] = mapped_column(String(255))
    username: Mapped[str] = mapped_column(String(255))
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    ca_certificate: Mapped[str] = mapped_column(String)
    created_at: Mapped[int] = mapped_column(BigInteger)


class LocationRow(Base):
    """A storage location of a user; the secret is encrypted (`uhm_builder.storage.locations`)."""

    __tablename__ = "builder_locations"
    __table_args__ = (Index("ix_builder_locations_owner_name", "owner", "name", unique=True),)

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    owner: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(63))
    place: Mapped[dict[str, Any]] = mapped_column(JSON)
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[int] = mapped_column(BigInteger)


class PublicationRow(Base):
    """A wish to publish an image, and how far it has come. `uploads` has tokens of uploads by the object's name."""

    __tablename__ = "builder_publications"

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    id: Mapped[str] = mapped_column(String(32), unique=True)
    owner: Mapped[str] = mapped_column(String(64), index=True)
    image_id: Mapped[str] = mapped_column(String(32))
    reference: Mapped[str] = mapped_column(String(512))
    location: Mapped[str] = mapped_column(String(63))
    format: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(String, default="")
    attempt: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[int] = mapped_column(BigInteger, default=0)
    done_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    total_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    uploads: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    disk_digest: Mapped[str] = mapped_column(String(80), default="")
    created_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)


IDEMPOTENCY_KEYS = idempotency_table(Base.metadata, name="builder_idempotency_keys")
OUTBOX = outbox_table(Base.metadata, name="builder_outbox")
