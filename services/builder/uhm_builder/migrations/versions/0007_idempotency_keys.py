"""Idempotency keys: which requests were carried out, and what was answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "builder_idempotency_keys",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("method", sa.String(200), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("resource", sa.String(255), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "method", "key", name="pk_builder_idempotency_keys"),
    )
    op.create_index("ix_builder_idempotency_keys_created_at", "builder_idempotency_keys", ["created_at"])


def downgrade() -> None:
    """Drops it."""
    op.drop_table("builder_idempotency_keys")
