"""The clock puts a changed policy file in force, and a faulty one changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hub_ext.core.errors import FaultyDocument, StoreUnavailable
from hub_ext.factory import Factory, PolicyFile
from tests.services.desk.centre import POLICY
from tests.support.fakes import StoreAwayOnce
from tests.support.state import Files, new_files

MORE = POLICY.replace("nominal: 2", "nominal: 4")
FAULTY = POLICY.replace("nominal: 2", "nominale: 2")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return new_files(tmp_path, POLICY, simulated_node={"gpu.h200": 8, "cpu": 64, "memory": "1Ti"})


@pytest.fixture
def factory(files: Files) -> Iterator[Factory]:
    made = files.upgraded()
    yield made
    made.store.close()


@pytest.fixture
def reload(factory: Factory) -> Callable[[], bool]:
    return PolicyFile(factory.settings, factory.admission, factory).reload


def own(factory: Factory) -> int:
    """How many GPUs the university owns by the policy in force."""
    with factory.store.reading() as txn:
        return txn.policy.nominal("univ", "gpu.h200") // 1000


def test_a_file_that_did_not_change_is_left_alone(factory: Factory, reload: Callable[[], bool]) -> None:
    assert [reload(), reload()] == [False, False]
    with factory.store.reading() as txn:
        assert txn.latest() == 0


def test_a_changed_file_counts_once(files: Files, factory: Factory, reload: Callable[[], bool]) -> None:
    reload()
    files.policy.write_text(MORE)
    assert (reload(), own(factory)) == (True, 4)
    assert not reload()


def test_a_file_that_changed_while_no_clock_ran_counts_at_its_first_look(
    files: Files, factory: Factory, reload: Callable[[], bool]
) -> None:
    files.policy.write_text(MORE)
    assert (reload(), own(factory)) == (True, 4)


def broken(path: Path) -> None:
    path.write_text(FAULTY)


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_text("")


def not_a_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(broken, id="with a fault"),
        pytest.param(missing, id="that is missing"),
        pytest.param(empty, id="that is empty"),
        pytest.param(not_a_text, id="that is no text"),
        pytest.param(a_folder, id="that is a folder"),
    ],
)
def test_a_file_changes_nothing_is_told_once_and_counts_again_once_mended(
    files: Files, factory: Factory, reload: Callable[[], bool], harm: Callable[[Path], None]
) -> None:
    reload()
    harm(files.policy)
    with pytest.raises(FaultyDocument, match=r"pools\.yaml:\d+: "):
        reload()
    assert [reload(), reload()] == [False, False]
    assert own(factory) == 2
    if files.policy.is_dir():
        files.policy.rmdir()
    # Back to the old text: nothing to do. Then a new one.
    files.policy.write_text(POLICY)
    assert not reload()
    files.policy.write_text(MORE)
    assert (reload(), own(factory)) == (True, 4)


def test_the_clock_tells_a_fault_once_and_once_more_when_it_comes_back(
    files: Files, factory: Factory
) -> None:
    clockwork = factory.clockwork()

    def told(text: str) -> list[str]:
        files.policy.write_text(text)
        with capture_logs() as logs:
            for _ in range(3):
                assert clockwork.tick()
        return [entry["event"].partition(":")[0] for entry in logs]

    assert told(POLICY) == []
    assert told(FAULTY) == ["the policy stays as it was"]
    assert told(POLICY) == []
    assert told(FAULTY) == ["the policy stays as it was"]
    assert told(MORE) == ["a new policy is in force"]
    assert own(factory) == 4


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(1, id="while looking"),
        pytest.param(2, id="while loading"),
        pytest.param(3, id="while counting machines"),
    ],
)
def test_a_changed_file_counts_also_when_the_database_was_away_at_first(
    files: Files, factory: Factory, number: int
) -> None:
    watched = PolicyFile(factory.settings, factory.admission, factory)
    watched.reload()
    with factory.store.booking() as txn:
        txn.put_nodes([])
    files.policy.write_text(MORE)
    store = factory.admission.store
    factory.admission.store = StoreAwayOnce(store, number)  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        watched.reload()
    factory.admission.store = store
    watched.reload()
    with factory.store.reading() as txn:
        assert (own(factory), len(txn.nodes() or ())) == (4, 1)
