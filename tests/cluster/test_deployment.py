"""The whole story on the deployed hub, over HTTP and in Chromium: with demo people, and through an identity provider."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.cluster import Cluster
from tests.support.deployed import SYSTEM, DeployedHub
from tests.support.hub import ROOT, Visitor, text_of, wait_for
from tests.support.keycloak import PASSWORD, SECRET, Guest, Keycloak, needs_java
from tests.support.kube_hub import GATEWAY
from tests.support.story import code_cells, run_cells, run_notebook_in, seconds_between

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(autouse=True)
def nothing_runs(hub: DeployedHub) -> Iterator[None]:
    """Nothing was left here, and a test that fails leaves nothing to the next."""
    hub.end_all()
    yield
    hub.end_all()


@pytest.fixture
def browser() -> Iterator[Browser]:
    """For one test: while it is there, an event loop runs, and no asynchronous test can."""
    with chromium() as one:
        yield one


# -- over HTTP ---------------------------------------------------------------------------------------------------------


async def a_persons_story(hub: DeployedHub, visitor: Visitor) -> None:
    """From the start page to what it cost."""
    name = visitor.name
    page = text_of(visitor.http.get("/hub/spawn").text)
    assert "One H200 slice" in page
    assert "Now" in page

    answer = visitor.submit_form("h200-slice", minutes="60")
    assert answer.status_code == 200
    visitor.wait_until_ready(seconds=120)
    lease = hub.lease_of(name)
    assert (lease["profile"], lease["state"]) == ("h200-slice", "running")

    # The pod says whose it is, and has exactly the lease's GPUs.
    (pod,) = hub.pods()
    meta, (container,) = pod["metadata"], pod["spec"]["containers"]
    assert meta["labels"]["hangang-hub/lease"] == lease["id"]
    assert meta["labels"]["hangang-hub/pool"] == lease["pool"]
    assert container["resources"]["limits"]["nvidia.com/mig-1g.18gb"] == "1"
    assert lease["handle"].endswith(meta["uid"])
    assert lease["node"] == pod["spec"]["nodeName"]

    assert visitor.http.get(f"/user/{name}/lab").status_code == 200
    outputs = await run_cells(visitor, code_cells(visitor))
    drawn = [kind for kind, text in outputs if kind == "display_data" and "image/png" in text]
    assert len(drawn) >= 3, "the notebook draws its plots"

    visitor.stop()
    wait_for(lambda: not hub.leases(), "the lease is released", 30)
    released = next(one for one in hub.all_leases() if one["id"] == lease["id"])
    assert released["reason"] == "stopped"
    assert hub.pods() == []
    rows = json.loads(hub.command("usage", "--by", "person", "--format", "json"))["rows"]
    mine = sum(row["gpu_hours"] for row in rows if row["person"] == name)
    seconds = seconds_between(released["started_at"], released["released_at"])
    rate = 0.143 * (1.0 if lease["guaranteed"] else 0.5)
    assert mine >= seconds * rate / 3600 - 1e-4, "what ran is charged"


async def test_a_demo_person_runs_the_city_notebook(hub: DeployedHub) -> None:
    await a_persons_story(hub, hub.come("student"))


async def test_files_outlive_a_server_and_are_there_in_every_server_of_a_person(hub: DeployedHub) -> None:
    visitor = hub.come("researcher")
    visitor.start({"profile": "cpu-small"})
    visitor.wait_until_ready(seconds=120)
    visitor.http.get("/user/researcher/lab")
    await run_cells(visitor, ["open('/home/jovyan/kept.txt', 'w').write('kept')"])
    visitor.stop()
    visitor.start({"profile": "cpu-small"}, "second")
    visitor.wait_until_ready("second", seconds=120)
    visitor.http.get("/user/researcher/second/lab")
    found = visitor.http.get("/user/researcher/second/api/contents/kept.txt", params={"content": "1"})
    assert found.json()["content"] == "kept"
    # Deleting a named server for good leaves the home.
    visitor.api("DELETE", "/users/researcher/servers/second", json={"remove": True})
    wait_for(lambda: "second" not in visitor.servers(), "the named server is gone", 60)
    assert hub.cluster.list("persistentvolumeclaims", "hangang-users")


def test_a_hub_that_is_killed_finds_every_server_again(hub: DeployedHub) -> None:
    visitor = hub.come("student")
    visitor.start({"profile": "h200-slice"})
    visitor.wait_until_ready(seconds=120)
    (before,) = hub.pods()
    hub.kill_hub()
    wait_for(
        lambda: visitor.http.get("/hub/health").status_code == 200, "the hub answers through the proxy", 60
    )
    visitor.wait_until_ready(seconds=60)
    (after,) = hub.pods()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert hub.lease_of("student")["handle"].endswith(before["metadata"]["uid"])
    visitor.stop()


def test_whose_pod_was_deleted_reads_why_the_server_is_gone(hub: DeployedHub, cluster: Cluster) -> None:
    visitor = hub.come("student")
    visitor.start({"profile": "h200-slice"})
    visitor.wait_until_ready(seconds=120)
    lease = hub.lease_of("student")
    (pod,) = hub.pods()
    cluster.delete("pod", pod["metadata"]["name"], pod["metadata"]["namespace"])
    wait_for(lambda: "" not in visitor.servers(), "the hub notices", 60)
    page = visitor.http.get("/user/student/lab")
    assert "removed from the cluster" in text_of(page.text)
    released = next(one for one in hub.all_leases() if one["id"] == lease["id"])
    assert (released["state"], released["reason"]) == ("released", "deleted")


# -- in a browser --------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize(
    ("locale", "width"), [("en-US", 1200), ("ko-KR", 390)], ids=["on a desk", "in Korean on a phone"]
)
def test_in_a_browser_with_demo_people(browser: Browser, hub: DeployedHub, locale: str, width: int) -> None:
    page = browser.new_context(locale=locale, viewport={"width": width, "height": 900}).new_page()
    page.set_default_timeout(90_000)
    page.goto(f"{hub.url}/hub/login?next=/hub/spawn")
    page.fill("input[name=username]", "student")
    page.fill("input[name=password]", hub.password)
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/hub/spawn")
    story_in(page, hub, "student", f"{locale}-{width}")
    page.context.close()


def story_in(page: Page, hub: DeployedHub, name: str, picture: str) -> None:
    card = page.locator("#card-h200-slice")
    expect(card).to_be_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=screenshot_path(f"cluster-start-{picture}"), full_page=True)
    card.locator("button[type=submit]").click()
    # What the start waits for is told in words, not as the cluster's events.
    message = page.locator("#progress-message")
    if message.count():
        page.screenshot(path=screenshot_path(f"cluster-progress-{picture}"))
    page.wait_for_url(re.compile(f"/user/{name}/lab"))
    page.wait_for_selector("#jp-main-dock-panel")
    run_notebook_in(page, f"{hub.url}/user/{name}", f"cluster-notebook-{picture}")
    page.goto(f"{hub.url}/hub/home")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=screenshot_path(f"cluster-home-{picture}"), full_page=True)
    page.locator("a.stop-server, button.stop-server, #stop").first.click()
    wait_for(lambda: not hub.leases(), "the lease is released", 60)


# -- through an identity provider ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(
    hub: DeployedHub, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keycloak]:
    """The deployed hub signs people in through it; afterwards it is the demo's again."""
    one = Keycloak(tmp_path_factory.mktemp("keycloak"), host=GATEWAY)
    try:
        one.start()
        oidc = one.settings(hub)  # type: ignore[arg-type]
        secret = oidc.pop("client_secret")
        assert secret == SECRET
        change(
            cluster,
            "hub-settings",
            "hub.yaml",
            lambda text: yaml.safe_dump(yaml.safe_load(text) | {"oidc": oidc}),
        )
        rules = (ROOT / "policy" / "identity-oidc.yaml").read_text()
        change(cluster, "hub-identity", "identity.yaml", lambda text: rules)
        cluster.kubectl(
            "set", "env", "deployment/hub", f"HUB_OIDC_CLIENT_SECRET={secret}", f"--namespace={SYSTEM}"
        )
        for part in ("hub", "desk"):
            cluster.kubectl("rollout", "restart", f"deployment/{part}", f"--namespace={SYSTEM}")
            cluster.kubectl(
                "rollout",
                "status",
                f"deployment/{part}",
                f"--namespace={SYSTEM}",
                "--timeout=180s",
                seconds=200,
            )
        yield one
    finally:
        one.stop()
        cluster.kubectl("set", "env", "deployment/hub", "HUB_OIDC_CLIENT_SECRET-", f"--namespace={SYSTEM}")
        hub.deploy("local")
        for part in ("hub", "desk"):
            cluster.kubectl("rollout", "restart", f"deployment/{part}", f"--namespace={SYSTEM}")
            cluster.kubectl(
                "rollout",
                "status",
                f"deployment/{part}",
                f"--namespace={SYSTEM}",
                "--timeout=180s",
                seconds=200,
            )


