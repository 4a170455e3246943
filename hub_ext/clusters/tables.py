"""The tables in which dask-gateway keeps its records, so that they fit PostgreSQL as well as SQLite.

As released they name a type that only SQLite takes for the token, and keep milliseconds since 1970 in columns of 32 bits.
"""

from __future__ import annotations

import sqlalchemy as sa
from dask_gateway_server.backends.db_base import clusters, workers


def fit_every_database() -> None:
    """To be called before the tables are made. Tables that SQLite has already are read as before."""
    clusters.c.token.type = sa.LargeBinary()
    for table in (clusters, workers):
        for name in ("start_time", "stop_time"):
            table.c[name].type = sa.BigInteger()
