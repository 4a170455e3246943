"""The checks of a decision, in their order, each with its facts (QUOTA.md §4)."""

from __future__ import annotations

from typing import Any

import pytest

from hub_ext.core.decision import Admit, Wait
from hub_ext.core.people import Person
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import Ask, Node
from hub_ext.quota.policy import Snapshot, decide, no_node_free, pick_node, too_big_for_any_node
from hub_ext.quota.sums import SumKey, Sums
from hub_ext.quota.tree import tree_of
from tests.support.builders import a_policy, ask, decision, gpus, lease, played

# potential of gpu.h200 in public, univ and lab: min(4 + 2 + 2 borrowed, 3 never lent + 6 of the root) = 8
CITY = {
    "seoul": {"kind": "centre"},
    "public": {
        "parent": "seoul",
        "quota": {"gpu.h200": {"nominal": 4, "borrow": 2, "lend": 3}, "cpu": {"nominal": 64}},
    },
    "univ": {
        "parent": "public",
        "quota": {"gpu.h200": {"nominal": 2}},
        "person": {"gpu.h200": 3, "servers": 2, "dask-workers": 4},
    },
    "lab": {"parent": "univ"},
    "course": {"parent": "univ", "person": {"gpu.h200": 1}},
    "industry": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 3}}},
    "island": {"quota": {"cpu": {"nominal": 8}}},
}
STUDENT = {"name": "student", "pools": ["univ", "lab", "course"], "profiles": ["small"]}
TEACHER = {"name": "teacher", "pools": ["univ"]}
NODES = [
    {"name": "n1", "gpu.h200": 2, "cpu": 16},
    {"name": "n2", "gpu.h200": 4, "cpu": 8},
    {"name": "n3", "gpu.h200": 0, "cpu": 64},
]


def mine(name: str, pool: str = "univ", count: float | str = 1, **more: Any) -> dict[str, Any]:
    return lease(name, pool, gpus(h200=count), person="student", **more)


def answer(wish: dict[str, Any], **parts: Any) -> tuple[str, str | None, dict[str, Any]]:
    pools = parts.pop("pools", CITY)
    found = decision(
        played(pools, {"at": "+0m", "ask": {"id": "a", "person": "student", "pool": "univ"} | wish}, **parts),
        "a",
    )
    return found["verdict"], found["code"], found["facts"]


def refused(code: str, **facts: Any) -> tuple[str, str, dict[str, Any]]:
    return "refuse", code, facts


def waits(code: str, **facts: Any) -> tuple[str, str, dict[str, Any]]:
    return "wait", code, facts


ONE, FOUR, NINE = ({"amounts": gpus(h200=count)} for count in (1, 4, 9))
PEOPLE = {"people": [STUDENT, TEACHER]}

