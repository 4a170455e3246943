"""One real hub with its desk for the tests of a module, and fresh ones for tests that break things."""

from tests.hub.conftest import hub, make_hub
from tests.support.databases import database, sqlite_database

__all__ = ["database", "hub", "make_hub", "sqlite_database"]
