"""What every part of the clock stands on: leadership, its picture of the ledger, and complaints that are made once.

One clock at a time leads: a row in the database, with an end some seconds ahead. What is written under it looks at that
row again in the same transaction, so that a clock that was held up writes nothing after another took over.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from hub_ext.core.clock import Instant
from hub_ext.core.errors import HubError
from hub_ext.desk.metrics import Metrics
from hub_ext.desk.picture import Picture
from hub_ext.quota.model import Lease
from hub_ext.quota.ports import Servers, Transaction, World
from hub_ext.quota.service import Admission

log = structlog.get_logger("hub_ext.clock")

LEADER = "clock"
LEADER_SECONDS = 7
"""With the tick of whoever takes over, a clock that was killed is missed for less than ten seconds."""
STARTS_SECONDS = 0.1
"""How long a tick waits for the starts it ordered: most are under way then."""


class LeadsNoMore(HubError):
    """Another clock took over while this one was held up: what it was about to write is not written."""


@dataclass
class Leading:
    """`reload` loads a policy file that changed; it raises FaultyDocument and leaves the old one in force.
    `count_nodes` writes down which machines there are; it raises HubError while that cannot be seen.
    `starts_seconds` is how long a tick waits for the starts it ordered (None: until they are all taken).
    """

    admission: Admission
    world: World
    servers: Servers
    reload: Callable[[], bool] = lambda: False
    count_nodes: Callable[[], None] = lambda: None
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    starts_seconds: float | None = STARTS_SECONDS
    metrics: Metrics = field(default_factory=Metrics)
    picture: Picture = field(default_factory=Picture)
    _leads_since: Instant | None = None
    """When leadership was last taken or renewed; None while another clock leads."""
    _said: dict[str, str] = field(default_factory=dict)
    """What was complained of last, by what it is about, while it goes on."""

    def _lead(self) -> bool:
        now = self.admission.clock.now()
        try:
            with self.admission.store.booking() as txn:
                leads = txn.take_leadership(LEADER, self.holder, now, LEADER_SECONDS)
        except HubError as error:
            self._say_once(LEADER, f"the clock stands still: {error}")
            self._leads_since = None
            return False
        self._said.pop(LEADER, None)
        if leads and self._leads_since is None:
            self._forget()
        if not leads:
            self.metrics.follows()
        self._leads_since = now if leads else None
        return leads

    def _still_leads(self) -> bool:
        """Renews the leadership before a long tick outlasts it: two clocks never act at once."""
        return self._leads_for(LEADER_SECONDS // 2) or self._lead()

    def _leads_for(self, seconds: int) -> bool:
        """Whether the leadership was renewed within so many seconds."""
        now = self.admission.clock.now()
        return self._leads_since is not None and 0 <= now - self._leads_since < seconds

    @contextmanager
    def _writing(self) -> Iterator[Transaction]:
        """A booking transaction of the clock that leads. Raises LeadsNoMore, StoreUnavailable."""
        with self.admission.store.booking() as txn:
            if not txn.leads(LEADER, self.holder):
                self._leads_since = None
                raise LeadsNoMore("another clock leads")
            yield txn

    def _forget(self) -> None:
        """What was seen before another clock led is no longer true."""
        self.picture.forget()

    def _say_once(self, about: str, text: str) -> bool:
        """Whether it is news."""
        if self._said.get(about) == text:
            return False
        self._said[about] = text
        log.warning(text)
        return True

    def _refresh(self, *, machines: bool = False) -> Instant:
        """The picture as of now, and that moment."""
        with self.admission.store.reading() as txn:
            now = max(self.admission.clock.now(), txn.latest())
            self.metrics.count(self.picture.refresh(txn, now, machines=machines))
        return now

    def _current(self, lease: Lease) -> Lease | None:
        """The lease, unless it changed since it was looked at: then the next tick looks again."""
        with self.admission.store.reading() as txn:
            current = txn.lease(lease.id)
        same = current is not None and (current.state, current.handle) == (lease.state, lease.handle)
        return current if same else None
