"""What collecting garbage needs to know: since when a thing has been without use, and an image without its tag."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table and the column."""
    op.create_table(
        "builder_unneeded",
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "digest", name="pk_builder_unneeded"),
    )
    with op.batch_alter_table("builder_images") as table:
        table.add_column(sa.Column("untagged_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Drops them."""
    with op.batch_alter_table("builder_images") as table:
        table.drop_column("untagged_at")
    op.drop_table("builder_unneeded")
