"""What the desk answers when it cannot: words for people, one body for programs, and never a stack trace."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
from fastapi.routing import APIRoute

from hub_ext.desk import handlers
from hub_ext.desk.access import SCOPES
from tests.desk.in_process import DeskInProcess, away
from tests.support.databases import Database
from tests.support.desk import API, DESK, a_ticket
from tests.support.hub import text_of

ROOM = f"{DESK}/tickets/t1"
TRACE = re.compile(r"Traceback|File \"|\.py\b|sqlalchemy|sqlite", re.IGNORECASE)


@pytest.fixture
async def here(sqlite_database: Database) -> AsyncIterator[DeskInProcess]:
    made = DeskInProcess.on(sqlite_database)
    with made.desk.store.booking() as txn:
        txn.put_tickets([a_ticket()])
    yield made
    made.desk.store.close()


async def test_while_the_records_are_away_pages_say_so_and_come_back_by_themselves(
    here: DeskInProcess, sqlite_database: Database
) -> None:
    async with here.browser("student") as browser:
        with away(sqlite_database):
            for path in (f"{DESK}/mine", ROOM, f"{DESK}/centre"):
                answer = await browser.get(path)
                assert answer.status_code == 503, path
                assert answer.headers["retry-after"] == "5"
                assert '<meta http-equiv="refresh" content="5">' in answer.text
                assert "nothing is lost" in text_of(answer.text)
                assert not TRACE.search(answer.text)
            korean = await browser.get(ROOM, headers={"Accept-Language": "ko"})
            assert "잃는 것은 없습니다" in korean.text
            program = await browser.get(f"{API}/leases", headers={"Authorization": "token token-student"})
            assert program.status_code == 503
            assert program.json()["code"] == "records-away"
            assert (await browser.get(f"{DESK}/health")).status_code == 200, "the desk itself is well"
        assert (await browser.get(ROOM)).status_code == 200


async def test_while_the_hub_is_away_nobody_is_taken_for_a_stranger(here: DeskInProcess) -> None:
    here.hub.away = True
    async with here.browser("student") as browser:
        page = await browser.get(ROOM)
        assert (page.status_code, "hub-away" in page.text) == (503, True)
        program = await browser.get(f"{API}/leases", headers={"Authorization": "token token-student"})
        assert (program.status_code, program.json()["code"]) == (503, "hub-away")


async def test_a_mistake_of_ours_is_one_sentence(
    here: DeskInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(*_: object) -> None:
        raise ZeroDivisionError("secret details")

    monkeypatch.setattr("hub_ext.desk.handlers.waiting.read_sight", mistake)
    async with here.browser("student") as browser:
        page = await browser.get(ROOM)
        assert page.status_code == 500
        assert "Your files and servers are safe" in page.text
        assert "secret" not in page.text
        assert not TRACE.search(page.text)
        assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"{API}/nothing", 404, "not-found"),
        ("GET", f"{API}/tickets/none", 404, "not-found"),
        ("GET", f"{API}/leases/none", 404, "not-found"),
        ("POST", f"{API}/leases/none/claim", 404, "not-found"),
        ("DELETE", f"{API}/tickets/none", 404, "not-found"),
        ("PUT", f"{API}/leases", 405, "not-allowed"),
        ("GET", f"{API}/leases?limit=0", 422, "bad-input"),
        ("GET", f"{API}/leases?limit=many", 422, "bad-input"),
        ("GET", f"{API}/leases?cursor=%00", 400, "bad-cursor"),
        ("GET", f"{API}/tickets?cursor=1", 400, "bad-cursor"),
        ("GET", f"{API}/requests?cursor=1-%00", 400, "bad-cursor"),
        ("GET", f"{API}/pools?cursor=gone", 400, "bad-cursor"),
        ("GET", f"{API}/tickets/" + "x" * 100, 422, "bad-input"),
        ("GET", f"{API}/tickets/..%2F..%2Fhub", 404, "not-found"),
    ],
)
async def test_programs_get_one_body_with_a_stable_code(
    here: DeskInProcess, method: str, path: str, status: int, code: str
) -> None:
    async with here.browser(Authorization="token token-student") as program:
        answer = await program.request(method, path)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"code", "facts", "message"}
    assert answer.json()["code"] == code


async def test_people_get_a_page_for_what_is_not_there(here: DeskInProcess) -> None:
    async with here.browser("student") as browser:
        for path in ("/nothing", "/tickets/none", "/static/none.css"):
            page = await browser.get(f"{DESK}{path}")
            assert page.status_code == 404, path
            assert "There is no such page" in page.text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/hub/../../desk/app.py",
        "/static/fonts/../../../package.json",
        "/static/fonts/pretendardvariable.css.map",
    ],
)
async def test_no_file_beside_the_static_ones_is_given_out(here: DeskInProcess, path: str) -> None:
    async with here.browser() as browser:
        answer = await browser.get(f"{DESK}{path}")
    assert answer.status_code == 404
    assert "import" not in answer.text


# -- the API as it describes itself -----------------------------------------------------------------------------------


def all_routes() -> list[APIRoute]:
    """Those of the desk's handlers, also where they are not described."""
    modules = (import_module(f"{handlers.__name__}.{one.name}") for one in iter_modules(handlers.__path__))
    routers = [module.router for module in modules]
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


