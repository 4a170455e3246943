"""Clusters in a real Chromium: their cards, and a hostile dashboard that an operator looks at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from playwright.sync_api import Browser, BrowserContext, Page, expect
from starlette.types import ASGIApp, Receive, Scope, Send

from hub_ext.core.clock import MINUTE
from hub_ext.desk.auth import COOKIE, HUB_SESSION
from hub_ext.desk.front_rules import page_of
from tests.desk import dashboards
from tests.desk.clustered import ANOTHER, Clustered, clustered
from tests.desk.dashboards import CLUSTER, Schedulers, with_dashboards
from tests.desk.in_process import DeskInProcess
from tests.desk.lively import NEIGHBOUR, START, STUDENT
from tests.desk.test_reports_in_browser import fits, opened, served
from tests.support.axe import check_access
from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.databases import Database

pytestmark = [pytest.mark.browser, needs_chromium]

HOSTILE = """<!DOCTYPE html><title>Dask</title><script src="static/own.js"></script><body><script>
const told = {};
const settle = async (name, act) => { try { await act(); told[name] = "done"; } catch { told[name] = "refused"; } };
const attempt = (name, act) => { try { told[name] = String(act()); } catch (error) { told[name] = error.name; } };
const stream = (name, address) => new Promise((good, bad) => {
  const one = new WebSocket(address);
  one.onopen = () => { one.send("hello"); };
  one.onmessage = (message) => { told[name + " said"] = message.data; good(); };
  one.onerror = bad;
});
(async () => {
  told.origin = self.origin;
  attempt("cookies", () => document.cookie);
  attempt("storage", () => localStorage.length);
  attempt("window", () => window.open("/services/desk/mine"));
  const here = location.href.replace(/^http/, "ws");
  const everywhere = {credentials: "include", mode: "no-cors"};
  await Promise.all([
    settle("read the desk", () => fetch("/services/desk/mine", {credentials: "include"})),
    settle("order the desk", () => fetch("/services/desk/api/v1/clusters/x", {...everywhere, method: "POST"})),
    settle("order the hub", () => fetch("/hub/api/users", {...everywhere, method: "POST"})),
    settle("another dashboard", () => fetch(location.pathname.replace(/clusters\\/./, "clusters/f"))),
    settle("worker", () => navigator.serviceWorker.register("own.js")),
    settle("stream of the hub", () => stream("hub", here.replace(/services.*/, "user/operator/api/kernels"))),
    settle("own page", () => fetch("own.json")),
    settle("own stream", () => stream("own", here + "/ws")),
  ]);
  for (const [tag, name] of [["img", "src"], ["iframe", "src"], ["script", "src"], ["link", "href"]]) {
    const one = document.createElement(tag);
    one.rel = "stylesheet";
    await new Promise((done) => {
      one.onload = () => { told[tag] = "loaded"; done(); };
      one.onerror = () => { told[tag] = "refused"; done(); };
      one[name] = "/services/desk/mine?by=" + tag;
      document.body.append(one);
      setTimeout(done, 1000);
    });
  }
  const form = document.createElement("form");
  form.method = "post";
  form.action = "/services/desk/mine/stop";
  document.body.append(form);
  attempt("form", () => form.submit());
  told.finished = true;
})();
window.told = told;
</script></body>"""


class Heard:
    """Every request that reaches the desk: its path, and whether a session came with it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.requests: list[tuple[str, bool]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            cookies = dict(scope["headers"]).get(b"cookie", b"")
            self.requests.append((scope["path"], COOKIE.encode() in cookies))
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def schedulers() -> Iterator[Schedulers]:
    with Schedulers().running() as made:
        yield made


def signed_in(browser: Browser, here: DeskInProcess, address: str, person: str) -> BrowserContext:
    context = browser.new_context()
    session = here.session(person)[0]["Cookie"].split(";")[0].partition("=")[2]
    for name, value in ((COOKIE, session), (HUB_SESSION, "s1"), ("jupyterhub-hub-login", "x")):
        context.add_cookies([{"name": name, "value": value, "url": f"http://{address}/", "sameSite": "Lax"}])
    return context


def test_a_hostile_dashboard_does_nothing_as_the_operator_who_looks_at_it(
    browser: Browser, sqlite_database: Database, schedulers: Schedulers
) -> None:
    async def hostile(request: web.Request) -> web.StreamResponse:
        return web.Response(text=HOSTILE, content_type="text/html")

    async def own(request: web.Request) -> web.StreamResponse:
        return web.Response(text="window.loaded = true", content_type="text/javascript")

    schedulers.pages |= {"status": hostile, "static/own.js": own}
    here = with_dashboards(sqlite_database, schedulers.url)
    heard = Heard(here.app)
    with dashboards.served(heard) as address:  # type: ignore[arg-type]
        context = signed_in(browser, here, address, "operator")
        page = context.new_page()
        page.goto(f"http://{address}{page_of(CLUSTER)}")
        page.wait_for_function("window.told && window.told.finished")
        told: dict[str, Any] = page.evaluate("window.told")
        loaded = page.evaluate("window.loaded")
        where = page.url
        context.close()
    here.desk.store.close()
    assert told.pop("finished")
    assert told == {
        "origin": "null",
        "cookies": "SecurityError",
        "storage": "SecurityError",
        "window": "null",
        "read the desk": "refused",
        "order the desk": "refused",
        "order the hub": "refused",
        "another dashboard": "refused",
        "worker": "refused",
        "stream of the hub": "refused",
        "own page": "done",
        "own stream": "done",
        "own said": "heard hello",
        "img": "refused",
        "script": "refused",
        "link": "refused",
        "form": "undefined",
        **({"iframe": told["iframe"]} if "iframe" in told else {}),
    }
    assert loaded
    base = urlsplit(where).path.removesuffix("status")
    assert {path for path, _ in heard.requests} - {"/favicon.ico"} == {
        page_of(CLUSTER),
        *(base + part for part in ("status", "static/own.js", "own.json", "status/ws")),
    }
    with_a_session = [path for path, session in heard.requests if session]
    assert with_a_session == [page_of(CLUSTER), base + "status"], "only the pages that the operator opened"


def test_a_dashboard_stands_in_a_page_of_jupyterlab_and_is_as_foreign_there(
    browser: Browser, sqlite_database: Database, schedulers: Schedulers
) -> None:
    async def drawn(request: web.Request) -> web.StreamResponse:
        return web.Response(
            text="<script>document.title = self.origin; document.write('<p id=here>drawn</p>')</script>",
            content_type="text/html",
        )

    schedulers.pages["individual-cpu"] = drawn
    here = with_dashboards(sqlite_database, schedulers.url)
    with dashboards.served(here.app) as address:
        context = signed_in(browser, here, address, "researcher")
        page = context.new_page()
        lab = f"<iframe src={page_of(CLUSTER, 'individual-cpu')}></iframe>"
        page.route("**/user/researcher/lab", lambda route: route.fulfill(body=lab, content_type="text/html"))
        page.goto(f"http://{address}/user/researcher/lab")
        frame = page.frame_locator("iframe")
        expect(frame.locator("#here")).to_have_text("drawn")
        reached = page.evaluate(
            "() => { try { return document.querySelector('iframe').contentWindow.location.href } "
            "catch (error) { return error.name } }"
        )
        assert reached == "SecurityError", "the page around it does not learn the pass"
        context.close()
    here.desk.store.close()


@pytest.fixture
def centre(sqlite_database: Database) -> Iterator[Clustered]:
    made = clustered(sqlite_database)
    made.book("train", h200=1)
    made.start_cluster()
    made.grow(4)
    made.grow(6, running=False)
    made.take_back(made.workers()[0].id, START + 10 * MINUTE, "theirs")
    made.start_cluster(ANOTHER, profile="gpu")
    made.grow(5, ANOTHER, profile="gpu")
    made.book("theirs", NEIGHBOUR, h200=1)
    yield made
    made.store.close()


@pytest.mark.parametrize(
    ("language", "width", "scheme"),
    [("en", 1200, "light"), ("ko", 1200, "dark"), ("ko", 390, "light"), ("en", 390, "dark")],
)
def test_the_cards_of_clusters_are_open_to_everybody(
    browser: Browser, centre: Clustered, language: str, width: int, scheme: str
) -> None:
    with (
        served(centre, STUDENT) as home,
        opened(
            browser,
            home,
            "/services/desk/mine",
            language=language,
            width=width,
            scheme=scheme,
            looked_over=True,
        ) as page,
    ):
        path = screenshot_path(f"desk-clusters-{language}-{width}-{scheme}")
        page.screenshot(path=path, full_page=True)
        assert fits(page)
        check_access(page)


def test_a_cluster_is_stopped_after_a_question(browser: Browser, centre: Clustered) -> None:
    with served(centre, STUDENT) as home, opened(browser, home, "/services/desk/mine") as page:
        card = page.locator(f'[data-cluster="{ANOTHER}"]')
        asked: list[str] = []
        page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
        card.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("status")).to_have_text(
            "The cluster is being stopped. Your notebook goes on."
        )
        expect(_card(page)).to_contain_text("Stopping")
    assert asked == ["Stop this cluster? What its workers hold is lost; your notebook goes on."]


def _card(page: Page) -> Any:
    return page.locator(f'[data-cluster="{ANOTHER}"]')
