"""Admission through a real store: one transaction of snapshot, decision and booking."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest

from hub_ext.core.decision import Admit, Code, Refuse, Wait
from hub_ext.core.errors import BadInput, NameTaken, StoreUnavailable
from hub_ext.core.people import Person
from hub_ext.quota.document import parse_policy
from hub_ext.quota.in_line import LeasesByEnd
from hub_ext.quota.ledger import EntryKind
from hub_ext.quota.model import Ask, Device, Lease, LeaseState, Node
from hub_ext.quota.service import Admission, Answer, end, run
from hub_ext.quota.store import SqlStore
from tests.services.desk.centre import GPU_SECOND, HOUR, POLICY, START, STUDENT, Centre
from tests.support.databases import held_by_another

LAB = Person("scientist", ("lab",))
RELEASED = LeaseState.RELEASED


def ask(name: str = "a1", *, gpus: float = 1, person: Person = STUDENT, **more: Any) -> Ask:
    more = {"server": name, "minutes": 60} | more
    return Ask(name, person.name, more.pop("pool", person.pools[0]), {"gpu.h200": int(gpus * 1000)}, **more)


def admitted(centre: Centre, *args: Any, person: Person = STUDENT, **more: Any) -> Lease:
    answer = centre.admission.admit_now(person, ask(*args, person=person, **more))
    assert answer.lease is not None, answer.decision
    return answer.lease


def machine(centre: Centre, gpus: int = 4, *, devices: int | None = None) -> None:
    found = tuple(Device(f"GPU-{number}", "h200") for number in range(gpus if devices is None else devices))
    centre.admission.put_nodes([Node("n1", {"gpu.h200": gpus * 1000, "cpu": 64_000}, found)])


def test_the_first_end_is_looked_for_no_further_than_it_has_to_be(centre: Centre) -> None:
    for number, minutes in enumerate((300, 120, 60)):
        admitted(centre, f"a{number}", minutes=minutes)
    pages: list[list[str]] = []
    with centre.store.reading() as txn:
        read = txn.live_by_end

        def two_at_a_time(after: tuple[int, str] | None = None, limit: int = 2) -> list[Lease]:
            found = read(after, limit)
            pages.append([lease.id for lease in found])
            return found

        txn.live_by_end = two_at_a_time  # type: ignore[method-assign]
        by_end = LeasesByEnd(txn)
        assert next(iter(by_end)).id == "a2"
        assert pages == [["a2", "a1"]]
        assert [lease.id for lease in by_end] == [lease.id for lease in by_end] == ["a2", "a1", "a0"]
        assert pages == [["a2", "a1"], ["a0"], []]


def test_what_must_wait_is_told_the_first_end_of_what_holds_it(centre: Centre) -> None:
    admitted(centre, "a", minutes=300)
    admitted(centre, "b", minutes=120, gpus=2)
    admitted(centre, "idle", gpus=0, minutes=60)
    seen = centre.admission.preview_now(STUDENT, [ask("c"), ask("d")])
    assert [decision.facts["first_end"] for decision in seen.decisions.values()] == [
        seen.policy.local(START + 2 * HOUR)
    ] * 2
    quick = centre.admission.preview_now(STUDENT, [ask("c")], first_ends=False)
    assert "first_end" not in quick.decisions["c"].facts


# -- asking twice ------------------------------------------------------------------------------------------------------


def test_asking_twice_with_one_id_is_asking_once(centre_on_each: Centre) -> None:
    centre = centre_on_each
    first = centre.admission.admit_now(STUDENT, ask())
    before = centre.everything()
    centre.clock.at += 100
    second = centre.admission.admit_now(STUDENT, ask())
    assert centre.everything() == before
    assert second.lease == first.lease
    assert isinstance(first.decision, Admit)
    assert isinstance(second.decision, Admit)
    assert (second.decision.ends_at, second.decision.cost) == (first.decision.ends_at, first.decision.cost)


def test_asking_again_while_it_runs_or_ends_gives_the_same_lease(centre: Centre) -> None:
    admitted(centre)
    for change in (run("7@7", "n1"), end("student", "stopped")):
        centre.admission.change("a1", change)
        assert admitted(centre) == centre.lease("a1")


def test_an_ask_that_is_over_is_not_booked_a_second_time_under_the_same_id(centre: Centre) -> None:
    """Its hours would be counted with those of its former life."""
    admitted(centre)
    centre.admission.release_now("a1")
    before = centre.everything()
    with pytest.raises(BadInput, match="a1 was admitted before and is over; ask anew"):
        centre.admission.admit_now(STUDENT, ask())
    assert centre.everything() == before


def test_the_same_ask_from_eight_threads_is_one_lease(centre_on_each: Centre) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: centre_on_each.admission.admit_now(STUDENT, ask()), range(8)))
    assert [answer.lease for answer in answers] == 8 * [centre_on_each.lease("a1")]
    assert len(centre_on_each.entries(EntryKind.BOOKED)) == 1


# -- a new start of the same server ------------------------------------------------------------------------------------------


def test_a_new_start_of_a_server_takes_over_what_it_still_held(centre: Centre) -> None:
    machine(centre, 1)
    former = centre.start("l1", server="")
    centre.tick(100)
    centre.clock.at += HOUR
    lease = admitted(centre, "l2", server="")
    held = centre.lease("l1")
    assert (held.state, held.reason) == (RELEASED, "taken-over")
    assert (held.released_at, centre.seconds_charged("l1")) == (START + 100, 100), "until it was last seen"
    assert lease.devices == former.devices == ("GPU-0",)


def test_what_was_only_booked_in_another_size_is_taken_over_uncharged(centre: Centre) -> None:
    admitted(centre, "l1", server="")
    centre.clock.at += 30
    admitted(centre, "l2", server="", gpus=2)
    assert (centre.lease("l1").released_at, centre.seconds_charged("l1")) == (START + 30, 0)


def test_a_start_for_which_a_place_was_booked_takes_it_and_is_not_decided_anew(centre: Centre) -> None:
    booked = admitted(centre, "l1", server="", gpus=2)
    centre.clock.at += 30
    before = centre.everything()
    assert centre.admission.admit_now(STUDENT, ask("l2", server="", gpus=2)).lease == booked
    assert centre.everything() == before


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"server": "second"}, id="another server of the same person"),
        pytest.param(
            {"server": "", "person": Person("researcher", ("univ",))}, id="the same server of another person"
        ),
        pytest.param({"server": "", "kind": "dask-worker"}, id="a worker"),
    ],
)
def test_other_leases_are_not_taken_over(centre: Centre, other: dict[str, Any]) -> None:
    admitted(centre, "other", **other)
    admitted(centre, "l1", server="")
    assert {lease.id for lease in centre.leases() if lease.live} == {"other", "l1"}


def test_a_worker_takes_over_nothing(centre: Centre) -> None:
    admitted(centre, "l1", server="")
    admitted(centre, "w1", server="", kind="dask-worker")
    assert all(lease.live for lease in centre.leases())


def test_what_is_taken_over_is_given_back_also_where_the_new_start_is_refused(centre: Centre) -> None:
    """Nothing of the former start runs any more."""
    admitted(centre, "l1", server="")
    answer = centre.admission.admit_now(STUDENT, ask("l2", gpus=9, server=""))
    assert isinstance(answer.decision, Refuse)
    assert [lease.state for lease in centre.leases()] == [RELEASED]


# -- devices ---------------------------------------------------------------------------------------------------------------------


def held(centre: Centre) -> list[str]:
    return [device for lease in centre.leases() if lease.live for device in lease.devices]


def test_no_two_leases_share_a_device_also_after_releases(centre: Centre) -> None:
    machine(centre, 3)
    assert admitted(centre, "a").devices == ("GPU-0",)
    assert admitted(centre, "b", gpus=2).devices == ("GPU-1", "GPU-2")
    centre.admission.release_now("a")
    assert admitted(centre, "c").devices == ("GPU-0",)
    centre.admission.release_now("b")
    assert admitted(centre, "d").devices == ("GPU-1",)
    assert admitted(centre, "e").devices == ("GPU-2",)
    assert sorted(held(centre)) == ["GPU-0", "GPU-1", "GPU-2"]


def test_an_ending_lease_holds_its_device_until_it_is_gone(centre: Centre) -> None:
    machine(centre, 1)
    centre.start("a")
    centre.order_end("a")
    assert _code(centre.admission.admit_now(STUDENT, ask("b"))) is Code.NO_NODE_FREE
    centre.admission.release_now("a")
    assert admitted(centre, "b").devices == ("GPU-0",)


def test_twelve_threads_at_once_get_three_devices_between_them(centre_on_each: Centre) -> None:
    centre = centre_on_each
    machine(centre, 3)
    people = [Person(f"p{number}", ("univ",)) for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda p: centre.admission.admit_now(p, ask(p.name, person=p)), people))
    assert sum(answer.lease is not None for answer in answers) == 3
    assert sorted(held(centre)) == ["GPU-0", "GPU-1", "GPU-2"]
    assert {_code(answer) for answer in answers if answer.lease is None} <= {
        Code.POOL_FULL,
        Code.NO_NODE_FREE,
    }


def test_where_the_numbers_fit_but_no_device_is_left_it_waits(centre: Centre) -> None:
    """A machine that lost a GPU since, or leases of parts of one, which take a whole one."""
    machine(centre, 3, devices=1)
    admitted(centre, "a")
    answer = centre.admission.admit_now(STUDENT, ask("b"))
    assert isinstance(answer.decision, Wait)
    assert answer.decision.code is Code.NO_NODE_FREE
    assert answer.decision.facts["first_end"] == answer.policy.local(START + HOUR)
    preview = centre.admission.preview_now(STUDENT, [ask("c")])
    assert preview.decisions["c"] == answer.decision, "the menu says so before anybody asks"


def test_a_part_of_a_gpu_takes_a_whole_device(centre: Centre) -> None:
    machine(centre, 2)
    assert admitted(centre, "a", gpus=0.5).devices == ("GPU-0",)
    assert admitted(centre, "b", gpus=0.5).devices == ("GPU-1",)
    assert _code(centre.admission.admit_now(STUDENT, ask("c", gpus=0.5))) is Code.NO_NODE_FREE


@pytest.mark.parametrize("gpus", [0, 1], ids=["without a GPU", "with a GPU, where others hand them out"])
def test_leases_without_devices(centre: Centre, gpus: int) -> None:
    machine(centre, 2, devices=0 if gpus else 2)
    assert (admitted(centre, "a", gpus=gpus).devices, centre.lease("a").node) == ((), "n1")


# -- waits and refusals ----------------------------------------------------------------------------------------------------------


def _code(answer: Answer) -> Code:
    assert isinstance(answer.decision, Wait | Refuse), answer.decision
    return answer.decision.code


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        pytest.param(ask("no", gpus=9), Code.TOO_BIG_FOR_POOL, id="a refusal"),
        pytest.param(ask("no", gpus=2), Code.POOL_FULL, id="a wait"),
        pytest.param(ask("no", pool="no-such-pool"), Code.NOT_A_MEMBER, id="a pool that does not exist"),
        pytest.param(ask("no", pool="lab"), Code.NOT_A_MEMBER, id="a pool of others"),
    ],
)
def test_a_no_is_written_down_with_its_reason_and_changes_nothing_else(
    centre: Centre, asked: Ask, code: Code
) -> None:
    admitted(centre, "a", gpus=2)
    before = centre.everything()
    answer = centre.admission.admit_now(STUDENT, asked)
    assert (_code(answer), answer.lease) == (code, None)
    after = centre.everything()
    changed = {"entries", "tickets"} if code is Code.POOL_FULL else {"entries"}
    assert {name for name in after if after[name] != before[name]} == changed
    (entry,) = centre.entries(EntryKind.DECIDED)
    assert (entry.why, entry.person, entry.pool, entry.lease) == (code.value, "student", asked.pool, "no")
    assert (entry.facts["ask"], entry.facts["server"]) == ("no", "no")
    if code is Code.POOL_FULL:
        assert entry.facts["facts"]["first_end"] == "2027-03-02T10:00:00+09:00"


def test_a_preview_of_everything_writes_nothing(centre: Centre) -> None:
    admitted(centre, "a", gpus=2)
    before = centre.everything()
    asks = [ask(f"p{number}", gpus=number) for number in range(6)]
    preview = centre.admission.preview_now(STUDENT, asks)
    assert centre.everything() == before
    verdicts = [type(preview.decisions[one.id]).__name__ for one in asks]
    assert verdicts == ["Admit", "Admit", "Wait", "Wait", "Refuse", "Refuse"]
    assert [lease.id for lease in preview.own] == ["a"]


def test_a_database_that_is_busy_books_nothing(centre_on_each: Centre) -> None:
    centre = centre_on_each
    impatient = SqlStore(centre.database.engine(wait=0.02), load_policy=parse_policy)
    before = centre.everything()
    with held_by_another(centre.database), pytest.raises(StoreUnavailable):
        Admission(impatient, centre.clock).admit_now(STUDENT, ask())
    impatient.close()
    assert centre.everything() == before
    admitted(centre)


# -- releases and promotions ------------------------------------------------------------------------------------------------------------


def test_a_release_makes_the_oldest_borrowed_lease_that_fits_guaranteed_at_its_old_rate(
    centre_on_each: Centre,
) -> None:
    centre = centre_on_each
    admitted(centre, "own", gpus=2)
    centre.clock.at += 1
    borrowed = admitted(centre, "borrowed")
    assert (borrowed.guaranteed, borrowed.lender) == (False, "seoul")
    centre.clock.at += 1
    centre.admission.release_now("own", "student", "stopped")
    promoted = centre.lease("borrowed")
    assert (promoted.guaranteed, promoted.lender, promoted.cost) == (True, None, GPU_SECOND // 2)
    (entry,) = centre.entries(EntryKind.PROMOTED)
    assert (entry.lease, entry.at) == ("borrowed", START + 2)


def test_the_release_of_a_borrowed_lease_frees_no_guarantee(centre: Centre) -> None:
    admitted(centre, "own", gpus=2)
    admitted(centre, "borrowed")
    centre.admission.release_now("borrowed")
    assert centre.entries(EntryKind.PROMOTED) == []


def test_a_start_that_is_taken_over_promotes_as_any_release_does(centre: Centre) -> None:
    admitted(centre, "own", gpus=2, server="")
    admitted(centre, "borrowed", server="second")
    lease = admitted(centre, "anew", gpus=1, server="")
    assert centre.lease("borrowed").guaranteed
    assert lease.guaranteed


def test_releasing_twice_is_releasing_once_and_an_unknown_lease_is_none(centre: Centre) -> None:
    admitted(centre)
    centre.admission.release_now("a1", "student", "stopped")
    before = centre.everything()
    again = centre.admission.release_now("a1", "clock", "died")
    assert again == centre.lease("a1")
    assert centre.admission.release_now("nobody's") is None
    assert centre.everything() == before


def test_a_change_expects_a_state_and_a_live_lease(centre: Centre) -> None:
    admitted(centre)
    assert centre.admission.change("a1", end("x", "y"), expected=LeaseState.RUNNING) is None
    assert centre.admission.change("nobody's", end("x", "y")) is None
    assert centre.lease("a1").state is LeaseState.BOOKED
    centre.admission.release_now("a1")
    assert centre.admission.change("a1", run("7@7")) is None


async def test_the_life_of_a_lease_from_an_event_loop(centre: Centre) -> None:
    admission = centre.admission
    answer = await admission.admit(STUDENT, ask())
    assert answer.lease is not None
    centre.clock.at += 5
    started = await admission.running("a1", "7@7", "n1")
    assert started is not None
    assert (started.started_at, started.handle, started.node) == (START + 5, "7@7", "n1")
    centre.clock.at += 60
    await admission.ending("a1", "student", "stopped")
    centre.clock.at += 5
    released = await admission.release("a1", who="student", why="died")
    assert released is not None
    assert (released.reason, released.released_at) == ("stopped", START + 70)
    assert centre.seconds_charged("a1") == 65
    preview = await admission.preview(STUDENT, [ask("a2")])
    assert isinstance(preview.decisions["a2"], Admit)


# -- policies ------------------------------------------------------------------------------------------------------------------------------


def load(centre: Centre, text: str) -> list[str]:
    return [lease.id for lease in centre.admission.load_policy(text, parse_policy(text), who="operator")]


def test_the_first_policy_of_a_database(centre: Centre) -> None:
    with centre.store.reading() as txn:
        assert txn.policy == parse_policy(POLICY)
    assert [(entry.kind) for entry in centre.entries()] == []


def test_loading_the_same_policy_again_changes_no_sum_and_no_lease(centre: Centre) -> None:
    centre.start("a", gpus=2)
    centre.start("b")
    centre.tick(600)
    before = centre.everything()
    assert load(centre, POLICY) == []
    after = centre.everything()
    assert {name for name in after if after[name] != before[name]} == {"policies"}


def test_a_lower_quota_ends_nothing_and_a_higher_one_makes_guaranteed_what_fits(centre: Centre) -> None:
    centre.start("a", gpus=2)
    centre.start("b")
    before = {lease.id: lease for lease in centre.leases()}
    assert load(centre, POLICY.replace("nominal: 2", "nominal: 0")) == []
    assert {lease.id: lease for lease in centre.leases()} == before, "no label worsens"
    assert _code(centre.admission.admit_now(STUDENT, ask("c"))) in (Code.POOL_FULL, Code.TOO_BIG_FOR_POOL)
    assert load(centre, POLICY.replace("nominal: 2", "nominal: 3")) == ["b"]
    assert centre.lease("b").guaranteed
    assert [entry.lease for entry in centre.entries(EntryKind.PROMOTED)] == ["b"]


WITHOUT_UNIV = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools:
  seoul: {quota: {gpu.h200: {nominal: 3}}}
  lab: {parent: seoul}
"""


