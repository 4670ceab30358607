"""Storage locations and publications."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "builder_locations",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("place", sa.JSON(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_builder_locations"),
    )
    op.create_index("ix_builder_locations_owner_name", "builder_locations", ["owner", "name"], unique=True)
    op.create_table(
        "builder_publications",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("image_id", sa.String(32), nullable=False),
        sa.Column("reference", sa.String(512), nullable=False),
        sa.Column("location", sa.String(63), nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("done_bytes", sa.BigInteger(), nullable=False),
        sa.Column("total_bytes", sa.BigInteger(), nullable=False),
        sa.Column("uploads", sa.JSON(), nullable=False),
        sa.Column("disk_digest", sa.String(80), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_builder_publications"),
        sa.UniqueConstraint("id", name="uq_builder_publications_id"),
    )
    op.create_index("ix_builder_publications_owner", "builder_publications", ["owner"])
    op.create_index("ix_builder_publications_status", "builder_publications", ["status"])


def downgrade() -> None:
    """Drops the tables."""
    op.drop_table("builder_publications")
    op.drop_table("builder_locations")
