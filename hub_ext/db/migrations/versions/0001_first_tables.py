"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

    op.create_table(
        "entries",
        sa.Column("id", number, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("lease", sa.Text()),
        sa.Column("pool", sa.Text()),
        sa.Column("person", sa.Text()),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("facts", json, nullable=False),
        sa.PrimaryKeyConstraint("id", name="entries_pkey"),
        sqlite_autoincrement=True,
    )
    op.create_index("entries_by_at", "entries", ["at"])
    op.create_index("entries_by_lease", "entries", ["lease"])

    op.create_table(
        "leases",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("path", json, nullable=False),
        sa.Column("amounts", json, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("guaranteed", sa.Boolean(), nullable=False),
        sa.Column("lender", sa.Text()),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("booked_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("charged_until", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("noticed_at", sa.BigInteger()),
        sa.Column("seen_at", sa.BigInteger()),
        sa.Column("released_at", sa.BigInteger()),
        sa.Column("reason", sa.Text()),
        sa.Column("profile", sa.Text()),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("node", sa.Text()),
        sa.Column("devices", json, nullable=False),
        sa.Column("handle", sa.Text()),
        sa.Column("reservation", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="leases_pkey"),
    )
    live = sa.text("state != 'released'")
    op.create_index("leases_live", "leases", ["booked_at", "id"], sqlite_where=live, postgresql_where=live)
    op.create_index("leases_live_by_person", "leases", ["person"], sqlite_where=live, postgresql_where=live)
    op.create_index(
        "leases_borrowed_by_pool",
        "leases",
        ["pool"],
        # Word for word as the queries say it: SQLite has no type for true and false.
        sqlite_where=sa.text("state != 'released' AND guaranteed = 0"),
        postgresql_where=sa.text("state != 'released' AND NOT guaranteed"),
    )

    op.create_table(
        "usage_days",
        sa.Column("lease", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["lease"], ["leases.id"], name="usage_days_lease_fkey"),
        sa.PrimaryKeyConstraint("lease", "day", name="usage_days_pkey"),
    )
    op.create_index("usage_days_by_day", "usage_days", ["day"])

    op.create_table(
        "sums",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pool", "person", "kind", "item", "period", name="sums_pkey"),
    )

    op.create_table(
        "grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="grants_pkey"),
    )
    op.create_index("grants_by_pool", "grants", ["pool"])

    op.create_table(
        "policies",
        sa.Column("id", number, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="policies_pkey"),
        sqlite_autoincrement=True,
    )

    op.create_table(
        "people",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("pools", json, nullable=False),
        sa.Column("roles", json, nullable=False),
        sa.Column("profiles", json, nullable=False),
        sa.Column("any_pool", sa.Boolean(), nullable=False),
        sa.Column("any_profile", sa.Boolean(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="people_pkey"),
    )

    op.create_table(
        "nodes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("capacity", json, nullable=False),
        sa.Column("devices", json, nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="nodes_pkey"),
    )
    op.create_table(
        "reported",
        sa.Column("what", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("what", name="reported_pkey"),
    )
    op.create_table(
        "leaders",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="leaders_pkey"),
    )

    op.create_table(
        "tickets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("ask", json, nullable=False),
        sa.PrimaryKeyConstraint("id", name="tickets_pkey"),
    )
    op.create_index("tickets_by_person", "tickets", ["person"])
    op.create_index("tickets_by_pool", "tickets", ["pool"])
    op.create_index("tickets_by_made_at", "tickets", ["made_at"])

    op.create_table(
        "reservations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("amounts", json, nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="reservations_pkey"),
    )
    op.create_index("reservations_by_pool", "reservations", ["pool"])
    op.create_index("reservations_by_ends_at", "reservations", ["ends_at"])