def test_a_pool_that_is_gone_counts_where_its_parent_is_and_can_be_ended(centre: Centre) -> None:
    centre.start("a", gpus=2)
    load(centre, WITHOUT_UNIV)
    assert _code(centre.admission.admit_now(STUDENT, ask("b"))) is Code.NOT_A_MEMBER
    assert _code(centre.admission.admit_now(LAB, ask("c", gpus=2, person=LAB))) is Code.POOL_FULL
    centre.tick(90)
    centre.order_end("a")
    centre.admission.release_now("a")
    assert centre.seconds_charged("a") == 90
    assert admitted(centre, "c", gpus=2, person=LAB).guaranteed


def test_a_policy_without_any_pool_of_a_running_lease_leaves_it_be(centre: Centre) -> None:
    centre.start("a", gpus=2)
    load(centre, WITHOUT_UNIV.replace("seoul", "busan"))
    centre.tick(90)
    centre.tick(0)
    assert centre.lease("a").state is LeaseState.RUNNING
    centre.admission.release_now("a")
    assert centre.lease("a").state is RELEASED


# -- grants -------------------------------------------------------------------------------------------------------------------------------------


def left(centre: Centre) -> Sequence[float]:
    return [state.left / GPU_SECOND / HOUR for state in centre.admission.preview_now(STUDENT, []).budgets]