async def description(here: DeskInProcess) -> dict[str, Any]:
    async with here.browser() as program:
        return dict((await program.get(f"{API}/openapi.json")).json())


async def test_every_address_of_the_api_is_described_and_needs_somebody(here: DeskInProcess) -> None:
    paths = (await description(here))["paths"]
    assert len(paths) > 10
    async with here.browser() as nobody:
        for path, operations in paths.items():
            assert path.startswith(API), path
            for method, operation in operations.items():
                assert operation["tags"], path
                assert operation["summary"], path
                answer = await nobody.request(method.upper(), re.sub(r"\{.*?\}", "x1", path), json={})
                assert answer.status_code == 401, (method, path, answer.status_code)


async def test_every_address_of_the_api_names_the_scope_that_it_needs(here: DeskInProcess) -> None:
    document = await description(here)
    assert set(document["components"]["securitySchemes"]) == {"token", "session"}
    routes = {
        (route.path, method.lower())
        for route in all_routes()
        if route.path.startswith(API)
        for method in route.methods
    }
    operations = {
        (path, method): operation
        for path, found in document["paths"].items()
        for method, operation in found.items()
    }
    assert set(operations) == routes
    for where, operation in operations.items():
        by_token, by_session = operation["security"]
        assert by_token["token"] == by_session["session"], where
        (scope,) = by_token["token"]
        assert scope in SCOPES, where


async def test_every_form_shows_that_it_is_ours(here: DeskInProcess) -> None:
    """A page that changes something takes nothing without the token of this very session."""
    forms = [
        route.path
        for route in all_routes()
        if not route.path.startswith(API) and not route.methods <= {"GET", "HEAD"}
    ]
    assert len(forms) > 5
    async with here.browser("operator") as operator:
        for path in forms:
            answer = await operator.post(path.replace("{ticket_id}", "x1"), data={"_csrf": "forged"})
            assert answer.status_code == 403, path
            assert "not one of ours" in answer.text, path


async def test_every_error_is_described_by_the_one_body(here: DeskInProcess) -> None:
    document = await description(here)
    assert "HTTPValidationError" not in document["components"]["schemas"]
    wanted = {"$ref": "#/components/schemas/ErrorBody"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status[0] in "45" and "content" in answer:
                    assert answer["content"]["application/json"]["schema"] == wanted, (path, status)


async def test_nobody_fills_the_memory_of_the_desk(here: DeskInProcess) -> None:
    """Also without a token: what is sent is read before anybody is asked who they are."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"[" * 2**20

    async with here.browser(**{"Content-Type": "application/json"}) as program:
        answer = await program.post(f"{API}/servers", content=endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


async def test_what_is_no_json_is_said_to_be_none(here: DeskInProcess) -> None:
    async with here.browser(Authorization="token token-student", Accept="*/*") as program:
        for sent in (b"{", b"\xff\xfe", b"[" * 100_000, b"nul"):
            answer = await program.post(
                f"{API}/servers", content=sent, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code in (400, 422), sent[:10]
            assert set(answer.json()) == {"code", "facts", "message"}
