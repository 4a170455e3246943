"""What people read: the one catalogue of words, and amounts, times and hours as people say them.

English is the message itself; Korean comes from `locale/ko/LC_MESSAGES/hub_ext.po`, read as it is (no compiled
file). A `Speaker` says things in one language:

    say = Speaker(pick_language(header), policy.timezone, gpu_names(policy.gpu_classes))
    say("Start a server"); say.amount("gpu.h200", 1000); say.until(ends_at, now)

In code the speaker is called `say`, in templates `_`: that is how the test finds every message. Messages are
worded so that no Korean particle depends on what is put in; no amount shows a raw resource name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Final, Literal, Protocol

from babel.dates import format_date
from babel.messages.pofile import read_po

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR, COST_UNITS_PER_GPU_SECOND, MILLI, Amounts, is_gpu
from hub_ext.core.clock import DAY, HOUR, MINUTE, Instant, Seconds, at

Language = Literal["ko", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("ko", "en")
DEFAULT: Final[Language] = "en"
COOKIE: Final = "hangang-language"
OF_THE_BROWSER: Final = "HANGANG_BROWSER_LANGUAGE"
"""In a kernel's environment: the language that its notebook is read in."""
LOCALE: Final = Path(__file__).parent / "locale"

_LONGEST_HEADER = 1000
_RANGE = re.compile(
    r"\s*(\*|[a-z]{1,8}(?:-[a-z0-9]{1,8})*)\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?",
    re.IGNORECASE | re.ASCII,
)
_DATE: Final[Mapping[Language, str]] = {"en": "EEE d MMM", "ko": "M월 d일(EEE)"}
_DATE_WITH_YEAR: Final[Mapping[Language, str]] = {"en": "EEE d MMM y", "ko": "y년 M월 d일(EEE)"}
_MIG = re.compile(r"mig-(\d+)g\.", re.ASCII)
_SLICES = 7
"""A GPU that can be cut has seven slices (NVIDIA's MIG)."""


def as_language(text: str | None) -> Language | None:
    return next((language for language in LANGUAGES if language == text), None)


def pick_language(accept_language: str | None, cookie: str | None = None) -> Language:
    """The language to answer in: the person's own choice, else what the browser asks for, else English.

    Follows RFC 9110 §12.4.2: the highest quality wins, `q=0` rules out, `*` stands for what is not named; among
    equals the first. What does not parse is passed over.
    """
    chosen = as_language(cookie)
    if chosen is not None:
        return chosen
    wanted: dict[str, tuple[Decimal, int]] = {}
    for place, part in enumerate((accept_language or "")[:_LONGEST_HEADER].split(",")):
        match = _RANGE.fullmatch(part)
        if match is None:
            continue
        quality = min(Decimal(1), Decimal(match[2] or "1"))
        primary = match[1].lower().partition("-")[0]
        if primary not in wanted or quality > wanted[primary][0]:
            wanted[primary] = (quality, -place)
    others = wanted.get("*", (Decimal(0), 0))
    offers = {language: wanted.get(language, others) for language in LANGUAGES}
    best = max(offers, key=lambda language: (*offers[language], language == DEFAULT))
    return best if offers[best][0] > 0 else DEFAULT


@cache
def _catalogue(language: Language) -> Mapping[str, str]:
    """Message to translation; of a plural message both forms lead to the one that Korean has."""
    path = LOCALE / language / "LC_MESSAGES" / "hub_ext.po"
    if language == DEFAULT:
        return {}
    words: dict[str, str] = {}
    with path.open("rb") as file:
        for message in read_po(file, locale=language, abort_invalid=True):
            ids = (message.id,) if isinstance(message.id, str) else message.id
            strings = (message.string,) if isinstance(message.string, str) else message.string
            words.update({text: strings[0] for text in ids if text and strings and strings[0]})
    return words


@dataclass(frozen=True, slots=True)
class GpuName:
    """A GPU class as people say it: its model, the part of one (`1/7`, or "" for all of it), and MiB of memory."""

    model: str
    part: str = ""
    memory: int = 0


class _GpuClass(Protocol):
    @property
    def resource(self) -> str: ...
    @property
    def memory(self) -> int: ...


def gpu_names(classes: Mapping[str, _GpuClass]) -> dict[str, GpuName]:
    """Names for the policy's GPU classes: the model is the class' name up to the first `-`, the part its MIG size."""
    names = {}
    for name, gpu in classes.items():
        mig = _MIG.search(gpu.resource)
        part = f"{mig[1]}/{_SLICES}" if mig and int(mig[1]) < _SLICES else ""
        names[name] = GpuName(name.partition("-")[0].upper() if mig else name.upper(), part, gpu.memory)
    return names


