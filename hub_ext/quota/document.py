"""Reads and writes the policy document (`policy/pools.yaml`, QUOTA.md §2).

Every fault is named with its line and what to write instead; a document with a fault changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hub_ext.core.amounts import format_amount, is_gpu, parse_amount
from hub_ext.core.clock import Seconds, format_duration, parse_duration
from hub_ext.core.errors import BadInput, Fault, FaultyDocument
from hub_ext.documents import Document, parse_document, read_document, validate
from hub_ext.quota.model import (
    Budget,
    GpuClass,
    Period,
    Policy,
    Pool,
    QueueRules,
    Quota,
    Rates,
    Session,
    SessionTimes,
    Term,
)

NAME = r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
COUNT_CAPS = ("servers", "dask-workers")
LARGEST_HOURS = Decimal(10**9)
FIRST_YEAR, LAST_YEAR = 1970, 2999


def _decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise BadInput(f'{value!r} is not a number; write for example 2, 0.5 or "0.143"')
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise BadInput(f'{value!r} is not a number; write for example 2, 0.5 or "0.143"') from None
    if not number.is_finite() or number < 0 or number > LARGEST_HOURS:
        raise BadInput(f"{value!r} is not possible here; write a number from 0 to a thousand million")
    if int(number.as_tuple().exponent) < -6:
        raise BadInput(f"{value!r} is too fine; use at most 6 decimals")
    return number


def _milli(value: object) -> Decimal:
    number = _decimal(value)
    if number != round(number, 3):
        raise BadInput(f"{value!r} is too fine; use at most 3 decimals")
    return number


def _fraction(value: object) -> Decimal:
    number = _decimal(value)
    if number > 1:
        raise BadInput(f"{value!r} is more than all of it; write a part of 1 such as 0.8")
    return number


def _seconds(value: object) -> Seconds:
    return parse_duration(value)  # type: ignore[arg-type]  # refuses what is not text


def _date(value: object) -> object:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError:
            raise BadInput(f"{value!r} is not a date; write for example 2027-03-02") from None
    if type(value) is not date:
        raise BadInput(f"{value} is not a date; write for example 2027-03-02, without a time")
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise BadInput(f"{value} is out of range; write a date from {FIRST_YEAR} to {LAST_YEAR}")
    return value


def _quantity(value: object) -> object:
    if isinstance(value, bool):
        raise BadInput(f"{value!r} is not an amount; write for example 2, 0.5, 500m or 64Gi")
    return value


def _bad_input_as_value_error(check: Callable[[object], Any]) -> Callable[[object], Any]:
    def run(value: object) -> Any:
        try:
            return check(value)
        except BadInput as error:
            raise ValueError(str(error)) from error

    return run


Number = Annotated[Decimal, BeforeValidator(_bad_input_as_value_error(_decimal))]
Hours = Number
Milli = Annotated[Decimal, BeforeValidator(_bad_input_as_value_error(_milli))]
Fraction = Annotated[Decimal, BeforeValidator(_bad_input_as_value_error(_fraction))]
Duration = Annotated[int, BeforeValidator(_bad_input_as_value_error(_seconds))]
Day = Annotated[date, BeforeValidator(_bad_input_as_value_error(_date))]
Name = Annotated[str, Field(pattern=NAME)]
Quantity = Annotated[int | float | str, BeforeValidator(_bad_input_as_value_error(_quantity))]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _GpuClassDoc(_Strict):
    resource: Annotated[str, Field(min_length=1, max_length=253)]
    hours: Hours = Decimal(1)
    memory: Quantity = 0


class _RatesDoc(_Strict):
    guaranteed: Milli = Rates().guaranteed
    borrowed: Milli = Rates().borrowed
    reservation: Milli = Rates().reservation


class _QueueDoc(_Strict):
    patience: Duration = QueueRules().patience
    claim: Duration = QueueRules().claim
    half_life: Duration | None = QueueRules().half_life
    starts: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] = QueueRules().starts

    @field_validator("half_life")
    @classmethod
    def _never_off(cls, value: int | None) -> int:
        if not value:
            raise ValueError("without a half-life past use would not count; write for example 7d")
        return value


class _QuotaDoc(_Strict):
    nominal: Quantity = 0
    borrow: Quantity | None = None
    lend: Quantity | None = None


class _BudgetDoc(_Strict):
    hours: Hours
    period: Period | None = None
    first: Day | None = Field(default=None, alias="from")
    last: Day | None = Field(default=None, alias="to")
    soft: Fraction | None = None
    carry: Hours | None = None
    each: Literal["person"] | None = None

    @model_validator(mode="after")
    def _one_period(self) -> _BudgetDoc:
        dates = (self.first, self.last)
        if self.period is not None and dates != (None, None):
            raise ValueError("has a period and dates; keep either period or from and to")
        if self.period is None and None in dates:
            raise ValueError(
                "has no period; add period: day, week, month, quarter or year, or both from: and to:"
            )
        if self.first and self.last and self.last < self.first:
            raise ValueError("ends before it begins; swap from and to")
        if self.carry is not None and self.period is None:
            raise ValueError("a term has nothing to carry into; remove carry")
        return self


class _SessionDoc(_Strict):
    min: Duration | None = None
    max: Duration | None = None
    protected: Duration | None = None
    notice: Duration | None = None
    grace: Duration | None = None


class _PoolDoc(_Strict):
    parent: str | None = None
    kind: Annotated[str, Field(pattern=NAME)] = "project"
    title: dict[Literal["en", "ko"], Annotated[str, Field(max_length=200)]] = Field(default_factory=dict)
    weight: Number = Decimal(1)
    quota: dict[str, _QuotaDoc] = Field(default_factory=dict)
    person: dict[str, Quantity] = Field(default_factory=dict)
    budgets: list[_BudgetDoc] = Field(default_factory=list)
    session: _SessionDoc = _SessionDoc()


class _PolicyDoc(_Strict):
    version: Literal[1]
    timezone: str = "Asia/Seoul"
    gpu_classes: dict[Name, _GpuClassDoc] = Field(default_factory=dict)
    rates: _RatesDoc = _RatesDoc()
    queue: _QueueDoc = _QueueDoc()
    pools: Annotated[dict[Name, _PoolDoc], Field(min_length=1)]

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str, info: ValidationInfo) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is not a time zone; write for example Asia/Seoul") from None
        return value


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises FaultyDocument with every fault."""
    return policy_of(read_document(path))


