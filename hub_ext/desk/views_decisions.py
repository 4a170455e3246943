"""The log of decisions as data: what the ledger wrote down, the newest first, each line in words. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from hub_ext.core.clock import Instant
from hub_ext.core.decision import Code
from hub_ext.desk.records import Cursor, EntryFilter
from hub_ext.desk.tables_csv import Cell
from hub_ext.desk.views_parts import of_cluster
from hub_ext.desk.views_queue import pool_choices
from hub_ext.language import Speaker
from hub_ext.quota.budget import first_instant
from hub_ext.quota.explain import Titles, explain
from hub_ext.quota.ledger import Entry, EntryKind
from hub_ext.quota.model import SERVER, Policy

ENTRIES_A_PAGE: Final = 50
_CODE = re.compile(r"[a-z][a-z-]{1,40}", re.ASCII)
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """The filter as it stands in the address, each part as text; empty is no filter."""

    person: str = ""
    pool: str = ""
    kind: str = ""
    code: str = ""
    lease: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """What the address says; texts that are too long to be a name are cut."""
        names = {"person": "person", "pool": "pool", "kind": "kind", "code": "code", "lease": "lease"}
        names |= {"since": "from", "until": "to"}
        return cls(**{field: query.get(name, "").strip()[:_LONGEST] for field, name in names.items()})

    def address(self, **more: str) -> str:
        """As the end of an address."""
        parts = {
            "person": self.person,
            "pool": self.pool,
            "kind": self.kind,
            "code": self.code,
            "lease": self.lease,
            "from": self.since,
            "to": self.until,
        }
        return urlencode({name: value for name, value in (parts | more).items() if value})

    def which(self, policy: Policy) -> EntryFilter:
        """What is looked for. A date that is none filters nothing; both dates are included."""
        kind = next((kind for kind in EntryKind if kind.value == self.kind), None)
        first, last = _day(self.since), _day(self.until)
        return EntryFilter(
            person=self.person,
            pool=self.pool,
            lease=self.lease,
            code=self.code,
            kinds=() if kind is None else (kind,),
            since=None if first is None else first_instant(first, policy.timezone),
            before=None if last is None else first_instant(last + timedelta(days=1), policy.timezone),
        )


@dataclass(frozen=True)
class LogFacts:
    policy: Policy
    now: Instant
    entries: Sequence[tuple[int, Entry]]
    """One more than a page where there are more."""
    asked: Asked
    after: Cursor | None = None
    titles: Titles = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine:
    number: int
    when: str
    when_exact: str
    kind: str
    kind_title: str
    person: str
    pool: str
    pool_title: str
    lease: str
    who: str
    code: str
    why: str
    """A reason that somebody wrote."""
    told: str
    facts: str


@dataclass(frozen=True, slots=True)
class LogPage:
    lines: tuple[LogLine, ...]
    older: str
    """The address' end for what came before; empty on the last page."""
    newest: str
    """Likewise for the first page; empty on it."""
    kinds: tuple[tuple[str, str], ...]
    codes: tuple[str, ...]
    pools: tuple[tuple[str, str], ...]
    asked: Asked
    filtered: bool


def log_page(facts: LogFacts, say: Speaker) -> LogPage:
    shown, more = facts.entries[:ENTRIES_A_PAGE], facts.entries[ENTRIES_A_PAGE:]
    older = ""
    if more:
        number, entry = shown[-1]
        older = facts.asked.address(after=str(Cursor(entry.at, number)))
    return LogPage(
        lines=tuple(_line(facts, number, entry, say) for number, entry in shown),
        older=older,
        newest=facts.asked.address() or "all=1" if facts.after is not None else "",
        kinds=tuple((kind.value, kind_title(kind, say)) for kind in EntryKind),
        codes=tuple(code.value for code in Code),
        pools=pool_choices(facts.policy, say),
        asked=facts.asked,
        filtered=bool(facts.asked.address()),
    )


def kind_title(kind: EntryKind, say: Speaker) -> str:
    titles = {
        EntryKind.BOOKED: say("booked"),
        EntryKind.RUNNING: say("running"),
        EntryKind.EXTENDED: say("extended"),
        EntryKind.NOTICED: say("notice given"),
        EntryKind.WITHDRAWN: say("notice withdrawn"),
        EntryKind.CLAIMED: say("claimed"),
        EntryKind.PROMOTED: say("became guaranteed"),
        EntryKind.ENDING: say("being ended"),
        EntryKind.RELEASED: say("released"),
        EntryKind.ACCRUED: say("hours accrued"),
        EntryKind.GRANTED: say("hours granted"),
        EntryKind.REQUESTED: say("hours requested"),
        EntryKind.ANSWERED: say("request answered"),
        EntryKind.CORRECTED: say("hours corrected"),
        EntryKind.RESERVED: say("reserved"),
        EntryKind.DECIDED: say("decided"),
    }
    return titles.get(kind, kind.value)


