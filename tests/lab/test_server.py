"""A real server of Jupyter with the extension, beside a desk that fails in its ways."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hub_ext.language import translator
from hub_ext.notebook.lab.desk import REQUEST_SECONDS
from hub_ext.notebook.lab.server import beside, links
from tests.support.hub import wait_for
from tests.support.notebook_desk import (
    LEASE,
    PERSON,
    TOKEN,
    Notebook,
    StandInDesk,
    ends_in,
    notebook,
    seconds_of,
    singleuser,
    stand_in_desk,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk() -> Iterator[StandInDesk]:
    with stand_in_desk() as found:
        yield found


@pytest.fixture(scope="module")
def server(desk: StandInDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with notebook(desk.url, tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(autouse=True)
def calm(desk: StandInDesk) -> None:
    desk.fails, desk.ends_at, desk.guaranteed, desk.leases = "", ends_in(hours=4), True, 1
    desk.notice = desk.extend = desk.refusal = None


def shown(server: Notebook, **want: Any) -> dict[str, Any]:
    """The view, once it says all of `want`: an answer of some seconds ago may be given first."""

    def met() -> dict[str, Any] | None:
        status, view = server.ask("hangang/lease?now=1")
        assert status == 200
        return view if all(view[name] == value for name, value in want.items()) else None

    found: dict[str, Any] = wait_for(met, f"a view with {want}", 60)
    return found


def test_says_what_the_desk_says(server: Notebook, desk: StandInDesk) -> None:
    desk.guaranteed, desk.ends_at = False, ends_in(minutes=10)
    view = shown(server, mood="soon", chip="Borrowed")
    assert 570 < view["left"] <= 600
    assert f"{desk.ends_at:%H:%M}" in view["sentence"]
    assert "31.5 of 60 GPU-h left this week" in view["details"]
    assert desk.tokens == {f"token {TOKEN}"}


def test_nobody_but_the_servers_people_is_told(server: Notebook) -> None:
    assert server.ask("hangang/lease", token=None)[0] == 403
    assert server.ask("hangang/lease", token="forged")[0] == 403
    assert server.ask("hangang/extend", {"minutes": 5}, token=None)[0] == 403


def test_speaks_the_language_of_the_lab_or_the_hub_or_the_browser(server: Notebook) -> None:
    def language(path: str = "hangang/lease", **headers: str) -> str:
        return str(
            server.ask(path, headers={name.replace("_", "-"): text for name, text in headers.items()})[1][
                "language"
            ]
        )

    assert language() == "en"
    assert language(Accept_Language="ko-KR,ko;q=0.9") == "ko"
    assert language(Accept_Language="ko", Cookie="hangang-language=en") == "en"
    assert language("hangang/lease?lab=ko_KR", Cookie="hangang-language=en") == "ko"
    assert language("hangang/lease?lab=xx") == "en"


def test_extends_and_says_until_when(server: Notebook, desk: StandInDesk) -> None:
    before = desk.ends_at
    status, answer = server.ask("hangang/extend", {"minutes": 30})
    assert status == 200
    assert answer["done"] is True
    assert (desk.ends_at - before).total_seconds() == 1800
    assert f"{desk.ends_at:%H:%M}" in answer["sentence"]
    assert answer["view"]["left"] > 4.4 * 3600


def test_says_why_it_cannot_extend(server: Notebook, desk: StandInDesk) -> None:
    desk.refusal = {"en": "Two people are waiting.", "ko": "두 명이 기다립니다."}
    for language, sentence in desk.refusal.items():
        status, answer = server.ask("hangang/extend", {"minutes": 30}, headers={"Accept-Language": language})
        assert (status, answer["done"], answer["sentence"]) == (200, False, sentence)


@pytest.mark.parametrize(
    "body",
    [
        {"minutes": 0},
        {"minutes": -5},
        {"minutes": 10**9},
        {"minutes": "60"},
        {"minutes": True},
        {"minutes": 1.5},
        {},
        [1],
    ],
    ids=str,
)
def test_extends_by_nothing_that_is_no_number_of_minutes(
    server: Notebook, desk: StandInDesk, body: Any
) -> None:
    before = desk.ends_at
    assert server.ask("hangang/extend", json.dumps(body).encode())[0] == 400
    assert server.ask("hangang/extend", b"\xff{")[0] == 400
    assert desk.ends_at == before


def test_looking_at_the_time_is_no_activity(server: Notebook) -> None:
    server.ask("api/contents")
    before = server.ask("api/status")[1]["last_activity"]
    shown(server)
    assert server.ask("api/status")[1]["last_activity"] == before


@pytest.mark.parametrize(
    "fails", ["gone", "slow", "failing", "refusing", "redirecting", "nonsense", "endless"]
)
def test_a_desk_that_fails_costs_the_last_answer_nothing(
    server: Notebook, desk: StandInDesk, fails: str
) -> None:
    desk.ends_at = ends_in(minutes=9)
    # After an extension it is asked at once, however often it failed before.
    first = server.ask("hangang/extend", {"minutes": 1})[1]["view"]
    assert (first["mood"], first["sentence"][-15:]) == ("soon", "Save your work.")
    desk.fails = fails
    asked = desk.times_asked()

    def failed() -> bool:
        took = seconds_of(lambda: server.ask("hangang/lease?now=1"))
        assert took < REQUEST_SECONDS + 2, "bounded, however the desk fails"
        return desk.times_asked() > asked

    wait_for(failed, "a question to the desk")
    view = shown(server)
    assert (view["mood"], view["sentence"]) == ("soon", first["sentence"])
    assert view["left"] <= first["left"]
    assert not [path for _, path in desk.asked if "stolen" in path], "the token follows no redirect"
    # The server itself goes on meanwhile.
    assert seconds_of(lambda: server.ask("api/contents")) < 2


def test_the_server_answers_others_while_the_desk_is_slow(server: Notebook, desk: StandInDesk) -> None:
    shown(server)
    desk.fails = "slow"
    with ThreadPoolExecutor(8) as pool:
        looks = [pool.submit(server.ask, "hangang/lease?now=1") for _ in range(8)]
        assert seconds_of(lambda: server.ask("api/status")) < 2
        assert {look.result()[0] for look in looks} == {200}


def test_many_tabs_are_one_question_in_some_seconds(server: Notebook, desk: StandInDesk) -> None:
    shown(server)
    before = desk.times_asked()
    with ThreadPoolExecutor(20) as pool:
        took = seconds_of(lambda: list(pool.map(lambda _: server.ask("hangang/lease?now=1"), range(100))))
    assert desk.times_asked() - before <= 1 + took / 3


# -- the claim ------------------------------------------------------------------------------------------------------


def test_a_hundred_at_once_claim_once_and_strangers_do_not(tmp_path: Path) -> None:
    with stand_in_desk() as desk, notebook(desk.url, tmp_path / "home") as server:
        assert server.ask("api/status", token=None)[0] == 403
        assert server.ask("api/status", token="forged")[0] == 403
        assert desk.asked == []
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: server.ask("api/status")[0], range(100)))
        assert set(answers) == {200}
        wait_for(lambda: desk.claims, "the claim")
        shown(server)
        server.ask("api/contents")
        assert desk.claims == [f"/services/desk/api/v1/leases/{LEASE}/claim"]


def test_a_desk_that_is_away_when_somebody_comes_hears_of_it_later(tmp_path: Path) -> None:
    with stand_in_desk(fails="failing") as desk, notebook(desk.url, tmp_path / "home") as server:
        assert server.ask("api/status")[0] == 200
        wait_for(desk.times_asked, "a first try")
        desk.fails = ""
        wait_for(lambda: desk.claims, "the claim")


def test_a_server_that_was_claimed_is_not_claimed_again_by_the_next_process(tmp_path: Path) -> None:
    with stand_in_desk() as desk:
        for run in range(2):
            with notebook(desk.url, tmp_path / f"home-{run}") as server:
                server.ask("api/status")
                wait_for(lambda: desk.claims, "the claim")
                shown(server)
        assert len(desk.claims) == 1


# -- without a desk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["HANGANG_DESK_URL", "JUPYTERHUB_API_TOKEN"])
def test_without_a_desk_nothing_is_shown_and_nothing_breaks(tmp_path: Path, missing: str) -> None:
    with notebook(
        "http://127.0.0.1:9", tmp_path / "home", lambda environment: environment.pop(missing)
    ) as server:
        view = shown(server)
        assert (view["mood"], view["again"]) == ("off", 0)
        assert server.ask("hangang/extend", {"minutes": 5})[0] == 404


def test_a_port_where_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with notebook(f"http://127.0.0.1:{port}/services/desk", tmp_path / "home") as server:
        assert shown(server)["mood"] == "quiet"


# -- as the hub starts it ----------------------------------------------------------------------------------------------


class _Hub(BaseHTTPRequestHandler):
    """As much of a hub's API as a server needs to know who comes."""

    def do_GET(self) -> None:
        if self.path.rstrip("/") == "/hub/api":
            return self._answer({"version": "6.1.1"})
        if self.path.startswith("/hub/api/user") and self.headers.get("Authorization") == f"token {TOKEN}":
            scopes = [f"access:servers!server={PERSON}/"]
            return self._answer(
                {"kind": "user", "name": PERSON, "admin": False, "groups": [], "scopes": scopes}
            )
        return self.send_error(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer({})

    def _answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def stand_in_hub() -> Iterator[int]:
    hub = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub.server_port
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def test_as_the_hub_starts_it_whoever_the_hub_knows_claims_it(tmp_path: Path) -> None:
    with (
        stand_in_desk() as desk,
        stand_in_hub() as hub,
        singleuser(desk.url, hub, tmp_path / "home") as server,
    ):
        assert server.ask("api/status", token="forged")[0] in (403, 500)
        assert desk.claims == []
        assert server.ask("api/status")[0] == 200
        wait_for(lambda: desk.claims, "the claim")
        assert shown(server)["links"][0]["href"] == "/services/desk/mine"


@pytest.mark.parametrize(
    ("environment", "mine", "second"),
    [
        pytest.param({}, "/services/desk/mine", None, id="nothing is known"),
        pytest.param(
            {"JUPYTERHUB_BASE_URL": "/", "JUPYTERHUB_USER": "kim ha@univ"},
            "/services/desk/mine",
            "/hub/spawn/kim%20ha@univ/cpu",
            id="a name to be quoted",
        ),
        pytest.param(
            {"JUPYTERHUB_BASE_URL": "/city/", "JUPYTERHUB_USER": "kim", "JUPYTERHUB_SERVER_NAME": "cpu"},
            "/city/services/desk/mine",
            None,
            id="it is that server",
        ),
        pytest.param(
            {"JUPYTERHUB_BASE_URL": "/", "JUPYTERHUB_HOST": "https://hub.example", "JUPYTERHUB_USER": "kim"},
            "https://hub.example/hub/home",
            "https://hub.example/hub/spawn/kim/cpu",
            id="each service has its own host",
        ),
    ],
)
def test_leads_to(environment: dict[str, str], mine: str, second: str | None) -> None:
    say = translator("en")
    assert links(environment, say)[0].href == mine
    found = beside(environment, say)
    assert (found and found.href) == second
