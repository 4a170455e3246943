"""Laws of what-if files, on files drawn at random: what is told does not depend on how it is worked out."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_ext.quota import simulate
from hub_ext.quota.document import mapping_document
from hub_ext.quota.scenario import scenario_of
from hub_ext.quota.simulate import Outcome, play
from tests.support.cities import PEOPLE, scenarios

FEWER = settings(max_examples=60)


def outcome_of(data: dict[str, Any]) -> Outcome:
    return play(scenario_of(mapping_document(data, "scenario"), Path()))


@FEWER
@given(data=scenarios())
def test_charging_at_every_event_tells_the_same(data: dict[str, Any]) -> None:
    """Leases are charged only where it can matter; charging all of them at every step comes to the same."""
    lazy = outcome_of(data)
    with pytest.MonkeyPatch.context() as patch:
        step = simulate._Run.settle

        def eager(run: Any) -> None:
            run.look_at = run.now
            step(run)

        patch.setattr(simulate._Run, "settle", eager)
        assert outcome_of(data) == lazy


@FEWER
@given(data=scenarios(), ticks=st.lists(st.integers(0, 400_000), max_size=6))
def test_ticks_only_move_time(data: dict[str, Any], ticks: list[int]) -> None:
    last = max([0, *(int(event["at"][1:-1]) for event in data["events"])])
    more = [{"at": f"+{tick}s", "tick": True} for tick in ticks if tick < last]
    assert outcome_of(data | {"events": more + data["events"]}) == outcome_of(data)


@FEWER
@given(data=scenarios(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_file_does_not_matter_where_times_differ(data: dict[str, Any], order: Any) -> None:
    events = list(data["events"])
    order.shuffle(events)
    assert outcome_of(data | {"events": events}) == outcome_of(data)


@FEWER
@given(data=scenarios(), again=st.integers(0, 9))
def test_asking_twice_is_asking_once(data: dict[str, Any], again: int) -> None:
    """An ask that was admitted, asked again at any later time: the same answer, and nothing else changes."""
    first = outcome_of(data)
    admitted = {entry["id"]: entry for entry in first.decisions if entry.get("verdict") == "admit"}
    asked = [event for event in data["events"] if "ask" in event and event["ask"]["id"] in admitted]
    if not asked:
        return
    event = asked[again % len(asked)]
    last = max(int(event["at"][1:-1]) for event in data["events"])
    twice = outcome_of(data | {"events": [*data["events"], event | {"at": f"+{last}s"}]})
    answer = admitted[event["ask"]["id"]]
    assert twice.decisions[-1] == answer | {"at": twice.decisions[-1]["at"]}
    assert twice.decisions[:-1] == first.decisions
    assert (twice.pools, twice.budgets) == (first.pools, first.budgets)


CHANGES = ("admitted", "noticed", "withdrawn", "stopped", "expired", "promoted", "extended")


@FEWER
@given(data=scenarios())
def test_what_is_told_makes_sense(data: dict[str, Any]) -> None:
    outcome = outcome_of(data)
    json.loads(json.dumps(outcome.__dict__, allow_nan=False))
    times = [datetime.fromisoformat(entry["at"]) for entry in outcome.decisions]
    assert times == sorted(times)
    for entry in outcome.decisions:
        if entry.get("verdict") == "admit":
            assert entry["code"] is None
            assert entry["guaranteed"] is (entry["lender"] is None)
            assert datetime.fromisoformat(entry["ends_at"]) > datetime.fromisoformat(entry["at"])
        elif "verdict" in entry:
            assert entry["code"] is not None
        else:
            assert entry["change"] in CHANGES
    for pool in outcome.pools.values():
        assert pool["share"] == "inf" or pool["share"] >= 0
        for numbers in pool["resources"].values():
            assert numbers["used"] >= 0
            assert numbers["over"] == max(0, numbers["used"] - numbers["subtree"])
    for budget in outcome.budgets:
        assert budget["person"] in (None, *PEOPLE)
        left = (
            Decimal(str(budget["limit"])) - Decimal(str(budget["used"])) - Decimal(str(budget["committed"]))
        )
        assert abs(left - Decimal(str(budget["left"]))) <= Decimal("0.000002")
        assert budget["committed"] >= 0


@FEWER
@given(data=scenarios(meddling=False))
def test_no_budget_is_overdrawn_by_more_than_the_grace(data: dict[str, Any]) -> None:
    """Nobody corrects, cuts or states leases; hours are overdrawn only by leases that ran on into a new period."""
    grace = {"0s": 0, "7m": 420}
    longest = max(
        [grace.get(pool["session"].get("grace", ""), 1800) for pool in data["policy"]["pools"].values()]
    )
    rate = 3 * sum(
        sum(
            float(str(count).replace("1500m", "1.5"))
            for name, count in event["ask"]["amounts"].items()
            if name != "cpu"
        )
        * 1.5
        for event in data["events"]
        if "ask" in event
    )
    last = max([0, *(int(event["at"][1:-1]) for event in data["events"])])
    for until in range(0, last + 200_000, 50_000):
        events = [event for event in data["events"] if int(event["at"][1:-1]) <= until]
        for budget in outcome_of(data | {"events": [*events, {"at": f"+{until}s", "tick": True}]}).budgets:
            assert budget["used"] - budget["limit"] <= rate * (max(longest, 1800) + 1)
