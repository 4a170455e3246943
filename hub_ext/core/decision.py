"""What the quota answers: admit, wait or refuse, with a code and facts; never prose.

The sentence a person reads is made by `quota/explain.py` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from hub_ext.core.clock import Instant

Facts = Mapping[str, Any]
"""Numbers (base units, GPU-seconds), names, and times (aware datetimes); the table of codes names them all."""


class Code(StrEnum):
    """Why an ask was not admitted, in the order the checks are made (QUOTA.md §4)."""

    NOT_A_MEMBER = "not-a-member"
    PROFILE_NOT_ALLOWED = "profile-not-allowed"
    TOO_BIG_FOR_POOL = "too-big-for-pool"
    TOO_BIG_FOR_PERSON = "too-big-for-person"
    TOO_BIG_FOR_ANY_NODE = "too-big-for-any-node"
    PERSON_AT_CAP = "person-at-cap"
    BUDGET_SPENT = "budget-spent"
    BUDGET_SHORT = "budget-short"
    RESERVED_SOON = "reserved-soon"
    POOL_FULL = "pool-full"
    NO_NODE_FREE = "no-node-free"
    STARTS_BUSY = "starts-busy"
    OTHERS_WAITING = "others-waiting"
    CLUSTER_OVER = "cluster-over"


@dataclass(frozen=True, slots=True)
class Admit:
    """The ask may start now and runs until `ends_at`; `lender` is the pool lent from, null if guaranteed."""

    guaranteed: bool
    lender: str | None
    ends_at: Instant
    cost: int
    """Millionths of a GPU-second per second, fixed for the life of the lease."""
    node: str | None = None
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now; waiting can cure it."""

    code: Code
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not at all; waiting cannot cure it."""

    code: Code
    facts: Facts = field(default_factory=dict)


Decision = Admit | Wait | Refuse


def verdict(decision: Decision) -> str:
    match decision:
        case Admit():
            return "admit"
        case Wait():
            return "wait"
        case Refuse():
            return "refuse"


def plain(value: Any) -> Any:
    """Facts as JSON values: times become ISO text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value