def parse_policy(text: str, file: str = "policy") -> Policy:
    """Read a policy document from text. Raises FaultyDocument with every fault."""
    return policy_of(parse_document(text, file))


def policy_of(document: Document) -> Policy:
    """The policy of a parsed document. Raises FaultyDocument with every fault."""
    doc = validate(_PolicyDoc, document)
    faults = _tree_faults(document, doc)
    if faults:
        raise FaultyDocument(faults)
    reader = _Reader(document, doc)
    policy = reader.policy()
    faults = reader.faults or _session_faults(document, policy)
    if faults:
        raise FaultyDocument(faults)
    return policy


class _Reader:
    """Turns a well-formed document into the model, collecting what amounts and names get wrong."""

    def __init__(self, document: Document, doc: _PolicyDoc) -> None:
        self.document = document
        self.doc = doc
        self.faults: list[Fault] = []

    def policy(self) -> Policy:
        doc = self.doc
        classes = {
            name: GpuClass(
                name,
                gpu.resource,
                gpu.hours,
                self._amount("memory", gpu.memory, ("gpu_classes", name, "memory")),
            )
            for name, gpu in doc.gpu_classes.items()
        }
        return Policy(
            timezone=ZoneInfo(doc.timezone),
            gpu_classes=classes,
            pools={name: self._pool(name, pool) for name, pool in doc.pools.items()},
            rates=Rates(doc.rates.guaranteed, doc.rates.borrowed, doc.rates.reservation),
            queue=QueueRules(doc.queue.patience, doc.queue.claim, doc.queue.half_life or 0, doc.queue.starts),
        )

    def _pool(self, name: str, pool: _PoolDoc) -> Pool:
        place = ("pools", name)
        self._unique_budgets(name, pool)
        return Pool(
            name=name,
            parent=pool.parent,
            kind=pool.kind,
            title={str(language): title for language, title in pool.title.items()},
            weight=pool.weight,
            quota={r: self._quota(q, (*place, "quota", r), r, pool) for r, q in pool.quota.items()},
            person={
                key: self._cap(value, (*place, "person", key), key) for key, value in pool.person.items()
            },
            budgets=tuple(_budget(budget) for budget in pool.budgets),
            session=Session(**pool.session.model_dump()),
        )

    def _quota(self, quota: _QuotaDoc, place: tuple[str | int, ...], resource: str, pool: _PoolDoc) -> Quota:
        self._known_resource(resource, place)
        if pool.parent is None:
            for key in ("borrow", "lend"):
                if getattr(quota, key) is not None:
                    what = f"{'.'.join(map(str, place))}.{key}: a root has nobody to {key} {'to' if key == 'lend' else 'from'}"
                    self._fault((*place, key), what, f"Remove {key}.")
        return Quota(
            nominal=self._amount(resource, quota.nominal, (*place, "nominal")),
            borrow=self._optional(resource, quota.borrow, (*place, "borrow")),
            lend=self._optional(resource, quota.lend, (*place, "lend")),
        )

    def _cap(self, value: Quantity, place: tuple[str | int, ...], key: str) -> int:
        if key in COUNT_CAPS:
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
            self._fault(
                place,
                f"{'.'.join(map(str, place))}: {value!r} is not a count",
                "Write a whole number from 0.",
            )
            return 0
        self._known_resource(key, place, COUNT_CAPS)
        return self._amount(key, value, place)

    def _known_resource(
        self, resource: str, place: tuple[str | int, ...], others: tuple[str, ...] = ()
    ) -> None:
        known = [*(f"gpu.{name}" for name in self.doc.gpu_classes), "cpu", "memory", *others]
        if resource not in known:
            what = f"{'.'.join(map(str, place))}: {resource!r} is not a resource of this policy"
            hint = f"Use one of {', '.join(known)}" + (
                ", or add the class to gpu_classes." if is_gpu(resource) else "."
            )
            self._fault(place, what, hint)

    def _optional(self, resource: str, value: Quantity | None, place: tuple[str | int, ...]) -> int | None:
        return None if value is None else self._amount(resource, value, place)

    def _amount(self, resource: str, value: Quantity, place: tuple[str | int, ...]) -> int:
        try:
            return parse_amount(resource, value, rounding="down")
        except BadInput as error:
            what, _, instead = str(error).partition("; ")
            self._fault(place, f"{'.'.join(map(str, place))}: {what}", f"{instead[:1].upper()}{instead[1:]}.")
            return 0

    def _unique_budgets(self, name: str, pool: _PoolDoc) -> None:
        seen: set[str] = set()
        for index, budget in enumerate(pool.budgets):
            key = _budget(budget).name
            if key in seen:
                place = ("pools", name, "budgets", index)
                self._fault(
                    place,
                    f"pools.{name}.budgets.{index}: a second budget for the same period",
                    "Keep one of the two.",
                )
            seen.add(key)

    def _fault(self, place: tuple[str | int, ...], what: str, instead: str) -> None:
        self.faults.append(self.document.fault(place, what, instead))


