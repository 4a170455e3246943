"""What stands against a request for hours, or an answer to it, in words; and hours and dates as people write them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR, hours_to_cost_units
from hub_ext.core.clock import Instant, at
from hub_ext.language import Speaker
from hub_ext.quota.budget import first_instant
from hub_ext.quota.explain import Titles
from hub_ext.quota.model import Policy, RequestState
from hub_ext.quota.requests import MOST_UNITS, Objected, Objection

STATUS: Final[Mapping[Objected, int]] = {
    Objected.ALREADY_ASKED: 409,
    Objected.TOO_MANY: 409,
    Objected.ANSWERED: 409,
    Objected.BUDGET_GONE: 409,
    Objected.OVERDUE: 409,
    Objected.OWN: 403,
    Objected.NOT_YOURS: 403,
}
"""The HTTP status of each objection; 422 for those that are about what was written."""
_LONGEST_NUMBER: Final = 12


def objection_status(objection: Objection) -> int:
    return STATUS.get(objection.code, 422)


def objection_sentence(objection: Objection, say: Speaker, titles: Titles, now: Instant | None = None) -> str:
    """What is in the way, and what to do."""
    facts = objection.facts
    match objection.code:
        case Objected.NO_SUCH_BUDGET:
            return say(
                "There are no such hours for you to ask for. Choose one of those that the page offers."
            )
        case Objected.HOURS:
            return say(
                "Write how many GPU-hours: a number from {least} to {most}.",
                least=hours_number(facts["least"]),
                most=hours_number(facts["most"]),
            )
        case Objected.DATE:
            return say(
                "Choose a day from today on, and not after {date}.",
                date=say.date(say.local(facts["last"]).date()),
            )
        case Objected.WHY_MISSING:
            return say("Give a reason: whoever reads it decides, or plans, by it.")
        case Objected.TOO_LONG:
            return say("The text is too long: {count} letters are the most.", count=facts["most"])
        case Objected.ALREADY_ASKED:
            return say(
                "You asked for these hours already, and nobody has answered yet ({time}). Withdraw that request first.",
                time=say.moment(facts["at"], now),
            )
        case Objected.TOO_MANY:
            return say(
                "You have {count} open requests. Wait for an answer, or withdraw one.", count=facts["most"]
            )
        case Objected.ANSWERED:
            return _answered(facts, say, now)
        case Objected.OWN:
            return say(
                "Nobody answers a request of their own. Somebody who leads the pool, or one above it, does."
            )
        case Objected.BUDGET_GONE:
            return say(
                "These hours are not counted any more: the policy has changed. Decline the request, and say so."
            )
        case Objected.OVERDUE:
            return say("The date that was asked for has passed. Decline the request; it can be made anew.")
        case Objected.MORE_THAN_ASKED:
            return say(
                "Only {hours} GPU-hours were asked for; grant as many, or fewer.",
                hours=hours_number(facts["asked"]),
            )
        case Objected.LATER_THAN_ASKED:
            return say(
                "The hours were asked for until {date}; grant them until then, or an earlier day.",
                date=last_day(facts["asked"], say),
            )
        case Objected.NOT_YOURS:
            return say("Only whoever made a request can withdraw it.")


def _answered(facts: Mapping[str, object], say: Speaker, now: Instant | None) -> str:
    when = facts["at"]
    told = {"who": facts["by"], "time": say.moment(when, now) if isinstance(when, int) else ""}
    match facts["state"]:
        case RequestState.GRANTED:
            return say("This request was answered already: granted by {who}, {time}.", **told)
        case RequestState.DECLINED:
            return say("This request was answered already: declined by {who}, {time}.", **told)
        case _:
            return say("This request was withdrawn by {who}, {time}.", **told)


# -- hours and dates, in and out ---------------------------------------------------------------------------------------


def hours_number(units: int) -> str:
    """Cost units as a number of GPU-hours that `units_of` reads back."""
    text = f"{(Decimal(units) / COST_UNITS_PER_GPU_HOUR).quantize(Decimal('0.001')):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def units_of(text: str) -> int:
    """Cost units of a number of GPU-hours; 0, which no request takes, for what is none."""
    text = text.strip().replace(",", "")
    if not text.isascii() or len(text) > _LONGEST_NUMBER:
        return 0
    try:
        number = Decimal(text)
    except InvalidOperation:
        return 0
    if not number.is_finite() or not 0 < number <= MOST_UNITS // COST_UNITS_PER_GPU_HOUR + 1:
        return 0 if not number.is_finite() or number <= 0 else MOST_UNITS + 1
    return hours_to_cost_units(number)


def end_of(text: str, policy: Policy) -> Instant:
    """The end of a day (2027-03-31, the whole day included); 0, which lies in the past, for what is none."""
    try:
        return first_instant(date.fromisoformat(text.strip()) + timedelta(days=1), policy.timezone)
    except (ValueError, OverflowError):
        return 0


def day_before(until: Instant, policy: Policy) -> date:
    """The last day that an end of a day stands for: what `end_of` reads back as the same, for ends of days."""
    return at(until - 1, policy.timezone).date()


def last_day(until: Instant, say: Speaker) -> str:
    """That day in words."""
    return say.date(say.local(until - 1).date())
