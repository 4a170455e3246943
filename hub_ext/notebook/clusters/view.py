"""What the panel shows, as HTML and plain labels: pure, every value escaped, in the panel's language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.language import Speaker
from hub_ext.notebook.clusters.model import ClusterState, Menu, Offer

__all__ = [
    "DATA_SIZES",
    "Worker",
    "advice",
    "bars",
    "box",
    "cost",
    "details",
    "head",
    "label",
    "length",
    "sentence",
    "standing",
    "usage",
    "workers_of",
]

MOST_BARS: Final = 8
"""Of single workers; what is more is counted."""
DATA_SIZES: Final = ("small", "middle", "large")
ICONS: Final = {"now": "✓", "borrowed": "◐", "wait": "◷", "no": "■"}


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as its scheduler sees it: bytes it uses, bytes it may use, and how busy its cores are in percent."""

    name: str
    memory: int
    limit: int
    busy: float
    threads: int


def workers_of(found: Mapping[str, Any]) -> tuple[Worker, ...]:
    """Of a scheduler's own list, in a lasting order."""
    workers = []
    for worker in found.values():
        metrics = worker.get("metrics") or {}
        threads = int(worker.get("nthreads") or 1)
        workers.append(
            Worker(
                str(worker.get("name", "")),
                int(metrics.get("memory") or 0),
                int(worker.get("memory_limit") or 0),
                min(100.0, float(metrics.get("cpu") or 0.0) / threads),
                threads,
            )
        )
    return tuple(sorted(workers, key=lambda worker: worker.name))


# -- choosing ---------------------------------------------------------------------------------------------------------


def head(menu: Menu | None, say: Speaker) -> str:
    """The title, and what is left of the hours."""
    lines = "".join(f'<span class="hg-hours">{escape(line)}</span>' for line in (menu.hours if menu else ()))
    return f'<div class="hg-head"><b role="heading" aria-level="2">{escape(say("Dask cluster"))}</b>{lines}</div>'


def state_words(offer: Offer, say: Speaker) -> str:
    return {
        "now": say("Now"),
        "borrowed": say("Now, borrowed"),
        "wait": say("Wait"),
        "no": say("Not possible"),
    }[offer.state]


def label(offer: Offer, say: Speaker, *, pool: bool) -> str:
    """A size in the menu, as plain text: what it is, and how it stands; whose share where there are several."""
    name = " · ".join(
        part for part in (offer.title, (offer.pool_title or offer.pool) if pool else "") if part
    )
    return f"{name}  —  {ICONS[offer.state]} {state_words(offer, say)}"


def details(offer: Offer, say: Speaker) -> str:
    """The chosen size: how it stands, what a worker has, how many there is room for, and why not more."""
    room = [
        say.ngettext(
            "room for {count} worker", "room for {count} workers", offer.guaranteed, count=offer.guaranteed
        )
        if offer.guaranteed
        else "",
        say("{count} more borrowed", count=offer.borrowed) if offer.borrowed and offer.guaranteed else "",
        say.ngettext(
            "room for {count} borrowed worker",
            "room for {count} borrowed workers",
            offer.borrowed,
            count=offer.borrowed,
        )
        if offer.borrowed and not offer.guaranteed
        else "",
    ]
    facts = " · ".join(part for part in (offer.worker, *room) if part)
    borrowed = (
        say("Borrowed workers may be taken back, with notice; their data moves to the others.")
        if offer.borrowed and offer.state != "borrowed"
        else ""
    )
    parts = [
        f'<span class="hg-chip hg-{offer.state}"><span aria-hidden="true">{ICONS[offer.state]}</span> {escape(state_words(offer, say))}</span>',
        f"<span>{escape(facts)}</span>",
    ]
    below = [offer.description, offer.message, borrowed]
    return f'<div class="hg-line">{" ".join(parts)}</div>' + "".join(
        f'<div class="hg-small">{escape(text)}</div>' for text in below if text
    )


def cost(offer: Offer, workers: int, say: Speaker) -> str:
    """What so many workers take, and what happens to those that there is no room for now."""
    taken = price(offer.cost(workers), say)
    lines = [
        say.ngettext(
            "{count} worker: {price}.", "{count} workers: {price}.", workers, count=workers, price=taken
        )
    ]
    later = workers - offer.guaranteed - offer.borrowed
    if offer.state != "no" and later > 0:
        lines.append(
            say.ngettext(
                "{count} of them has no room now; it waits in line and comes by itself.",
                "{count} of them have no room now; they wait in line and come by themselves.",
                later,
                count=later,
            )
        )
    return f'<div class="hg-small">{escape(" ".join(lines))}</div>'


def price(hours: float, say: Speaker) -> str:
    """GPU-hours in an hour."""
    if hours <= 0:
        return say("no GPU-hours")
    return say("{hours} GPU-h/hour", hours=f"{max(hours, 0.01):.2f}".rstrip("0").rstrip("."))


def length(minutes: int, say: Speaker) -> str:
    return say.duration(minutes * MINUTE)


