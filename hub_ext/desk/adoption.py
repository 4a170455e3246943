"""Reads what the labels of something that runs say, when the ledger has never heard of it.

Whoever runs a process writes its environment: nothing here is believed before it was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from hub_ext.core.amounts import LARGEST, is_gpu
from hub_ext.core.clock import Instant
from hub_ext.core.errors import BadInput
from hub_ext.quota.model import KINDS, SCHEDULER, SERVER, Ask, Policy
from hub_ext.quota.ports import Running


@dataclass(frozen=True, slots=True)
class Adoptable:
    """What runs, as it was booked; `ends_at` is at most as long from now as a new start could have."""

    ask: Ask
    ends_at: Instant
    devices: tuple[str, ...]


def adoptable(running: Running, policy: Policy, now: Instant) -> Adoptable:
    """Raises BadInput where the labels do not say what is needed to book it."""
    facts = running.labels or {}
    pool = _text(facts, "pool")
    if pool not in policy.pools:
        raise BadInput(f"its pool {pool!r} is not in the policy")
    kind = facts.get("kind", SERVER)
    if kind not in KINDS or (kind == SCHEDULER and facts.get("server") != running.lease):
        raise BadInput("its labels do not say what kind of lease it runs under")
    ask = Ask(
        id=running.lease,
        person=_text(facts, "person"),
        pool=pool,
        amounts=_amounts(facts.get("amounts"), policy),
        kind=kind,
        profile=_text(facts, "profile") if facts.get("profile") is not None else None,
        server=_text(facts, "server") if facts.get("server") else "",
    )
    latest, ends_at = now + policy.session(pool).max, facts.get("ends_at")
    began = running.started_at if running.started_at is not None else now
    ends_at = max(began, min(ends_at, latest)) if _whole(ends_at) else latest
    return Adoptable(ask, ends_at, _devices(facts.get("devices")))


def _text(facts: Mapping[str, Any], name: str) -> str:
    value = facts.get(name)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise BadInput(f"its labels do not say its {name}")
    return value


def _amounts(value: object, policy: Policy) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise BadInput("its labels do not say what it takes")
    for resource, amount in value.items():
        known = (
            resource.removeprefix("gpu.") in policy.gpu_classes
            if is_gpu(resource)
            else resource in ("cpu", "memory")
        )
        if not known or not _whole(amount) or not 0 <= amount <= LARGEST:
            raise BadInput(f"its labels say that it takes {amount!r} of {resource!r}")
    return dict(value)


def _devices(value: object) -> tuple[str, ...]:
    named = value if isinstance(value, list) else []
    return tuple(device for device in named if isinstance(device, str) and device.isprintable())


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
