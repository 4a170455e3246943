"""Machines, people, and which process leads, in the database.

Beside `store`, which its transactions get these methods from; nothing here decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, delete, func, or_, select

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.people import Person
from hub_ext.db import tables
from hub_ext.quota.model import Device, Node

LARGEST_SKEW: Final = 5 * MINUTE
"""Clocks of two machines differ by less than this."""


class CentreRows:
    """The part of a transaction that reads and writes what the centre is made of. See `hub_ext.quota.ports`."""

    _connection: Connection
    _must_write: Callable[[], None]
    _insert: Callable[..., None]
    _upsert: Callable[..., None]
    _insert_or: Callable[..., Any]

    # -- machines -------------------------------------------------------------------------------------------

    def nodes(self) -> tuple[Node, ...] | None:
        known = tuple(
            Node(
                name=row["name"],
                capacity=row["capacity"],
                devices=tuple(Device(**device) for device in row["devices"]),
                simulated=row["simulated"],
                ready=row["ready"],
                only_gpus=row["only_gpus"],
            )
            for row in self._connection.execute(select(tables.nodes)).mappings()
        )
        # Not by the database, which may sort by a language.
        known = tuple(sorted(known, key=lambda node: node.name))
        return known if known or self._nodes_reported() else None

    def put_nodes(self, nodes: Sequence[Node]) -> None:
        self._must_write()
        if self.nodes() == tuple(sorted(nodes, key=lambda node: node.name)):
            return
        self._upsert(tables.reported, [{"what": "nodes"}], key=("what",))
        self._connection.execute(delete(tables.nodes))
        self._insert(tables.nodes, [asdict(node) | {"capacity": dict(node.capacity)} for node in nodes])

    def _nodes_reported(self) -> bool:
        return bool(self._connection.scalar(select(func.count()).where(tables.reported.c.what == "nodes")))

    # -- people ---------------------------------------------------------------------------------------------

    def person(self, name: str) -> Person | None:
        row = (
            self._connection.execute(select(tables.people).where(tables.people.c.name == name))
            .mappings()
            .first()
        )
        return None if row is None else _person(row)

    def people(self) -> list[Person]:
        query = select(tables.people).order_by(tables.people.c.name)
        return [_person(row) for row in self._connection.execute(query).mappings()]

    def put_person(self, person: Person, *, issuer: str = "", subject: str = "", now: Instant = 0) -> None:
        """As the port says; an identity that was stored stays where none is given."""
        self._must_write()
        row = {
            "name": person.name,
            "issuer": issuer,
            "subject": subject,
            "pools": list(person.pools),
            "roles": sorted(person.roles),
            "profiles": sorted(person.profiles),
            "any_pool": person.any_pool,
            "any_profile": person.any_profile,
            "at": now,
        }
        kept = () if issuer or subject else ("issuer", "subject")
        self._upsert(tables.people, [row], key=("name",), kept=kept)

    def holder(self, name: str) -> tuple[str, str] | None:
        people = tables.people.c
        row = self._connection.execute(
            select(people.issuer, people.subject).where(people.name == name)
        ).first()
        return None if row is None else (row.issuer, row.subject)

    def name_of(self, issuer: str, subject: str) -> str | None:
        people = tables.people.c
        query = select(people.name).where(people.issuer == issuer, people.subject == subject)
        return self._connection.execute(query.order_by(people.at, people.name)).scalars().first()

    # -- leaders --------------------------------------------------------------------------------------------

    def take_leadership(self, name: str, holder: str, now: Instant, seconds: int) -> bool:
        self._must_write()
        leaders = tables.leaders
        statement = self._insert_or(leaders).values(name=name, holder=holder, until=now + seconds)
        statement = statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": holder, "until": now + seconds},
            where=or_(
                leaders.c.holder == holder,
                leaders.c.until <= now,
                # Its holder's clock was far ahead, or ours was set back: do not wait for that time to come.
                leaders.c.until > now + seconds + LARGEST_SKEW,
            ),
        )
        return self._connection.execute(statement.returning(leaders.c.holder)).first() is not None

    def leads(self, name: str, holder: str) -> bool:
        query = select(tables.leaders.c.holder).where(tables.leaders.c.name == name)
        return self._connection.scalar(query) == holder

    def leave_leadership(self, name: str, holder: str) -> None:
        self._must_write()
        leaders = tables.leaders
        self._connection.execute(delete(leaders).where(leaders.c.name == name, leaders.c.holder == holder))


def _person(row: Mapping[Any, Any]) -> Person:
    return Person(
        name=row["name"],
        pools=tuple(row["pools"]),
        roles=frozenset(row["roles"]),
        profiles=frozenset(row["profiles"]),
        any_pool=row["any_pool"],
        any_profile=row["any_profile"],
    )
