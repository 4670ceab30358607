"""Why a machine was not started faster.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; it is empty for machines that were started before."""
    op.add_column("machines_machine", sa.Column("start_reason", sa.Text, nullable=False, server_default=sa.text("''")))
