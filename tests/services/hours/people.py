"""A centre with a sector, an institution and a course in it, and the people around its hours."""

from __future__ import annotations

from datetime import datetime

from hub_ext.core.amounts import COST_UNITS_PER_GPU_HOUR
from hub_ext.core.people import Person
from hub_ext.desk.access import LEAD, OPERATE, READ, Access
from hub_ext.desk.hours import Draft

HOUR_UNITS = COST_UNITS_PER_GPU_HOUR

POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools:
  seoul: {title: {en: Seoul, ko: 서울}, session: {min: 15m, max: 12h, protected: 30m, notice: 10m, grace: 30m}}
  sector:
    parent: seoul
    quota: {gpu.h200: {nominal: 4}}
    budgets: [{hours: 100, period: month}]
  univ:
    parent: sector
    quota: {gpu.h200: {nominal: 2}}
    budgets: [{hours: 50, period: week, soft: 0.8}, {hours: 2, period: day, each: person}]
  course:
    parent: univ
    budgets: [{hours: 1, period: day, each: person}]
  firm:
    parent: seoul
    quota: {gpu.h200: {nominal: 1}}
    budgets: [{hours: 10, period: week}]
"""

STUDENT = Person("student", ("univ",), frozenset({"student"}))
CLASSMATE = Person("classmate", ("course",), frozenset({"student"}))
UNIV_LEAD = Person("univ-lead", ("univ",), frozenset({"lead"}))
SECTOR_LEAD = Person("sector-lead", ("sector",), frozenset({"lead"}))
COURSE_LEAD = Person("course-lead", ("course",), frozenset({"lead"}))
FIRM_LEAD = Person("firm-lead", ("firm",), frozenset({"lead"}))
OPERATOR = Person("operator", ("firm",), frozenset({"operator"}))
EVERYBODY = (STUDENT, CLASSMATE, UNIV_LEAD, SECTOR_LEAD, COURSE_LEAD, FIRM_LEAD, OPERATOR)


def access(person: Person, *scopes: str) -> Access:
    """As somebody who signed in, unless only some scopes are named."""
    return Access(person, frozenset(scopes or (READ, LEAD, OPERATE)))


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


APRIL = instant("2027-04-01T00:00:00+09:00")
"""The end of the month in which the tests begin."""


def draft(pool: str = "univ", budget: str = "day:person", person: str = "student", **more: object) -> Draft:
    values: dict[str, object] = {"units": 5 * HOUR_UNITS, "until": APRIL, "why": "The thesis is due."}
    return Draft(pool=pool, budget=budget, person=person, **values | more)  # type: ignore[arg-type]
