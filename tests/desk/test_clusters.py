"""Clusters on the page *mine* and in the API, on a real store: to whom they are shown, their end, and more time."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from hub_ext.core.clock import HOUR, MINUTE
from hub_ext.core.people import Person
from hub_ext.quota.model import LeaseState
from tests.desk.clustered import ANOTHER, CLUSTER, LEAD_PERSON, Clustered, clustered
from tests.desk.lively import NEIGHBOUR, OPERATOR_PERSON, POLICY, START, STUDENT, TOKEN
from tests.support.databases import Database

MINE = "/services/desk/mine"


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[Clustered]:
    made = clustered(sqlite_database)
    yield made
    made.store.close()


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


async def read(centre: Clustered, person: Person, path: str) -> dict[str, Any]:
    async with centre.program(person) as program:
        answer = await program.get(path)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# -- what is shown ----------------------------------------------------------------------------------------------------


async def test_a_cluster_is_one_card_with_its_workers_and_what_it_takes(centre: Clustered) -> None:
    centre.start_cluster()
    centre.grow(3)
    centre.grow(4, running=False)
    async with centre.visit(STUDENT) as student:
        page = (await student.get(MINE)).text
    shown = text_of(page)
    for want in (
        "1 cluster · 0.43 GPU-h/hour",
        "GPU slice workers c0ffee00 Running",
        "0.57 GPU-h/hour",
        "4 Dask workers · 4 × 1/7 H200 (18 GB) · 17 CPU · 132 GB",
        "3 running · 1 starting",
        "until 11:00 (2 h left)",
        "No server of yours runs",
    ):
        assert want in shown
    assert f'href="/services/desk/clusters/{CLUSTER}/status"' in page
    assert "No cluster of yours runs" not in shown


async def test_what_it_waits_for_is_told_with_it_and_not_as_a_wait_of_its_own(centre: Clustered) -> None:
    centre.start_cluster(profile="gpu")
    centre.grow(5, profile="gpu")
    async with centre.visit(STUDENT) as student:
        page = (await student.get(MINE)).text
    shown = text_of(page)
    assert "2 more workers wait in line." in shown
    assert "Stop one of your own first: Dask cluster c0ffee00." in shown
    assert "In line" not in shown
    assert "in line since" not in shown


async def test_a_cluster_is_seen_by_nobody_else(centre: Clustered) -> None:
    centre.start_cluster()
    async with centre.visit(NEIGHBOUR) as neighbour:
        assert "No cluster of yours runs" in (await neighbour.get(MINE)).text


async def test_the_page_is_made_anew_when_workers_change(centre: Clustered) -> None:
    centre.start_cluster()
    async with centre.visit(STUDENT) as student:
        mark = (await student.get(MINE)).headers["etag"]
        assert (await student.get(MINE, headers={"If-None-Match": mark})).status_code == 304
        centre.grow(1)
        assert (await student.get(MINE, headers={"If-None-Match": mark})).status_code == 200


# -- its end ----------------------------------------------------------------------------------------------------------


async def test_the_owner_stops_it_with_all_that_it_holds_and_waits_for(centre: Clustered) -> None:
    centre.start_cluster(profile="gpu")
    centre.grow(3, profile="gpu")
    centre.grow(5, profile="gpu", running=False)
    async with centre.visit(STUDENT) as student:
        answer = await student.post(f"{MINE}/clusters/stop", data={"_csrf": TOKEN, "cluster": CLUSTER})
        assert answer.headers["location"] == f"{MINE}?done=cluster-stopping#clusters-title"
        page = text_of((await student.get(f"{MINE}?done=cluster-stopping")).text)
    held = centre.admission.clusters_now([CLUSTER])[CLUSTER]
    assert held.scheduler is not None
    assert {held.scheduler.state, *(one.state for one in held.workers)} == {LeaseState.ENDING}
    assert (held.scheduler.reason, held.ticket) == ("stopped", None)
    assert "The cluster is being stopped" in page
    assert "Stopping" in page


@pytest.mark.parametrize("action", ["stop", "extend"])
@pytest.mark.parametrize("cluster", [CLUSTER, ANOTHER, "", "train", "../" + CLUSTER, CLUSTER.upper(), "\x00"])
async def test_nobody_changes_a_cluster_that_is_not_theirs(
    centre: Clustered, action: str, cluster: str
) -> None:
    before = centre.start_cluster()
    async with centre.visit(NEIGHBOUR) as neighbour:
        answer = await neighbour.post(
            f"{MINE}/clusters/{action}", data={"_csrf": TOKEN, "cluster": cluster, "minutes": "30"}
        )
    assert answer.status_code == 404
    assert centre.lease(CLUSTER) == before


async def test_a_form_that_is_not_ours_stops_nothing(centre: Clustered) -> None:
    before = centre.start_cluster()
    async with centre.visit(STUDENT) as student:
        answer = await student.post(f"{MINE}/clusters/stop", data={"_csrf": "other", "cluster": CLUSTER})
    assert answer.status_code == 403
    assert centre.lease(CLUSTER) == before


# -- more time --------------------------------------------------------------------------------------------------------


async def test_workers_go_on_as_long_as_their_scheduler(centre: Clustered) -> None:
    centre.start_cluster()
    centre.grow(3)
    async with centre.visit(STUDENT) as student:
        page = text_of((await student.get(MINE)).text)
        assert "until 12:00 (+1 h)" in page
        answer = await student.post(
            f"{MINE}/clusters/extend", data={"_csrf": TOKEN, "cluster": CLUSTER, "minutes": "60"}
        )
        assert answer.headers["location"] == f"{MINE}?done=cluster-extended#clusters-title"
    ends = {centre.lease(CLUSTER).ends_at, *(one.ends_at for one in centre.workers())}
    assert ends == {START + 3 * HOUR}


async def test_what_is_taken_back_stays_so_when_the_rest_goes_on(centre: Clustered) -> None:
    centre.start_cluster()
    centre.grow(2)
    centre.take_back(centre.workers()[0].id, START + 10 * MINUTE, "theirs")
    async with centre.program(STUDENT) as program:
        answer = await program.post(f"clusters/{CLUSTER}/extend", json={"minutes": 60})
    assert answer.status_code == 200
    notice = answer.json()["notice"]
    assert (notice["why"], notice["workers"], notice["whole"]) == ("taken-back", 1, False)
    assert notice["ends_at"] == "2027-03-02T09:10:00+09:00"
    assert sorted(one.ends_at - START for one in centre.workers()) == [10 * MINUTE, 3 * HOUR]


async def test_a_cluster_whose_workers_others_wait_for_goes_on_without_them(centre: Clustered) -> None:
    """The scheduler holds nothing that is waited for."""
    centre.start_cluster(profile="gpu")
    centre.grow(2, profile="gpu")
    centre.wait("theirs", STUDENT)
    async with centre.visit(STUDENT) as student:
        page = text_of((await student.get(MINE)).text)
        assert "Longer is not possible now:" in page
        answer = await student.post(
            f"{MINE}/clusters/extend", data={"_csrf": TOKEN, "cluster": CLUSTER, "minutes": "60"}
        )
    assert answer.status_code == 200
    assert "The cluster runs longer; 2 of its workers do not." in text_of(answer.text)
    assert centre.lease(CLUSTER).ends_at == START + 3 * HOUR
    assert {one.ends_at for one in centre.workers()} == {START + 2 * HOUR}


async def test_no_cluster_runs_longer_than_a_session_may(centre: Clustered) -> None:
    centre.start_cluster()
    centre.grow(1)
    async with centre.program(STUDENT) as program:
        body = (await program.post(f"clusters/{CLUSTER}/extend", json={"minutes": 60 * 24})).json()
    assert body["ends_at"] == "2027-03-02T21:00:00+09:00"
    assert centre.workers()[0].ends_at == START + 12 * HOUR
    async with centre.visit(STUDENT) as student:
        assert "It ends as late as a cluster here may run." in (await student.get(MINE)).text


@pytest.mark.parametrize("minutes", ["", "0", "-1", "1e3", "999999", "abc", "１"])
async def test_minutes_that_are_none_change_nothing(centre: Clustered, minutes: str) -> None:
    before = centre.start_cluster()
    async with centre.visit(STUDENT) as student:
        fields = {"_csrf": TOKEN, "cluster": CLUSTER, "minutes": minutes}
        assert (await student.post(f"{MINE}/clusters/extend", data=fields)).status_code == 404
    assert centre.lease(CLUSTER) == before


async def test_a_cluster_that_is_ending_is_not_extended(centre: Clustered) -> None:
    centre.start_cluster()
    centre.admission.end_cluster_now(CLUSTER, "student", "stopped")
    async with centre.program(STUDENT) as program:
        assert (await program.post(f"clusters/{CLUSTER}/extend", json={"minutes": 5})).status_code == 404
        assert (await program.get(f"clusters/{CLUSTER}")).json()["state"] == "ending"


# -- for programs -----------------------------------------------------------------------------------------------------


async def test_a_program_reads_how_a_cluster_stands(centre: Clustered) -> None:
    centre.start_cluster(profile="gpu")
    centre.grow(2, profile="gpu")
    centre.grow(5, profile="gpu", running=False)
    body = await read(centre, STUDENT, f"clusters/{CLUSTER}")
    waiting = body.pop("waiting")
    assert body == {
        "name": CLUSTER,
        "person": "student",
        "pool": "univ",
        "profile": "gpu",
        "state": "running",
        "started_at": "2027-03-02T09:00:00+09:00",
        "ends_at": "2027-03-02T11:00:00+09:00",
        "workers": {"live": 3, "running": 2, "guaranteed": 2, "borrowed": 1, "wanted": 2},
        "notice": None,
        "cost_per_hour": 2.5,
        "dashboard": f"/services/desk/clusters/{CLUSTER}/status",
    }
    assert (waiting["code"], waiting["facts"]["cap"], waiting["eta"]) == ("person-at-cap", 3000, None)
    assert "3 × H200" in waiting["message"]


async def test_who_reads_which_clusters(centre: Clustered) -> None:
    centre.start_cluster()
    centre.start_cluster(ANOTHER, NEIGHBOUR, profile="cpu")
    seen = {
        person.name: [one["name"] for one in (await read(centre, person, "clusters"))["items"]]
        for person in (STUDENT, NEIGHBOUR, LEAD_PERSON, OPERATOR_PERSON)
    }
    assert seen == {"student": [CLUSTER], "neighbour": [ANOTHER], "lead": [], "operator": []}
    of_pool = [one["name"] for one in (await read(centre, LEAD_PERSON, "clusters?pool=univ"))["items"]]
    assert of_pool == [CLUSTER]
    everything = [
        one["name"] for one in (await read(centre, OPERATOR_PERSON, "clusters?pool=seoul"))["items"]
    ]
    assert everything == [CLUSTER, ANOTHER]
    one_each: list[str] = []
    cursor = ""
    while True:
        page = await read(centre, OPERATOR_PERSON, f"clusters?pool=seoul&limit=1{cursor}")
        one_each += [one["name"] for one in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert one_each == everything
    for person, cluster, want in (
        (STUDENT, CLUSTER, 200),
        (LEAD_PERSON, CLUSTER, 200),
        (OPERATOR_PERSON, CLUSTER, 200),
        (NEIGHBOUR, CLUSTER, 404),
        (LEAD_PERSON, ANOTHER, 404),
        (STUDENT, "none", 404),
        (STUDENT, "f" * 32, 404),
    ):
        async with centre.program(person) as program:
            assert (await program.get(f"clusters/{cluster}")).status_code == want, (person.name, cluster)
    async with centre.program(LEAD_PERSON) as program:
        assert (await program.get("clusters?pool=lab")).status_code == 404
        assert (await program.get("clusters?pool=none")).status_code == 404
        assert (await program.get("clusters?cursor=x")).status_code == 400


@pytest.mark.parametrize(
    ("person", "status", "reason"),
    [
        pytest.param(STUDENT, 202, "stopped", id="its owner"),
        pytest.param(OPERATOR_PERSON, 202, "stopped-by-operator", id="an operator"),
        pytest.param(LEAD_PERSON, 404, None, id="a lead, who only looks"),
        pytest.param(NEIGHBOUR, 404, None, id="a neighbour"),
    ],
)
async def test_who_may_end_a_cluster(
    centre: Clustered, person: Person, status: int, reason: str | None
) -> None:
    centre.start_cluster()
    async with centre.program(person) as program:
        assert (await program.delete(f"clusters/{CLUSTER}")).status_code == status
        extended = await program.post(f"clusters/{CLUSTER}/extend", json={"minutes": 5})
        assert extended.status_code == 404, "over, or not theirs"
    assert centre.lease(CLUSTER).reason == reason


async def test_more_time_that_is_not_given_is_told_with_its_code(centre: Clustered) -> None:
    centre.start_cluster(profile="cpu")
    centre.load(POLICY.replace("gpu.h200: {nominal: 2},", "cpu: {nominal: 64}, gpu.h200: {nominal: 2},"))
    centre.wait("theirs", STUDENT)
    async with centre.program(STUDENT, "ko") as program:
        answer = await program.post(f"clusters/{CLUSTER}/extend", json={"minutes": 60})
    assert (answer.status_code, answer.json()["code"]) == (409, "others-waiting")
    assert "기다리" in answer.json()["message"]


def _with_cpu() -> str:
    from tests.desk.lively import POLICY

    return POLICY.replace(
        "quota: {gpu.h200: {nominal: 2},", "quota: {cpu: {nominal: 64}, gpu.h200: {nominal: 2},"
    )


# -- sizes ------------------------------------------------------------------------------------------------------------


async def test_each_size_says_how_many_workers_could_start_and_so_many_do(centre: Clustered) -> None:
    centre.book("mine", h200=1)
    menu = await read(centre, STUDENT, "cluster-profiles?server=mine")
    items = {one["profile"]: one for one in menu["items"]}
    assert list(items) == ["cpu", "slice", "gpu"]
    gpu = items["gpu"]
    assert (gpu["pool"], gpu["state"], gpu["now"]) == ("univ", "now", {"guaranteed": 1, "borrowed": 1})
    assert gpu["code"] == "person-at-cap"
    assert "3 × H200" in gpu["message"]
    assert gpu["cost_per_hour"] == {"guaranteed": 1.0, "borrowed": 0.5}
    assert gpu["worker"]["words"] == "1 × H200 · 8 CPU · 96 GB"
    assert (gpu["most_workers"], gpu["minutes"], gpu["idle_minutes"]) == (
        8,
        [60, 120, 240, 480],
        [10, 20, 30, 60],
    )
    assert (items["slice"]["state"], items["slice"]["now"]["guaranteed"], items["slice"]["code"]) == (
        "now",
        7,
        "pool-full",
    )
    assert items["cpu"]["cost_per_hour"] == {"guaranteed": 0.0, "borrowed": 0.0}
    assert (items["cpu"]["code"], items["cpu"]["message"]) == (None, "")
    centre.start_cluster(profile="gpu")
    granted = centre.grow(8, profile="gpu")
    assert sorted(one.guaranteed for one in granted.leases) == [False, True]


async def test_the_hours_that_bind_come_with_the_sizes_the_scarcest_first(centre: Clustered) -> None:
    menu = await read(centre, STUDENT, "cluster-profiles")
    assert [(one["pool"], one["period"]) for one in menu["budgets"]] == [("univ", "week"), ("univ", "month")]
    assert menu["budgets"][0]["sentence"] == "60 of 60 GPU-h left this week"
    assert [one["whose"] for one in menu["budgets"]] == [
        "Your hours: Hangang University",
        "Hangang University",
    ]


async def test_a_look_at_the_sizes_books_nothing(centre: Clustered) -> None:
    before = centre.database.run("SELECT * FROM entries")
    await read(centre, STUDENT, "cluster-profiles")
    assert centre.database.run("SELECT * FROM entries") == before


async def test_sizes_that_cannot_start_say_whether_waiting_helps(centre: Clustered) -> None:
    centre.book("a", h200=3)
    menu = await read(centre, STUDENT, "cluster-profiles")
    gpu = next(one for one in menu["items"] if one["profile"] == "gpu")
    assert (gpu["state"], gpu["code"], gpu["now"]) == (
        "wait",
        "person-at-cap",
        {"guaranteed": 0, "borrowed": 0},
    )
    stranger = Person("stranger", ())
    centre.admission.put_person(stranger)
    centre.login.identities["token-stranger"] = centre.login.identities["token-student"].__class__(
        "stranger", centre.login.identities["token-student"].scopes, "s1"
    )
    assert (await read(centre, stranger, "cluster-profiles"))["items"] == []


# -- on the pages of leads and operators ----------------------------------------------------------------------------------


async def test_a_lead_reads_who_has_clusters_and_how_many_workers(centre: Clustered) -> None:
    centre.start_cluster()
    centre.grow(3)
    async with centre.visit(LEAD_PERSON) as lead:
        shown = text_of((await lead.get("/services/desk/pool")).text)
    assert "1 person · 0 servers · 3 Dask workers" in shown
    assert "1 cluster · 3 Dask workers" in shown


async def test_an_operator_reads_of_which_cluster_a_gpu_and_a_wait_are(centre: Clustered) -> None:
    centre.start_cluster(profile="gpu")
    centre.grow(5, profile="gpu")
    async with centre.visit(OPERATOR_PERSON) as operator:
        machines = text_of((await operator.get("/services/desk/centre")).text)
        queue = text_of((await operator.get("/services/desk/centre/queue")).text)
        log = text_of((await operator.get("/services/desk/centre/decisions?kind=booked")).text)
    assert machines.count("1 × H200 · Dask cluster c0ffee00") == 3
    assert "Dask cluster c0ffee00" in queue
    assert "wants 2 of these" in queue
    assert "1 × H200 · 8 CPU · 96 GB · Dask cluster c0ffee00, guaranteed, until 11:00" in log


async def test_the_waiting_room_of_a_cluster_is_its_card(centre: Clustered) -> None:
    centre.start_cluster(profile="gpu")
    ticket = centre.grow(5, profile="gpu").ticket
    assert ticket is not None
    async with centre.visit(STUDENT) as student:
        answer = await student.get(f"/services/desk/tickets/{ticket.id}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{MINE}#clusters-title")
    async with centre.visit(NEIGHBOUR) as neighbour:
        assert (await neighbour.get(f"/services/desk/tickets/{ticket.id}")).status_code == 404