Moment = Instant | datetime | str
"""A time as facts carry it: an instant, an aware datetime, or that in ISO after it went through JSON."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """Says things in one language, with the centre's time zone and names of GPUs."""

    language: Language
    zone: tzinfo = UTC
    gpus: Mapping[str, GpuName] = field(default_factory=dict)

    def __call__(self, message: str, /, **values: object) -> str:
        """The message in this language, with the values put in."""
        text = _catalogue(self.language).get(message, message)
        return text.format(**values) if values else text

    def ngettext(self, one: str, many: str, number: int | Decimal, /, **values: object) -> str:
        """As a call, with the form that the number takes."""
        text = _catalogue(self.language).get(one) or (one if number == 1 else many)
        return text.format(**values) if values else text

    def text(self, words: Mapping[str, str], otherwise: str = "") -> str:
        """A text that an operator wrote by language; the other language where this one is missing."""
        return words.get(self.language) or words.get(DEFAULT) or next(filter(None, words.values()), otherwise)

    # -- amounts ------------------------------------------------------------------------------------------

    def amount(self, resource: str, amount: int) -> str:
        """`1 × H200`, `1/7 H200 (18 GB)`, `8 CPU`, `64 GB`; counts of servers and Dask workers as well."""
        count = Decimal(amount) / MILLI
        if is_gpu(resource):
            return self._gpus(resource.removeprefix("gpu."), count)
        if resource == "cpu":
            return self("{count} CPU", count=_number(count))
        if resource == "memory":
            return _size(amount)
        if resource == "servers":
            return self.ngettext("{count} server", "{count} servers", amount, count=amount)
        if resource == "dask-workers":
            return self.ngettext("{count} Dask worker", "{count} Dask workers", amount, count=amount)
        return f"{amount} {resource}"

    def _gpus(self, name: str, count: Decimal) -> str:
        gpu = self.gpus.get(name) or GpuName(name.upper())
        if not gpu.part:
            return self("{count} × {gpu}", count=_number(count), gpu=gpu.model)
        part = self("{part} {gpu}", part=gpu.part, gpu=gpu.model)
        if gpu.memory:
            part = f"{part} ({_size(gpu.memory)})"
        return part if count == 1 else self("{count} × {gpu}", count=_number(count), gpu=part)

    def resource(self, resource: str) -> str:
        """What is counted, without a number: `H200`, `1/7 H200 (18 GB)`, `CPU`, `memory`."""
        if is_gpu(resource):
            name = resource.removeprefix("gpu.")
            gpu = self.gpus.get(name) or GpuName(name.upper())
            return self._gpus(name, Decimal(1)) if gpu.part else gpu.model
        known = {
            "cpu": "CPU",
            "memory": self("memory"),
            "servers": self("servers"),
            "dask-workers": self("Dask workers"),
        }
        return known.get(resource, resource)

    def amounts(self, amounts: Amounts) -> str:
        """Every amount that is not zero, GPUs first: `1 × H200 · 16 CPU · 192 GB`."""
        ordered = sorted(amounts, key=lambda resource: (not is_gpu(resource), resource))
        return " · ".join(
            self.amount(resource, amounts[resource]) for resource in ordered if amounts[resource]
        )

    def sizes(self, amounts: Amounts) -> str:
        """As on a card, where the title says which GPU: `141 GB GPU · 16 CPU · 192 GB memory`."""
        parts = []
        for resource, amount in sorted(amounts.items(), key=lambda item: (not is_gpu(item[0]), item[0])):
            gpu = self.gpus.get(resource.removeprefix("gpu."))
            if not amount:
                continue
            if is_gpu(resource) and gpu is not None and gpu.memory:
                parts.append(self("{size} GPU", size=_size(gpu.memory * amount // MILLI)))
            elif resource == "memory":
                parts.append(self("{size} memory", size=_size(amount)))
            else:
                parts.append(self.amount(resource, amount))
        return " · ".join(parts)

    # -- times --------------------------------------------------------------------------------------------

    def duration(self, seconds: Seconds) -> str:
        """`5 h 10 min`, `2 d 3 h`, `45 min`, `under 1 min`; cut to the minute, never longer than it is."""
        if seconds < MINUTE:
            return self("under 1 min")
        days, rest = divmod(seconds, DAY)
        hours, minutes = rest // HOUR, rest % HOUR // MINUTE
        if days:
            return (
                self("{days} d {hours} h", days=days, hours=hours) if hours else self("{days} d", days=days)
            )
        if hours:
            return (
                self("{hours} h {minutes} min", hours=hours, minutes=minutes)
                if minutes
                else self("{hours} h", hours=hours)
            )
        return self("{minutes} min", minutes=minutes)

    def moment(self, when: Moment, now: Instant | None = None) -> str:
        """`18:40` today, `tomorrow 09:00`, else with its date: `Wed 3 Mar 09:00`."""
        local = self.local(when)
        clock = f"{local:%H:%M}"
        today = None if now is None else at(now, self.zone).date()
        if today is not None and local.date() == today:
            return clock
        if today is not None and local.date() == today + timedelta(days=1):
            return self("tomorrow {clock}", clock=clock)
        return f"{self.date(local.date(), today)} {clock}"

    def date(self, day: date, today: date | None = None) -> str:
        """`Wed 3 Mar`, with the year where it is not this one."""
        patterns = _DATE if today is not None and day.year == today.year else _DATE_WITH_YEAR
        return format_date(day, patterns[self.language], locale=self.language)

    def until(self, when: Moment, now: Instant) -> str:
        """`until 18:40 (5 h 10 min left)`."""
        left = max(0, int(self.local(when).timestamp()) - now)
        return self("until {time} ({left} left)", time=self.moment(when, now), left=self.duration(left))

    def exact(self, when: Moment) -> str:
        """The whole time, for those who point at one: `2027-03-02 18:40:00 KST`."""
        return f"{self.local(when):%Y-%m-%d %H:%M:%S %Z}"

    def local(self, when: Moment) -> datetime:
        """The moment in the centre's time zone."""
        if isinstance(when, int):
            return at(when, self.zone)
        moment = datetime.fromisoformat(when) if isinstance(when, str) else when
        return moment.astimezone(self.zone)

    # -- GPU-hours ----------------------------------------------------------------------------------------

    def hours(self, units: int) -> str:
        """Cost units as hours with at most one decimal, rounded down (what is left must be there): `12.5`."""
        tenths = (Decimal(units) * 10 / COST_UNITS_PER_GPU_HOUR).to_integral_value(ROUND_FLOOR)
        return _number(tenths / 10)

    def price(self, cost: int) -> str:
        """What a running server takes from the hours, from its cost units per second: `0.14 GPU-h/hour`."""
        if not cost:
            return self("no GPU-hours")
        rate = (Decimal(cost) / COST_UNITS_PER_GPU_SECOND).quantize(Decimal("0.01"), ROUND_HALF_UP)
        return self("{hours} GPU-h/hour", hours=_number(max(rate, Decimal("0.01"))))

    def used_of(self, used: int, limit: int, period: str) -> str:
        """`12.5 GPU-h of 60 this week`."""
        return self(
            "{used} GPU-h of {limit} {period}",
            used=self.hours(used),
            limit=self.hours(limit),
            period=self.period(period),
        )

    def left_of(self, left: int, limit: int, period: str) -> str:
        """`31.5 of 60 GPU-h left this week`."""
        return self(
            "{left} of {limit} GPU-h left {period}",
            left=self.hours(max(0, left)),
            limit=self.hours(limit),
            period=self.period(period),
        )

    def period(self, period: str) -> str:
        """A budget's period, by its name in the policy (`week`, or both dates of a term)."""
        known = {
            "day": self("today"),
            "week": self("this week"),
            "month": self("this month"),
            "quarter": self("this quarter"),
            "year": self("this year"),
        }
        if period in known:
            return known[period]
        try:
            last = date.fromisoformat(period.partition("/")[2])
        except ValueError:
            return period
        return self("this term (until {date})", date=self.date(last))


@cache
def translator(language: Language) -> Speaker:
    """The catalogue alone: call it with a message, or its `ngettext` with both forms and a number."""
    return Speaker(language)


def _number(value: Decimal) -> str:
    """Without needless zeros, thousands apart: `0.5`, `12`, `2,000`."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _size(mib: int) -> str:
    """MiB as people say it: `512 MB`, `64 GB`, `1.5 TB`."""
    size, unit = Decimal(mib), "MB"
    for larger in ("GB", "TB", "PB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{_number(size.quantize(Decimal('0.1'), ROUND_HALF_UP))} {unit}"