CHECKS = [
    # -- 1 ------------------------------------------------------------------------------------------------------
    pytest.param(
        ONE | {"person": "stranger"}, PEOPLE,
        refused("not-a-member", person="stranger", pool="univ", pools=[]),
        id="a person nobody knows is a member of nothing",
    ),
    pytest.param(
        ONE | {"person": "teacher", "pool": "lab"}, PEOPLE,
        refused("not-a-member", person="teacher", pool="lab", pools=["univ"]),
        id="membership is not inherited downwards",
    ),
    pytest.param(
        ONE | {"pool": "public"}, PEOPLE,
        refused("not-a-member", person="student", pool="public", pools=["univ", "lab", "course"]),
        id="membership is not inherited upwards",
    ),
    pytest.param(
        ONE | {"profile": "large"}, PEOPLE,
        refused("profile-not-allowed", person="student", pool="univ", profile="large"),
        id="a profile that is not among the person's",
    ),
    pytest.param(
        NINE | {"pool": "industry", "profile": "large"}, PEOPLE,
        refused("not-a-member", person="student", pool="industry"),
        id="membership is asked before the profile and the size",
    ),
    pytest.param(
        NINE | {"profile": "large"}, PEOPLE, refused("profile-not-allowed"), id="the profile is asked before the size"
    ),
    # -- 2 ------------------------------------------------------------------------------------------------------
    pytest.param(
        NINE, {}, refused("too-big-for-pool", pool="univ", resource="gpu.h200", asked=9000, potential=8000),
        id="more than the pool could have with everything idle",
    ),
    pytest.param(
        NINE | {"amounts": {"gpu.h200": "8.0001"}}, {},
        refused("too-big-for-pool", asked=8001, potential=8000),
        id="an ask is rounded up",
    ),
    pytest.param(
        {"amounts": {"memory": "1Gi"}}, {"nodes": [{"name": "n1", "memory": "512Mi"}]},
        refused("too-big-for-any-node", resource="memory"),
        id="what no pool of the tree states, only nodes limit",
    ),
    pytest.param(
        {"amounts": gpus(h200=1), "pool": "island"}, {"nodes": NODES}, ("admit", None, {}),
        id="what other trees state does not limit this one",
    ),
    pytest.param(
        FOUR, {}, refused("too-big-for-person", person="student", pool="univ", key="gpu.h200", asked=4000, cap=3000),
        id="more than a person may ever hold",
    ),
    pytest.param(
        {"amounts": gpus(h200=2), "pool": "course"}, {},
        refused("too-big-for-person", pool="course", key="gpu.h200", asked=2000, cap=1000),
        id="of two pools that state a cap, the nearest counts",
    ),
    pytest.param(
        {"amounts": {"cpu": 1}}, {"pools": CITY | {"univ": CITY["univ"] | {"person": {"servers": 0}}}},
        refused("too-big-for-person", key="servers", asked=1, cap=0),
        id="no servers at all",
    ),
    pytest.param(
        NINE | {"amounts": gpus(h200=8) | {"cpu": 65}}, {},
        refused("too-big-for-pool", resource="cpu", asked=65000, potential=64000),
        id="the size for the pool is asked before that for the person",
    ),
    pytest.param(
        {"amounts": gpus(h200=3) | {"cpu": 12}}, {"nodes": NODES},
        refused(
            "too-big-for-any-node",
            asked={"gpu.h200": 3000, "cpu": 12000}, largest={"gpu.h200": 4000, "cpu": 64000}, resource=None,
        ),
        id="each is to be had, but on no single machine together",
    ),
    pytest.param(
        {"amounts": gpus(h200=3)}, {"nodes": NODES[:1]},
        refused("too-big-for-any-node", largest={"gpu.h200": 2000}, resource="gpu.h200"),
        id="no machine has so many",
    ),
    pytest.param({"amounts": {"cpu": 1}}, {"nodes": []}, refused("too-big-for-any-node"), id="there is no machine"),
    pytest.param(
        FOUR, {"nodes": NODES[:1]}, refused("too-big-for-person"), id="the person is asked before the machines"
    ),
    pytest.param(
        {"amounts": gpus(h200=3)}, {"nodes": NODES[:1], "leases": [mine("l1")]}, refused("too-big-for-any-node"),
        id="the machines are asked before what the person holds",
    ),
    # -- 3 ------------------------------------------------------------------------------------------------------
    pytest.param(
        {"amounts": gpus(h200=2)},
        {"leases": [mine("late"), mine("early", "lab", ends="+2h"), lease("other", "univ", gpus(h200=1), person="teacher")]},
        waits(
            "person-at-cap", person="student", pool="univ", key="gpu.h200", asked=2000, held=2000, cap=3000,
            leases=["early", "late"], servers=["early", "late"], first_end="2027-03-02T11:00:00+09:00",
        ),
        id="own leases in the subtree count, the first to end is named first",
    ),
    pytest.param(
        {"amounts": {"cpu": 1}}, {"leases": [mine("l1"), mine("l2", "lab")]},
        waits("person-at-cap", key="servers", asked=1, held=2, cap=2, leases=["l1", "l2"]),
        id="servers are counted",
    ),
    pytest.param(
        {"amounts": {"cpu": 1}, "kind": "dask-scheduler"}, {"leases": [mine("l1"), mine("l2", "lab")]},
        ("admit", None, {}),
        id="a Dask scheduler is not counted as a server",
    ),
    pytest.param(
        {"amounts": {"cpu": 1}, "kind": "dask-worker"},
        {"leases": [lease(f"w{i}", "lab", {"cpu": 1}, person="student", kind="dask-worker") for i in range(4)]},
        waits("person-at-cap", key="dask-workers", held=4, cap=4),
        id="Dask workers are counted",
    ),
    pytest.param(
        {"amounts": gpus(h200=1), "pool": "industry"}, {"leases": [mine("l1"), mine("l2"), mine("l3")]},
        ("admit", None, {}),
        id="caps of one pool do not count in another",
    ),
    pytest.param(
        {"amounts": gpus(h200=1), "pool": "course"}, {"leases": [mine("l1")]}, ("admit", None, {}),
        id="the course's cap counts the course's leases only",
    ),
    pytest.param(
        {"amounts": gpus(h200=2)}, {"leases": [mine("l1"), mine("l2", borrowed=True)]},
        waits("person-at-cap", held=2000),
        id="a borrowed lease counts like any other",
    ),
    pytest.param(
        {"amounts": gpus(h200=2)},
        {"leases": [mine("l1"), mine("l2"), lease("all", "industry", gpus(h200=6))]},
        waits("person-at-cap"),
        id="the person's cap is asked before the room in the pool",
    ),
    # -- 6 ------------------------------------------------------------------------------------------------------
    pytest.param(
        {"amounts": gpus(h200=3)}, {"leases": [lease("l1", "public", gpus(h200=4)), lease("l2", "industry", gpus(h200=3))]},
        waits(
            "pool-full", pool="univ", short_at="seoul", resource="gpu.h200", asked=3000, available=2000,
            first_end="2027-03-02T13:00:00+09:00",
        ),
        id="the tree is full at the top",
    ),
    pytest.param(
        {"amounts": gpus(h200=3)}, {"leases": [lease("l1", "public", gpus(h200=6), ends="+1h")]},
        waits("pool-full", short_at="public", available=2000, first_end="2027-03-02T10:00:00+09:00"),
        id="the borrow limit of a pool above is reached",
    ),
    pytest.param(
        {"amounts": gpus(h200=2)}, {"leases": [lease("l1", "public", gpus(h200=6))]}, ("admit", None, {}),
        id="up to the borrow limit it fits",
    ),
    pytest.param(
        {"amounts": gpus(h200=3) | {"cpu": 1}}, {"leases": [lease("l1", "public", {"cpu": 64})]},
        waits("pool-full", resource="cpu", asked=1000, available=0, short_at="seoul"),
        id="one resource that is used up is enough",
    ),
    pytest.param(
        {"amounts": gpus(h200=3)},
        {"leases": [lease("l1", "public", gpus(h200=6), ends="+1h"), lease("l2", "island", {"cpu": 8}, ends="+30m")]},
        waits("pool-full", first_end="2027-03-02T10:00:00+09:00"),
        id="the end of a lease that holds something else helps nobody",
    ),
    # -- 7 ------------------------------------------------------------------------------------------------------
    pytest.param(
        {"amounts": gpus(h200=2) | {"cpu": 2}},
        {"nodes": NODES, "leases": [mine("l1", node="n1"), lease("l2", "industry", gpus(h200=3), node="n2", ends="+1h")]},
        waits(
            "no-node-free", pool="univ", asked={"gpu.h200": 2000, "cpu": 2000}, nodes=3,
            first_end="2027-03-02T10:00:00+09:00",
        ),
        id="two machines with one free GPU each are not one with two",
    ),
    pytest.param(
        {"amounts": gpus(h200=3)}, {"nodes": NODES, "leases": [lease("l1", "public", gpus(h200=4), node="n2")]},
        waits("no-node-free"),
        id="the quota has room and the only machine that is large enough has none",
    ),
    pytest.param(
        {"amounts": gpus(h200=3)}, {"nodes": NODES, "leases": [lease("l1", "public", gpus(h200=6), node="n2")]},
        waits("pool-full"),
        id="the pool is asked before the machines' room",
    ),
    # -- 8 ------------------------------------------------------------------------------------------------------
    pytest.param(
        ONE, {"policy": {"queue": {"starts": 0}}}, waits("starts-busy", pool="univ", starts=0, limit=0),
        id="no start is let through",
    ),
    pytest.param(
        ONE | {"kind": "dask-worker"}, {"policy": {"queue": {"starts": 0}}}, ("admit", None, {}),
        id="workers are not started by the hub",
    ),
    pytest.param(
        {"amounts": gpus(h200=3)},
        {"policy": {"queue": {"starts": 0}}, "nodes": NODES, "leases": [lease("l1", "public", gpus(h200=4), node="n2")]},
        waits("no-node-free"),
        id="the machines are asked before the starts in flight",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("wish", "state", "wanted"), CHECKS)
def test_check(
    wish: dict[str, Any], state: dict[str, Any], wanted: tuple[str, str | None, dict[str, Any]]
) -> None:
    verdict, code, facts = answer(wish, **state)
    assert (verdict, code) == wanted[:2]
    assert {key: facts.get(key, "missing") for key in wanted[2]} == wanted[2]


def test_a_wait_has_a_place_and_a_refusal_none() -> None:
    outcome = played(
        CITY,
        ask("a", "univ", gpus(h200=9)),
        ask("b", "univ", gpus(h200=3)),
        leases=[lease("l1", "public", gpus(h200=6))],
    )
    unset = dict.fromkeys(("guaranteed", "lender", "ends_at", "position", "eta"))
    refused, waits = decision(outcome, "a"), decision(outcome, "b")
    assert refused == refused | unset | {"verdict": "refuse", "reclaims": []}
    eta = {"at": "2027-03-02T13:00:00+09:00", "kind": "expected"}
    assert waits == waits | unset | {"verdict": "wait", "reclaims": [], "position": 1, "eta": eta}


def test_fits_is_asked_and_not_what_is_available() -> None:
    """A parent in the red never eats what was never lent to it."""
    pools = {
        "seoul": {},
        "careful": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 4, "lend": 0}}},
        "over": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 4}}},
    }
    leases = [lease("l1", "over", gpus(h200=10))]
    outcome = played(
        pools, ask("a", "careful", gpus(h200=4)), ask("b", "careful", gpus(h200="1m")), leases=leases
    )
    assert decision(outcome, "a")["verdict"] == "admit"
    full = decision(outcome, "b")
    assert (full["code"], full["facts"]["short_at"], full["facts"]["available"]) == (
        "pool-full",
        "seoul",
        -6000,
    )


