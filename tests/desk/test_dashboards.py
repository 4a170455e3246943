"""The front of the dashboards: who gets through, what goes through with them, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import websockets
from aiohttp import web
from websockets.typing import Subprotocol

from hub_ext.core.clock import HOUR
from hub_ext.desk import front
from hub_ext.desk.auth import COOKIE, HUB_SESSION
from hub_ext.desk.front_rules import base_of, led_to, page_headers, page_of, rest_of
from hub_ext.desk.hub_login import Identity
from hub_ext.desk.passes import PASS_SECONDS, Passes
from hub_ext.quota.service import end
from tests.desk.dashboards import ANOTHER, CLUSTER, Schedulers, book_scheduler, served, with_dashboards
from tests.desk.in_process import KEY, NOW, DeskInProcess
from tests.support.databases import Database
from tests.support.hub import wait_for

STATUS = page_of(CLUSTER)
PART = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}
PAGE = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture
def schedulers() -> Iterator[Schedulers]:
    with Schedulers().running() as made:
        yield made


@pytest.fixture
async def here(sqlite_database: Database, schedulers: Schedulers) -> AsyncIterator[DeskInProcess]:
    made = with_dashboards(sqlite_database, schedulers.url)
    yield made
    await made.app.state.front.close()
    made.desk.store.close()


async def a_pass(here: DeskInProcess, name: str = "researcher") -> str:
    """The address that this person's browser is led to, up to the page's name."""
    async with here.browser(name, **PAGE) as browser:
        answer = await browser.get(STATUS)
    assert answer.status_code == 302, answer.text
    base, page = answer.headers["location"].rsplit("/", 1)
    assert page == "status"
    return f"{base}/"


async def followed(browser: httpx.AsyncClient, address: str) -> httpx.Response:
    """As a browser does, with the same headers to the end."""
    answer = await browser.get(address)
    while answer.is_redirect:
        answer = await browser.get(answer.headers["location"])
    return answer


def token_of(here: DeskInProcess, base: str) -> str | None:
    return Passes(KEY).token_in(base.split("/")[-2], CLUSTER, here.desk.clock.now())


# -- who gets through -----------------------------------------------------------------------------------------------------


async def test_the_owner_is_led_to_the_page_and_reads_it(here: DeskInProcess, schedulers: Schedulers) -> None:
    async with here.browser("researcher", **PAGE) as browser:
        answer = await followed(browser, f"{STATUS}?theme=a%20b")
    assert (answer.status_code, answer.text) == (200, f"page /clusters/{CLUSTER}/status?theme=a%20b")
    assert [one.method for one in schedulers.asked] == ["GET"]


async def test_an_address_without_a_page_leads_to_the_first(here: DeskInProcess) -> None:
    async with here.browser("researcher", **PAGE) as browser:
        for bare in (f"/services/desk/clusters/{CLUSTER}", f"/services/desk/clusters/{CLUSTER}/"):
            assert (await browser.get(bare)).headers["location"] == STATUS


async def test_an_operator_may_look_and_nobody_else(here: DeskInProcess, schedulers: Schedulers) -> None:
    operators = await a_pass(here, "operator")
    async with here.browser(**PART) as page:
        assert (await page.get(operators + "status")).status_code == 200
    schedulers.asked.clear()
    for stranger in ("student", "lead"):
        async with here.browser(stranger, **PAGE) as browser:
            assert (await browser.get(STATUS)).status_code == 404
            assert (await browser.get(operators + "status")).status_code == 404, "a link that was passed on"
    async with here.browser(**PAGE) as nobody:
        for address in (STATUS, operators + "status"):
            answer = await nobody.get(address)
            assert (answer.status_code, answer.headers["location"][:5]) == (302, "/hub/")
    assert schedulers.asked == []


async def test_a_page_of_somebodys_server_reads_no_dashboard_with_its_readers_session(
    here: DeskInProcess, schedulers: Schedulers
) -> None:
    """It has the desk's address, and so the reader's cookies; it does not know the pass."""
    async with here.browser(
        "researcher", **{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    ) as script:
        assert (await script.get(STATUS)).status_code == 403
        assert (await script.get(base_of(CLUSTER, "guessed") + "status")).status_code == 404
    assert schedulers.asked == []


async def test_a_program_reads_with_a_token(here: DeskInProcess, schedulers: Schedulers) -> None:
    async with here.browser(Authorization="token token-researcher") as program:
        answer = await program.get(page_of(CLUSTER, "json/counts.json"))
    assert answer.status_code == 200
    assert "Authorization" not in schedulers.asked[0].headers
    async with here.browser(Authorization="token token-student") as program:
        assert (await program.get(STATUS)).status_code == 404


@pytest.mark.parametrize(
    ("what_happens", "status"),
    [("signs out", 404), ("cluster ends", 404), ("a day passes", 404), ("nothing", 200)],
)
async def test_a_pass_ends_with_its_session_its_cluster_and_its_day(
    here: DeskInProcess, what_happens: str, status: int
) -> None:
    base = await a_pass(here)
    match what_happens:
        case "signs out":
            del here.hub.identities["token-researcher"]
        case "cluster ends":
            here.desk.admission.change(CLUSTER, end("researcher", "stopped"))
            here.desk.admission.release_now(CLUSTER, "gateway", "stopped")
        case "a day passes":
            here.desk.clock.at += PASS_SECONDS + 1  # type: ignore[attr-defined]
        case _:
            pass
    async with here.browser(**PART) as page:
        assert (await page.get(base + "static/js/bokeh.min.js")).status_code == status


async def test_a_page_with_a_pass_that_is_too_old_is_given_a_new_one(here: DeskInProcess) -> None:
    base = await a_pass(here)
    here.desk.clock.at += PASS_SECONDS + 1  # type: ignore[attr-defined]
    async with here.browser("researcher", **PAGE) as browser:
        answer = await followed(browser, base + "tasks?a=1")
    assert (answer.status_code, answer.text) == (200, f"page /clusters/{CLUSTER}/tasks?a=1")


async def test_a_pass_opens_one_cluster(here: DeskInProcess, schedulers: Schedulers) -> None:
    book_scheduler(here.desk.admission.admit_now, ANOTHER)
    base = await a_pass(here)
    schedulers.asked.clear()
    async with here.browser(**PART) as page:
        assert (await page.get(base.replace(CLUSTER, ANOTHER) + "status")).status_code == 404
    assert schedulers.asked == []


async def test_a_pass_tells_nothing_of_the_session_and_cannot_be_changed(here: DeskInProcess) -> None:
    base = await a_pass(here)
    given = base.split("/")[-2]
    assert token_of(here, base) == "token-researcher"
    assert "researcher" not in base
    changed = given[:40] + ("A" if given[40] != "A" else "B") + given[41:]
    for forged in (changed, given[:60], "", "é", given * 20):
        assert Passes(KEY).token_in(forged, CLUSTER, NOW) is None
    assert Passes(b"another key").token_in(given, CLUSTER, NOW) is None


async def test_whoever_lost_the_role_looks_no_more(here: DeskInProcess) -> None:
    base = await a_pass(here, "operator")
    here.hub.identities["token-operator"] = Identity(
        "operator", frozenset({"access:services", "custom:desk:read"}), "s1"
    )
    async with here.browser(**PART) as page:
        assert (await page.get(base + "status")).status_code == 404


# -- what goes through ----------------------------------------------------------------------------------------------------


async def test_nothing_of_who_asks_goes_to_the_scheduler(here: DeskInProcess, schedulers: Schedulers) -> None:
    base = await a_pass(here)
    private = {
        "Cookie": f"{COOKIE}=desk; {HUB_SESSION}=s1; jupyterhub-hub-login=x",
        "X-CSRF-Token": "secret",
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-User": "researcher",
        "Referer": f"https://hub.example{base}status",
        "Origin": "https://hub.example",
        "User-Agent": "somebody's",
        "If-None-Match": '"mark"',
        "Accept-Encoding": "gzip",
    }
    async with here.browser(**PART, **private) as page:
        assert (await page.get(base + "status")).status_code == 200
    told = {name.lower() for name in schedulers.asked[-1].headers}
    assert told == {"host", "accept", "accept-encoding", "if-none-match"}
    assert schedulers.asked[-1].headers["host"] == f"127.0.0.1:{schedulers.port}"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_dashboard_is_only_read(here: DeskInProcess, schedulers: Schedulers, method: str) -> None:
    base = await a_pass(here)
    async with here.browser("researcher") as browser:
        for address in (base + "api/v1/retire_workers", page_of(CLUSTER, "api/v1/retire_workers")):
            assert (await browser.request(method, address)).status_code == 405
    assert schedulers.asked == []


async def test_a_head_is_a_head(here: DeskInProcess, schedulers: Schedulers) -> None:
    base = await a_pass(here)
    async with here.browser(**PART) as page:
        answer = await page.head(base + "status")
    assert (answer.status_code, answer.content, schedulers.asked[-1].method) == (200, b"", "HEAD")


HOSTILE_PATHS = [
    f"../{ANOTHER}/status",
    f"%2e%2e/{ANOTHER}/status",
    f".%2E/{ANOTHER}/status",
    f"a/../../{ANOTHER}/status",
    f"..%2f{ANOTHER}",
    f"..%5c{ANOTHER}",
    f"..\\{ANOTHER}",
    "a%00b",
    "a%0d%0aHost:%20elsewhere",
    "%",
    "%zz",
    "a" * 3000,
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
async def test_no_path_leads_out_of_the_cluster(
    here: DeskInProcess, schedulers: Schedulers, path: str
) -> None:
    base = await a_pass(here)
    schedulers.asked.clear()
    for start in (base, f"/services/desk/clusters/{CLUSTER}/"):
        assert rest_of((start + path).encode(), start) is None
    async with here.browser(Authorization="token token-researcher", **PART) as page:
        for start in (base, f"/services/desk/clusters/{CLUSTER}/"):
            answer = await page.get(httpx.URL("http://desk", raw_path=(start + path).encode()))
            assert answer.status_code in (400, 403, 404), path
    assert [one.raw_path for one in schedulers.asked if ANOTHER in one.raw_path] == []
    assert schedulers.asked == []


@pytest.mark.parametrize(
    "name", ["student", CLUSTER.upper(), CLUSTER[:-1], CLUSTER + "0", "%2e%2e", "a" * 500, "%00", "..;"]
)
async def test_a_name_that_no_cluster_has_is_not_looked_up(
    here: DeskInProcess, schedulers: Schedulers, name: str
) -> None:
    async with here.browser("operator", **PAGE) as browser:
        for address in (f"/services/desk/clusters/{name}", f"/services/desk/clusters/{name}/status"):
            assert (await browser.get(address)).status_code == 404
        assert (await browser.get(base_of(name, "x") + "status")).status_code == 404
    assert schedulers.asked == []


async def test_another_kind_of_lease_has_no_dashboard(here: DeskInProcess) -> None:
    async with here.browser("operator", **PAGE) as browser:
        assert (await browser.get(page_of(ANOTHER))).status_code == 404


# -- what comes back ------------------------------------------------------------------------------------------------------


async def test_a_hostile_page_is_shut_in(here: DeskInProcess, schedulers: Schedulers) -> None:
    async def hostile(request: web.Request) -> web.StreamResponse:
        answer = web.Response(text="<script>steal()</script>", content_type="text/html")
        answer.headers.update(
            {
                "Content-Security-Policy": "default-src *",
                "Service-Worker-Allowed": "/",
                "Access-Control-Allow-Credentials": "true",
                "Clear-Site-Data": '"*"',
                "Refresh": "0;url=https://elsewhere.example",
                "Link": "</x>; rel=preload",
                "Strict-Transport-Security": "max-age=1",
                "WWW-Authenticate": "Basic",
                "X-Anything": "1",
            }
        )
        answer.set_cookie(COOKIE, "theirs", path="/")
        return answer

    schedulers.pages["status"] = hostile
    base = await a_pass(here)
    async with here.browser(**PART) as page:
        answer = await page.get(base + "status")
    assert answer.text == "<script>steal()</script>"
    assert set(answer.headers) == {
        *("content-length", "content-type", "content-security-policy", "cross-origin-resource-policy"),
        *("access-control-allow-origin", "cross-origin-opener-policy", "referrer-policy"),
        *("x-content-type-options", "cache-control", "permissions-policy"),
    }
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["sandbox"] == "allow-scripts"
    assert policy["connect-src"].split() == [
        f"{scheme}://desk{base}" for scheme in ("http", "https", "ws", "wss")
    ]
    assert policy["default-src"] == policy["form-action"] == policy["base-uri"] == "'none'"


@pytest.mark.parametrize("host", ["a b", "evil; script-src *", "x\"'", "h,i", ""])
def test_a_host_that_is_none_widens_no_policy(host: str) -> None:
    policy = page_headers(host, "/services/desk/clusters/x/-/p/")["Content-Security-Policy"]
    assert "connect-src 'self';" in policy
    assert "*" not in policy


@pytest.mark.parametrize(
    ("location", "want"),
    [
        ("status", "status"),
        ("../status", None),
        ("/status?a=1", "B/status?a=1"),
        (f"/clusters/{CLUSTER}/workers", "B/workers"),
        (f"/clusters/{ANOTHER}/workers", f"B/clusters/{ANOTHER}/workers"),
        ("/hub/logout", "B/hub/logout"),
        ("https://elsewhere.example/", None),
        ("//elsewhere.example/", None),
        ("/\\elsewhere.example/", None),
        ("javascript:alert(1)", None),
        ("/../../hub/logout", None),
        ("http://[", None),
    ],
)
def test_where_a_redirection_may_lead(location: str, want: str | None) -> None:
    assert led_to(location, CLUSTER, "B/") == want


async def test_a_redirection_to_elsewhere_is_told(here: DeskInProcess, schedulers: Schedulers) -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("https://elsewhere.example/")

    schedulers.pages["status"] = away
    base = await a_pass(here)
    async with here.browser("researcher", **PAGE) as browser:
        answer = await browser.get(base + "status")
    assert answer.status_code == 502
    assert "elsewhere.example" not in answer.text


async def test_a_scheduler_that_does_not_answer_is_told_in_words(
    here: DeskInProcess, schedulers: Schedulers
) -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="dial tcp 10.0.0.7:8787")

    schedulers.pages["status"] = gone
    base = await a_pass(here)
    async with here.browser("researcher", **PAGE) as browser:
        answer = await browser.get(base + "status")
    assert answer.status_code == 503
    assert "does not answer at this moment" in answer.text
    assert "10.0.0.7" not in answer.text
    assert '<meta http-equiv="refresh"' in answer.text, "it looks again by itself"


async def test_what_is_large_comes_in_pieces(here: DeskInProcess, schedulers: Schedulers) -> None:
    async def large(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for number in range(64):
            await answer.write(bytes([number]) * 100_000)
        return answer

    schedulers.pages["export"] = large
    base = await a_pass(here)
    async with here.browser(**PART) as page:
        answer = await page.get(base + "export")
    assert answer.content == b"".join(bytes([number]) * 100_000 for number in range(64))


async def test_without_a_proxy_that_is_said(sqlite_database: Database) -> None:
    here = with_dashboards(sqlite_database, "")
    async with here.browser("researcher", **PAGE) as browser:
        answer = await followed(browser, STATUS)
    assert (answer.status_code, "no Dask proxy is set" in answer.text) == (503, True)
    here.desk.store.close()


# -- streams --------------------------------------------------------------------------------------------------------------


async def test_a_stream_goes_both_ways_with_the_protocol_that_the_dashboard_chose(
    here: DeskInProcess, schedulers: Schedulers
) -> None:
    base = await a_pass(here)
    headers = {"Cookie": f"{COOKIE}=desk; {HUB_SESSION}=s1", "Authorization": "token x"}
    with served(here.app) as address:
        async with websockets.connect(
            f"ws://{address}{base}status/ws?bokeh-session-id=1",
            subprotocols=[Subprotocol("bokeh"), Subprotocol("a-token-of-bokeh")],
            additional_headers=headers,
            origin=None,
            max_size=None,
        ) as stream:
            assert stream.subprotocol == "bokeh"
            await stream.send("hello")
            assert await stream.recv() == "heard hello"
            await stream.send(b"abc" * 400_000)
            assert await stream.recv() == b"cba" * 400_000
        await asyncio.to_thread(
            wait_for, lambda: schedulers.closed_with == [1000], "the browser's end is told"
        )
    asked = schedulers.asked[-1]
    assert asked.raw_path == f"/clusters/{CLUSTER}/status/ws?bokeh-session-id=1"
    assert asked.headers["sec-websocket-protocol"] == "bokeh,a-token-of-bokeh"
    for name in ("cookie", "authorization", "origin", "x-forwarded-for"):
        assert name not in asked.headers


async def test_a_stream_that_the_dashboard_ends_is_ended_so(
    here: DeskInProcess, schedulers: Schedulers
) -> None:
    base = await a_pass(here)
    with served(here.app) as address:
        async with websockets.connect(f"ws://{address}{base}status/ws") as stream:
            await stream.send("leave")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await stream.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4321


@pytest.mark.parametrize("address", ["without", "another", "plain", "outside"])
async def test_a_stream_without_its_pass_is_refused(
    here: DeskInProcess, schedulers: Schedulers, address: str
) -> None:
    base = await a_pass(here)
    path = {
        "without": base_of(CLUSTER, "no-pass") + "status/ws",
        "another": base.replace(CLUSTER, ANOTHER) + "status/ws",
        "plain": page_of(CLUSTER, "status/ws"),
        "outside": f"{base}%2e%2e/{ANOTHER}/ws",
    }[address]
    cookie = here.session("researcher")[0]["Cookie"]
    with served(here.app) as place, pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(f"ws://{place}{path}", additional_headers={"Cookie": cookie})
    assert refused.value.response.status_code in (403, 404)
    assert schedulers.streams == []


async def test_an_open_stream_is_cut_when_its_reader_may_look_no_more(
    here: DeskInProcess, schedulers: Schedulers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "LOOK_SECONDS", 0.05)
    base = await a_pass(here)
    with served(here.app) as address:
        async with websockets.connect(f"ws://{address}{base}status/ws") as stream:
            await stream.send("hello")
            assert await stream.recv() == "heard hello"
            here.hub.away = True
            await stream.send("hub away")
            assert await stream.recv() == "heard hub away", "nobody is cut off because the hub restarts"
            here.hub.away = False
            del here.hub.identities["token-researcher"]
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await stream.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_a_stream_to_a_scheduler_that_is_gone_is_refused(here: DeskInProcess) -> None:
    base = await a_pass(here)
    here.app.state.front.proxy_url = "http://127.0.0.1:9"
    with served(here.app) as address, pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(f"ws://{address}{base}status/ws")
    assert refused.value.response.status_code == 503


def test_a_pass_lasts_a_day() -> None:
    assert PASS_SECONDS == 24 * HOUR