def change(cluster: Cluster, prefix: str, key: str, how: Any) -> None:
    """The newest ConfigMap of this name, in place."""
    found = [
        one for one in cluster.list("configmaps", SYSTEM) if one["metadata"]["name"].startswith(f"{prefix}-")
    ]
    for one in found:
        patch = json.dumps({"data": {key: how(one["data"][key])}})
        cluster.kubectl(
            "patch",
            "configmap",
            one["metadata"]["name"],
            f"--namespace={SYSTEM}",
            "--type=merge",
            f"--patch={patch}",
        )


@pytest.mark.keycloak
@needs_java
async def test_somebody_who_signs_in_through_the_provider_runs_the_city_notebook(
    hub: DeployedHub, provider: Keycloak
) -> None:
    guest = Guest(hub, "haneul")  # type: ignore[arg-type]
    home = guest.come()
    assert home.status_code == 200, home.text
    assert "Hangang University" in text_of(home.text)
    await a_persons_story(hub, guest)


@pytest.mark.keycloak
@pytest.mark.browser
@needs_java
@needs_chromium
def test_in_a_browser_through_the_provider(browser: Browser, hub: DeployedHub, provider: Keycloak) -> None:
    page = browser.new_context(locale="en-US", viewport={"width": 1200, "height": 900}).new_page()
    page.set_default_timeout(90_000)
    page.goto(f"{hub.url}/hub/login?next=/hub/spawn")
    page.get_by_role("button", name="Sign in with Hangang ID").click()
    page.fill("#username", "haneul")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_url("**/hub/spawn")
    story_in(page, hub, "haneul", "provider")
    page.context.close()
