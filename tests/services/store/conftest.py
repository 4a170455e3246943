from collections.abc import Iterator

import pytest

from hub_ext.quota.store import SqlStore
from tests.services.store.city import new_store
from tests.support.databases import Database, database, empty_database, postgresql_database, sqlite_database

__all__ = ["database", "empty_database", "postgresql_database", "sqlite_database"]


@pytest.fixture
def store(database: Database) -> Iterator[SqlStore]:
    """A store on each kind of database, with the policy `city` in force."""
    made = new_store(database, policy="city")
    yield made
    made.close()