def _line(facts: LogFacts, number: int, entry: Entry, say: Speaker) -> LogLine:
    pool = entry.pool or ""
    is_code = bool(_CODE.fullmatch(entry.why))
    return LogLine(
        number=number,
        when=say.moment(entry.at, facts.now),
        when_exact=say.exact(entry.at),
        kind=entry.kind.value,
        kind_title=kind_title(entry.kind, say),
        person=entry.person or "",
        pool=pool,
        pool_title=say.text(facts.titles.get(pool, {}), pool),
        lease=entry.lease or str(entry.facts.get("ask") or ""),
        who=entry.who,
        code=entry.why if is_code else "",
        why="" if is_code else entry.why,
        told=told(entry, facts, say),
        facts=json.dumps(entry.facts, ensure_ascii=False, indent=1, sort_keys=True, default=str)
        if entry.facts
        else "",
    )


# -- what an entry says -----------------------------------------------------------------------------------------------


def told(entry: Entry, facts: LogFacts, say: Speaker) -> str:
    """What happened, in one sentence; empty where kind and code say it all or facts are missing."""
    tell = _TELLS.get(entry.kind)
    try:
        return tell(entry, facts, say) if tell else ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""  # written by another version: its facts still stand beside it


def _booked(entry: Entry, facts: LogFacts, say: Speaker) -> str:
    kind, server = str(entry.facts.get("kind") or SERVER), str(entry.facts.get("server") or "")
    what = of_cluster(say.amounts(entry.facts["amounts"]), kind, server, say)
    time = say.moment(entry.facts["ends_at"], facts.now)
    if entry.facts["guaranteed"]:
        return say("{what}, guaranteed, until {time}", what=what, time=time)
    lender = entry.facts.get("lender") or ""
    whose = say.text(facts.titles.get(lender, {}), lender)
    return say("{what}, borrowed from {pool}, until {time}", what=what, pool=whose, time=time)


def _running(entry: Entry, facts: LogFacts, say: Speaker) -> str:
    node = entry.facts.get("node")
    return say("runs on {machine}", machine=node) if node else ""


def _ends(entry: Entry, facts: LogFacts, say: Speaker) -> str:
    return say("ends {time}", time=say.moment(entry.facts["ends_at"], facts.now))


def _accrued(entry: Entry, facts: LogFacts, say: Speaker) -> str:
    return say(
        "{hours} GPU-h until {time}",
        hours=say.hours(entry.facts["units"]),
        time=say.moment(entry.facts["until"], facts.now),
    )


def _granted(entry: Entry, facts: LogFacts, say: Speaker) -> str:
    return say(
        "{hours} GPU-h, until {time}",
        hours=say.hours(entry.facts["units"]),
        time=say.moment(entry.facts["until"], facts.now),
    )


def _reserved(entry: Entry, facts: LogFacts, say: Speaker) -> str:
    return say(
        "{what}, from {start} to {end}",
        what=say.amounts(entry.facts["amounts"]),
        start=say.moment(entry.facts["start"], facts.now),
        end=say.moment(entry.facts["end"], facts.now),
    )


def _corrected(entry: Entry, facts: LogFacts, say: Speaker) -> str:
    units = entry.facts["units"]
    hours = say.hours(abs(units))
    return (
        say("{hours} GPU-h more used", hours=hours)
        if units >= 0
        else say("{hours} GPU-h less used", hours=hours)
    )


def _decided(entry: Entry, facts: LogFacts, say: Speaker) -> str:
    code = next((code for code in Code if code.value == entry.why), None)
    if code is None:
        return ""
    of: Mapping[str, Any] = entry.facts.get("facts") or {}
    return str(explain(code, of, say, titles=facts.titles, now=facts.now))


_TELLS: Final[Mapping[EntryKind, Callable[[Entry, LogFacts, Speaker], str]]] = {
    EntryKind.BOOKED: _booked,
    EntryKind.RUNNING: _running,
    EntryKind.EXTENDED: _ends,
    EntryKind.NOTICED: _ends,
    EntryKind.WITHDRAWN: _ends,
    EntryKind.ACCRUED: _accrued,
    EntryKind.GRANTED: _granted,
    EntryKind.RESERVED: _reserved,
    EntryKind.CORRECTED: _corrected,
    EntryKind.DECIDED: _decided,
}


def _day(text: str) -> date | None:
    """Years that an instant can have; anything else is no date."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 1971 <= day.year <= 9000 else None


LOG_COLUMNS: Final = ("number", "at", "kind", "code_or_reason", "person", "pool", "lease", "who", "facts")


def log_row(number: int, entry: Entry, policy: Policy) -> list[Cell]:
    """One entry as a row of the download: raw names, ISO time, facts as JSON."""
    return [
        number,
        policy.local(entry.at).isoformat(),
        entry.kind.value,
        entry.why,
        entry.person,
        entry.pool,
        entry.lease,
        entry.who,
        json.dumps(entry.facts, ensure_ascii=False, sort_keys=True, default=str),
    ]