def _budget(doc: _BudgetDoc) -> Budget:
    period: Period | Term
    if doc.period is not None:
        period = doc.period
    else:
        assert doc.first is not None
        assert doc.last is not None
        period = Term(doc.first, doc.last)
    return Budget(doc.hours, period, doc.soft, doc.carry, each_person=doc.each == "person")


def _tree_faults(document: Document, doc: _PolicyDoc) -> list[Fault]:
    faults = []
    for name, pool in doc.pools.items():
        place = ("pools", name, "parent")
        if pool.parent is not None and pool.parent not in doc.pools:
            known = ", ".join(other for other in doc.pools if other != name) or "none"
            faults.append(
                document.fault(
                    place, f"pools.{name}.parent: there is no pool {pool.parent!r}", f"Use one of: {known}."
                )
            )
            continue
        seen, above = {name}, pool.parent
        while above is not None and above in doc.pools and above not in seen:
            seen.add(above)
            above = doc.pools[above].parent
        if above == name:
            chain = " -> ".join([*_chain(doc, name), name])
            faults.append(
                document.fault(
                    place,
                    f"pools.{name}.parent: the pools go round in a circle ({chain})",
                    "Give one of them another parent.",
                )
            )
    return faults


def _chain(doc: _PolicyDoc, name: str) -> list[str]:
    chain = [name]
    while (above := doc.pools[chain[-1]].parent) is not None and above not in chain:
        chain.append(above)
    return chain


