"""Nodes that take nothing new for the moment, and nodes that take nothing without a GPU."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("ready", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("nodes", sa.Column("only_gpus", sa.Boolean(), nullable=False, server_default=sa.false()))
