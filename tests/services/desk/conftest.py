from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from hub_ext.db.upgrade import upgrade
from hub_ext.quota.store import SqlStore
from tests.services.desk.centre import Centre, new_centre, new_store
from tests.services.store.city import check_laws
from tests.support.databases import Database, database

__all__ = ["database"]

OneFile = tuple[Database, SqlStore]


@pytest.fixture(scope="session")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneFile]:
    """One SQLite file for many tests, each of which begins by emptying it: its statements are compiled only once."""
    path = tmp_path_factory.mktemp("desk") / "hub.sqlite"
    url = f"sqlite:///{path}"
    upgrade(url)
    made = Database("sqlite", url, str(path))
    with closing(new_store(made)) as store:
        yield made, store


@pytest.fixture
def centre(one_file: OneFile) -> Iterator[Centre]:
    """A small centre with its clock, on a real SQLite file; the ledger's laws hold when the test is over."""
    made = new_centre(*one_file)
    yield made
    check_laws(made.store)


@pytest.fixture
def make_centre(one_file: OneFile) -> Iterator[Callable[[], Centre]]:
    """One centre after the other, for tests with many examples."""
    made: list[Centre] = []

    def make() -> Centre:
        if made:
            check_laws(made[-1].store)
        made.append(new_centre(*one_file))
        return made[-1]

    yield make
    check_laws(made[-1].store)


@pytest.fixture
def centre_on_each(database: Database) -> Iterator[Centre]:
    """The same on each kind of database."""
    with closing(new_store(database)) as store:
        made = new_centre(database, store)
        yield made
        check_laws(store)
