"""Starts are decided before JupyterHub prepares them: by form, address and REST; and what becomes of one cut off there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.hub import EmbeddedHub, Visitor, wait_for

H200 = {"profile": "h200", "minutes": "60"}
TOO_BIG = {"profile": "h200-4", "minutes": "60"}

CONFIG = """
import os
import signal
from pathlib import Path

from hub_ext.bootstrap import configure
from hub_ext.settings import load_settings
from hub_ext.spawners.gate import GateMixin

configure(get_config(), load_settings())
%s
"""
ENDS_THE_HUB = """
before = GateMixin.%(step)s


async def cut_off(self, *args):
    mark = Path(%(mark)r)
    if mark.exists():
        return await before(self, *args)
    mark.touch()
    if %(after)r:
        await before(self, *args)
    os.kill(os.getpid(), signal.SIGKILL)


GateMixin.%(step)s = cut_off
"""


def by_rest(visitor: Visitor, options: dict[str, str], server: str) -> httpx.Response:
    return visitor.start({**options, "minutes": int(options["minutes"])}, server)


def by_form(visitor: Visitor, options: dict[str, str], server: str) -> httpx.Response:
    return visitor.submit_form(options["profile"], server, minutes=options["minutes"])


def by_address(visitor: Visitor, options: dict[str, str], server: str) -> httpx.Response:
    asked = {f"opt-{name}": value for name, value in options.items()}
    return visitor.http.get(f"/hub/spawn/{visitor.name}/{server}", params=asked)


WAYS = pytest.mark.parametrize("way", [by_rest, by_form, by_address], ids=["REST", "form", "address"])
Way = Callable[[Visitor, dict[str, str], str], httpx.Response]


def rows(hub: EmbeddedHub, query: str, *values: str) -> list[Any]:
    """Of JupyterHub's own database."""
    with closing(sqlite3.connect(f"file:{hub.state / 'jupyterhub.sqlite'}?mode=ro", uri=True)) as database:
        return database.execute(query, values).fetchall()


def prepared(hub: EmbeddedHub, server: str) -> bool:
    """Whether JupyterHub ever made an OAuth client for a start of the server."""
    return f"oauth client jupyterhub-user-student-{server}\n" in hub.log("hub")


@pytest.fixture
def student(hub: EmbeddedHub) -> Iterator[Visitor]:
    visitor = Visitor(hub, "student")
    yield visitor
    token = visitor.api("POST", "/users/student/tokens", json={}).json()["token"]
    desk = f"{hub.url}/services/desk/api/v1/tickets"
    asking = {"Authorization": f"token {token}"}
    for ticket in httpx.get(desk, headers=asking).json()["items"]:
        assert httpx.delete(f"{desk}/{ticket['id']}", headers=asking).status_code == 204
    hub.command("stop-servers")
    wait_for(lambda: not hub.leases(), "nothing runs")


@WAYS
def test_who_may_start_has_one_lease_and_a_server(hub: EmbeddedHub, student: Visitor, way: Way) -> None:
    name = f"goes-{way.__name__.replace('_', '-')}"
    assert way(student, {"profile": "cpu-small", "minutes": "60"}, name).status_code in (200, 201, 202)
    student.wait_until_ready(name)
    (lease,) = hub.leases()
    assert (lease["server"], lease["state"]) == (name, "running")
    assert hub.log("hub").count(f"student:{name} admitted") == 1
    assert prepared(hub, name)


@WAYS
def test_who_is_refused_costs_the_hub_nothing_but_the_question(
    hub: EmbeddedHub, student: Visitor, way: Way
) -> None:
    name = f"refused-{way.__name__.replace('_', '-')}"
    assert way(student, TOO_BIG, name).status_code == 403
    assert not prepared(hub, name)
    assert rows(hub, "SELECT server_id, started FROM spawners WHERE name = ?", name) == [(None, None)]
    assert hub.leases() == []


