"""The centre for operators' programs: the same as its pages, in pages of {items, next}, with the one error body."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from hub_ext.desk.access import OPERATE, READ
from hub_ext.desk.hub_login import Identity
from hub_ext.quota.model import Ask
from tests.desk.lively import NEIGHBOUR, POLICY, STUDENT, Lively, lively
from tests.support.databases import Database

API = "/services/desk/api/v1"
LISTS = ("machines", "queue", "decisions", "policies")


class Tokens:
    """The hub, which knows whose token is whose and what it may: `operator` or `operator:reads`."""

    async def identity(self, token: str) -> Identity | None:
        name, _, reads = token.partition(":")
        scope = READ if reads else OPERATE
        return Identity(name, frozenset({scope, "access:services!service=desk"}))

    async def close(self) -> None:
        return None


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[Lively]:
    made = lively(sqlite_database)
    made.login = Tokens()
    for number in range(5):
        made.wait(f"t{number}", (STUDENT, NEIGHBOUR)[number % 2], place=5 - number)
    made.load(POLICY.replace("nominal: 6", "nominal: 5"), who="policy file")
    yield made
    made.store.close()


@contextmanager
def a_program(centre: Lively, token: str) -> Iterator[httpx.AsyncClient]:
    yield httpx.AsyncClient(
        transport=httpx.ASGITransport(centre.app()),
        base_url=f"http://desk{API}",
        headers={"Authorization": f"token {token}"},
        timeout=60,
    )


async def whole(client: httpx.AsyncClient, path: str, limit: int, **query: Any) -> list[dict[str, Any]]:
    """Every item, page by page."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        asked = {"limit": limit, **query} | ({} if cursor is None else {"cursor": cursor})
        answer = await client.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= limit
        items += page["items"]
        cursor = page["next"]
        if cursor is None:
            return items


@pytest.mark.parametrize(
    ("token", "code"),
    [("student", "not-open"), ("neighbour", "not-open"), ("operator:reads", "scope-missing")],
)
async def test_it_is_open_to_operators_with_the_scope_alone(centre: Lively, token: str, code: str) -> None:
    with a_program(centre, token) as client:
        for path in (*LISTS, "policies/1"):
            answer = await client.get(path)
            assert answer.status_code == 403
            assert answer.json()["code"] == code
            assert set(answer.json()) == {"code", "facts", "message"}
        answer = await client.post("simulate", json={"scenario": "now: ["})
        assert (answer.status_code, answer.json()["code"]) == (403, code)


async def test_lists_are_whole_whatever_the_page(centre: Lively) -> None:
    with a_program(centre, "operator") as client:
        for path in LISTS:
            every = await whole(client, path, 500)
            assert every
            assert await whole(client, path, 1) == every
            assert await whole(client, path, 2) == every


async def test_machines_say_who_runs_what(centre: Lively) -> None:
    with a_program(centre, "operator") as client:
        machines = {one["name"]: one for one in await whole(client, "machines", 2)}
    assert machines["gpu-1"]["used"]["gpu.h200"] == 4000
    assert {one["lease"]: one["standing"] for one in machines["gpu-1"]["leases"]} == {
        "slice": "guaranteed", "train": "guaranteed", "idle": "borrowed",
    }  # fmt: skip
    assert machines["gpu-3"]["takes_new"] is False


async def test_the_queue_is_in_order_and_filtered(centre: Lively) -> None:
    with a_program(centre, "operator") as client:
        assert [one["id"] for one in await whole(client, "queue", 2)] == ["t4", "t3", "t2", "t1", "t0"]
        assert [one["id"] for one in await whole(client, "queue", 5, pool="lab")] == ["t3", "t1"]
        assert [one["id"] for one in await whole(client, "queue", 5, person="student")] == ["t4", "t2", "t0"]
        assert await whole(client, "queue", 5, pool="nothing") == []


async def test_decisions_are_the_ledger(centre: Lively) -> None:
    ask = Ask("much", "student", "univ", {"gpu.h200": 64_000}, server="much")
    centre.admission.admit_now(STUDENT, ask)
    with a_program(centre, "operator") as client:
        (entry,) = await whole(client, "decisions", 5, code="too-big-for-pool")
        assert (entry["kind"], entry["person"], entry["pool"]) == ("decided", "student", "univ")
        assert entry["at"] == "2027-03-02T09:00:00+09:00"
        assert await whole(client, "decisions", 5, kind="decided", to="2027-03-01") == []
        for query in ({"cursor": "nonsense"}, {"kind": "nonsense"}, {"limit": 0}, {"limit": 501}):
            answer = await client.get("decisions", params=query)
            assert answer.status_code in (400, 422)
            assert set(answer.json()) == {"code", "facts", "message"}


async def test_policies_are_kept(centre: Lively) -> None:
    with a_program(centre, "operator") as client:
        found = await whole(client, "policies", 1)
        assert [(one["number"], one["in_force"]) for one in found] == [(2, True), (1, False)]
        assert (await client.get("policies/1")).json()["text"] == POLICY
        for number in ("3", "0", str(1 << 70)):
            assert (await client.get(f"policies/{number}")).status_code == 404


async def test_a_scenario_is_played(centre: Lively) -> None:
    text = f"now: 2027-03-02T09:00:00+09:00\npolicy:\n  {POLICY.replace(chr(10), chr(10) + '  ')}\n"
    event = "{at: +0m, ask: {id: a, pool: lab, amounts: {gpu.h200: 1}}}"
    with a_program(centre, "operator") as client:
        answer = await client.post("simulate", json={"scenario": f"{text}events: [{event}]\n"})
        assert answer.status_code == 200
        assert answer.json()["decisions"][0]["verdict"] == "admit"
        faulty = await client.post("simulate", json={"scenario": f"{text}evnts: [{event}]\n"})
        assert (faulty.status_code, faulty.json()["code"]) == (422, "faulty-scenario")
        (fault,) = faulty.json()["facts"]["faults"]
        assert fault["line"] == text.count("\n") + 1
        assert "evnts" in fault["what"]


async def test_it_stands_in_the_openapi_document(centre: Lively) -> None:
    with a_program(centre, "operator") as client:
        document = (await client.get("openapi.json")).json()
    for path in (*LISTS, "policies/{number}"):
        assert "get" in document["paths"][f"{API}/{path}"]
    assert "post" in document["paths"][f"{API}/simulate"]
