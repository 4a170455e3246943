"""What the desk's answer means: tables of cases."""

from __future__ import annotations

from typing import Any

import pytest

from hub_ext.notebook.lab.model import BadAnswer, Lease, Notice, lease_of

NINE = 1803945600  # 2027-03-02T09:00:00+09:00
ITEM = {"id": "l1", "server": "", "ends_at": "2027-03-02T09:00:00+09:00"}


def answer(**facts: Any) -> dict[str, Any]:
    return {"items": [ITEM | facts], "next": None}


@pytest.mark.parametrize(
    ("said", "want"),
    [
        pytest.param(answer(), Lease("l1", NINE, "09:00"), id="only what must be there"),
        pytest.param(answer(guaranteed=False), Lease("l1", NINE, "09:00", guaranteed=False), id="borrowed"),
        pytest.param(
            answer(unclaimed=False), Lease("l1", NINE, "09:00", unclaimed=False), id="somebody came"
        ),
        pytest.param(answer(state="ending"), Lease("l1", NINE, "09:00", over=True), id="ending"),
        pytest.param(answer(state="released"), None, id="over"),
        pytest.param(answer(server="other"), None, id="another server"),
        pytest.param(answer(kind="dask-worker"), None, id="a worker of the same name"),
        pytest.param({"items": []}, None, id="no lease"),
        pytest.param(answer(notice=None, extend=None), Lease("l1", NINE, "09:00"), id="nulls"),
        pytest.param(
            answer(notice={"why": "taken-back", "at": "2027-03-02T08:50:00+09:00", "sentence": "Needed."}),
            Lease("l1", NINE, "09:00", notice=Notice("taken-back", NINE - 600, "Needed.")),
            id="a notice",
        ),
        pytest.param(
            answer(notice={"why": "ends"}),
            Lease("l1", NINE, "09:00", notice=Notice("ends", NINE, "")),
            id="a notice without words",
        ),
        pytest.param(
            answer(extend={"possible": True, "until": "2027-03-02T10:00:00+09:00"}),
            Lease("l1", NINE, "09:00", extend_until=NINE + 3600),
            id="may be extended",
        ),
        pytest.param(
            answer(cost="1 GPU-h/hour", hours={"left": 3, "sentence": "3 GPU-h left"}),
            Lease("l1", NINE, "09:00", lines=("1 GPU-h/hour", "3 GPU-h left")),
            id="lines in words",
        ),
        pytest.param(answer(cost=36, hours=None), Lease("l1", NINE, "09:00"), id="numbers are no words"),
    ],
)
def test_reads(said: object, want: Lease | None) -> None:
    assert lease_of(said, "") == want


def test_a_lease_that_lives_comes_before_one_that_ends() -> None:
    said = {"items": [ITEM | {"id": "old", "state": "ending"}, ITEM | {"id": "new", "state": "booked"}]}
    found = lease_of(said, "")
    assert found is not None
    assert found.id == "new"


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (None, "no items"),
        ([], "no items"),
        ({"items": {}}, "no items"),
        (answer(id=7), "no id"),
        (answer(id=""), "no id"),
        (answer(ends_at=None), "no end time"),
        (answer(ends_at="soon"), "ends_at is 'soon'"),
        (answer(ends_at=12), "ends_at is 12"),
        (answer(ends_at="2027-03-02T09:00:00"), "no time"),
        (answer(notice={"at": "?"}), r"notice\.at"),
        (answer(extend={"until": []}), r"extend\.until"),
    ],
)
def test_refuses(said: object, wrong: str) -> None:
    with pytest.raises(BadAnswer, match=wrong):
        lease_of(said, "")
