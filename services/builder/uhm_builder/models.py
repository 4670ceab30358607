"""The tables. Times are nanoseconds since the epoch; JSON has the form of the values in `uhm_builder.images`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from uhm_common.outbox import outbox_table

__all__ = ["OUTBOX", "VERSION_TABLE", "AliasRow", "Base", "ContextRow", "ImageRow"]

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
    platform: Mapped[str] = mapped_column(String(64), default="", server_default="")
    publish: Mapped[list[str]] = mapped_column(JSON, default=list, server_default="[]")


class AliasRow(Base):
    """A former id of an image that was made again and came out the same: one image is left, both ids name it."""

    __tablename__ = "builder_aliases"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("builder_images.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)


class ContextRow(Base):
    """An uploaded build context."""

    __tablename__ = "builder_contexts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)


OUTBOX = outbox_table(Base.metadata, name="builder_outbox")
