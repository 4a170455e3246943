"""Two desks of one hub: either answers anybody; one that is killed is missed by nobody; both end cleanly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.desk import DESK, AtTheDesk
from tests.support.hub import ROOT, EmbeddedHub, free_port, wait_for

SECOND = """
import sys
from hub_ext.desk.serve import serve
from hub_ext.factory import Factory
from hub_ext.settings import load_settings

factory = Factory(load_settings())
serve(factory.desk(), factory.clockwork(factory.secrets.desk_token), "127.0.0.1", int(sys.argv[1]))
"""


@dataclass
class SecondDesk:
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def second(hub: EmbeddedHub) -> Iterator[SecondDesk]:
    """Beside the one that the hub was started with, on the same records."""
    port = free_port()
    log = (hub.folder / "second.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-c", SECOND, str(port)],
        cwd=ROOT,
        env=hub.full_environment(),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    log.close()
    one = SecondDesk(port, process)
    try:
        wait_for(lambda: answers(one.url), "the second desk answers")
        yield one
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        print((hub.folder / "second.log").read_text()[-3000:])


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}{DESK}/health", trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def cookies_of(person: AtTheDesk) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in person.http.cookies.jar)


def test_who_is_signed_in_at_one_is_signed_in_at_the_other(hub: EmbeddedHub, second: SecondDesk) -> None:
    student = AtTheDesk(hub, "student")
    csrf = student.csrf
    page = httpx.get(
        f"{second.url}{DESK}/mine",
        headers={"Cookie": cookies_of(student), "Accept": "text/html"},
        trust_env=False,
    )
    assert page.status_code == 200
    assert csrf in page.text, "and a form of the one is good at the other"


def test_a_sign_in_that_began_at_one_ends_at_the_other(hub: EmbeddedHub, second: SecondDesk) -> None:
    student = AtTheDesk(hub, "student")
    student.http.follow_redirects = False
    to_the_hub = student.page()
    back = student.http.get(to_the_hub.headers["location"])
    query = parse_qs(urlsplit(back.headers["location"]).query)
    arrived = httpx.get(
        f"{second.url}{DESK}/oauth_callback",
        params={"code": query["code"][0], "state": query["state"][0]},
        headers={"Cookie": cookies_of(student)},
        trust_env=False,
    )
    assert (arrived.status_code, arrived.headers["location"]) == (302, f"{DESK}/mine")


def test_it_ends_when_it_is_told_to_also_with_pages_open(hub: EmbeddedHub, second: SecondDesk) -> None:
    """A rollout waits for no browser."""
    with socket.create_connection(("127.0.0.1", second.port)) as browser:
        browser.sendall(f"GET {DESK}/health HTTP/1.1\r\nHost: desk\r\n\r\n".encode())
        assert b"200" in browser.recv(100)
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(30) == 0


def test_the_hubs_own_desk_is_started_again_when_it_is_killed(hub: EmbeddedHub) -> None:
    killed = hub.child("desk")
    os.kill(killed.pid, signal.SIGKILL)
    wait_for(lambda: not killed.is_running() or killed.status() == "zombie", "it is dead")
    wait_for(lambda: answers(hub.url), "another answers at its address")
    assert AtTheDesk(hub, "student").page().status_code == 200


def test_a_desk_whose_address_is_taken_says_so_and_ends(hub: EmbeddedHub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", SECOND, str(port)],
            cwd=ROOT,
            env=hub.full_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode != 0
    assert "address already in use" in done.stderr + done.stdout


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_are_for_who_may_read_them(hub: EmbeddedHub) -> None:
    student = AtTheDesk(hub, "student")
    through_the_proxy = f"{hub.url}{DESK}/metrics"
    assert httpx.get(through_the_proxy, trust_env=False).status_code == 401
    every_scope = student.token("access:services!service=desk", "custom:desk:operate")
    bearer = {"Authorization": f"Bearer {every_scope}"}
    assert httpx.get(through_the_proxy, headers=bearer, trust_env=False).status_code == 403
    operator = AtTheDesk(hub, "operator")
    bearer = {
        "Authorization": f"Bearer {operator.token('access:services!service=desk', 'custom:desk:operate')}"
    }
    answer = httpx.get(through_the_proxy, headers=bearer, trust_env=False)
    assert answer.status_code == 200
    assert "hangang_" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


def test_metrics_are_open_on_this_very_machine(hub: EmbeddedHub, second: SecondDesk) -> None:
    assert "hangang_" in httpx.get(f"{second.url}{DESK}/metrics", trust_env=False).text
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    asked = httpx.get(f"{second.url}{DESK}/metrics", headers=forwarded, trust_env=False)
    assert asked.status_code == 401, "but not to whom somebody passes on"
