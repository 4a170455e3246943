"""A researcher's cluster from the panel to the desk and back, on a hub as `make hub` starts it, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.support.browser import chromium, needs_chromium
from tests.support.desk_story import take_a_seat
from tests.support.hub import ROOT, EmbeddedHub, wait_for
from tests.support.panel_in_lab import PanelInLab, notebook_of

pytestmark = [pytest.mark.slow, pytest.mark.browser, needs_chromium]

PANEL = "from hub_ext.notebook import clusters\npanel = clusters.panel()\npanel"
COMPUTE = """
import dask.array as da
from distributed import get_client
get_client()
int(da.arange(1_000_000, chunks=10_000).sum().compute())
"""
LONG = 90_000  # ms


def test_from_the_panel_to_the_desk_and_back(make_hub: Callable[..., EmbeddedHub]) -> None:
    hub = make_hub(settings={"cluster_profiles": str(ROOT / "cluster_profiles")})
    with chromium() as browser:
        seat = take_a_seat(browser, hub, "researcher", "ko", viewport={"width": 1200, "height": 1000})
        seat.start("cpu-small")
        seat.in_the_lab()
        (hub.state / "homes" / "researcher" / "panel.ipynb").write_text(notebook_of(PANEL, COMPUTE))
        # 1. What there is to choose, what it costs, and what is left, as the desk of this hub knows it.
        seat.page.goto(f"{seat.lab}/tree/panel.ipynb")
        seat.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=LONG)
        lab = PanelInLab(seat.page)
        lab.run(0)
        for text in ("CPU 워커", "GPU 조각 워커", "GPU 워커", "60 GPU시간"):
            expect(lab.panel).to_contain_text(text, timeout=LONG)
        seat.look("panel-choice-ko")
        # 2. Two workers, which compute.
        lab.panel.get_by_label("워커", exact=True).first.fill("2")
        seat.page.keyboard.press("Tab")
        lab.button("시작").click()
        expect(lab.panel.get_by_role("meter")).to_have_count(3, timeout=LONG)
        assert str(sum(range(1_000_000))) in lab.run(1).inner_text()
        seat.look("panel-running-ko")
        # 3. The desk shows the same cluster; the panel's link leads to its dashboard.
        desk = seat.beside()
        desk.desk()
        card = desk.page.locator("#mine-clusters .hd-server")
        expect(card).to_have_count(1)
        expect(card).to_contain_text("CPU 워커")
        desk.look("panel-cluster-on-mine-ko", full=True)
        dashboard = seat.beside()
        link = lab.panel.get_by_role("link", name=re.compile("대시보드")).get_attribute("href")
        dashboard.page.goto(f"{hub.url}{link}")
        expect(dashboard.page).to_have_title(re.compile("Dask"))
        dashboard.look("panel-dashboard")
        # 4. It is stopped at the desk, and the notebook says that it ended.
        desk.page.once("dialog", lambda dialog: dialog.accept())
        card.get_by_role("button", name="종료").click()
        expect(desk.page.locator("#mine-clusters .hd-server")).to_have_count(0, timeout=LONG)
        expect(lab.panel).to_contain_text("클러스터가 끝났습니다", timeout=LONG)
        seat.look("panel-ended-ko")
        wait_for(lambda: [one["kind"] for one in hub.leases()] == ["server"], "only the server is left")
        assert seat.complaints == []
