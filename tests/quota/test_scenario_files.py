"""Scenario files and what is to come of them: each NAME.yaml has a NAME.want.yaml beside it.

A want file holds the case as a sentence, and as much of the outcome as matters; whatever it leaves out may be anything.
A `decisions` list is compared entry by entry, so that nothing may come in between.

Those in `kueue/` are the cases of Kueue's own tests of the algebra we follow. What could not be expressed:

| Kueue's test | why |
|---|---|
| TestIsBorrowingOn: `requestedFRs` | which of the borrowed resources an ask wants is nothing we report; `over` is, by resource |
| TestZeroWeightBorrows, TestPreciseWeightedShareSerialized | inner types; the weights are in `share-*`, shares are shown as their ceiling |
| TestCohortEffectiveQuotas* | quotas beyond 10^12 base units are refused; nothing overrides a stated quota |
| TestDominantResourceShare: 1E CPUs | as above; the largest quota we take stands in its place |
| TestAvailable: results cut off at 0 | ours shows what is missing below zero (QUOTA.md §3) |
| clusterqueue_test.go, the rest of snapshot_test.go | states, admission checks and topologies of Kubernetes objects |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hub_ext.cli import main
from hub_ext.documents import read_document
from hub_ext.quota.scenario import load_scenario, scenario_of
from hub_ext.quota.simulate import play
from tests.support.builders import mapping_document

FOLDER = Path(__file__).parent.parent / "data" / "scenarios"
WANTED = sorted(FOLDER.rglob("*.want.yaml"))


def scenario_file(want: Path) -> Path:
    return want.with_name(want.name.replace(".want.yaml", ".yaml"))


def case(want: Path) -> Any:
    return pytest.param(want, id=yaml.safe_load(want.read_text(encoding="utf-8"))["case"])


def test_every_scenario_file_has_its_wants() -> None:
    assert len(WANTED) > 40
    files = {
        path for path in FOLDER.rglob("*.yaml") if not path.name.endswith((".want.yaml", ".policy.yaml"))
    }
    assert files == {scenario_file(want) for want in WANTED}


@pytest.mark.parametrize("want", [case(want) for want in WANTED])
def test_scenario(want: Path) -> None:
    wanted = yaml.safe_load(want.read_text(encoding="utf-8"))
    wanted.pop("case")
    played = json.loads(json.dumps(play(load_scenario(scenario_file(want))).__dict__))
    assert part_of(played, wanted) == wanted

    told = CliRunner().invoke(main, ["simulate", str(scenario_file(want)), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == played


@pytest.mark.parametrize("want", [case(want) for want in WANTED if want.parent.name == "kueue"])
def test_nothing_in_use_leaves_all_that_can_be_had(want: Path) -> None:
    """As Kueue's test does it: before anything is used, and after all of it is given back."""
    data = read_document(scenario_file(want)).data
    ids = [lease["id"] for lease in data.get("leases", [])]
    given_back = [{"at": "+0m", "release": name} for name in reversed(ids)]
    for changed in ({"leases": []}, {"events": given_back}):
        outcome = play(scenario_of(mapping_document({**data, "events": [], **changed}, "scenario"), FOLDER))
        for pool in outcome.pools.values():
            assert (pool["share"], pool["dominant"]) == (0, None)
            for numbers in pool["resources"].values():
                assert numbers["used"] == numbers["g"] == numbers["over"] == 0
                assert numbers["available"] == numbers["potential"]


def part_of(outcome: Any, wanted: Any) -> Any:
    """As much of the outcome as is wanted, so that a failure shows both side by side."""
    if isinstance(wanted, dict) and isinstance(outcome, dict):
        return {key: part_of(outcome.get(key, "missing"), value) for key, value in wanted.items()}
    if isinstance(wanted, list) and isinstance(outcome, list):
        rest = outcome[len(wanted) :]
        return [part_of(one, value) for one, value in zip(outcome, wanted, strict=False)] + rest
    return outcome
