"""The tables."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase

from uhm_common.idempotency import idempotency_table

__all__ = ["IDEMPOTENCY_KEYS", "MACHINES", "VERSION_TABLE", "Base"]

VERSION_TABLE = "machines_schema_version"


class Base(DeclarativeBase):
    """Holds the schema."""


MACHINES = Table(
    "machines_machine",
    Base.metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("image_id", String(255), nullable=False),
    Column("image_reference", Text, nullable=False),
    Column("disk_digest", String(80), nullable=False),
    Column("workload", JSON, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("ports", JSON, nullable=False),
    Column("auto_remove", Boolean, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("starts", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("exit_code", Integer),
    Column("started_ns", BigInteger),
    Column("ended_ns", BigInteger),
    Column("start_kind", String(16), nullable=False),
    Column("start_reason", Text, nullable=False, server_default=text("''")),
    Column("accelerator", String(16)),
    Column("kernel", Text, nullable=False, server_default=text("''")),
    Column("phases", JSON, nullable=False),
    Column("pid", Integer),
    Column("console_tail", Text, nullable=False),
    Column("listening", Boolean, nullable=False),
    UniqueConstraint("owner", "name", name="machines_machine_owner_name"),
    Index("machines_machine_owner_created", "owner", "created_ns", "id"),
)

IDEMPOTENCY_KEYS = idempotency_table(Base.metadata, name="machines_idempotency_keys")