def test_a_grant_counts_until_it_runs_out(centre: Centre) -> None:
    assert left(centre) == [100]
    made = centre.admission.grant_hours(
        "univ", 10 * HOUR * GPU_SECOND, START + HOUR, why="deadline", who="lead", period=None, person=None
    )
    assert left(centre) == [110]
    centre.clock.at += HOUR
    assert left(centre) == [100]
    with centre.store.reading() as txn:
        assert txn.grants() == [made]
    (entry,) = centre.entries(EntryKind.GRANTED)
    assert (entry.who, entry.why, entry.pool) == ("lead", "deadline", "univ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"pool": "lab"}, "has no budget", id="no budget"),
        pytest.param({"pool": "nowhere"}, "there is no pool", id="no pool"),
        pytest.param({"until": START}, "run out already", id="no time"),
        pytest.param({"person": "student"}, "no budget of it matches", id="no budget of each person"),
    ],
)
def test_a_grant_beside_nothing_is_refused(centre: Centre, changes: dict[str, Any], said: str) -> None:
    asked = {"pool": "univ", "until": START + HOUR, "person": None} | changes
    with pytest.raises(BadInput, match=said):
        centre.admission.grant_hours(
            asked["pool"], 1, asked["until"], why="w", who="lead", period=None, person=asked["person"]
        )
    assert centre.entries() == []