@pytest.mark.parametrize(
    ("starting", "wanted"),
    [
        pytest.param(63, None, id="one fewer than the most"),
        pytest.param(64, "starts-busy", id="as many as may be"),
    ],
)
def test_starts_in_flight(starting: int, wanted: str | None) -> None:
    policy = a_policy(CITY)
    sums = Sums({SumKey("starting"): starting})
    snapshot = Snapshot(tree_of(policy), sums, people={"p": Person("p", any_pool=True)})
    found = decide(snapshot, Ask("a", "p", "univ", {"cpu": 1000}), 0)
    assert (found.code.value if isinstance(found, Wait) else None) == wanted


def test_a_start_counts_until_it_runs_or_is_given_up() -> None:
    policy = a_policy(CITY)
    ledger = Ledger(policy, Sums())

    def book(name: str) -> Any:
        wish = Ask(name, "p", "univ", {"cpu": 1000})
        snapshot = Snapshot(ledger.tree, ledger.sums, people={"p": Person("p", any_pool=True)})
        found = decide(snapshot, wish, 0)
        assert isinstance(found, Admit)
        return ledger.book(wish, found, 0)

    runs, gives_up = book("runs"), book("gives-up")
    assert ledger.sums[SumKey("starting")] == 2
    runs = ledger.run(runs, 5)
    gives_up = ledger.end(gives_up, 5)
    assert ledger.sums[SumKey("starting")] == 0
    ledger.release(ledger.run(gives_up, 6), 7)
    ledger.release(ledger.end(runs, 7), 8)
    assert ledger.sums == Sums()


