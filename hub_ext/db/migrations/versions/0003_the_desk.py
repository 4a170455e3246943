"""What waits and why, what is taken back for whom, who asks for hours."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

json = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    told = sa.text("kind != 'accrued'")
    op.create_index("entries_told", "entries", ["at", "id"], sqlite_where=told, postgresql_where=told)
    over = sa.text("state = 'released'")
    op.create_index(
        "leases_over_by_person", "leases", ["person", "released_at"], sqlite_where=over, postgresql_where=over
    )
    live = sa.text("state != 'released'")
    op.create_index(
        "leases_live_by_end", "leases", ["ends_at", "id"], sqlite_where=live, postgresql_where=live
    )
    op.add_column("leases", sa.Column("noticed_for", sa.Text()))
    op.add_column("leases", sa.Column("ends_unless_taken", sa.BigInteger()))
    op.add_column("leases", sa.Column("unclaimed", sa.Boolean(), nullable=False, server_default=sa.false()))

    for column in (
        sa.Column("facts", json, nullable=False, server_default="{}"),
        sa.Column("place", sa.Integer()),
        sa.Column("eta_at", sa.BigInteger()),
        sa.Column("eta_kind", sa.Text()),
        sa.Column("reclaims", json, nullable=False, server_default="[]"),
        sa.Column("put_back", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("displaced_by", sa.Text()),
        sa.Column("wanted", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("booked", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("options", json, nullable=False, server_default="{}"),
    ):
        op.add_column("tickets", column)

    for column in (
        sa.Column("approved", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("shrunk_to", json),
        sa.Column("title", sa.Text(), nullable=False, server_default=""),
        sa.Column("made_by", sa.Text(), nullable=False, server_default=""),
        sa.Column("made_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("approved_by", sa.Text(), nullable=False, server_default=""),
    ):
        op.add_column("reservations", column)

    op.create_table(
        "requests",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("answered_at", sa.BigInteger()),
        sa.Column("answered_by", sa.Text(), nullable=False, server_default=""),
        sa.Column("answer", sa.Text(), nullable=False, server_default=""),
        sa.Column("grant", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="requests_pkey"),
    )
    for name in ("pool", "made_by", "state"):
        op.create_index(f"requests_by_{name}", "requests", [name])