@WAYS
def test_who_has_to_wait_costs_the_hub_nothing_until_their_turn(
    hub: EmbeddedHub, student: Visitor, way: Way
) -> None:
    for name in ("one", "two"):
        by_rest(student, H200, name)
        student.wait_until_ready(name)
    name = f"waits-{way.__name__.replace('_', '-')}"
    student.http.follow_redirects = False
    waits = way(student, H200, name)
    student.http.follow_redirects = True
    assert waits.status_code == 409
    ticket = waits.headers["Location"]
    assert ticket.startswith("/services/desk/tickets/")
    assert not prepared(hub, name)
    # What was chosen is kept for the next time, as after any start.
    ((options, server, started),) = rows(
        hub, "SELECT user_options, server_id, started FROM spawners WHERE name = ?", name
    )
    assert '"h200"' in options
    assert (server, started) == (None, None)
    # Without options it is what was chosen last, and the same place in line.
    again = student.api("POST", f"/users/student/servers/{name}")
    assert (again.status_code, again.headers.get("Location")) == (409, ticket)
    student.stop("one")
    student.wait_until_ready(name)
    assert prepared(hub, name)


def test_the_hub_counts_what_it_turns_away(hub: EmbeddedHub, student: Visitor) -> None:
    token = Visitor(hub, "operator").api("POST", "/users/operator/tokens", json={}).json()["token"]

    def turned_away() -> float:
        metrics = httpx.get(f"{hub.url}/hub/metrics", headers={"Authorization": f"token {token}"})
        assert metrics.status_code == 200
        for line in metrics.text.splitlines():
            if "server_spawn_duration_seconds_count" in line and 'reason="too-big-for-person"' in line:
                return float(line.split()[-1])
        return 0.0

    before = turned_away()
    assert by_rest(student, TOO_BIG, "counted").status_code == 403
    assert turned_away() == before + 1


def own_config(folder: Path, more: str) -> None:
    (folder / "jupyterhub_config.py").write_text(CONFIG % more)


@pytest.mark.parametrize(
    ("step", "after"),
    [
        pytest.param("choose", False, id="before the decision"),
        pytest.param("decide_first", True, id="after the booking"),
    ],
)
def test_a_hub_that_is_killed_before_it_prepares_a_start_loses_nobody(
    tmp_path: Path, step: str, after: bool
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    mark = tmp_path / "was-killed"
    own_config(folder, ENDS_THE_HUB % {"step": step, "mark": str(mark), "after": after})
    hub = EmbeddedHub(folder)
    try:
        hub.start()
        student = Visitor(hub, "student")
        before = hub.child("hub").pid
        # Nobody answers any more, or the proxy says so.
        with pytest.raises((httpx.HTTPError, AssertionError)):
            assert by_rest(student, H200, "cut-off").is_success
        assert mark.exists()
        wait_for(lambda: hub.child("hub").pid != before, "the hub is started again")
        # Nobody clicks again.
        wait_for(lambda: hub.leases() and hub.leases()[0]["state"] == "running", "it is started after all")
        student = Visitor(hub, "student")
        student.wait_until_ready("cut-off")
        (lease,) = hub.all_leases()
        assert (lease["server"], lease["profile"]) == ("cut-off", "h200")
    finally:
        print(hub.log("hub")[-6000:])
        hub.stop()


REFUSED_LATER = {
    "while it prepares the server": """
async def refuse(spawner):
    raise ValueError("the site's own rule")


c.Spawner.pre_spawn_hook = refuse
""",
    "before it prepares the server": """
c.JupyterHub.concurrent_spawn_limit = 1
from jupyterhub.user import UserDict
UserDict.count_active_users = lambda self: {"spawn_pending": 9, "proxy_pending": 0, "active": 9}
""",
}


@pytest.mark.parametrize("more", REFUSED_LATER.values(), ids=REFUSED_LATER.keys())
def test_what_was_booked_for_a_start_that_jupyterhub_refuses_is_free_again(tmp_path: Path, more: str) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    own_config(folder, more)
    hub = EmbeddedHub(folder)
    try:
        hub.start()
        student = Visitor(hub, "student")
        assert by_rest(student, H200, "never").status_code in (429, 500)
        wait_for(lambda: not hub.leases(), "it is free again")
        (lease,) = hub.all_leases()
        assert (lease["server"], lease["reason"], lease["started_at"]) == ("never", "start-failed", None)
        assert rows(hub, "SELECT server_id, started FROM spawners WHERE name = 'never'") == [(None, None)]
    finally:
        print(hub.log("hub")[-6000:])
        hub.stop()
