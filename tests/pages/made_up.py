"""A made-up snapshot that shows every state of the start page, and names that try to break out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR, MILLI
from hub_ext.core.clock import HOUR, Instant, Seconds, at
from hub_ext.core.decision import Admit, Code, Decision, Refuse, Wait
from hub_ext.language import GpuName, Language, Speaker
from hub_ext.profiles.model import Choice, Option, Profile
from hub_ext.profiles.start import start_page
from hub_ext.profiles.view import Hours, PoolChoice, StartFacts, StartPage
from hub_ext.quota.explain import Explanation, explain, explain_borrowed, explain_cut

SEOUL = ZoneInfo("Asia/Seoul")
NOW: Instant = 1_803_945_600
"""Tuesday, 2 March 2027, 09:00 in Seoul."""
GPUS = {"h200": GpuName("H200", "", 141 * 1024), "h200-1g": GpuName("H200", "1/7", 18 * 1024)}
TITLES: Mapping[str, Mapping[str, str]] = {
    "seoul": {"en": "Seoul Hangang AI", "ko": "서울 한강 AI"},
    "hangang-univ": {"en": "Hangang University", "ko": "한강대학교"},
    "hangang-vision": {"en": "Vision lab", "ko": "비전 연구실"},
}
HOSTILE = "\"><script>alert('x')</script>&{{ 1234567*8 }}</select>{0}\u2028"
POOLS = (
    PoolChoice("hangang-univ", TITLES["hangang-univ"]),
    PoolChoice("hangang-vision", TITLES["hangang-vision"]),
)
GIB = 1024


def speaker(language: Language) -> Speaker:
    return Speaker(language, SEOUL, GPUS)


@dataclass(frozen=True)
class Explains:
    say: Speaker
    now: Instant = NOW

    def decision(self, decision: Wait | Refuse) -> Explanation:
        return explain(decision.code, decision.facts, self.say, titles=TITLES, now=self.now)

    def cut(self, cut_by: Mapping[str, Any], ends_at: Instant) -> str:
        return explain_cut(cut_by, ends_at, self.say, titles=TITLES, now=self.now)

    def borrowed(self, lender: str | None, notice: Seconds) -> str:
        return explain_borrowed(lender, self.say, notice=notice, titles=TITLES)


def profile(slug: str, title: str = "", **changes: Any) -> Profile:
    values: dict[str, Any] = {
        "title": {"en": title or slug, "ko": f"{title or slug} (한국어)"},
        "description": {"en": f"About {slug}.", "ko": f"{slug} 설명."},
        "amounts": {"gpu.h200": MILLI, "cpu": 16 * MILLI, "memory": 192 * GIB},
        "minutes": (60, 120, 480),
        "default_minutes": 120,
    }
    return Profile(slug=slug, **(values | changes))


SIZES = Option(
    "count",
    {"en": "GPUs", "ko": "GPU 수"},
    (
        Choice("four", {"en": "four", "ko": "네 개"}, {"gpu.h200": 4 * MILLI}, default=True),
        Choice("two", {"en": "two", "ko": "두 개"}, {"gpu.h200": 2 * MILLI}),
    ),
)
SLICE = profile(
    "slice", "One H200 slice", amounts={"gpu.h200-1g": MILLI, "cpu": 8 * MILLI, "memory": 64 * GIB}
)
WHOLE = profile("whole", "One H200")
SEVERAL = profile("several", "Several H200", options=(SIZES,), amounts={"gpu.h200": 4 * MILLI})
CPU = profile("cpu", "CPU server", amounts={"cpu": 2 * MILLI, "memory": 8 * GIB})
TEACHING = profile("teaching", "Teaching", teaching=True)

NOW_GUARANTEED = Admit(True, None, NOW + 8 * HOUR, 143_000)
NOW_BORROWED = Admit(False, "seoul", NOW + 8 * HOUR, 500_000)
FREE_OF_CHARGE = Admit(True, None, NOW + 8 * HOUR, 0)
CUT = Admit(
    True,
    None,
    NOW + 3 * HOUR,
    1_000_000,
    facts={"cut_by": {"kind": "budget", "pool": "hangang-univ", "period": "month", "budget_person": None}},
)
FULL = Wait(
    Code.POOL_FULL,
    {
        "pool": "hangang-univ",
        "short_at": "seoul",
        "resource": "gpu.h200",
        "asked": MILLI,
        "available": 0,
        "first_end": at(NOW + 2 * HOUR, SEOUL),
    },
)
TOO_BIG = Refuse(
    Code.TOO_BIG_FOR_PERSON,
    {"person": "student", "pool": "hangang-univ", "key": "gpu.h200", "asked": 4 * MILLI, "cap": 2 * MILLI},
)


def hours(**changes: Any) -> Hours:
    unit = COST_UNITS_PER_GPU_HOUR
    values: dict[str, Any] = {
        "title": TITLES["hangang-univ"],
        "pool": "hangang-univ",
        "period": "week",
        "limit": 60 * unit,
        "used": 25 * unit // 2,
        "committed": 16 * unit,
        "mine": True,
    }
    return Hours(**(values | changes))


def page(
    decisions: Sequence[tuple[Profile, Decision | Mapping[tuple[str, tuple[str, ...]], Decision]]],
    language: Language = "en",
    *,
    pools: Sequence[PoolChoice] = POOLS[:1],
    **facts: Any,
) -> StartPage:
    """The start page of these profiles; one decision stands for every pool and choice."""
    full: dict[tuple[str, str, tuple[str, ...]], Decision] = {}
    for one, answer in decisions:
        names = [choice.name for option in one.options for choice in option.choices]
        for pool in pools:
            for combination in [(name,) for name in names] or [()]:
                decided = answer[pool.name, combination] if isinstance(answer, Mapping) else answer
                full[one.slug, pool.name, combination] = decided
    values: dict[str, Any] = {"as_of": NOW, "now": NOW, "hours": (hours(),)} | facts
    say = speaker(language)
    made = StartFacts(pools=pools, profiles=[one for one, _ in decisions], decisions=full, **values)
    return start_page(made, say, Explains(say))
