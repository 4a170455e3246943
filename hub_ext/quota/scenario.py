"""The what-if file of `hub-ext simulate` (QUOTA.md §10): a policy, a state of the world, and events in time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hub_ext.core.amounts import hours_to_cost_units, parse_amount
from hub_ext.core.clock import MINUTE, Instant, Seconds, instant_of, parse_duration
from hub_ext.core.errors import BadInput, Fault, FaultyDocument
from hub_ext.core.people import Person
from hub_ext.documents import Document, Place, read_document, validate
from hub_ext.quota.document import FIRST_YEAR, LAST_YEAR, Hours, Quantity, load_policy, policy_of
from hub_ext.quota.model import SERVER, Ask, Node, Policy, Reservation

EARLIEST, LATEST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (FIRST_YEAR, LAST_YEAR + 1))
LARGEST_COUNT = 10_000


@dataclass(frozen=True, slots=True)
class LeaseFact:
    """A lease the scenario states: booked as it stands."""

    id: str
    pool: str
    amounts: Mapping[str, int]
    started: Instant
    ends: Instant | None
    person: str = ""
    node: str | None = None
    kind: str = SERVER
    borrowed: bool | None = None
    reservation: str | None = None


@dataclass(frozen=True, slots=True)
class UsedHours:
    pool: str
    units: int
    period: str | None = None
    person: str | None = None


@dataclass(frozen=True, slots=True)
class AskEvent:
    """`shows_up`: seconds after its turn has come at which the person comes to the server; None: never."""

    ask: Ask
    count: int = 1
    shows_up: Seconds | None = 0


@dataclass(frozen=True, slots=True)
class ReleaseEvent:
    id: str


@dataclass(frozen=True, slots=True)
class CancelEvent:
    id: str


@dataclass(frozen=True, slots=True)
class ExtendEvent:
    id: str
    minutes: int


@dataclass(frozen=True, slots=True)
class GrantEvent:
    pool: str
    units: int
    until: Instant
    why: str = ""
    period: str | None = None
    person: str | None = None


@dataclass(frozen=True, slots=True)
class ReserveEvent:
    """A pool asks for a window of time; `approved` already where its guarantee is not enough."""

    reservation: Reservation


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    policy: Policy


@dataclass(frozen=True, slots=True)
class TickEvent:
    pass


Event = (
    AskEvent | ReleaseEvent | CancelEvent | ExtendEvent | GrantEvent | ReserveEvent | PolicyEvent | TickEvent
)


@dataclass(frozen=True)
class Scenario:
    """`people` None: everybody is a member everywhere. `nodes` None: nodes limit nothing.

    `events` hold the time, the position in the file and what happens, in the order of the file.
    """

    now: Instant
    policy: Policy
    people: Mapping[str, Person] | None = None
    nodes: tuple[Node, ...] | None = None
    leases: tuple[LeaseFact, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    used_hours: tuple[UsedHours, ...] = ()
    recent: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(pool, person): cost units used lately, as of `now`."""
    events: tuple[tuple[Instant, Event], ...] = ()
    fault: Callable[[str, int, str], FaultyDocument] = field(
        default=lambda section, index, what: FaultyDocument([])
    )
    """(section, position, what is wrong) -> the error with file and line, for what only playing the file shows."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Id = Annotated[str, Field(min_length=1, max_length=200)]
Quantities = dict[str, Quantity]
Moment = str | datetime | int


class _PersonDoc(_Strict):
    name: Id
    pools: list[str] = Field(default_factory=list)
    roles: list[str] = Field(default_factory=list)
    profiles: list[str] | None = None
    recent_hours: dict[str, Hours] = Field(default_factory=dict)


class _LeaseDoc(_Strict):
    id: Id
    pool: str
    amounts: Quantities
    person: Id | None = None
    started: Moment = "+0s"
    ends: Moment | None = None
    node: str | None = None
    kind: Literal["server", "dask-scheduler", "dask-worker"] = "server"
    borrowed: bool | None = None
    reservation: str | None = None


class _ReservationDoc(_Strict):
    id: Id
    pool: str
    amounts: Quantities
    start: Annotated[Moment, Field(alias="from")]
    end: Annotated[Moment, Field(alias="to")]


class _ReserveDoc(_ReservationDoc):
    approved: bool = False


class _UsedDoc(_Strict):
    pool: str
    hours: Hours
    period: str | None = None
    person: str | None = None


class _AskDoc(_Strict):
    id: Id
    person: Id | None = None
    pool: str
    amounts: Quantities
    minutes: Annotated[int, Field(ge=0, le=10**7, strict=True)] | None = None
    kind: Literal["server", "dask-scheduler", "dask-worker"] = "server"
    profile: str | None = None
    reservation: str | None = None
    count: Annotated[int, Field(ge=1, le=LARGEST_COUNT, strict=True)] = 1
    shows_up: Annotated[int, Field(ge=0, le=10**7, strict=True)] | Literal["never"] | None = None


class _ExtendDoc(_Strict):
    id: Id
    minutes: Annotated[int, Field(ge=1, le=10**7, strict=True)]


class _GrantDoc(_Strict):
    pool: str
    hours: Hours
    until: Moment
    why: str = ""
    period: str | None = None
    person: str | None = None


class _EventDoc(_Strict):
    at: Moment
    ask: _AskDoc | None = None
    release: Id | None = None
    cancel: Id | None = None
    extend: _ExtendDoc | None = None
    reserve: _ReserveDoc | None = None
    grant: _GrantDoc | None = None
    policy: str | dict[str, Any] | None = None
    tick: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> _EventDoc:
        kinds = [name for name in type(self).model_fields if name != "at"]
        if sum(getattr(self, name) is not None for name in kinds) != 1:
            raise ValueError(f"an event does exactly one thing; write one of {', '.join(kinds)}")
        return self


class _ScenarioDoc(_Strict):
    now: datetime | str
    policy: str | dict[str, Any]
    people: list[_PersonDoc] | None = None
    nodes: list[dict[str, int | float | str]] | None = None
    leases: list[_LeaseDoc] = Field(default_factory=list)
    reservations: list[_ReservationDoc] = Field(default_factory=list)
    used_hours: list[_UsedDoc] = Field(default_factory=list)
    events: list[_EventDoc] = Field(default_factory=list)


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file; policies it names lie beside it. Raises FaultyDocument with every fault."""
    return _Reader(read_document(path), path.parent).scenario()