def _session_faults(document: Document, policy: Policy) -> list[Fault]:
    faults = []
    for name in policy.pools:
        session = policy.session(name)
        if not 0 < session.min <= session.max:
            place = ("pools", name, "session")
            what = (
                f"pools.{name}.session: min {format_duration(session.min)} and max {format_duration(session.max)} "
                "do not fit (with what is inherited)"
            )
            faults.append(document.fault(place, what, "Write 0 < min <= max."))
    return faults


# -- writing -------------------------------------------------------------------------------------------------------


def dump_policy(policy: Policy) -> dict[str, Any]:
    """The policy as plain data that `policy_of` reads back as the same policy."""
    return {
        "version": 1,
        "timezone": policy.timezone.key,
        "gpu_classes": {
            name: {
                "resource": gpu.resource,
                "hours": str(gpu.hours),
                "memory": format_amount("memory", gpu.memory),
            }
            for name, gpu in policy.gpu_classes.items()
        },
        "rates": {
            "guaranteed": str(policy.rates.guaranteed),
            "borrowed": str(policy.rates.borrowed),
            "reservation": str(policy.rates.reservation),
        },
        "queue": {
            "patience": format_duration(policy.queue.patience),
            "claim": format_duration(policy.queue.claim),
            "half_life": format_duration(policy.queue.half_life),
            "starts": policy.queue.starts,
        },
        "pools": {name: _dump_pool(pool) for name, pool in policy.pools.items()},
    }


def _dump_pool(pool: Pool) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": pool.kind}
    if pool.parent is not None:
        entry["parent"] = pool.parent
    if pool.title:
        entry["title"] = dict(pool.title)
    entry["weight"] = str(pool.weight)
    entry["quota"] = {
        resource: {
            key: format_amount(resource, amount)
            for key, amount in (("nominal", quota.nominal), ("borrow", quota.borrow), ("lend", quota.lend))
            if amount is not None
        }
        for resource, quota in pool.quota.items()
    }
    entry["person"] = {
        key: value if key in COUNT_CAPS else format_amount(key, value) for key, value in pool.person.items()
    }
    entry["budgets"] = [_dump_budget(budget) for budget in pool.budgets]
    session = {
        key: format_duration(value)
        for key in SessionTimes.__dataclass_fields__
        if (value := getattr(pool.session, key)) is not None
    }
    if session:
        entry["session"] = session
    return entry


def _dump_budget(budget: Budget) -> dict[str, Any]:
    entry: dict[str, Any] = {"hours": str(budget.hours)}
    if isinstance(budget.period, Term):
        entry |= {"from": budget.period.first.isoformat(), "to": budget.period.last.isoformat()}
    else:
        entry["period"] = budget.period.value
    for key in ("soft", "carry"):
        if getattr(budget, key) is not None:
            entry[key] = str(getattr(budget, key))
    if budget.each_person:
        entry["each"] = "person"
    return entry


def mapping_document(data: Mapping[str, Any], file: str) -> Document:
    """A document from plain data without lines, such as a policy inside a scenario."""
    return Document(file, data)
