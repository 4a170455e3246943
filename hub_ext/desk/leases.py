"""Reads what is told about a person's leases: how long they may go on, their notices and their hours. One transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hub_ext.core.clock import MINUTE, Instant
from hub_ext.core.decision import Refuse, Wait
from hub_ext.core.people import Person
from hub_ext.desk.paging import Place, one_page
from hub_ext.desk.records import Records
from hub_ext.desk.views_lease import LeaseFacts
from hub_ext.quota.booking import loaded
from hub_ext.quota.budget import states_that_bind
from hub_ext.quota.contention import WAITS_FOR_ROOM
from hub_ext.quota.explain import Titles
from hub_ext.quota.ledger import Ledger
from hub_ext.quota.model import SERVER, Lease, LeaseState, Policy
from hub_ext.quota.policy import End, Snapshot, decide_extension
from hub_ext.quota.ports import Store, Transaction
from hub_ext.quota.queue import others_waiting_for

Extension = End | Wait | Refuse
TitlesOf = Callable[[Policy], Titles]
"""What pools and profiles are called, under the policy in force."""


def read_leases(
    store: Store,
    person: Person,
    clock_now: Instant,
    titles_of: TitlesOf,
    *,
    server: str | None,
    limit: int,
    after: Place | None,
) -> tuple[list[LeaseFacts], str | None]:
    """A page of what the person runs (only as the server of this name), and the cursor to go on from."""
    with store.reading() as txn:
        own = txn.live_leases(person=person.name)
        found = own if server is None else [one for one in own if (one.kind, one.server) == (SERVER, server)]
        page, following = one_page(found, lambda one: (one.booked_at, one.id), limit, after)
        return _facts(txn, person, own, page, clock_now, titles_of), following


def read_lease(
    store: Store, person: Person, clock_now: Instant, titles_of: TitlesOf, lease_id: str
) -> LeaseFacts | None:
    """One lease of the person's, also one that has ended; None where there is none of theirs."""
    with store.reading() as txn:
        lease = txn.lease(lease_id)
        if lease is None or lease.person != person.name:
            return None
        (facts,) = _facts(txn, person, txn.live_leases(person=person.name), [lease], clock_now, titles_of)
        return facts


def extensions_of(
    txn: Transaction,
    ledger: Ledger,
    own: Sequence[Lease],
    now: Instant,
    minutes: Callable[[Lease], Sequence[int]],
) -> Mapping[str, Sequence[tuple[int, Extension]]]:
    """What each length would come to, for every server that runs: as `Admission.extend` answers."""
    running = [lease for lease in own if lease.kind == SERVER and lease.state is LeaseState.RUNNING]
    if not running:
        return {}
    snapshot = Snapshot(
        ledger.tree,
        ledger.sums,
        txn.nodes(),
        ledger.grants,
        own=own,
        reservations=txn.reservations(now),
    )
    waiting = Records.of(txn).waited_for(WAITS_FOR_ROOM)
    found: dict[str, list[tuple[int, Extension]]] = {}
    for lease in running:
        objection = others_waiting_for(ledger.policy, lease, waiting)
        found[lease.id] = [
            (each, objection or decide_extension(snapshot, lease, each, now)) for each in minutes(lease)
        ]
    return found


def _facts(
    txn: Transaction,
    person: Person,
    own: Sequence[Lease],
    shown: Sequence[Lease],
    clock_now: Instant,
    titles_of: TitlesOf,
) -> list[LeaseFacts]:
    policy, now = txn.policy, max(clock_now, txn.latest())
    ledger = txn.ledger(loaded(policy, shown), [person.name])

    def longest(lease: Lease) -> Sequence[int]:
        return [max(1, policy.session(lease.pool).max // MINUTE) if lease.pool in policy.pools else 1]

    extensions = extensions_of(txn, ledger, shown, now, longest)
    titles = titles_of(policy)
    found = []
    for lease in shown:
        extension = next((one for _, one in extensions.get(lease.id, ())), None)
        until = extension.at if isinstance(extension, End) else lease.ends_at
        why, pool = _notice(txn, lease)
        found.append(
            LeaseFacts(
                lease=lease,
                policy=policy,
                now=now,
                titles=titles,
                notice_why=why,
                notice_pool=pool,
                longest=None if extension is None else max(lease.ends_at, until),
                objection=None if extension is None or isinstance(extension, End) else extension,
                budgets=tuple(
                    states_that_bind(ledger.budgets, policy, [lease.path], person.name, now)
                    if lease.cost
                    else ()
                ),
            )
        )
    return found


def _notice(txn: Transaction, lease: Lease) -> tuple[str | None, str | None]:
    """Why it was told to end, and the pool that needs it back."""
    if lease.noticed_at is None:
        return None, None
    ticket = txn.ticket(lease.noticed_for) if lease.noticed_for else None
    return Records.of(txn).notice_of(lease.id) or None, None if ticket is None else ticket.ask.pool
