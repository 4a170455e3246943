"""Cities drawn at random for property tests: policy documents, and the life that goes on under them.

`Life` does with a ledger what the hub does with its database: asks are decided on and booked, run, are extended and
released, time passes, budgets are corrected, policies change.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from hypothesis import strategies as st

from hub_ext.core.decision import Admit, Decision
from hub_ext.core.people import Person
from hub_ext.quota.budget import BudgetOf, binding, window_at
from hub_ext.quota.document import mapping_document, policy_of
from hub_ext.quota.ledger import Ledger, refold
from hub_ext.quota.model import Ask, Grant, Lease, LeaseState, Node, Policy
from hub_ext.quota.policy import End, Snapshot, cost_of, decide, decide_extension
from hub_ext.quota.sums import Sums

START = int(datetime(2027, 3, 1, 12, tzinfo=UTC).timestamp())
PEOPLE = ("ha", "min", "seo")
RESOURCES = ("gpu.a", "gpu.b", "cpu")
NODES = (
    Node("n1", {"gpu.a": 4000, "gpu.b": 2000, "cpu": 9000}),
    Node("n2", {"gpu.a": 6000, "cpu": 6000}),
)

amounts = st.sampled_from(["0", "0.5", "1", "1500m", "2", "3", "5"])


@st.composite
def quotas(draw: st.DrawFn, *, root: bool) -> dict[str, Any]:
    quota: dict[str, Any] = {}
    for resource in draw(st.sets(st.sampled_from(RESOURCES))):
        quota[resource] = {"nominal": draw(amounts)}
        for limit in () if root else ("borrow", "lend"):
            value = draw(st.none() | amounts)
            if value is not None:
                quota[resource][limit] = value
    return quota


@st.composite
def budget_lists(draw: st.DrawFn, *, terms: bool = True) -> list[dict[str, Any]]:
    periods = draw(
        st.lists(
            st.sampled_from(["day", "week", "month", "quarter", "year", "term"]), max_size=2, unique=True
        )
    )
    found = []
    for period in periods:
        budget: dict[str, Any] = {"hours": draw(st.sampled_from(["0", "0.4", "3", "7.5", "40"]))}
        if period != "term":
            budget |= {"period": period} | draw(st.sampled_from([{}, {"carry": "2"}, {"carry": "20"}]))
        elif not terms:
            continue
        else:
            budget |= draw(
                st.sampled_from(
                    [{"from": "2027-02-28", "to": "2027-03-04"}, {"from": "2027-03-03", "to": "2027-04-01"}]
                )
            )
        budget |= draw(st.sampled_from([{}, {"soft": "0.8"}, {"each": "person"}]))
        found.append(budget)
    return found


@st.composite
def policy_documents(
    draw: st.DrawFn,
    *,
    budgets: bool = True,
    caps: bool = True,
    zones: tuple[str, ...] = ("Asia/Seoul", "Europe/Berlin", "America/St_Johns"),
) -> dict[str, Any]:
    """A policy of up to seven pools in one or more trees; parents may stand after their children."""
    count = draw(st.integers(1, 7))
    names = [f"p{i}" for i in range(count)]
    pools: dict[str, Any] = {}
    for index, name in enumerate(names):
        parent = draw(st.none() | st.sampled_from(names[:index])) if index else None
        pool: dict[str, Any] = {"quota": draw(quotas(root=parent is None))}
        if parent is not None:
            pool["parent"] = parent
        pool["weight"] = draw(st.sampled_from(["0", "0.25", "1", "3"]))
        if caps and draw(st.booleans()):
            caps_of_pool = st.dictionaries(
                st.sampled_from([*RESOURCES, "servers", "dask-workers"]), st.integers(0, 4), max_size=2
            )
            pool["person"] = draw(caps_of_pool)
        if budgets:
            pool["budgets"] = draw(budget_lists())
        pool["session"] = draw(
            st.sampled_from(
                [
                    {},
                    {},
                    {"min": "5m"},
                    {"max": "30h"},
                    {"grace": "0s"},
                    {"min": "1h", "max": "2h", "grace": "7m"},
                ]
            )
        )
        pools[name] = pool
    order = draw(st.permutations(names))
    return {
        "version": 1,
        "timezone": draw(st.sampled_from(zones)),
        "gpu_classes": {"a": {"resource": "x/a"}, "b": {"resource": "x/b", "hours": "0.143"}},
        "rates": {"borrowed": draw(st.sampled_from(["0.5", "0.5", "0", "1.5"]))},
        "pools": {name: pools[name] for name in order},
    }


def policies(**more: Any) -> st.SearchStrategy[Policy]:
    return policy_documents(**more).map(lambda document: policy_of(mapping_document(document, "policy")))


asks = st.builds(
    Ask,
    id=st.just(""),
    person=st.sampled_from(PEOPLE),
    pool=st.integers(0, 6).map(str),
    amounts=st.dictionaries(
        st.sampled_from(RESOURCES), st.sampled_from([0, 1, 500, 1000, 1500, 2000, 4000]), max_size=2
    ),
    kind=st.sampled_from(["server", "server", "dask-worker"]),
    minutes=st.none() | st.sampled_from([0, 7, 60, 600, 3000]),
)
"""`pool` is a number, taken modulo the pools there are; `id` is given when it is asked."""
which = st.integers(0, 9)
seconds = st.sampled_from([0, 1, 59, 300, 3599, 7200, 40_000, 86_400, 9 * 86_400])

LIVING = st.one_of(
    st.tuples(st.just("ask"), asks),
    st.tuples(st.just("ask"), asks),
    st.tuples(st.just("run"), which),
    st.tuples(st.just("release"), which),
    st.tuples(st.just("end"), which),
    st.tuples(st.just("extend"), which, st.sampled_from([1, 60, 2000])),
    st.tuples(st.just("pass"), seconds),
)
"""What people do."""


def meddling(**more: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    """And what operators do: facts above quota, corrections, other policies (`more` as for `policies`)."""
    return st.one_of(
        LIVING,
        LIVING,
        st.tuples(st.just("fact"), asks, st.none() | st.booleans()),
        st.tuples(st.just("notice"), which, st.sampled_from([0, 10])),
        st.tuples(st.just("accrue"), which),
        st.tuples(st.just("grant"), which, seconds),
        st.tuples(st.just("correct"), which, st.integers(-(10**11), 10**11)),
        st.tuples(st.just("policy"), policies(**more)),
    )


@dataclass
class Life:
    """One step after another; `log` holds what was decided."""

    policy: Policy
    nodes: tuple[Node, ...] | None = None
    now: int = START
    leases: dict[str, Lease] = field(default_factory=dict)
    log: list[tuple[Ask, Decision]] = field(default_factory=list)
    history: list[Any] = field(default_factory=list)
    """All entries of all ledgers."""
    charges: list[tuple[Lease, date, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.policy, Sums())
        self.ledger.budgets.open(self.now)

    def live(self, steps: list[tuple[Any, ...]]) -> Life:
        for name, *values in steps:
            getattr(self, f"_{name}")(*values)
        return self

    # -- what is asked of it ----------------------------------------------------------------------------------

    def pool(self, number: str) -> str:
        names = list(self.policy.pools)
        return names[int(number) % len(names)]

    def snapshot(self, person: str) -> Snapshot:
        people = {person: Person(person, any_pool=True)}
        own = [lease for lease in self.leases.values() if lease.live and lease.person == person]
        return Snapshot(self.ledger.tree, self.ledger.sums, self.nodes, self.ledger.grants, people, own)

    def wish(self, ask: Ask) -> Ask:
        return replace(ask, id=f"l{len(self.log) + len(self.leases)}", pool=self.pool(ask.pool))

    def decided(self, ask: Ask) -> Decision:
        return decide(self.snapshot(ask.person), ask, self.now)

    def living(self) -> list[Lease]:
        return [lease for lease in self.leases.values() if lease.live]

    def refolded(self, policy: Policy | None = None, since: int | None = None) -> Sums:
        charges = self.charges + [(self.leases[c.lease], c.day, c.units) for c in self.ledger.charges]
        return refold(
            policy or self.policy, self.living(), charges, self.ledger.sums, self.ledger.grants, since
        )

    # -- steps ---------------------------------------------------------------------------------------------------

    def _ask(self, ask: Ask) -> None:
        ask = self.wish(ask)
        decision = self.decided(ask)
        self.log.append((ask, decision))
        if isinstance(decision, Admit):
            self._put(self.ledger.book(ask, decision, self.now))

    def _fact(self, ask: Ask, guaranteed: bool | None) -> None:
        ask = self.wish(ask)
        label = self.ledger.would_be_guaranteed(ask) if guaranteed is None else guaranteed
        ends_at = self.now + 60 * (ask.minutes or 120)
        cost = cost_of(self.policy, ask, guaranteed=label)
        self._put(
            self.ledger.adopt(
                ask, self.now, started_at=self.now - 60, ends_at=ends_at, cost=cost, guaranteed=label
            )
        )

    def _run(self, which: int) -> None:
        self._change(which, lambda lease: self.ledger.run(lease, self.now, handle="h"))

    def _accrue(self, which: int) -> None:
        self._change(which, lambda lease: self.ledger.accrue(lease, self.now))

    def _end(self, which: int) -> None:
        self._change(which, lambda lease: self.ledger.end(lease, self.now, why="over"))

    def _release(self, which: int) -> None:
        self._change(which, lambda lease: self.ledger.release(lease, self.now, why="gone"))
        self._promote()

    def _notice(self, which: int, minutes: int) -> None:
        self._change(
            which,
            lambda lease: self.ledger.notice(
                lease, max(self.now, lease.charged_until) + 60 * minutes, self.now
            ),
        )

    def _extend(self, which: int, minutes: int) -> None:
        def extend(lease: Lease) -> Lease:
            end = decide_extension(self.snapshot(lease.person), lease, minutes, self.now)
            return self.ledger.extend(lease, end.at, self.now) if isinstance(end, End) else lease

        self._change(which, extend)

    def _pass(self, seconds: int) -> None:
        """Leases end on the way, each at its time."""
        until = self.now + seconds
        while due := sorted(
            (lease for lease in self.living() if lease.ends_at <= until), key=lambda x: (x.ends_at, x.id)
        ):
            self.now = max(self.now, due[0].ends_at)
            if due[0].started_at is None and due[0].state is LeaseState.BOOKED:
                due[0] = self._put(self.ledger.run(due[0], min(due[0].ends_at, due[0].booked_at + 5)))
            self._put(self.ledger.release(due[0], self.now, why="ended"))
            self._promote()
        self.now = until

    def _grant(self, which: int, seconds: int) -> None:
        found = self._budgets()
        if found:
            of = found[which % len(found)]
            number = len(self.ledger.grants)
            self.ledger.grant(
                Grant(
                    f"g{number}",
                    of.pool,
                    of.budget.name,
                    of.person,
                    10**10,
                    self.now + seconds + 1,
                    "",
                    self.now,
                )
            )

    def _correct(self, which: int, units: int) -> None:
        found = [of for of in self._budgets() if window_at(of.budget, self.now, self.policy.timezone)]
        if found:
            self.ledger.correct(found[which % len(found)], units, self.now)

    def _policy(self, policy: Policy) -> None:
        sums = self.refolded(policy, since=self.now)
        self.charges += [(self.leases[c.lease], c.day, c.units) for c in self.ledger.charges]
        self.history += self.ledger.entries
        self.policy, self.ledger = policy, Ledger(policy, sums, self.ledger.grants)
        self._promote()

    def _promote(self) -> None:
        for lease in self.ledger.promote(
            [lease for lease in self.living() if not lease.guaranteed], self.now
        ):
            self._put(lease)

    def _budgets(self) -> list[BudgetOf]:
        return [of for name in self.policy.pools for of in binding(self.policy, [name], PEOPLE[0])]

    def _change(self, which: int, change: Any) -> None:
        living = self.living()
        if living:
            self._put(change(living[which % len(living)]))

    def _put(self, lease: Lease) -> Lease:
        self.leases[lease.id] = lease
        return lease


# -- scenario files ---------------------------------------------------------------------------------------------------


@st.composite
def scenarios(draw: st.DrawFn, *, meddling: bool = True) -> dict[str, Any]:
    """A what-if file as plain data. Events stand in the order of their times; no two at the same."""
    policy = draw(policy_documents(caps=draw(st.booleans())))
    pools = list(policy["pools"])
    held = st.dictionaries(st.sampled_from(RESOURCES), st.sampled_from(["0.5", 1, 2, "1500m"]), max_size=2)
    leases = [
        {
            "id": f"f{i}",
            "pool": draw(st.sampled_from(pools)),
            "person": draw(st.sampled_from(PEOPLE)),
            "amounts": draw(held),
            "started": f"-{draw(st.integers(0, 90))}m",
            "ends": f"+{draw(st.integers(0, 3000))}m",
        }
        | draw(st.sampled_from([{}, {}, {"borrowed": True}, {"borrowed": False}]))
        for i in range(draw(st.integers(0, 4)) if meddling else 0)
    ]
    names = [lease["id"] for lease in leases]
    events: list[dict[str, Any]] = []
    at = 0
    for number in range(draw(st.integers(0, 9))):
        at += draw(st.sampled_from([1, 60, 300, 3599, 40_000, 90_000]))
        name = f"a{number}"
        wish = {
            "id": name,
            "pool": draw(st.sampled_from(pools)),
            "person": draw(st.sampled_from(PEOPLE)),
            "amounts": draw(held),
            "minutes": draw(st.sampled_from([0, 20, 90, 600, 5000])),
        } | draw(st.sampled_from([{}, {}, {"kind": "dask-worker", "count": 3}]))
        kinds = ["ask", "ask", "ask", "release", "cancel", "extend", "tick"] + ["grant", "policy"] * meddling
        kind = draw(st.sampled_from(kinds if names else ["ask"]))
        if kind == "ask":
            names.append(name)
            events.append({"at": f"+{at}s", "ask": wish})
        elif kind in ("release", "cancel"):
            events.append({"at": f"+{at}s", kind: draw(st.sampled_from(names))})
        elif kind == "extend":
            events.append(
                {
                    "at": f"+{at}s",
                    "extend": {
                        "id": draw(st.sampled_from(names)),
                        "minutes": draw(st.sampled_from([5, 300])),
                    },
                }
            )
        elif kind == "policy":
            other = draw(policy_documents(zones=(policy["timezone"],)))
            events.append({"at": f"+{at}s", "policy": other | _rooted(policy, other)})
        elif kind == "grant":
            grant = _grant(draw, policy, at)
            events.append({"at": f"+{at}s"} | ({"grant": grant} if grant else {"tick": True}))
        else:
            events.append({"at": f"+{at}s", "tick": True})
    if any("policy" in event for event in events):
        events = [event for event in events if "grant" not in event]  # which budget is meant may have changed
    found = {"now": "2027-03-01T21:00:00+09:00", "policy": policy, "leases": leases, "events": events}
    return found | draw(st.sampled_from([{}, {"nodes": _NODES}]))


_NODES = [{"name": "n1", "gpu.a": 4, "gpu.b": 2, "cpu": 9}, {"name": "n2", "gpu.a": 6, "cpu": 6}]


def _rooted(policy: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The other policy's pools instead, and those only the first has beside them, each a tree of its own."""
    left = {name: {} for name in policy["pools"] if name not in other["pools"]}
    return {"pools": other["pools"] | left}


