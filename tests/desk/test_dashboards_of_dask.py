"""Dask's own dashboard behind the desk: a real gateway, Dask proxy, scheduler and worker, drawn in a real Chromium."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import httpx
import pytest
from dask_gateway import GatewayCluster
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from hub_ext.desk.access import SCOPES as DESK_SCOPES
from hub_ext.desk.app import create_app
from hub_ext.desk.auth import COOKIE, sealed
from tests.desk.dashboards import served
from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.cluster_site import SCOPES, ClusterSite, cluster_site, known
from tests.support.hub import wait_for

pytestmark = [pytest.mark.browser, needs_chromium]

OF_BOKEH = "[bokeh "
"""Begins what its pages say on their console wherever they stand; that something was refused, the browser says."""
DRAWN = """text => window.Bokeh && Bokeh.documents.some(
  one => [...one._all_models.values()].some(model => String(model.text || "").includes(text)))"""
"""What stands in a drawing, as the page's stream last told it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSite]:
    with cluster_site(tmp_path_factory.mktemp("dashboards") / "site") as made:
        for name in ("student", "classmate"):
            made.tokens[f"{name}-token"] = known(name, scopes=[*SCOPES, *DESK_SCOPES])
        yield made


@pytest.fixture
def app(site: ClusterSite) -> FastAPI:
    return create_app(site.factory.desk())


@pytest.fixture(scope="module")
def cluster(site: ClusterSite) -> Iterator[GatewayCluster]:
    with site.client() as gateway:
        made = gateway.new_cluster(profile="cpu")
        made.scale(1)
        wait_for(lambda: len(site.workers(made.name)) == 1, "a worker is granted")
        yield made


def page_for(app: FastAPI, address: str, browser: object, person: str) -> Page:
    """A new page where this person is signed in at the desk."""
    session = str(sealed(app.state.desk, "session").dumps([f"{person}-token", secrets.token_urlsafe(8)]))
    page: Page = browser.new_page(viewport={"width": 1300, "height": 800})  # type: ignore[attr-defined]
    page.context.add_cookies(
        [{"name": COOKIE, "value": session, "url": f"http://{address}/", "sameSite": "Lax"}]
    )
    return page


def test_dasks_pages_are_drawn_and_go_on_by_themselves(
    site: ClusterSite, app: FastAPI, cluster: GatewayCluster
) -> None:
    with served(app) as address, chromium() as browser:
        page = page_for(app, address, browser, "student")
        complaints: list[str] = []
        page.on(
            "console",
            lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://{address}{cluster.dashboard_link}")
        assert "/-/" in page.url
        expect(page).to_have_title("Dask: Status")
        with cluster.get_client() as client:
            done = client.map(lambda number: number + 1, range(50))
            client.gather(done)
            page.wait_for_function(DRAWN, arg="total: 50", timeout=30_000)
            page.screenshot(path=screenshot_path("desk-dashboard-of-dask"))
        for name, title in (
            ("Workers", "Dask: Workers"),
            ("Tasks", "Dask: Task Stream"),
            ("Graph", "Dask: Task Graph"),
        ):
            page.get_by_role("link", name=name, exact=True).click()
            expect(page).to_have_title(title)
        assert page.evaluate("self.origin") == "null"
        assert [one for one in complaints if not one.startswith(OF_BOKEH)] == []


def test_nobody_else_sees_it_and_the_desk_ends_it(
    site: ClusterSite, app: FastAPI, cluster: GatewayCluster
) -> None:
    address_of = f"/services/desk/clusters/{cluster.name}/status"
    assert cluster.dashboard_link == address_of

    def ask(method: str, path: str, person: str) -> httpx.Response:
        headers = {"Authorization": f"token {person}-token"}
        return httpx.request(method, f"http://{address}{path}", headers=headers, trust_env=False, timeout=30)

    with served(app) as address:
        assert "Dask" in ask("GET", address_of, "student").text
        assert ask("GET", address_of, "classmate").status_code == 404
        api = f"/services/desk/api/v1/clusters/{cluster.name}"
        assert ask("GET", api, "student").json()["dashboard"] == address_of
        assert ask("DELETE", api, "classmate").status_code == 404
        assert ask("DELETE", api, "student").status_code == 202
        wait_for(lambda: not site.leases(cluster.name), "the gateway ended all of it")
        assert ask("GET", address_of, "student").status_code == 404
        assert ask("GET", api, "student").status_code == 404
    assert site.running() == {}