def scenario_of(document: Document, folder: Path) -> Scenario:
    """The scenario of a parsed document; policies it names lie in `folder`."""
    return _Reader(document, folder).scenario()


class _Reader:
    def __init__(self, document: Document, folder: Path) -> None:
        self.document = document
        self.folder = folder
        self.faults: list[Fault] = []
        self.now = 0
        self.known_pools: set[str] = set()
        self.known_resources: set[str] = {"cpu", "memory"}

    def scenario(self) -> Scenario:
        doc = validate(_ScenarioDoc, self.document)
        self._refuse_half_characters()
        policy = self._policy(doc.policy, ("policy",))
        self.now = self._absolute(doc.now, ("now",), policy)
        policies = {
            index: self._policy(event.policy, ("events", index, "policy"))
            for index, event in enumerate(doc.events)
            if event.policy is not None
        }
        for one in (policy, *policies.values()):
            self.known_pools |= one.pools.keys()
            self.known_resources |= {f"gpu.{name}" for name in one.gpu_classes}
        scenario = Scenario(
            now=self.now,
            policy=policy,
            people=self._people(doc),
            nodes=self._nodes(doc),
            leases=tuple(self._lease(lease, ("leases", i), policy) for i, lease in enumerate(doc.leases)),
            reservations=tuple(
                self._reservation(one, ("reservations", i), policy, approved=True)
                for i, one in enumerate(doc.reservations)
            ),
            used_hours=tuple(
                UsedHours(
                    self._pool(used.pool, ("used_hours", i)), _units(used.hours), used.period, used.person
                )
                for i, used in enumerate(doc.used_hours)
            ),
            recent={
                (pool, person.name): _units(hours)
                for person in doc.people or ()
                for pool, hours in person.recent_hours.items()
            },
            events=tuple(self._event(event, i, policies, policy) for i, event in enumerate(doc.events)),
            fault=self._late_fault,
        )
        self._check_times(scenario)
        self._check_ids(doc)
        self._check_reservations(doc)
        if self.faults:
            raise FaultyDocument(self.faults)
        return scenario

    # -- parts -----------------------------------------------------------------------------------------------

    def _policy(self, source: str | dict[str, Any], place: Place) -> Policy:
        if isinstance(source, dict):
            return policy_of(self.document.part(place))
        try:
            return load_policy(self.folder / source)
        except ValueError as error:  # a path no system takes, such as one with a zero byte
            what = f"{source!r} cannot be the name of a file"
            raise FaultyDocument(
                [self.document.fault(place, what, "Write the name of a policy file.")]
            ) from error

    def _people(self, doc: _ScenarioDoc) -> dict[str, Person] | None:
        if doc.people is None:
            return None
        people: dict[str, Person] = {}
        for index, person in enumerate(doc.people):
            if person.name in people:
                self._fault(
                    ("people", index, "name"),
                    f"person {person.name!r} stands here twice",
                    "Keep one of the two.",
                )
            for pool in person.pools:
                self._pool(pool, ("people", index, "pools"))
            for pool in person.recent_hours:
                self._pool(pool, ("people", index, "recent_hours", pool))
            people[person.name] = Person(
                name=person.name,
                pools=tuple(person.pools),
                roles=frozenset(person.roles),
                profiles=frozenset(person.profiles or ()),
                any_profile=person.profiles is None,
            )
        return people

    def _nodes(self, doc: _ScenarioDoc) -> tuple[Node, ...] | None:
        if doc.nodes is None:
            return None
        nodes: dict[str, Node] = {}
        for index, entry in enumerate(doc.nodes):
            name = str(entry.get("name", ""))
            place: Place = ("nodes", index)
            if not name or name in nodes:
                self._fault(place, "every node needs a name of its own", "Add name: n1 (n2, ...).")
            capacity = {key: value for key, value in entry.items() if key != "name"}
            nodes[name] = Node(name, self._amounts(capacity, place, rounding="down"))
        return tuple(nodes.values())

    def _lease(self, doc: _LeaseDoc, place: Place, policy: Policy) -> LeaseFact:
        started = self._moment(doc.started, (*place, "started"), policy)
        if started > self.now:
            self._fault(
                (*place, "started"),
                "the lease starts after `now`",
                "Write a time until now, or an event that asks.",
            )
        return LeaseFact(
            id=doc.id,
            pool=self._pool(doc.pool, (*place, "pool")),
            amounts=self._amounts(doc.amounts, (*place, "amounts")),
            started=started,
            ends=None if doc.ends is None else self._moment(doc.ends, (*place, "ends"), policy),
            person=doc.person or "",
            node=doc.node,
            kind=doc.kind,
            borrowed=doc.borrowed,
            reservation=doc.reservation,
        )

    def _reservation(
        self, doc: _ReservationDoc, place: Place, policy: Policy, *, approved: bool
    ) -> Reservation:
        start = self._moment(doc.start, (*place, "from"), policy)
        end = self._moment(doc.end, (*place, "to"), policy)
        if end <= start:
            self._fault((*place, "to"), "the reservation ends before it begins", "Write a later time.")
        amounts = self._amounts(doc.amounts, (*place, "amounts"))
        if not any(amounts.values()):
            self._fault(
                (*place, "amounts"), "the reservation holds nothing", "Write for example gpu.h200: 2."
            )
        pool = self._pool(doc.pool, (*place, "pool"))
        return Reservation(doc.id, pool, amounts, start, end, approved=approved)

    def _event(
        self, doc: _EventDoc, index: int, policies: Mapping[int, Policy], policy: Policy
    ) -> tuple[Instant, Event]:
        place: Place = ("events", index)
        at = self._moment(doc.at, (*place, "at"), policy)
        event: Event = TickEvent()
        if doc.ask is not None:
            shows_up = None if doc.ask.shows_up == "never" else (doc.ask.shows_up or 0) * MINUTE
            event = AskEvent(self._ask(doc.ask, (*place, "ask")), doc.ask.count, shows_up)
        elif doc.release is not None:
            event = ReleaseEvent(doc.release)
        elif doc.cancel is not None:
            event = CancelEvent(doc.cancel)
        elif doc.extend is not None:
            event = ExtendEvent(doc.extend.id, doc.extend.minutes)
        elif doc.grant is not None:
            grant = doc.grant
            event = GrantEvent(
                pool=self._pool(grant.pool, (*place, "grant", "pool")),
                units=_units(grant.hours),
                until=self._moment(grant.until, (*place, "grant", "until"), policy),
                why=grant.why,
                period=grant.period,
                person=grant.person,
            )
        elif doc.reserve is not None:
            wanted = self._reservation(
                doc.reserve, (*place, "reserve"), policy, approved=doc.reserve.approved
            )
            event = ReserveEvent(wanted)
        elif doc.policy is not None:
            event = PolicyEvent(policies[index])
        return at, event

    def _ask(self, doc: _AskDoc, place: Place) -> Ask:
        return Ask(
            id=doc.id,
            person=doc.person or "",
            pool=self._pool(doc.pool, (*place, "pool")),
            amounts=self._amounts(doc.amounts, (*place, "amounts")),
            kind=doc.kind,
            profile=doc.profile,
            minutes=doc.minutes,
            reservation=doc.reservation,
            server=doc.id,
        )

    # -- values ----------------------------------------------------------------------------------------------

    def _pool(self, name: str, place: Place) -> str:
        if name not in self.known_pools:
            self._fault(
                place, f"there is no pool {name!r}", f"Use one of: {', '.join(sorted(self.known_pools))}."
            )
        return name

    def _amounts(
        self, quantities: Mapping[str, object], place: Place, *, rounding: Literal["up", "down"] = "up"
    ) -> dict[str, int]:
        amounts = {}
        for resource, quantity in quantities.items():
            if resource not in self.known_resources:
                known = ", ".join(sorted(self.known_resources))
                self._fault(
                    (*place, resource),
                    f"{resource!r} is not a resource of the policy",
                    f"Use one of: {known}.",
                )
                continue
            try:
                amounts[resource] = parse_amount(resource, quantity, rounding=rounding)
            except BadInput as error:
                self._fault((*place, resource), *_in_two(error))
        return amounts

    def _absolute(self, value: datetime | str, place: Place, policy: Policy) -> Instant:
        try:
            return self._instant(value, policy)
        except BadInput as error:
            raise FaultyDocument([self.document.fault(place, *_in_two(error))]) from error

    def _moment(self, value: Moment, place: Place, policy: Policy) -> Instant:
        """Relative to `now` (+1h, -30m) or absolute."""
        try:
            if isinstance(value, str) and (
                match := re.fullmatch(r"([+-]?)\s*((?:\d+[smhdw])+)", value.strip(), re.ASCII)
            ):
                seconds = parse_duration(match[2])
                return _in_range(self.now + (-seconds if match[1] == "-" else seconds), value)
            if value == 0 or value == "0":
                return self.now
            if isinstance(value, int):
                raise BadInput(f"{value!r} has no unit; write for example +30m, or a date and time")
            return self._instant(value, policy)
        except BadInput as error:
            self._fault(place, *_in_two(error))
            return self.now

    def _instant(self, value: datetime | str, policy: Policy) -> Instant:
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value.strip())
            except ValueError:
                raise BadInput(
                    f"{value!r} is not a time; write for example +30m or 2027-03-02T09:00:00+09:00"
                ) from None
        if value.tzinfo is None:
            value = value.replace(tzinfo=policy.timezone)
        try:
            instant = instant_of(value)
        except (OverflowError, ValueError, OSError):
            instant = -1
        return _in_range(instant, value.isoformat())

    # -- what only the whole file shows --------------------------------------------------------------------------

    def _refuse_half_characters(self) -> None:
        """What cannot be written out again: lone surrogates, which YAML lets people escape."""
        faults = [
            self.document.fault(place, f"{text!r} holds half of a character", "Write a whole one.")
            for place, text in _texts(self.document.data)
            if any("\ud800" <= letter <= "\udfff" for letter in text)
        ]
        if faults:
            raise FaultyDocument(faults)

    def _check_times(self, scenario: Scenario) -> None:
        for index, (at, _) in enumerate(scenario.events):
            if at < scenario.now:
                self._fault(
                    ("events", index, "at"), "the event comes before `now`", "Write a time from now on."
                )

    def _check_ids(self, doc: _ScenarioDoc) -> None:
        leases = [lease.id for lease in doc.leases]
        for index, lease_id in enumerate(leases):
            if lease_id in leases[:index]:
                self._fault(
                    ("leases", index, "id"), f"lease {lease_id!r} stands here twice", "Give it another id."
                )
        asks = {index: event.ask for index, event in enumerate(doc.events) if event.ask is not None}
        counts = {ask.id: ask.count if ask.count > 1 else 0 for ask in asks.values()}
        places: list[tuple[str, Place]] = [
            (lease_id, ("leases", i, "id")) for i, lease_id in enumerate(leases)
        ]
        places += [(ask.id, ("events", i, "ask", "id")) for i, ask in asks.items()]
        for name, place in places:
            whole, _, number = name.rpartition("/")
            if number.isdecimal() and 1 <= int(number) <= counts.get(whole, 0):
                self._fault(
                    place, f"{name!r} is what a part of ask {whole!r} is called", "Give it another id."
                )
        known = {*leases, *counts, *(name for name, _ in _reserved_ids(doc))}
        for index, event in enumerate(doc.events):
            named = event.release or event.cancel or (event.extend.id if event.extend else None)
            if named is not None and named not in known:
                self._fault(
                    ("events", index),
                    f"there is no lease or ask {named!r}",
                    "Name one that stands in the file.",
                )

    def _check_reservations(self, doc: _ScenarioDoc) -> None:
        ids = {lease.id for lease in doc.leases} | {e.ask.id for e in doc.events if e.ask is not None}
        for name, place in _reserved_ids(doc):
            if name in ids:
                self._fault(place, f"{name!r} stands here twice", "Give it another id.")
            ids.add(name)
        reserved = {name for name, _ in _reserved_ids(doc)}
        naming: list[tuple[str | None, Place]] = [
            (lease.reservation, ("leases", i, "reservation")) for i, lease in enumerate(doc.leases)
        ]
        naming += [
            (event.ask.reservation, ("events", i, "ask", "reservation"))
            for i, event in enumerate(doc.events)
            if event.ask is not None
        ]
        for named, place in naming:
            if named is not None and named not in reserved:
                what = f"there is no reservation {named!r}"
                self._fault(place, what, "Name one that stands in the file.")

    def _fault(self, place: Place, what: str, instead: str) -> None:
        self.faults.append(self.document.fault(place, what, instead))

    def _late_fault(self, section: str, index: int, what: str) -> FaultyDocument:
        return FaultyDocument([self.document.fault((section, index), *_in_two(what))])


def _reserved_ids(doc: _ScenarioDoc) -> list[tuple[str, Place]]:
    """The reservations of the file, and those that its events ask for."""
    found: list[tuple[str, Place]] = [
        (one.id, ("reservations", i, "id")) for i, one in enumerate(doc.reservations)
    ]
    return found + [
        (event.reserve.id, ("events", i, "reserve", "id"))
        for i, event in enumerate(doc.events)
        if event.reserve is not None
    ]


def _texts(data: object, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text of a document, names of settings included, with its place."""
    if isinstance(data, str):
        yield place, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield (*place, key), str(key)
            yield from _texts(value, (*place, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _texts(value, (*place, index))


def _in_two(told: object) -> tuple[str, str]:
    """What is wrong, and what to write instead."""
    what, _, instead = str(told).partition("; ")
    return what, f"{instead[:1].upper()}{instead[1:]}." if instead else ""


def _in_range(instant: Instant, text: str) -> Instant:
    if not EARLIEST <= instant < LATEST:
        raise BadInput(f"{text} is out of range; write a time from {FIRST_YEAR} to {LAST_YEAR}")
    return instant


def _units(hours: Hours) -> int:
    return hours_to_cost_units(hours)
