"""The tables of the hub's own database.

| table | holds |
|---|---|
| entries | the ledger, append-only: the truth |
| leases, usage_days, sums | what follows from the entries, written in the same transaction |
| grants | pots of hours beside a budget |
| policies | every policy document that was ever in force; the newest is |
| people, nodes, reported | what the hub knows of people and machines |
| leaders | who alone may do a job, and until when |
| tickets, reservations | asks that wait, and windows of time that are held |
| requests | who asks for more hours, and what came of it |

Instants are whole seconds since 1970 (BIGINT), amounts are in base units, `units` and budget sums in cost units
(BIGINT). `REVISION` is the Alembic revision that makes exactly these tables.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    false,
    literal_column,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

REVISION: Final = "0003"

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_by_%(column_0_N_name)s",
        "uq": "%(table_name)s_unique_%(column_0_N_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

_instant = BigInteger
_units = BigInteger
# SQLite counts up a primary key by itself only where it is called INTEGER (which holds 64 bits there).
_number = BigInteger().with_variant(Integer(), "sqlite")
_json = JSON().with_variant(JSONB(), "postgresql")

entries = Table(
    "entries",
    metadata,
    Column("id", _number, primary_key=True),
    Column("at", _instant, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    # Also an ask that was only ever decided on, so this refers to no row of `leases`.
    Column("lease", Text, index=True),
    Column("pool", Text),
    Column("person", Text),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("facts", _json, nullable=False),
    sqlite_autoincrement=True,
)

# What people look up; running leases accrue every few minutes, and would hide all else.
told = entries.c.kind != literal_column("'accrued'")
Index("entries_told", entries.c.at, entries.c.id, sqlite_where=told, postgresql_where=told)

leases = Table(
    "leases",
    metadata,
    Column("id", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("path", _json, nullable=False),
    Column("amounts", _json, nullable=False),
    Column("kind", Text, nullable=False),
    Column("guaranteed", Boolean, nullable=False),
    Column("lender", Text),
    Column("cost", _units, nullable=False),
    Column("booked_at", _instant, nullable=False),
    Column("ends_at", _instant, nullable=False),
    Column("charged_until", _instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("started_at", _instant),
    Column("noticed_at", _instant),
    Column("seen_at", _instant),
    Column("released_at", _instant),
    Column("reason", Text),
    Column("profile", Text),
    Column("server", Text, nullable=False),
    Column("node", Text),
    Column("devices", _json, nullable=False),
    Column("handle", Text),
    Column("reservation", Text),
    Column("noticed_for", Text),
    Column("ends_unless_taken", _instant),
    Column("unclaimed", Boolean, nullable=False, server_default=false()),
)

# Written out, not bound: a partial index is only used where the query states its condition word for word.
live = leases.c.state != literal_column("'released'")
borrowed = live & ~leases.c.guaranteed
over = leases.c.state == literal_column("'released'")

Index("leases_live", leases.c.booked_at, leases.c.id, sqlite_where=live, postgresql_where=live)
Index("leases_live_by_end", leases.c.ends_at, leases.c.id, sqlite_where=live, postgresql_where=live)
Index("leases_live_by_person", leases.c.person, sqlite_where=live, postgresql_where=live)
Index(
    "leases_over_by_person", leases.c.person, leases.c.released_at, sqlite_where=over, postgresql_where=over
)
Index("leases_borrowed_by_pool", leases.c.pool, sqlite_where=borrowed, postgresql_where=borrowed)

usage_days = Table(
    "usage_days",
    metadata,
    Column("lease", Text, ForeignKey(leases.c.id), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("units", _units, nullable=False),
    Column("seconds", BigInteger, nullable=False),
    Index("usage_days_by_day", "day"),
)

# The pool and the person stand first in the key: a booking reads the rows of one path and one person.
sums = Table(
    "sums",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("person", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("item", Text, primary_key=True),
    Column("period", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("pool", Text, nullable=False, index=True),
    Column("budget", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("units", _units, nullable=False),
    Column("until", _instant, nullable=False),
    Column("why", Text, nullable=False),
    Column("made_at", _instant, nullable=False),
    Column("made_by", Text, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    Column("id", _number, primary_key=True),
    Column("at", _instant, nullable=False),
    Column("who", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("digest", Text, nullable=False),
    sqlite_autoincrement=True,
)

people = Table(
    "people",
    metadata,
    Column("name", Text, primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("pools", _json, nullable=False),
    Column("roles", _json, nullable=False),
    Column("profiles", _json, nullable=False),
    Column("any_pool", Boolean, nullable=False),
    Column("any_profile", Boolean, nullable=False),
    Column("at", _instant, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("capacity", _json, nullable=False),
    Column("devices", _json, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("ready", Boolean, nullable=False, server_default=true()),
    Column("only_gpus", Boolean, nullable=False, server_default=false()),
)

# A row `nodes` tells "there are no machines" from "nobody ever said which machines there are".
reported = Table("reported", metadata, Column("what", Text, primary_key=True))

leaders = Table(
    "leaders",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", _instant, nullable=False),
)

tickets = Table(
    "tickets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("person", Text, nullable=False, index=True),
    Column("pool", Text, nullable=False, index=True),
    Column("made_at", _instant, nullable=False, index=True),
    # How it stood at the last look.
    Column("code", Text, nullable=False),
    Column("facts", _json, nullable=False, server_default="{}"),
    Column("place", Integer),
    Column("eta_at", _instant),
    Column("eta_kind", Text),
    Column("reclaims", _json, nullable=False, server_default="[]"),
    # What it asks for.
    Column("ask", _json, nullable=False),
    Column("put_back", Boolean, nullable=False, server_default=false()),
    Column("displaced_by", Text),
    Column("wanted", Integer, nullable=False, server_default="1"),
    Column("booked", Integer, nullable=False, server_default="0"),
    Column("options", _json, nullable=False, server_default="{}"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("pool", Text, nullable=False, index=True),
    Column("amounts", _json, nullable=False),
    Column("starts_at", _instant, nullable=False),
    Column("ends_at", _instant, nullable=False, index=True),
    Column("approved", Boolean, nullable=False, server_default=true()),
    Column("shrunk_to", _json),
    Column("title", Text, nullable=False, server_default=""),
    Column("made_by", Text, nullable=False, server_default=""),
    Column("made_at", _instant, nullable=False, server_default="0"),
    Column("approved_by", Text, nullable=False, server_default=""),
)

# Who asks for more hours, and what came of it.
requests = Table(
    "requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("pool", Text, nullable=False, index=True),
    Column("budget", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("units", _units, nullable=False),
    Column("until", _instant, nullable=False),
    Column("why", Text, nullable=False),
    Column("made_at", _instant, nullable=False),
    Column("made_by", Text, nullable=False, index=True),
    Column("state", Text, nullable=False, index=True),
    Column("answered_at", _instant),
    Column("answered_by", Text, nullable=False, server_default=""),
    Column("answer", Text, nullable=False, server_default=""),
    Column("grant", Text),
)
