"""What the desk tells a notebook about clusters, as frozen data, and how its answers are read.

Facts that are missing are left out; only what nobody could use raises BadAnswer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, cast

from hub_ext.notebook.lab.model import BadAnswer

__all__ = ["BadAnswer", "ClusterState", "Menu", "Notice", "Offer", "Waiting", "menu_of", "state_of"]

State = Literal["now", "borrowed", "wait", "no"]
STATES: Final = ("now", "borrowed", "wait", "no")
LONGEST_TEXT: Final = 2000
MOST: Final = 100_000
"""No count that a desk tells is larger."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One size of worker, as it stands for this person now.

    `guaranteed` and `borrowed` are how many workers there is room for. Costs are GPU-hours that one worker takes in an
    hour. `minutes` and `idle_minutes` are the choices there are; without a default (0) it runs as long as it may.
    """

    profile: str
    title: str
    pool: str = ""
    pool_title: str = ""
    description: str = ""
    worker: str = ""
    guaranteed: int = 0
    borrowed: int = 0
    state: State = "no"
    message: str = ""
    cost_guaranteed: float = 0.0
    cost_borrowed: float = 0.0
    most_workers: int = 1
    minutes: tuple[int, ...] = ()
    default_minutes: int = 0
    idle_minutes: tuple[int, ...] = ()

    def cost(self, workers: int) -> float:
        """GPU-hours in an hour of so many workers: the guaranteed ones first, the rest borrowed, or waited for."""
        guaranteed = min(workers, self.guaranteed)
        borrowed = min(workers - guaranteed, self.borrowed)
        later = workers - guaranteed - borrowed
        return (guaranteed + later) * self.cost_guaranteed + borrowed * self.cost_borrowed


@dataclass(frozen=True, slots=True)
class Menu:
    """All sizes, and in words what is left of the hours that bind."""

    offers: tuple[Offer, ...]
    hours: tuple[str, ...] = ()

    def offer(self, profile: str, pool: str | None = None) -> Offer | None:
        return next((one for one in self.offers if one.profile == profile and pool in (None, one.pool)), None)


@dataclass(frozen=True, slots=True)
class Notice:
    """Workers that are to end, when, and in words why."""

    message: str
    ends_at: datetime | None = None
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why there are not more workers now; place and, in words, the expected time where they wait in line."""

    message: str
    place: int | None = None
    eta: str = ""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """A cluster as the desk sees it. `live` workers are booked, `running` ones compute, `wanted` ones wait in line."""

    name: str
    state: str = ""
    profile: str = ""
    pool: str = ""
    ends_at: datetime | None = None
    live: int = 0
    running: int = 0
    guaranteed: int = 0
    borrowed: int = 0
    wanted: int = 0
    notice: Notice | None = None
    waiting: Waiting | None = None
    cost_per_hour: float = 0.0
    dashboard: str = ""

    @property
    def wished(self) -> int:
        return self.live + self.wanted


def menu_of(answer: object, language: str) -> Menu:
    """Raises BadAnswer where there is no list of sizes."""
    items = answer.get("items") if isinstance(answer, Mapping) else None
    if not isinstance(answer, Mapping) or not isinstance(items, list):
        raise BadAnswer("the desk's list of cluster profiles has no items")
    offers = [_offer(item, language) for item in items if isinstance(item, Mapping)]
    budgets = answer.get("budgets")
    lines = [_line(one, language) for one in budgets] if isinstance(budgets, list) else []
    return Menu(tuple(one for one in offers if one.profile), tuple(line for line in lines if line))


def _offer(item: Mapping[str, Any], language: str) -> Offer:
    worker, now, cost = (_group(item, name) for name in ("worker", "now", "cost_per_hour"))
    state = item.get("state")
    profile = _text(item.get("profile"), language)
    return Offer(
        profile=profile,
        title=_text(item.get("title"), language) or profile,
        pool=_text(item.get("pool"), language),
        pool_title=_text(item.get("pool_title"), language),
        description=_text(item.get("description"), language),
        worker=_text(worker.get("words"), language),
        guaranteed=_count(now.get("guaranteed")),
        borrowed=_count(now.get("borrowed")),
        state=cast(State, state) if state in STATES else "no",
        message=_text(item.get("message"), language),
        cost_guaranteed=_hours(cost.get("guaranteed")),
        cost_borrowed=_hours(cost.get("borrowed")),
        most_workers=max(1, _count(item.get("most_workers"))),
        minutes=_choices(item.get("minutes")),
        default_minutes=_count(item.get("default_minutes")),
        idle_minutes=_choices(item.get("idle_minutes")),
    )


def state_of(answer: object, language: str) -> ClusterState:
    """Raises BadAnswer where it is no cluster's."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("name"), str):
        raise BadAnswer("the desk's answer about a cluster has no name")
    workers = _group(answer, "workers")
    notice, waiting = answer.get("notice"), answer.get("waiting")
    return ClusterState(
        name=_text(answer.get("name"), language),
        state=_text(answer.get("state"), language),
        profile=_text(answer.get("profile"), language),
        pool=_text(answer.get("pool"), language),
        ends_at=_moment(answer.get("ends_at")),
        live=_count(workers.get("live")),
        running=_count(workers.get("running")),
        guaranteed=_count(workers.get("guaranteed")),
        borrowed=_count(workers.get("borrowed")),
        wanted=_count(workers.get("wanted")),
        notice=_notice(notice, language) if isinstance(notice, Mapping) else None,
        waiting=_waiting(waiting, language) if isinstance(waiting, Mapping) else None,
        cost_per_hour=_hours(answer.get("cost_per_hour")),
        dashboard=_text(answer.get("dashboard"), language),
    )


def _notice(found: Mapping[str, Any], language: str) -> Notice:
    return Notice(
        message=_text(found.get("message"), language),
        ends_at=_moment(found.get("ends_at")) or _moment(found.get("at")),
        workers=_count(found.get("workers")),
    )


def _waiting(found: Mapping[str, Any], language: str) -> Waiting:
    place, eta = found.get("place"), found.get("eta")
    return Waiting(
        message=_text(found.get("message"), language),
        place=_count(place) or None,
        eta=_line(eta, language),
    )


# -- values -----------------------------------------------------------------------------------------------------------


def _group(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = found.get(name)
    return group if isinstance(group, Mapping) else {}


def _text(found: object, language: str) -> str:
    """A text, by itself or by language."""
    if isinstance(found, Mapping):
        found = found.get(language) or found.get("en")
    return found[:LONGEST_TEXT] if isinstance(found, str) else ""


def _line(found: object, language: str) -> str:
    """A line in words, by itself or as the sentence of a group of facts, with whose it is."""
    if isinstance(found, Mapping):
        line = next((line for key in ("sentence", "text") if (line := _text(found.get(key), language))), "")
        whose = _text(found.get("whose"), language)
        return f"{whose} · {line}" if whose and line else line
    return _text(found, language)


def _count(found: object) -> int:
    return min(max(found, 0), MOST) if isinstance(found, int) and not isinstance(found, bool) else 0


def _hours(found: object) -> float:
    number = float(found) if isinstance(found, int | float) and not isinstance(found, bool) else 0.0
    return number if 0 <= number <= MOST else 0.0


def _choices(found: object) -> tuple[int, ...]:
    found = found if isinstance(found, list) else [found]
    return tuple(count for one in found if (count := _count(one)))


def _moment(found: object) -> datetime | None:
    if not isinstance(found, str):
        return None
    try:
        moment = datetime.fromisoformat(found)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
