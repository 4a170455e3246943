"""The panel of clusters: choose a size, see what it costs and what is left, start, watch, scale, adapt, stop.

Nothing here waits: what takes time is done beside the kernel, and only its outcome is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from distributed import Client
from ipywidgets import (
    HTML,
    BoundedIntText,
    Button,
    Dropdown,
    HBox,
    Layout,
    RadioButtons,
    VBox,
)

from hub_ext.core.clock import Clock, SystemClock
from hub_ext.core.errors import HubError
from hub_ext.notebook.clusters import view
from hub_ext.notebook.clusters.cluster import Cluster, ClusterError, in_words, open_gateway
from hub_ext.notebook.clusters.desk import desk_of
from hub_ext.notebook.clusters.model import Menu, Offer
from hub_ext.notebook.clusters.starting import Wish, start
from hub_ext.notebook.clusters.versions import versions_differ
from hub_ext.notebook.clusters.watch import Seen, Watch
from hub_ext.notebook.clusters.words import speaker

__all__ = ["Panel"]

STYLE: Final = f"<style>{(Path(__file__).parent / 'panel.css').read_text(encoding='utf-8')}</style>"
WORKERS: Final = 4
IDLE_MINUTES: Final = (10, 20, 30, 60)
IDLE_DEFAULT: Final = 20
MOST_WITHOUT_A_MENU: Final = 256

Choice = tuple[str, str]
"""Profile and pool."""


class Panel(VBox):
    """The panel; `client` is connected to the cluster that runs, None where none does."""

    def __init__(
        self, client: Client | None = None, *, language: str | None = None, clock: Clock | None = None
    ) -> None:
        self.say = say = speaker(language)
        self._clock = clock or SystemClock()
        self._menu: Menu | None = None
        self._name, self._given_up, self._warning = "", False, ""
        self.client: Client | None = None
        self._head, self._message = HTML(), HTML()
        self._make_choice()
        self._make_running()
        super().__init__(
            [self._head, self._choice, self._running, self._message], layout=Layout(width="auto")
        )
        self.add_class("hangang-clusters")
        self._head.value = STYLE + view.head(None, say)
        self._running.layout.display = "none"
        desk = desk_of()
        if desk is None:
            self._tell("no", "■", say("This notebook knows of no desk: sizes and hours are not known here."))
        self._watch = Watch(desk, say.language, self._seen)
        found = client if client is not None else _client_of_this_kernel()
        if found is not None:
            self._follow(found)

    def close(self) -> None:
        """Take the panel away; a running cluster goes on."""
        self._watch.close()
        super().close()

    # -- the two faces ----------------------------------------------------------------------------------------

    def _make_choice(self) -> None:
        say = self.say
        wide = {"style": {"description_width": "11rem"}, "layout": Layout(width="auto", max_width="26rem")}
        data = zip(
            (say("under 10 GB"), say("10 to 100 GB"), say("over 100 GB")), view.DATA_SIZES, strict=True
        )
        self._data = Dropdown(description=say("How much data?"), options=[("—", None), *data], **wide)
        self._advice = HTML()
        self._sizes = RadioButtons(description=say("Size"), options=[], layout=Layout(width="auto"))
        self._details = HTML()
        self._workers = BoundedIntText(
            WORKERS, min=1, max=MOST_WITHOUT_A_MENU, description=say("Workers"), **wide
        )
        self._minutes = Dropdown(description=say("Runs for"), options=[(say("as long as it may"), 0)], **wide)
        self._idle = Dropdown(
            description=say("Stops when idle for"),
            options=self._lengths(IDLE_MINUTES),
            value=IDLE_DEFAULT,
            **wide,
        )
        self._cost = HTML()
        self._start = Button(description=say("Start"), button_style="primary", disabled=True)
        self._give_up = Button(description=say("Give up"))
        self._give_up.layout.display = "none"
        self._choice = VBox(
            [
                *(
                    self._data,
                    self._advice,
                    self._sizes,
                    self._details,
                    self._workers,
                    self._minutes,
                    self._idle,
                ),
                *(self._cost, HBox([self._start, self._give_up])),
            ]
        )
        self._data.observe(self._advise, "value")
        self._sizes.observe(self._chosen, "value")
        self._workers.observe(self._price, "value")
        self._start.on_click(lambda _: self._beside(self._start_it))
        self._give_up.on_click(lambda _: self._beside(self._give_it_up))

    def _make_running(self) -> None:
        say = self.say
        short = {"style": {"description_width": "initial"}, "layout": Layout(width="auto", max_width="12rem")}
        self._standing, self._bars, self._usage = HTML(), HTML(), HTML()
        self._count = BoundedIntText(
            WORKERS, min=0, max=MOST_WITHOUT_A_MENU, description=say("Workers"), **short
        )
        self._least = BoundedIntText(
            0, min=0, max=MOST_WITHOUT_A_MENU, description=say("Workers from"), **short
        )
        self._most = BoundedIntText(WORKERS, min=0, max=MOST_WITHOUT_A_MENU, description=say("to"), **short)
        scale = Button(description=say("Scale"), tooltip=say("So many workers, from now on"))
        adapt = Button(description=say("Adapt"), tooltip=say("As many workers as the work needs"))
        stop = Button(description=say("Stop the cluster"), button_style="danger", layout=Layout(width="auto"))
        row = Layout(flex_flow="row wrap", align_items="center")
        self._running = VBox(
            [
                *(self._standing, self._bars, HBox([self._count, scale], layout=row)),
                *(HBox([self._least, self._most, adapt], layout=row), self._usage, HBox([stop])),
            ]
        )
        scale.on_click(lambda _: self._beside(lambda: self._wish(Wish(self._count.value, self._count.value))))
        adapt.on_click(lambda _: self._beside(self._adapt))
        stop.on_click(lambda _: self._beside(self._stop_it))

    def _lengths(self, minutes: tuple[int, ...]) -> list[tuple[str, int]]:
        return [(view.length(count, self.say), count) for count in minutes]

    # -- choosing ---------------------------------------------------------------------------------------------

    @property
    def _offer(self) -> Offer | None:
        if self._menu is None or self._sizes.value is None:
            return None
        return self._menu.offer(*self._sizes.value)

    def _advise(self, _: object) -> None:
        self._advice.value = view.advice(self._data.value, self.say)

    def _show_menu(self, menu: Menu) -> None:
        """Anew where something changed; what was chosen stays chosen."""
        if menu == self._menu:
            return
        before, self._menu = self._sizes.value, menu
        pools = len({offer.pool for offer in menu.offers}) > 1
        options = [
            (view.label(offer, self.say, pool=pools), (offer.profile, offer.pool)) for offer in menu.offers
        ]
        if tuple(options) != tuple(self._sizes.options):
            self._sizes.options = options
            there = [value for _, value in options]
            startable = [
                value
                for offer, value in zip(menu.offers, there, strict=True)
                if offer.state in ("now", "borrowed")
            ]
            self._sizes.value = before if before in there else next(iter(startable + there), None)
        self._head.value = STYLE + view.head(menu, self.say)
        self._chosen(None)

    def _chosen(self, _: object) -> None:
        offer = self._offer
        self._start.disabled = offer is None or offer.state == "no"
        if offer is None:
            self._details.value = self._cost.value = ""
            return
        self._details.value = view.details(offer, self.say)
        self._workers.max = self._count.max = self._least.max = self._most.max = offer.most_workers
        # Without a choice of one's own it is the profile's default, or as long as the pool allows.
        free = [] if offer.default_minutes else [(self.say("as long as it may"), 0)]
        _offer_choices(self._minutes, [*free, *self._lengths(offer.minutes)], offer.default_minutes)
        _offer_choices(self._idle, self._lengths(offer.idle_minutes or IDLE_MINUTES), IDLE_DEFAULT)
        self._price(None)

    def _price(self, _: object) -> None:
        offer = self._offer
        if offer is not None:
            self._cost.value = view.cost(offer, self._workers.value, self.say)

    # -- starting, watching, stopping: each beside the kernel ---------------------------------------------------

    def _beside(self, work: Callable[[], Any]) -> None:
        """Do it in a thread of its own and tell what went wrong."""

        def do() -> None:
            try:
                with in_words(self.say):
                    work()
                self._watch.soon()
            except HubError as problem:
                self._tell("no", "■", str(problem))

        threading.Thread(target=do, name="hangang-clusters", daemon=True).start()

    def _start_it(self) -> None:
        offer = self._offer
        if offer is None:
            return
        self._name, self._given_up = "", False
        self._start.disabled, self._give_up.layout.display = True, ""
        try:
            client = start(
                self._workers.value,
                offer.profile,
                pool=offer.pool or None,
                minutes=self._minutes.value or None,
                idle_minutes=self._idle.value,
                tell=lambda sentence: self._tell("wait", "◷", sentence),
                ordered=self._ordered,
            )
        except ClusterError:
            if not self._given_up:
                raise
            self._tell("no", "■", self.say("Given up: nothing was left running."))
        else:
            self._tell("", "", "")
            self._follow(client)
        finally:
            self._start.disabled, self._give_up.layout.display = False, "none"

    def _ordered(self, name: str) -> None:
        self._name = name
        if self._given_up:
            raise ClusterError(self.say("Given up: nothing was left running."))

    def _give_it_up(self) -> None:
        self._given_up = True
        if self._name:
            gateway = open_gateway(self.say)
            try:
                gateway.stop_cluster(self._name)
            finally:
                gateway.close()

    @property
    def _cluster(self) -> Cluster:
        if self.client is None or not isinstance(self.client.cluster, Cluster):
            raise ClusterError(self.say("No cluster runs here any more."))
        return self.client.cluster

    def _follow(self, client: Client) -> None:
        self.client = client
        cluster = self._cluster
        self._count.value = self._most.value = self._workers.value
        self._standing.value = view.standing(None, 0, self._clock.now(), self.say)
        self._bars.value = view.bars((), self.say)
        self._usage.value = view.usage(cluster.dashboard_link or "", self.say)
        self._choice.layout.display, self._running.layout.display = "none", ""
        self._watch.follow(cluster)
        self._beside(self._compare_versions)

    def _wish(self, wish: Wish) -> None:
        cluster = self._cluster
        self._tell("wait", "◷", cluster.gateway.sync(wish.tell, cluster))

    def _adapt(self) -> None:
        least = self._least.value
        self._wish(Wish(least, max(least, self._most.value), adapts=True))

    def _compare_versions(self) -> None:
        if self.client is not None:
            told = versions_differ(cast(Mapping[str, Any], self.client.get_versions()), self.say)
            if told:
                self._tell("borrowed", "⚠", told)

    def _stop_it(self) -> None:
        cluster = self._cluster
        self._tell("wait", "◷", self.say("Stopping …"))
        cluster.close()
        self._is_over(self.say("The cluster is stopped."))

    def _is_over(self, sentence: str) -> None:
        self.client = None
        self._watch.follow(None)
        self._choice.layout.display, self._running.layout.display = "", "none"
        self._tell("no", "■", sentence)

    def _seen(self, seen: Seen) -> None:
        if seen.menu is not None:
            self._show_menu(seen.menu)
        if self.client is None:
            if seen.away:
                self._tell("no", "■", self.say("The desk does not answer. Try again in a minute."))
            elif seen.refused:
                self._tell("no", "■", seen.refused)
            return
        if seen.over:
            self._is_over(
                self.say(
                    "The cluster ended: its time was over, nobody used it, or it was stopped. Start a new one."
                )
            )
        elif seen.workers is not None:
            now = self._clock.now()
            self._standing.value = view.standing(seen.state, len(seen.workers), now, self.say)
            self._bars.value = view.bars(seen.workers, self.say)

    def _tell(self, kind: str, icon: str, sentence: str) -> None:
        self._message.value = view.box(kind, icon, sentence)


def _offer_choices(menu: Dropdown, options: list[tuple[str, int]], otherwise: int) -> None:
    """Other choices in a menu; what was chosen stays where it can."""
    if tuple(menu.options) == tuple(options):
        return
    before, values = menu.value, [value for _, value in options]
    menu.options = options
    menu.value = next((one for one in (before, otherwise) if one in values), values[0])


def _client_of_this_kernel() -> Client | None:
    """The client that computations use by default, where it belongs to a cluster of ours that runs."""
    try:
        client = Client.current(allow_global=True)
    except ValueError:
        return None
    cluster = client.cluster
    return (
        client
        if isinstance(cluster, Cluster) and cluster.status == "running" and not cluster.asynchronous
        else None
    )