# -- when it ends, by what was asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minutes", "wanted", "cut_by"),
    [
        pytest.param(60, "2027-03-02T10:00:00+09:00", None, id="as asked"),
        pytest.param(15, "2027-03-02T09:15:00+09:00", None, id="the least, exactly"),
        pytest.param(1, "2027-03-02T09:15:00+09:00", None, id="raised to the least"),
        pytest.param(0, "2027-03-02T09:15:00+09:00", None, id="nothing asked is still the least"),
        pytest.param(720, "2027-03-02T21:00:00+09:00", None, id="the most, exactly"),
        pytest.param(
            721, "2027-03-02T21:00:00+09:00", {"kind": "session", "pool": "univ"}, id="cut to the most, and the session is named"
        ),
        pytest.param(None, "2027-03-02T21:00:00+09:00", None, id="absent is the most"),
    ],
)  # fmt: skip
def test_minutes(minutes: int | None, wanted: str, cut_by: dict[str, Any] | None) -> None:
    wish = {"minutes": minutes} if minutes is not None else {}
    found = decision(played(CITY, ask("a", "univ", {"cpu": 1}, **wish)), "a")
    assert (found["ends_at"], found["facts"]["cut_by"]) == (wanted, cut_by)


@pytest.mark.parametrize(
    ("pool", "wanted"),
    [
        pytest.param("top", "2027-03-02T21:00:00+09:00", id="nothing stated: the default"),
        pytest.param("middle", "2027-03-02T13:00:00+09:00", id="stated by the pool itself"),
        pytest.param(
            "bottom", "2027-03-02T13:00:00+09:00", id="inherited from the nearest pool upwards, key by key"
        ),
    ],
)
def test_session_times_are_inherited(pool: str, wanted: str) -> None:
    pools = {
        "top": {},
        "middle": {"parent": "top", "session": {"max": "4h", "min": "30m"}},
        "bottom": {"parent": "middle", "session": {"min": "1h"}},
    }
    assert decision(played(pools, ask("a", pool, {"cpu": 1})), "a")["ends_at"] == wanted
    least = {"top": "09:15", "middle": "09:30", "bottom": "10:00"}[pool]
    assert (
        decision(played(pools, ask("a", pool, {"cpu": 1}, minutes=1)), "a")["ends_at"]
        == f"2027-03-02T{least}:00+09:00"
    )


