"""The panel in JupyterLab in a real browser, with a real kernel, gateway, scheduler and workers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import chromium, needs_chromium, screenshot_path
from tests.support.clusters_desk import HOURS, NO_ROOM, NOT_YOURS, NOTICE, ClustersDesk
from tests.support.gateway import RealGateway
from tests.support.hub import wait_for
from tests.support.notebook_desk import TOKEN, notebook
from tests.support.panel_in_lab import PanelInLab, notebook_of

pytestmark = [pytest.mark.browser, pytest.mark.slow, needs_chromium]

CELLS = (
    "from hub_ext.notebook import clusters\npanel = clusters.panel()\npanel",
    "from distributed import get_client\nget_client().submit(lambda: 6 * 7).result()",
    "panel.close()",
)
LONG = 90_000  # ms; the machine of a test may be busy with others


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@contextmanager
def opened(
    browser: Browser,
    gateway: RealGateway,
    desk: ClustersDesk,
    home: Path,
    *,
    language: str = "en",
    width: int = 1280,
    dark: bool = False,
) -> Iterator[PanelInLab]:
    home.mkdir()
    (home / "panel.ipynb").write_text(notebook_of(*CELLS))
    if dark:
        settings = home / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension"
        settings.mkdir(parents=True)
        (settings / "themes.jupyterlab-settings").write_text('{"theme": "JupyterLab Dark"}')

    def told(environment: dict[str, str]) -> None:
        environment.update(gateway.environment | {"HANGANG_LANGUAGE": language, "HANGANG_SERVER": ""})

    with notebook(desk.url, home, told) as lab:
        page = browser.new_page(viewport={"width": width, "height": 1000})
        try:
            page.goto(f"{lab.url}lab/tree/panel.ipynb?token={TOKEN}")
            page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=LONG)
            if width < 700:
                page.keyboard.press("Control+b")
            seen = PanelInLab(page)

            def has_kernel() -> bool:
                status, kernels = lab.ask("api/kernels")
                # While one is just being made, the server cannot list them.
                return status == 200 and any(one["connections"] for one in kernels)

            # Before that, a cell that is run makes JupyterLab ask for one.
            wait_for(has_kernel, "the notebook's kernel", 90)
            seen.run(0)
            expect(seen.panel).to_contain_text(HOURS[language], timeout=LONG)
            yield seen
        finally:
            page.close()
            for kernel_of in lab.ask("api/kernels")[1]:
                lab.ask(f"api/kernels/{kernel_of['id']}", method="DELETE")
    wait_for(lambda: not gateway.running(), "the end of every cluster with the kernel", 30)


def test_a_cluster_from_the_panel(
    browser: Browser, gateway: RealGateway, desk: ClustersDesk, tmp_path: Path
) -> None:
    with opened(browser, gateway, desk, tmp_path / "home") as lab:
        panel = lab.panel
        # 1. Every size says how it stands, by a word; the first that can start is chosen.
        for words in ("✓ Now", "◐ Now, borrowed", "◷ Wait", "■ Not possible"):
            expect(panel.get_by_label(re.compile(re.escape(words))).first).to_be_visible()
        expect(panel).to_contain_text("room for 3 workers")
        expect(panel).to_contain_text("4 workers: no GPU-hours. 1 of them has no room now")
        # 2. What it costs, and why not more, follows the choice.
        panel.get_by_label(re.compile("One H200 slice")).check()
        expect(panel).to_contain_text("4 workers: 0.29 GPU-h/hour.")
        panel.get_by_label(re.compile("Many H200")).check()
        expect(panel).to_contain_text(NOT_YOURS["en"])
        expect(lab.button("Start")).to_be_disabled()
        panel.get_by_label(re.compile("CPU worker")).check()
        # 3. What to use for how much data.
        panel.get_by_label("How much data?").select_option("under 10 GB")
        expect(panel).to_contain_text("Under 10 GB you need no cluster: pandas, Polars")
        assert lab.violations() == []
        lab.page.screenshot(path=screenshot_path("clusters-choice"))
        # 4. Start: it computes, and its bars are there.
        panel.get_by_label("Workers", exact=True).first.fill("2")
        lab.page.keyboard.press("Tab")
        lab.button("Start").click()
        expect(panel.get_by_role("meter", name=re.compile("All workers"))).to_be_visible(timeout=LONG)
        expect(panel.get_by_role("meter")).to_have_count(3, timeout=LONG)
        assert "42" in lab.run(1).inner_text()
        assert gateway.asked()[-1]["pool"] == "hangang-univ"
        link = panel.get_by_role("link", name=re.compile("Dashboard"))
        assert re.fullmatch(r"/services/desk/clusters/\w{32}/status", link.get_attribute("href") or "")
        # 5. What is taken back and what is waited for.
        desk.facts = {
            "workers": {"live": 2, "running": 2, "guaranteed": 1, "borrowed": 1, "wanted": 2},
            "notice": {"at": "", "ends_at": "", "workers": 1, "message": NOTICE["en"]},
            "waiting": {
                "message": NO_ROOM["en"],
                "place": 2,
                "eta": {"at": "2026-11-26T14:20:00+09:00", "kind": "expected", "sentence": "expected 14:20"},
            },
        }
        expect(panel.get_by_role("alert")).to_contain_text(NOTICE["en"], timeout=LONG)
        expect(panel).to_contain_text("Place in line: 2. Expected 14:20.")
        assert lab.violations() == []
        lab.page.screenshot(path=screenshot_path("clusters-running"))
        # 6. Fewer, then none.
        panel.get_by_label("Workers", exact=True).last.fill("1")
        lab.button("Scale").click()
        expect(panel.get_by_role("meter")).to_have_count(1, timeout=LONG)
        lab.button("Stop the cluster").click()
        expect(panel).to_contain_text("The cluster is stopped.", timeout=LONG)
        expect(lab.button("Start")).to_be_visible()
        assert not gateway.running()


def test_somebody_gives_up_and_a_refusal_is_told(
    browser: Browser, gateway: RealGateway, desk: ClustersDesk, tmp_path: Path
) -> None:
    desk.renamed = {"cpu": "without-room", "slice": "refused"}
    with opened(browser, gateway, desk, tmp_path / "home") as lab:
        lab.button("Start").click()
        expect(lab.panel).to_contain_text("waiting for the first of 4 workers", timeout=LONG)
        lab.button("Give up").click()
        expect(lab.panel).to_contain_text("Given up: nothing was left running.", timeout=LONG)
        assert not gateway.running()
        lab.panel.get_by_label(re.compile("One H200 slice")).check()
        lab.button("Start").click()
        expect(lab.panel).to_contain_text("Your limit is 2 GPUs; start 2 workers or fewer.", timeout=LONG)


def test_a_cluster_that_ended_elsewhere_is_told_and_a_closed_panel_is_gone(
    browser: Browser, gateway: RealGateway, desk: ClustersDesk, tmp_path: Path
) -> None:
    with opened(browser, gateway, desk, tmp_path / "home") as lab:
        lab.button("Start").click()
        expect(lab.panel.get_by_role("meter").first).to_be_visible(timeout=LONG)
        for name in gateway.running():
            gateway.stop(name)
        expect(lab.panel).to_contain_text("The cluster ended", timeout=LONG)
        lab.run(2)
        expect(lab.panel).to_have_count(0)


def test_a_desk_that_is_away_is_told(
    browser: Browser, gateway: RealGateway, desk: ClustersDesk, tmp_path: Path
) -> None:
    with opened(browser, gateway, desk, tmp_path / "home") as lab:
        desk.fails = "failing"
        expect(lab.panel).to_contain_text("The desk does not answer.", timeout=LONG)
        expect(lab.panel).to_contain_text("CPU worker")


@pytest.mark.parametrize(
    ("language", "width", "dark"),
    [
        pytest.param("ko", 1280, False, id="korean"),
        pytest.param("en", 390, False, id="narrow"),
        pytest.param("ko", 390, True, id="korean-narrow-dark"),
        pytest.param("en", 1280, True, id="dark"),
    ],
)
def test_it_looks_right(
    browser: Browser,
    gateway: RealGateway,
    desk: ClustersDesk,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    language: str,
    width: int,
    dark: bool,
) -> None:
    name = request.node.callspec.id
    with opened(browser, gateway, desk, tmp_path / "home", language=language, width=width, dark=dark) as lab:
        assert lab.violations() == []
        assert not lab.overflows()
        lab.page.screenshot(path=screenshot_path(f"clusters-choice-{name}"))
        lab.button({"en": "Start", "ko": "시작"}[language]).click()
        expect(lab.panel.get_by_role("meter").first).to_be_visible(timeout=LONG)
        assert lab.violations() == []
        assert not lab.overflows()
        lab.page.screenshot(path=screenshot_path(f"clusters-running-{name}"))
