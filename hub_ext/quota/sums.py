"""The running sums that make a decision cheap: numbers under keys, whatever the number of leases.

| kind | pool | item | person | period | value |
|---|---|---|---|---|---|
| used | pool | resource | | | Kueue's usage: own plus what children pass up |
| used | pool | resource | | instant | the same at a window's start to come: reservations, and leases that end after it |
| guaranteed | home pool | resource | | | g(h, r): sum of guaranteed leases |
| held | capping pool | cap key | person | | what the person holds in the subtree |
| spent | pool | budget | person or "" | period's first day | cost units accrued |
| corrected | pool | budget | person or "" | period's first day | cost units put in by hand |
| committed | pool | budget | person or "" | period's first day | cost units running leases may still accrue |
| drawn | pool | budget | grant id | period's first day | cost units of the period paid by the grant; without a period, of all |
| opened | pool | budget | | | first instant of the first period of the budget |
| opened | pool | budget | | `hours`, `carry` | its hours and its cap on carrying over, as in force: cost units and one more (none is a fact, too) |
| carried | pool | budget | person or "" | period's first day | what the period carried in before a policy changed that, likewise |
| taken | | resource | node | | what leases hold of the node |
| starting | | | | | servers booked and not yet running |
| starts | | root | | instant | reservations of that tree that begin then and have not yet |
| window | pool | resource | | reservation | the end of a reservation that has begun and is not over |
| reserved | pool | resource | | reservation | what it holds now: all of it, then what it shrank to |
| inside | pool | resource | | reservation | what leases inside it hold |

Kept apart from their store, so that the database and `simulate` compute them with the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class SumKey(NamedTuple):
    kind: str
    pool: str = ""
    item: str = ""
    person: str = ""
    period: str = ""


KEPT_BY_REFOLD = frozenset({"corrected", "drawn", "opened", "carried"})
"""Facts of their own: not derivable from leases and what they accrued."""
NO_STARTS: tuple[int, ...] = ()


class Sums:
    """A mapping of keys to integers in which a missing key counts as zero."""

    def __init__(self, values: Mapping[SumKey, int] | None = None) -> None:
        self._values: dict[SumKey, int] = {key: value for key, value in (values or {}).items() if value}
        self._changed: set[SumKey] = set()
        self._starts: dict[str, tuple[int, ...]] = {}
        for key in self._values:
            if key.kind == "starts":
                self._note_start(key)

    def starts(self, root: str) -> tuple[int, ...]:
        """The instants at which reservations of the root's tree begin that have not begun yet, the earliest first."""
        return self._starts.get(root, NO_STARTS)

    def _note_start(self, key: SumKey) -> None:
        others = set(self.starts(key.item)) - {int(key.period)}
        self._starts[key.item] = tuple(
            sorted(others | ({int(key.period)} if self._values.get(key) else set()))
        )

    def __getitem__(self, key: SumKey) -> int:
        return self._values.get(key, 0)

    def __setitem__(self, key: SumKey, value: int) -> None:
        if value == self._values.get(key, 0):
            return
        self._changed.add(key)
        if value:
            self._values[key] = value
        else:
            del self._values[key]
        if key.kind == "starts":
            self._note_start(key)

    def add(self, key: SumKey, value: int) -> None:
        self[key] += value

    def __iter__(self) -> Iterator[SumKey]:
        return iter(self._values)

    def items(self) -> Iterator[tuple[SumKey, int]]:
        return iter(self._values.items())

    def of_kind(self, kind: str) -> Iterator[tuple[SumKey, int]]:
        return ((key, value) for key, value in self._values.items() if key.kind == kind)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sums) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # mutable

    def copy(self) -> Sums:
        copied = Sums()
        copied._values = self._values.copy()
        copied._starts = self._starts.copy()
        return copied

    def take_changes(self) -> dict[SumKey, int]:
        """The keys set since the last call with their values now, for the store to write."""
        changes = {key: self[key] for key in self._changed}
        self._changed.clear()
        return changes

    def __repr__(self) -> str:
        return f"Sums({self._values!r})"