# -- guaranteed or borrowed, and from whom ------------------------------------------------------------------------------

SHARED = {
    "seoul": {},
    "public": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 4}, "cpu": {"nominal": 10}}},
    "univ": {"parent": "public", "quota": {"gpu.h200": {"nominal": 2}}},
    "lab": {"parent": "univ"},
    "school": {"parent": "public"},
    "industry": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 3}}},
    "guest": {"parent": "seoul"},
}


@pytest.mark.parametrize(
    ("pool", "amounts", "leases", "wanted"),
    [
        pytest.param("univ", gpus(h200=2), [], (True, None), id="within its own nominal"),
        pytest.param("lab", gpus(h200=2), [], (True, None), id="on the nominal of the nearest pool that states it"),
        pytest.param(
            "lab", gpus(h200=1), [lease("l1", "univ", gpus(h200=2))], (False, "public"),
            id="the home is used up: what its parent has is lent, though idle",
        ),
        pytest.param(
            "univ", gpus(h200=1), [lease("l1", "lab", gpus(h200=2))], (False, "public"),
            id="leases of pools below draw on the same guarantee",
        ),
        pytest.param(
            "lab", gpus(h200=2), [lease("l1", "school", gpus(h200=4)), lease("l2", "univ", gpus(h200=1))], (False, "seoul"),
            id="the whole lease is borrowed when a part is; the lender is the nearest that stays within its quota",
        ),
        pytest.param("guest", gpus(h200=1), [], (False, "seoul"), id="nobody on the path states it: the root, with nothing"),
        pytest.param("guest", {"memory": "1Gi"}, [], (True, None), id="nobody in the tree states it: only nodes limit it"),
        pytest.param(
            "univ", gpus(h200=3) | {"cpu": 5}, [], (False, "public"),
            id="each resource has its own home; only the one that goes beyond it is borrowed",
        ),
        pytest.param(
            "school", gpus(h200=4) | {"cpu": 5}, [lease("l1", "school", {"cpu": 5})], (True, None), id="exactly all of both"
        ),
        pytest.param("univ", gpus(h200="0.3"), [lease("l1", "univ", gpus(h200="1.7"))], (True, None), id="0.3 beside 1.7 of 2"),
    ],
)  # fmt: skip
def test_guarantee_and_lender(
    pool: str, amounts: dict[str, Any], leases: list[Any], wanted: tuple[Any, Any]
) -> None:
    found = decision(played(SHARED, ask("a", pool, amounts), leases=leases), "a")
    assert (found["verdict"], found["guaranteed"], found["lender"]) == ("admit", *wanted)
    rate = 1 if found["guaranteed"] else 0.5
    assert found["facts"]["cost"] == rate * sum(
        float(amounts[name]) for name in amounts if name.startswith("gpu.")
    )


def test_the_lender_looks_at_what_reaches_a_pool() -> None:
    """univ keeps one GPU to itself, so that of two that are asked beyond it only one is lent from above."""
    pools = {
        "seoul": {"quota": {"gpu.h200": {"nominal": 1}}},
        "univ": {"parent": "seoul", "quota": {"gpu.h200": {"nominal": 2, "lend": 1}}},
        "lab": {"parent": "univ"},
    }
    outcome = played(pools, ask("a", "lab", gpus(h200=3)))
    assert (decision(outcome, "a")["guaranteed"], decision(outcome, "a")["lender"]) == (False, "seoul")
    assert outcome.pools["seoul"]["resources"]["gpu.h200"]["used"] == 2000


