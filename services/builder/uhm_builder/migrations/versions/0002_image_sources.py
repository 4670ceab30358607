"""Columns of images that are made in other ways than from a reference, or are published."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns."""
    with op.batch_alter_table("builder_images") as table:
        table.add_column(sa.Column("archive", sa.JSON(), nullable=True))
        table.add_column(sa.Column("customization", sa.JSON(), nullable=True))
        table.add_column(sa.Column("platform", sa.String(64), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("publish", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    """Drops them."""
    with op.batch_alter_table("builder_images") as table:
        for column in ("archive", "customization", "platform", "publish"):
            table.drop_column(column)