def _grant(draw: st.DrawFn, policy: dict[str, Any], at: int) -> dict[str, Any] | None:
    found = [(name, budget) for name, pool in policy["pools"].items() for budget in pool["budgets"]]
    if not found:
        return None
    pool, budget = draw(st.sampled_from(found))
    period = budget.get("period") or f"{budget['from']}/{budget['to']}"
    until = at + draw(st.sampled_from([60, 3600, 200_000]))
    who = {"person": draw(st.sampled_from(PEOPLE))} if "each" in budget else {}
    return {
        "pool": pool,
        "hours": draw(st.sampled_from(["0.2", "5"])),
        "until": f"+{until}s",
        "period": period,
    } | who


# -- cities in which people wait for one another --------------------------------------------------------------------------


@st.composite
def crowded(draw: st.DrawFn, *, meddling: bool = True) -> dict[str, Any]:
    """A what-if file in which little is left for many: they borrow, wait, take back, leave and come late."""
    few = st.sampled_from([0, 0, 1, 2, 3])
    limits = st.sampled_from([{}, {}, {"lend": 1}, {"borrow": 2}])
    tree = {
        "root": None,
        "north": "root",
        "south": "root",
        "lab": "north",
        "school": "north",
        "shop": "south",
    }
    pools: dict[str, Any] = {}
    for name, parent in tree.items():
        quota = {"gpu.a": {"nominal": draw(few)} | (draw(limits) if parent else {})}
        if draw(st.booleans()):
            quota["cpu"] = {"nominal": draw(st.sampled_from([4, 8]))}
        pools[name] = {"quota": quota} | ({"parent": parent} if parent else {})
        if draw(st.integers(0, 3)) == 0:
            pools[name]["weight"] = draw(st.sampled_from(["0", "0.5", 3]))
    if draw(st.integers(0, 2)) == 0:
        pools["north"]["person"] = {"servers": 2}
    if draw(st.integers(0, 2)) == 0:
        pools["lab"]["budgets"] = [{"hours": draw(st.sampled_from([2, 9])), "period": "day"}]
    queue = {"patience": draw(st.sampled_from(["0s", "5m", "15m"])), "claim": "10m"}
    policy = {
        "version": 1,
        "timezone": "Asia/Seoul",
        "gpu_classes": {"a": {"resource": "example.com/a"}},
        "queue": queue,
        "pools": pools,
    }
    size = st.sampled_from(
        [{"gpu.a": 1}, {"gpu.a": 1, "cpu": 2}, {"gpu.a": 2}, {"gpu.a": 3, "cpu": 4}, {"cpu": 3}]
    )
    leases = [
        {
            "id": f"f{number}",
            "pool": draw(st.sampled_from(list(tree))),
            "person": draw(st.sampled_from(PEOPLE)),
            "amounts": draw(size),
            "started": f"-{draw(st.integers(0, 90))}m",
            "ends": f"+{draw(st.integers(1, 300))}m",
        }
        for number in range(draw(st.integers(0, 3)) if meddling else 0)
    ]
    names, events, at = [lease["id"] for lease in leases], [], 0
    for number in range(draw(st.integers(4, 18))):
        at += draw(st.sampled_from([1, 60, 200, 700, 1900]))
        kind = (
            draw(st.sampled_from(["ask"] * 6 + ["release", "cancel", "tick", "extend"])) if names else "ask"
        )
        event: dict[str, Any] = {"at": f"+{at}s"}
        if kind == "ask":
            names.append(f"a{number}")
            event["ask"] = {
                "id": f"a{number}",
                "pool": draw(st.sampled_from(list(tree))),
                "person": draw(st.sampled_from(PEOPLE)),
                "amounts": draw(size),
                "minutes": draw(st.sampled_from([15, 60, 120, 300])),
            }
            event["ask"] |= draw(
                st.sampled_from([{}, {}, {}, {"shows_up": "never"}, {"kind": "dask-worker", "count": 2}])
            )
        elif kind == "extend":
            event["extend"] = {"id": draw(st.sampled_from(names)), "minutes": 60}
        else:
            event[kind] = True if kind == "tick" else draw(st.sampled_from(names))
        events.append(event)
    nodes = [{"name": "n1", "gpu.a": 3, "cpu": 8}, {"name": "n2", "gpu.a": 3, "cpu": 8}]
    found = {"now": "2027-03-01T21:00:00+09:00", "policy": policy, "leases": leases, "events": events}
    return found | draw(st.sampled_from([{}, {"nodes": nodes}]))
