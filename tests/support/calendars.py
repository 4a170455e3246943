"""Lives in which pools reserve windows of time, and people come to them or do not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from hub_ext.quota.calendar import Answer, Picture, Red, decide_reservation
from hub_ext.quota.document import mapping_document, policy_of
from hub_ext.quota.ledger import refold
from hub_ext.quota.model import Ask, Policy, Reservation
from hub_ext.quota.policy import Snapshot
from hub_ext.quota.sums import Sums
from hub_ext.quota.windows import cancel, next_edge, reserve, turn_windows
from tests.support.cities import LIVING, PEOPLE, RESOURCES, Life, asks, meddling, policy_documents, which

windows = st.builds(
    Reservation,
    id=st.just(""),
    pool=st.integers(0, 6).map(str),
    amounts=st.dictionaries(
        st.sampled_from(RESOURCES[:2]), st.sampled_from([500, 1000, 2000, 4000]), min_size=1, max_size=2
    ),
    start=st.sampled_from([0, 60, 600, 1800, 2400, 3600, 7200, 40_000]),
    end=st.sampled_from([60, 900, 1200, 3600, 7200]),
)
"""`pool` as in `asks`; `start` is counted from now, `end` from the start."""

sessions = st.builds(
    Ask,
    id=st.just(""),
    person=st.sampled_from(PEOPLE),
    pool=st.integers(0, 6).map(str),
    amounts=st.dictionaries(
        st.sampled_from(RESOURCES[:2]), st.sampled_from([500, 1000, 2000]), min_size=1, max_size=1
    ),
    minutes=st.sampled_from([60, 300, 600]),
)
"""Asks that stay for a while, of what is reserved as well."""
_LIVING = st.one_of(
    LIVING,
    st.tuples(st.just("ask"), sessions),
    st.tuples(st.just("ask"), sessions),
    st.tuples(st.just("pass"), st.sampled_from([60, 600, 1200, 1800, 3600])),
    st.tuples(st.just("reserve"), windows),
    st.tuples(st.just("reserve"), windows),
    st.tuples(st.just("come"), sessions, which),
    st.tuples(st.just("workshop"), windows, st.lists(sessions, min_size=1, max_size=3)),
    st.tuples(st.just("cancel"), which),
    st.tuples(st.just("extend"), which, st.sampled_from([1, 60, 300])),
    st.tuples(st.just("sooner"), which, st.sampled_from([20, 40, 60])),
)
crowds = st.lists(
    st.tuples(
        st.just("ask"),
        st.builds(replace, sessions, amounts=st.sampled_from([{RESOURCES[0]: 1000}, {RESOURCES[0]: 2000}])),
    ),
    max_size=8,
)
"""They take what is idle, wherever it is."""
late_windows = st.builds(
    replace,
    windows,
    amounts=st.sampled_from([{RESOURCES[0]: 1000}, {RESOURCES[0]: 2000}]),
    start=st.sampled_from([1800, 2400, 3600, 7200]),
)
"""Late enough for notices."""
reserving_lives = st.tuples(crowds, st.lists(_LIVING, min_size=4, max_size=14)).map(
    lambda parts: parts[0] + parts[1]
)
_meddling = st.one_of(
    _LIVING, _LIVING, meddling(), st.tuples(st.just("outside"), st.one_of(sessions, asks), which)
)
meddled_reserving_lives = st.tuples(
    crowds, st.lists(st.tuples(st.just("reserve"), windows), max_size=2), st.lists(_meddling, max_size=14)
).map(lambda parts: parts[0] + parts[1] + parts[2])


def _one_tree(document: dict[str, Any]) -> dict[str, Any]:
    """Everybody under one root, and with something of their own to reserve and to lend."""
    pools = document["pools"]
    for name, pool in pools.items():
        if name != "p0":
            pool.setdefault("parent", "p0")
        pool["quota"].setdefault(RESOURCES[0], {"nominal": 2})
    return document


def lending_policies(**more: Any) -> st.SearchStrategy[Policy]:
    """As `policies`, where those who reserve often meet those who borrow."""
    documents = policy_documents(**more).map(_one_tree)
    return documents.map(lambda document: policy_of(mapping_document(document, "policy")))


@dataclass
class CalendarLife(Life):
    """Beside what a `Life` does: reserve, cancel, come to a reservation; windows begin and end on time."""

    reservations: dict[str, Reservation] = field(default_factory=dict)
    """Those that are not over."""
    answers: list[tuple[Reservation, Answer, int]] = field(default_factory=list)
    """What was asked for, the answer, and when."""

    def snapshot(self, person: str) -> Snapshot:
        return replace(super().snapshot(person), reservations=tuple(self.reservations.values()))

    def picture(self) -> Picture:
        return Picture(self.policy, self.living(), tuple(self.reservations.values()))

    def refolded(self, policy: Policy | None = None, since: int | None = None) -> Sums:
        charges = self.charges + [(self.leases[c.lease], c.day, c.units) for c in self.ledger.charges]
        reservations = tuple(self.reservations.values())
        return refold(
            policy or self.policy,
            self.living(),
            charges,
            self.ledger.sums,
            self.ledger.grants,
            since,
            reservations,
        )

    def planned(self, window: Reservation) -> Reservation:
        start = self.now + window.start
        name = f"w{len(self.answers)}"
        return replace(window, id=name, pool=self.pool(window.pool), start=start, end=start + window.end)

    # -- steps ---------------------------------------------------------------------------------------------------

    def _reserve(self, window: Reservation) -> None:
        wanted = self.planned(window)
        answer = decide_reservation(self.picture(), wanted, self.now)
        self.answers.append((wanted, answer, self.now))
        if isinstance(answer, Red):
            return
        for ending in answer.endings:
            self._put(self.ledger.take_back(ending.lease, ending.ends_at, wanted.id, self.now))
        reserve(self.ledger, wanted, self.living(), self.reservations.values(), self.now)
        self.reservations[wanted.id] = wanted
        self._turn()

    def _cancel(self, number: int) -> None:
        if self.reservations:
            name = list(self.reservations)[number % len(self.reservations)]
            cancel(self.ledger, self.reservations.pop(name), self.living(), self.now)

    def _come(self, ask: Ask, number: int) -> None:
        """To a reservation, in its own pool."""
        if self.reservations:
            window = list(self.reservations.values())[number % len(self.reservations)]
            number = list(self.policy.pools).index(window.pool) if window.pool in self.policy.pools else 0
            self._ask(replace(ask, reservation=window.id, pool=str(number)))

    def _workshop(self, window: Reservation, wishes: list[Ask]) -> None:
        """Reserve, and come when it begins."""
        self._reserve(window)
        name = self.answers[-1][0].id
        if name in self.reservations:
            self._pass(window.start)
            for wish in wishes:
                if name in self.reservations:
                    self._come(wish, list(self.reservations).index(name))

    def _sooner(self, which: int, minutes: int) -> None:
        """A notice that leaves this much time."""
        self._notice(which, minutes)

    def _outside(self, ask: Ask, number: int) -> None:
        """A fact that belongs to a reservation, whether or not that holds so much or has begun."""
        if self.reservations:
            name = list(self.reservations)[number % len(self.reservations)]
            self._fact(replace(ask, reservation=name), None)

    def _pass(self, seconds: int) -> None:
        until = self.now + seconds
        while (edge := next_edge(self.reservations.values(), self.now)) is not None and edge <= until:
            super()._pass(edge - self.now)
            self._turn()
        super()._pass(until - self.now)

    def _turn(self) -> None:
        for shrunk in turn_windows(self.ledger, self.reservations.values(), self.living(), self.now):
            self.reservations[shrunk.id] = shrunk
        self.reservations = {name: one for name, one in self.reservations.items() if one.end > self.now}


def lived(policy: Policy, steps: list[tuple[Any, ...]]) -> CalendarLife:
    life = CalendarLife(policy)
    life.live(steps)
    return life
