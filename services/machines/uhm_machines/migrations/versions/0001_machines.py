"""Machines.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table of machines."""
    op.create_table(
        "machines_machine",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("image_id", sa.String(255), nullable=False),
        sa.Column("image_reference", sa.Text, nullable=False),
        sa.Column("disk_digest", sa.String(80), nullable=False),
        sa.Column("workload", sa.JSON, nullable=False),
        sa.Column("memory_mib", sa.Integer, nullable=False),
        sa.Column("vcpus", sa.Integer, nullable=False),
        sa.Column("ports", sa.JSON, nullable=False),
        sa.Column("auto_remove", sa.Boolean, nullable=False),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.Column("starts", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("started_ns", sa.BigInteger),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("start_kind", sa.String(16), nullable=False),
        sa.Column("accelerator", sa.String(16)),
        sa.Column("phases", sa.JSON, nullable=False),
        sa.Column("pid", sa.Integer),
        sa.Column("console_tail", sa.Text, nullable=False),
        sa.Column("listening", sa.Boolean, nullable=False),
        sa.UniqueConstraint("owner", "name", name="machines_machine_owner_name"),
    )
    op.create_index("machines_machine_owner_created", "machines_machine", ["owner", "created_ns", "id"])
