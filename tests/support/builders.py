"""Short ways to say a policy, a scenario and an instant in tests of the quota.

Everything goes through the documents people write, so that a test reads like a policy file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from hub_ext.quota.document import mapping_document, policy_of
from hub_ext.quota.model import Policy
from hub_ext.quota.scenario import Scenario, scenario_of
from hub_ext.quota.simulate import Outcome, play

NOW = "2027-03-02T09:00:00+09:00"
"""A Tuesday morning in Seoul: the time at which every scenario begins that says nothing else."""
HOUR = 3600
"""GPU-seconds of one GPU-hour."""


def gpus(**counts: float | str) -> dict[str, float | str]:
    """`gpus(h200=2)`: amounts by class."""
    return {f"gpu.{name}": count for name, count in counts.items()}


def policy_text(
    pools: Mapping[str, Any],
    *,
    zone: str = "Asia/Seoul",
    classes: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A policy document; `classes` are GPU classes with the hours one unit costs."""
    classes = classes or {"h200": "1"}
    return {
        "version": 1,
        "timezone": zone,
        "gpu_classes": {
            name: {"resource": f"example.com/{name}", "hours": cost} for name, cost in classes.items()
        },
        "pools": dict(pools),
        **more,
    }


def a_policy(pools: Mapping[str, Any], **more: Any) -> Policy:
    return policy_of(mapping_document(policy_text(pools, **more), "policy"))


def a_scenario(
    pools: Mapping[str, Any],
    *events: Mapping[str, Any],
    now: str = NOW,
    policy: Mapping[str, Any] | None = None,
    **parts: Any,
) -> Scenario:
    """`parts` are the other sections of the file; `policy` what the policy says beside its pools."""
    data = {"now": now, "policy": policy_text(pools, **(policy or {})), "events": list(events), **parts}
    return scenario_of(mapping_document(data, "scenario"), Path())


def played(pools: Mapping[str, Any], *events: Mapping[str, Any], **parts: Any) -> Outcome:
    """The scenario's outcome, once through JSON, as the command shows it."""
    outcome = play(a_scenario(pools, *events, **parts))
    return Outcome(**json.loads(json.dumps(outcome.__dict__)))


def ask(name: str, pool: str, amounts: Mapping[str, Any], at: str = "+0m", **more: Any) -> dict[str, Any]:
    return {"at": at, "ask": {"id": name, "pool": pool, "amounts": dict(amounts), **more}}


def lease(name: str, pool: str, amounts: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A lease that stands: started an hour ago, for four more hours."""
    return {"id": name, "pool": pool, "amounts": dict(amounts), "started": "-1h", "ends": "+4h", **more}


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def decisions(outcome: Outcome, name: str | None = None) -> list[dict[str, Any]]:
    return [entry for entry in outcome.decisions if "verdict" in entry and name in (None, entry["id"])]


def decision(outcome: Outcome, name: str) -> dict[str, Any]:
    """The one answer to an ask."""
    (found,) = decisions(outcome, name)
    return found


def changes(outcome: Outcome, name: str | None = None) -> list[tuple[str, str, str | None]]:
    """(id, change, code) of everything that was not an answer, in order."""
    found = (entry for entry in outcome.decisions if "change" in entry and name in (None, entry["id"]))
    return [(entry["id"], entry["change"], entry["code"]) for entry in found]


def budget(
    outcome: Outcome, pool: str, person: str | None = None, period: str | None = None
) -> dict[str, Any]:
    (found,) = [
        entry
        for entry in outcome.budgets
        if (entry["pool"], entry["person"]) == (pool, person) and period in (None, entry["period"])
    ]
    return found