# -- a clock that is set back ---------------------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_stands_still_until_it_has_caught_up(centre: Centre) -> None:
    centre.start("a")
    centre.tick(600)
    latest = centre.clock.at
    centre.clock.at -= 2 * HOUR
    assert admitted(centre, "b").booked_at == latest
    centre.admission.change("b", run("7@7", "n1"))
    centre.clock.at += 10
    released = centre.admission.release_now("a")
    assert released is not None
    assert (released.released_at, centre.seconds_charged("a")) == (latest, 600)
    assert centre.admission.release_now("b") is not None
    assert centre.seconds_charged("b") == 0
    assert [entry.at for entry in centre.entries()] == sorted(entry.at for entry in centre.entries())
    with centre.store.reading() as txn:
        assert sum(row.seconds for row in txn.usage(date(2027, 3, 2), date(2027, 3, 2))) == 600


# -- people and machines ---------------------------------------------------------------------------------------------------------------------------------


def test_people_and_machines_are_written_down_and_replaced(centre: Centre) -> None:
    assert centre.admission.person("student") is None
    centre.admission.put_person(STUDENT, issuer="https://id.example", subject="17")
    assert centre.admission.person("student") == STUDENT
    moved = Person("student", ("lab",))
    centre.admission.put_person(moved)
    assert centre.admission.person("student") == moved
    machine(centre, 4)
    machine(centre, 2)
    assert [node.capacity["gpu.h200"] for node in centre.admission.preview_now(STUDENT, []).nodes or ()] == [
        2000
    ]


def test_a_name_belongs_to_the_first_issuer_and_subject_that_had_it(centre: Centre) -> None:
    admission = centre.admission
    admission.put_person(STUDENT)
    admission.sign_in(STUDENT, "https://id.example", "17")
    assert admission.name_of("https://id.example", "17") == "student"
    moved = Person("student", ("lab",))
    for issuer, subject in (("https://id.example", "18"), ("https://other.example", "17")):
        with pytest.raises(NameTaken, match="student belongs to somebody else"):
            admission.sign_in(moved, issuer, subject)
        assert admission.name_of(issuer, subject) is None
    assert admission.person("student") == STUDENT, "nothing of the other one was written"
    admission.sign_in(moved, "https://id.example", "17")
    assert admission.person("student") == moved
