"""The panel's widgets without a browser: what they hold, whom they ask, and that they stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import dask
import pytest

from hub_ext.notebook import clusters
from hub_ext.notebook.clusters import watch
from hub_ext.notebook.clusters.widgets import Panel
from tests.support.clusters_desk import TOKEN, ClustersDesk
from tests.support.gateway import RealGateway
from tests.support.hub import wait_for


@pytest.fixture
def told(desk: ClustersDesk, english: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClustersDesk]:
    """A desk that is asked quickly; no gateway."""
    monkeypatch.setenv("HANGANG_DESK_URL", desk.url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", TOKEN)
    monkeypatch.setattr(watch, "MENU_SECONDS", 0.6)
    with dask.config.set({"gateway.address": None}):
        yield desk


@pytest.fixture
def panel(told: ClustersDesk) -> Iterator[Panel]:
    found = clusters.panel()
    yield found
    found.close()


def sizes(panel: Panel) -> list[str]:
    return [label for label, _ in panel._sizes.options]


def test_what_was_chosen_stays_chosen_while_the_menu_changes(panel: Panel, told: ClustersDesk) -> None:
    wait_for(lambda: len(sizes(panel)) == 4, "the menu")
    assert panel._sizes.value == ("cpu", "hangang-univ")
    assert panel._minutes.value == 120, "the profile's own length"
    panel._sizes.value = ("slice", "hangang-univ")
    panel._minutes.value = 60
    told.renamed = {"many": "more"}
    wait_for(lambda: ("more", "hangang-univ") in [value for _, value in panel._sizes.options], "another menu")
    assert panel._sizes.value == ("slice", "hangang-univ")
    assert panel._minutes.value == 60
    told.renamed = {"slice": "gone"}
    wait_for(lambda: panel._sizes.value != ("slice", "hangang-univ"), "another choice")
    assert panel._sizes.value == ("cpu", "hangang-univ"), "the first that can start"


def test_it_asks_with_the_servers_token_and_seldom_where_nobody_answers(
    panel: Panel, told: ClustersDesk
) -> None:
    wait_for(lambda: sizes(panel), "the menu")
    assert {token for _, _, token in told.asked} == {f"token {TOKEN}"}
    told.fails = "failing"
    wait_for(lambda: "does not answer" in panel._message.value, "the news")
    wait_for(lambda: panel._watch._failures >= 2, "more failures")
    assert panel._watch._pause() >= 2.4
    assert len(sizes(panel)) == 4, "what was told last stays"
    told.fails = ""
    wait_for(lambda: panel._watch._failures == 0, "an answer")


@pytest.mark.parametrize("fails", ["refusing", "nonsense"])
def test_a_desk_that_says_no_or_nonsense_is_told(told: ClustersDesk, fails: str) -> None:
    told.fails = fails
    panel = clusters.panel()
    try:
        want = {"refusing": "Your limit is 1 GPU", "nonsense": "does not answer"}[fails]
        wait_for(lambda: want in panel._message.value, "the news")
        assert panel._start.disabled
    finally:
        panel.close()


def test_a_closed_panel_stops_looking(panel: Panel) -> None:
    wait_for(lambda: sizes(panel), "the menu")
    loop = panel._watch._loop
    assert loop.is_running()
    panel.close()
    wait_for(lambda: not loop.is_running(), "the end of its thread")
    panel.close()


def test_without_a_desk_it_says_so(english: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANGANG_DESK_URL", raising=False)
    panel = clusters.panel()
    try:
        assert "knows of no desk" in panel._message.value
        assert panel._start.disabled
    finally:
        panel.close()


def test_a_start_without_a_gateway_is_told_and_never_holds_the_kernel(panel: Panel) -> None:
    wait_for(lambda: sizes(panel), "the menu")
    panel._start.click()
    wait_for(lambda: "clusters.local()" in panel._message.value, "the news")
    wait_for(lambda: not panel._start.disabled, "another try to be possible")
    assert panel.client is None


def test_it_speaks_korean_where_it_is_told_to(told: ClustersDesk) -> None:
    panel = clusters.panel(language="ko")
    try:
        assert panel._start.description == "시작"
        wait_for(lambda: sizes(panel), "the menu")
        assert sizes(panel)[0] == "CPU 워커  —  ✓ 지금 가능"
    finally:
        panel.close()


@pytest.mark.slow
def test_it_takes_the_cluster_that_runs_and_names_what_it_wishes_for(
    notebook: RealGateway, desk: ClustersDesk
) -> None:
    client = clusters.start(1)
    before = threading.active_count()
    panel = clusters.panel()
    try:
        assert panel.client is client
        wait_for(lambda: 'role="meter"' in panel._bars.value, "a bar")
        assert panel._choice.layout.display == "none"
        panel._least.value, panel._most.value = 2, 1
        panel._adapt()
        wait_for(lambda: panel._bars.value.count('role="meter"') == 3, "two workers and their sum", 90)
    finally:
        panel.close()
        client.cluster.close()
    wait_for(lambda: threading.active_count() <= before, "the end of its threads")


@pytest.mark.slow
def test_fewer_than_wished_for_is_warned_of_at_ones_own_line(notebook: RealGateway) -> None:
    cluster = clusters.start(0, "without-room").cluster
    try:
        with pytest.warns(clusters.FewerWorkers, match="Scaling to 0") as seen:
            cluster.scale(3)
        assert seen[0].filename == __file__
    finally:
        cluster.close()
    with pytest.raises(clusters.ClusterError, match="No cluster runs here any more"):
        cluster.scale(1)
