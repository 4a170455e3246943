"""The start page as data: what it is made from, and what a person reads on it. `start.py` makes one of the other.

All texts are in one language already; `render.py` only escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from hub_ext.core.clock import HOUR, MINUTE, Instant, Seconds
from hub_ext.core.decision import Decision, Refuse, Wait
from hub_ext.profiles.model import Profile, Words

Combination = tuple[str, ...]
"""One choice for each option of a profile, in the order of the options."""
Decisions = Mapping[tuple[str, str, Combination], Decision]
"""By profile, pool and combination, for one length of each profile (best its longest: then every end is exact)."""

FRESH: Final[Seconds] = 5
"""Numbers older than this say how old they are."""


# -- what the page is made from ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolChoice:
    """A pool of the person's: its title, how long a server there may run, and the notice a borrowed one gets."""

    name: str
    title: Words = field(default_factory=dict)
    shortest: Seconds = 15 * MINUTE
    longest: Seconds = 12 * HOUR
    notice: Seconds = 10 * MINUTE


@dataclass(frozen=True, slots=True)
class Hours:
    """A budget in cost units, `mine` or of the whole pool. `near`: of a pool the person is a member of."""

    title: Words
    pool: str
    period: str
    limit: int
    used: int
    committed: int
    mine: bool = False
    near: bool = True
    soft_reached: bool = False

    @property
    def left(self) -> int:
        return self.limit - self.used - self.committed


@dataclass(frozen=True, slots=True)
class StartFacts:
    """All that the page shows; every number from the snapshot of `as_of`."""

    pools: Sequence[PoolChoice]
    profiles: Sequence[Profile]
    decisions: Decisions
    as_of: Instant
    now: Instant
    hidden: Sequence[Profile] = ()
    hours: Sequence[Hours] = ()
    server: str = ""
    limits_enforced: bool = True
    """Whether CPU and memory are held to what was chosen, or only counted."""


class Explained(Protocol):
    @property
    def sentence(self) -> str: ...
    @property
    def next_step(self) -> str: ...


class Explains(Protocol):
    """Codes and facts in words (`quota/explain.py`)."""

    def decision(self, decision: Wait | Refuse) -> Explained: ...
    def cut(self, cut_by: Mapping[str, Any], ends_at: Instant) -> str: ...
    def borrowed(self, lender: str | None, notice: Seconds) -> str: ...


# -- what the page is -------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """How a size stands. The order is that of what a person would rather have."""

    NOW = "now"
    BORROWED = "borrowed"
    WAIT = "wait"
    REFUSED = "refused"

    @property
    def startable(self) -> bool:
        return self in (Kind.NOW, Kind.BORROWED)


@dataclass(frozen=True, slots=True)
class State:
    """One size in one pool for one length, as it stands: the chip and what is beneath it.

    `ask` is what the button says that asks for it: to start, or to wait in line; empty where neither is possible.
    """

    kind: Kind
    chip: str
    button: str
    ask: str = ""
    hint: str = ""
    sentence: str = ""
    next_step: str = ""
    price: str = ""
    until: str = ""
    until_exact: str = ""
    cut: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of a select; `state` is a word where it, but not every other, is not possible now, all else as chosen."""

    value: str
    label: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class Select:
    """A field of a card. With one choice it is not shown, but sent."""

    field: str
    label: str
    choices: tuple[Choice, ...]
    chosen: str


@dataclass(frozen=True, slots=True)
class Instead:
    """What can be started now in place of a size that cannot; `slug` "" is another choice on the same card."""

    slug: str
    title: str


@dataclass(frozen=True, slots=True)
class Card:
    """One profile. `states` is by what is chosen in `selects`, in their order; `state` is that of the first view."""

    slug: str
    title: str
    description: str
    sizes: str
    state: State
    selects: tuple[Select, ...]
    states: Mapping[tuple[str, ...], State]
    all_sizes: Mapping[Combination, str]
    startable: bool
    instead: Instead | None = None


@dataclass(frozen=True, slots=True)
class HoursLine:
    """A budget with its bar: thousandths of the limit that are used and set aside."""

    title: str
    text: str
    detail: str
    used: int
    committed: int
    mine: bool
    near: bool
    warning: str = ""


@dataclass(frozen=True, slots=True)
class StartPage:
    heading: str
    summary: str
    """The first answer: how many of the cards can be started now."""
    cards: tuple[Card, ...]
    hidden: tuple[tuple[str, str], ...]
    """Titles of what is not offered to this person, each with the reason."""
    hours: tuple[HoursLine, ...]
    notes: tuple[str, ...]
    age: Seconds
    empty: tuple[str, str] | None = None
    """Where there is nothing to start: what that means, and what to do."""