# -- which machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amounts", "leases", "wanted"),
    [
        pytest.param(gpus(h200=1), [], "n1", id="the one with the fewest free GPUs that fits"),
        pytest.param(gpus(h200=3), [], "n2", id="of those that fit"),
        pytest.param({"cpu": 1}, [], "n3", id="without GPUs: the one that has none"),
        pytest.param({"cpu": 64}, [], "n3", id="CPUs must fit, too"),
        pytest.param(gpus(h200=1), [lease("l1", "public", gpus(h200=3), node="n2")], "n2", id="what is free counts, not the size"),
        pytest.param(gpus(h200=1), [lease("l1", "public", gpus(h200=2), node="n2")], "n1", id="equally free: by name"),
        pytest.param(gpus(h200=1) | {"cpu": 16}, [], "n1", id="GPUs and CPUs on one machine"),
        pytest.param(gpus(h200="0.5"), [lease("l1", "public", gpus(h200="1.7"), node="n1")], "n2", id="a part that does not fit beside another"),
    ],
)  # fmt: skip
def test_node(amounts: dict[str, Any], leases: list[Any], wanted: str) -> None:
    taken = {
        SumKey("taken", "", name, fact["node"]): round(float(count) * 1000)
        for fact in leases
        for name, count in fact["amounts"].items()
    }
    nodes = [
        Node(node["name"], {key: int(node[key]) * 1000 for key in node if key != "name"}) for node in NODES
    ]
    wish = Ask("a", "p", "public", {name: round(float(count) * 1000) for name, count in amounts.items()})
    assert pick_node(Snapshot(tree_of(a_policy(CITY)), Sums(taken), nodes), wish) == wanted


@pytest.mark.parametrize(
    ("nodes", "amounts", "want"),
    [
        pytest.param([Node("n1", {"cpu": 8000, "gpu.h200": 1000}, ready=False)], {"cpu": 1000}, "no-node-free", id="what takes nothing for the moment is waited for"),
        pytest.param([Node("n1", {"cpu": 8000, "gpu.h200": 1000}, only_gpus=True)], {"cpu": 1000}, "too-big-for-any-node", id="what only takes GPUs is nothing for others"),
        pytest.param([Node("n1", {"cpu": 8000, "gpu.h200": 1000}, only_gpus=True)], {"cpu": 1000, "gpu.h200": 1000}, None, id="and takes what has one"),
        pytest.param([Node("n1", {"cpu": 8000, "gpu.h200": 1000}, only_gpus=True), Node("n2", {"cpu": 2000})], {"cpu": 1000}, None, id="others go elsewhere"),
    ],
)  # fmt: skip
def test_nodes_that_take_only_some(nodes: list[Node], amounts: dict[str, int], want: str | None) -> None:
    wish = Ask("a", "p", "public", amounts)
    snapshot = Snapshot(tree_of(a_policy(CITY)), Sums(), nodes)
    found = too_big_for_any_node(snapshot, wish) or no_node_free(snapshot, wish)
    assert (found.code.value if found else None) == want


def test_a_lease_is_put_on_the_machine_that_was_chosen() -> None:
    """Four GPUs one after the other fill the smaller machine first; the fifth and sixth together fit no more."""
    wishes = [ask(f"a{i}", "industry", gpus(h200=1), at=f"+{i}m") for i in range(5)]
    outcome = played(CITY, *wishes, ask("both", "industry", gpus(h200=2), at="+9m"), nodes=NODES[:2])
    assert [found["verdict"] for found in outcome.decisions] == ["admit"] * 5 + ["wait"]
    assert decision(outcome, "both")["code"] == "pool-full"
    outcome = played(CITY, *wishes[:3], ask("three", "public", gpus(h200=3), at="+9m"), nodes=NODES[:2])
    assert decision(outcome, "three")["verdict"] == "admit"


def test_a_stated_lease_without_a_machine_gets_one_in_the_order_of_the_file() -> None:
    leases = [lease("l1", "public", gpus(h200=2)), lease("l2", "industry", gpus(h200=2))]
    outcome = played(CITY, ask("a", "public", gpus(h200=3)), nodes=NODES, leases=leases)
    assert decision(outcome, "a")["code"] == "no-node-free"  # l1 on n1, l2 on n2
