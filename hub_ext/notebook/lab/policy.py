"""What a person in their notebook is shown, and when: pure, decided here and only drawn by the lab.

Quiet unless it matters: a chip for a borrowed server, a bar where the end is near or a notice was given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from hub_ext.core.clock import HOUR, MINUTE, Instant, Seconds
from hub_ext.language import Speaker
from hub_ext.notebook.lab.model import Lease

__all__ = ["Extend", "Link", "View", "off", "step_minutes", "view"]

SOON: Final[Seconds] = 15 * MINUTE
STEP: Final[Seconds] = HOUR
"""How much one press of the button adds, at most."""
CALM_SECONDS: Final = 15
NOTICE_SECONDS: Final = 5
STALE_AFTER: Final[Seconds] = 60
"""An answer this old says so."""

ENDS_SOON: Final = "ends-soon"
"""The desk's code for an end that was agreed from the start; all others cut a session short."""

Mood = Literal["off", "quiet", "borrowed", "soon", "notice"]


@dataclass(frozen=True, slots=True)
class Link:
    label: str
    href: str


@dataclass(frozen=True, slots=True)
class Extend:
    label: str
    minutes: int


@dataclass(frozen=True, slots=True)
class View:
    """What the lab draws; `again` is when it asks next, in seconds, 0 for never."""

    mood: Mood
    again: int
    language: str = "en"
    left: Seconds | None = None
    sentence: str = ""
    details: tuple[str, ...] = ()
    chip: str = ""
    stale: str = ""
    extend: Extend | None = None
    links: tuple[Link, ...] = ()
    words: dict[str, str] = field(default_factory=dict)


def off() -> View:
    """No desk is known here: nothing is shown, and nobody asks again."""
    return View("off", 0)


def view(
    lease: Lease | None,
    now: Instant,
    told_at: Instant | None,
    *,
    away: bool,
    links: tuple[Link, ...],
    say: Speaker,
    beside: Link | None = None,
) -> View:
    """The view of a lease that the desk told at `told_at`, which is None where it said nothing yet.

    `beside` leads to a server without GPUs, on which a person whose GPU is taken back goes on with the same files.
    """
    if lease is None:
        return View("quiet", CALM_SECONDS, say.language, words=_words(say))
    mood = _mood(lease, now)
    stale = away and told_at is not None and now - told_at >= STALE_AFTER
    return View(
        mood=mood,
        again=NOTICE_SECONDS if mood == "notice" else CALM_SECONDS,
        language=say.language,
        left=max(0, _end(lease) - now),
        sentence=_sentence(lease, mood, say),
        details=(say("Ends at {time}", time=lease.clock), *lease.lines),
        chip="" if lease.guaranteed else say("Borrowed"),
        stale=say("The desk does not answer; this is what it said last.") if stale else "",
        extend=_extend(lease, say) if mood in ("soon", "notice") else None,
        links=(beside, *links) if beside is not None and mood == "notice" and lease.gpus else links,
        words=_words(say),
    )


def step_minutes(lease: Lease) -> int:
    """The minutes that one press asks for: an hour, or what the desk says is possible, where that is less."""
    if lease.extend_until is None or lease.extend_until <= lease.ends_at:
        return STEP // MINUTE
    return max(1, min(STEP, lease.extend_until - lease.ends_at) // MINUTE)


def _mood(lease: Lease, now: Instant) -> Mood:
    if lease.notice is not None:
        return "soon" if lease.notice.why == ENDS_SOON else "notice"
    if lease.over or _end(lease) - now <= SOON:
        return "soon"
    return "quiet" if lease.guaranteed else "borrowed"


def _end(lease: Lease) -> Instant:
    return lease.ends_at if lease.notice is None else min(lease.ends_at, lease.notice.at)


def _sentence(lease: Lease, mood: Mood, say: Speaker) -> str:
    if lease.over:
        return say("This server is ending.")
    if lease.notice is not None and lease.notice.sentence:
        # The desk knows more about the reason.
        return lease.notice.sentence
    if mood == "notice":
        return say("This server is taken back at {time}. Save your work.", time=lease.clock)
    if mood == "soon":
        return say("This server ends at {time}. Save your work.", time=lease.clock)
    if mood == "borrowed":
        return lease.borrowed or say(
            "This server runs on what others leave idle. It may be taken back, with notice."
        )
    return ""


def _extend(lease: Lease, say: Speaker) -> Extend | None:
    if lease.over:
        return None
    minutes = step_minutes(lease)
    return Extend(say("Extend by {time}", time=say.duration(minutes * MINUTE)), minutes)


def _words(say: Speaker) -> dict[str, str]:
    """What the lab says by itself; `{time}` is filled in there."""
    return {
        "region": say("Time of this server"),
        "left": say("{time} left"),
        "over": say("It has ended; your files are kept."),
        "working": say("Extending …"),
        "lost": say("This notebook's server does not answer. Try again in a minute."),
    }