def advice(size: str | None, say: Speaker) -> str:
    """What to use for so much data."""
    told = {
        "small": say(
            "Under 10 GB you need no cluster: {libraries} in this server are faster and take no more hours.",
            libraries="pandas, Polars",
        ),
        "middle": say(
            "10 to 100 GB fit one GPU: start a server with a GPU and use {libraries} there.",
            libraries="cudf.pandas, cudf-polars",
        ),
        "large": say("Above 100 GB a cluster is what you want: each worker holds a part of the data."),
    }.get(size or "", "")
    return f'<div class="hg-small">{escape(told)}</div>' if told else ""


# -- a running cluster ------------------------------------------------------------------------------------------------


def standing(state: ClusterState | None, workers: int, now: Instant, say: Speaker) -> str:
    """How many workers of how many, until when, what it takes; then notices and what is waited for."""
    chip = f'<span class="hg-chip hg-now"><span aria-hidden="true">✓</span> {escape(say("Running"))}</span>'
    if state is None:
        counted = say.ngettext("{count} worker", "{count} workers", workers, count=workers)
        return f'<div class="hg-line">{chip} <span>{escape(counted)}</span></div>'
    counted = say("{count} of {wished} workers", count=workers, wished=max(workers, state.wished))
    facts = [counted]
    if state.borrowed:
        facts.append(say("{count} borrowed", count=state.borrowed))
    if state.ends_at is not None:
        local = Speaker(say.language, state.ends_at.tzinfo or say.zone)
        facts.append(local.until(state.ends_at, now))
    facts.append(price(state.cost_per_hour, say))
    line = f'<div class="hg-line">{chip} <span>{escape(" · ".join(facts))}</span></div>'
    return line + _notice(state, say) + _waiting(state, say)


def _notice(state: ClusterState, say: Speaker) -> str:
    if state.notice is None:
        return ""
    told = state.notice.message or say("Workers are taken back soon. Their data moves to the others.")
    return box("borrowed", "⚠", told, role="alert")


def _waiting(state: ClusterState, say: Speaker) -> str:
    waiting = state.waiting
    if waiting is None or not state.wanted:
        return ""
    parts = [
        say.ngettext(
            "{count} worker waits in line.", "{count} workers wait in line.", state.wanted, count=state.wanted
        ),
        waiting.message,
    ]
    if waiting.place is not None:
        parts.append(say("Place in line: {place}.", place=waiting.place))
    if waiting.eta:
        parts.append(sentence(waiting.eta))
    return box("wait", ICONS["wait"], " ".join(part for part in parts if part))


def box(kind: str, icon: str, text: str, *, role: str = "status") -> str:
    """A sentence that stands out: `kind` colours it, `icon` says the same without colour."""
    if not text:
        return ""
    return f'<div class="hg-box hg-{kind}" role="{role}"><span aria-hidden="true">{icon}</span> {escape(text)}</div>'


def bars(workers: Sequence[Worker], say: Speaker) -> str:
    """Memory of all workers, then of each, with how busy it is."""
    if not workers:
        return f'<div class="hg-small">{escape(say("No worker yet."))}</div>'
    whole = Worker(
        say("All workers"),
        sum(worker.memory for worker in workers),
        sum(worker.limit for worker in workers),
        sum(worker.busy * worker.threads for worker in workers) / sum(worker.threads for worker in workers),
        sum(worker.threads for worker in workers),
    )
    shown = [whole] if len(workers) == 1 else [whole, *workers[:MOST_BARS]]
    rows = "".join(
        _bar(worker, whole.name if not at else say("Worker {number}", number=at), say)
        for at, worker in enumerate(shown)
    )
    more = len(workers) - MOST_BARS
    rest = f'<div class="hg-small">{escape(say("and {count} more", count=more))}</div>' if more > 0 else ""
    return f'<div class="hg-bars">{rows}</div>{rest}'


def _bar(worker: Worker, name: str, say: Speaker) -> str:
    part = min(100, round(100 * worker.memory / worker.limit)) if worker.limit else 0
    memory = f"{size(worker.memory)} / {size(worker.limit)}"
    busy = say("{percent} % busy", percent=round(worker.busy))
    level = "hg-full" if part >= 80 else ""
    title = escape(f"{name}: {say('memory')} {memory}")
    return (
        f'<span class="hg-name" title="{escape(worker.name)}">{escape(name)}</span>'
        f'<span class="hg-bar {level}" role="meter" aria-label="{title}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{part}"><span style="width:{part}%"></span></span>'
        f'<span class="hg-value">{escape(memory)} · {escape(busy)}</span>'
    )


def sentence(words: str) -> str:
    """Words as a sentence of their own."""
    return f"{words[:1].upper()}{words[1:]}."


def size(count: int) -> str:
    """Bytes as people say them: `512 MB`, `12.1 GB`."""
    value = count / 1024**2
    for unit in ("MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 100 or unit == "MB" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"


def usage(dashboard: str, say: Speaker) -> str:
    """How to compute there, and the dashboard."""
    code = "<code>from distributed import get_client; client = get_client()</code>"
    told = escape(say("What you compute with Dask runs there now. Its client: {code}")).replace(
        "{code}", code
    )
    link = ""
    if dashboard.startswith(("/", "https://", "http://")):
        text = escape(say("Dashboard (opens in a new tab)"))
        link = f'<div><a href="{escape(dashboard)}" target="_blank" rel="noopener">{text}</a></div>'
    return f'<div class="hg-small">{told}</div>{link}'
