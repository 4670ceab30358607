"""The kernel that a machine booted.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; it is empty for machines that were started before."""
    op.add_column("machines_machine", sa.Column("kernel", sa.Text, nullable=False, server_default=sa.text("''")))
