"""Build contexts by digest, each with whose it is; what the engine said while it built an image."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables. Contexts had no digest and lived for one build: those that wait are sent again."""
    op.drop_table("builder_contexts")
    op.create_table(
        "builder_contexts",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_builder_contexts"),
    )
    op.create_index("ix_builder_contexts_owner_digest", "builder_contexts", ["owner", "digest"], unique=True)
    op.create_index("ix_builder_contexts_used_at", "builder_contexts", ["used_at"])
    op.create_table(
        "builder_outputs",
        sa.Column("image_id", sa.String(32), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("image_id", name="pk_builder_outputs"),
        sa.ForeignKeyConstraint(
            ["image_id"], ["builder_images.id"], name="fk_builder_outputs_image_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    """Takes them back."""
    op.drop_table("builder_outputs")
    op.drop_table("builder_contexts")
    op.create_table(
        "builder_contexts",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_builder_contexts"),
    )
    op.create_index("ix_builder_contexts_created_at", "builder_contexts", ["created_at"])
