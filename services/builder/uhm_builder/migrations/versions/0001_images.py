"""Images, their former ids, build contexts, and events that wait to be sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "builder_images",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("reference", sa.String(512), nullable=False),
        sa.Column("context", sa.JSON(), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("disk_digest", sa.String(80), nullable=False),
        sa.Column("layers", sa.JSON(), nullable=False),
        sa.Column("stages", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_builder_images"),
        sa.UniqueConstraint("id", name="uq_builder_images_id"),
    )
    op.create_index("ix_builder_images_owner_reference", "builder_images", ["owner", "reference"])
    op.create_index("ix_builder_images_status", "builder_images", ["status"])
    op.create_index("ix_builder_images_disk_digest", "builder_images", ["disk_digest"])
    op.create_table(
        "builder_aliases",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("image_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_builder_aliases"),
        sa.ForeignKeyConstraint(
            ["image_id"], ["builder_images.id"], name="fk_builder_aliases_image_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_builder_aliases_image_id", "builder_aliases", ["image_id"])
    op.create_index("ix_builder_aliases_created_at", "builder_aliases", ["created_at"])
    op.create_table(
        "builder_contexts",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_builder_contexts"),
    )
    op.create_index("ix_builder_contexts_created_at", "builder_contexts", ["created_at"])
    op.create_table(
        "builder_outbox",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("message_id", sa.String(100), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_builder_outbox"),
    )


def downgrade() -> None:
    """Drops the tables."""
    for table in ("builder_outbox", "builder_contexts", "builder_aliases", "builder_images"):
        op.drop_table(table)
