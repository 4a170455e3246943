"""Reads what the pages *centre* show, each in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hub_ext.core.clock import Instant
from hub_ext.desk.live_scenario import Live
from hub_ext.desk.mine import titles_of
from hub_ext.desk.records import Cursor, Held, QueueFilter, Records, Version, Waiting
from hub_ext.desk.views_centre import CentreFacts, page_of, pages_of, with_class
from hub_ext.desk.views_decisions import ENTRIES_A_PAGE, Asked, LogFacts
from hub_ext.desk.views_policy import VERSIONS, PolicyFacts
from hub_ext.desk.views_queue import TICKETS_A_PAGE, QueueFacts
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.quota.booking import recent_use
from hub_ext.quota.ledger import Entry
from hub_ext.quota.model import Node, Policy
from hub_ext.quota.numbers import budget_states
from hub_ext.quota.ports import Store, Transaction

NOWHERE: Final = 50
"""So many leases without a machine are listed."""
AT_ONCE: Final = 500
"""Rows that a download reads at a time."""
MOST_ROWS: Final = 200_000
"""A download of the log ends here; narrower filters give the rest."""


def read_centre(
    store: Store, catalogue: Catalogue, clock_now: Instant, gpu_class: str, page: int
) -> CentreFacts:
    """The machines of one page, what runs on them, and the totals of all. Raises StoreUnavailable."""
    with store.reading() as txn:
        now, policy, records = _now(txn, clock_now), txn.policy, Records.of(txn)
        gpu_class = gpu_class if gpu_class in policy.gpu_classes else ""
        nodes = txn.nodes()
        fitting = with_class(nodes or (), gpu_class)
        page = max(1, min(page, pages_of(len(fitting))))
        shown = page_of(fitting, page)
        return CentreFacts(
            policy=policy,
            as_of=now,
            now=now,
            nodes=nodes,
            shown=shown,
            held=records.held_on(node.name for node in shown),
            nowhere=records.held_nowhere(NOWHERE),
            totals=records.totals(),
            taken={
                (key.person, key.item): value
                for key, value in txn.ledger([]).sums.items()
                if key.kind == "taken"
            },
            waiting=records.count_waiting(),
            titles=titles_of(policy, catalogue),
            gpu_class=gpu_class,
            page=page,
        )


def read_machines(
    store: Store, after: str = "", limit: int | None = None
) -> tuple[Policy, list[tuple[Node, list[Held]]]]:
    """Machines with GPUs by name, behind this one, and what runs on them: for downloads and programs."""
    with store.reading() as txn:
        nodes = [node for node in with_class(txn.nodes() or (), "") if node.name > after][:limit]
        by_node: dict[str | None, list[Held]] = {}
        for held in Records.of(txn).held_on(node.name for node in nodes):
            by_node.setdefault(held.node, []).append(held)
        return txn.policy, [(node, by_node.get(node.name, [])) for node in nodes]


# -- the queue --------------------------------------------------------------------------------------------------------


def queue_filter(policy: Policy, pool: str, person: str, code: str) -> QueueFilter:
    """A pool stands for all below it."""
    pools = policy.subtree(pool) if pool in policy.pools else ()
    return QueueFilter(pools, person, code)


def read_queue(
    store: Store, catalogue: Catalogue, clock_now: Instant, pool: str, person: str, code: str, page: int
) -> QueueFacts:
    with store.reading() as txn:
        now, policy, records = _now(txn, clock_now), txn.policy, Records.of(txn)
        which = queue_filter(policy, pool, person, code)
        count = records.count_waiting(which)
        page = max(1, min(page, pages_of(count, TICKETS_A_PAGE)))
        tickets = records.waiting(which, offset=(page - 1) * TICKETS_A_PAGE, limit=TICKETS_A_PAGE)
        titles = titles_of(policy, catalogue)
        return QueueFacts(policy, now, now, tickets, count, which, pool, page, titles)


def all_waiting(
    store: Store, clock_now: Instant, pool: str, person: str, code: str
) -> tuple[Policy, Instant, list[Waiting]]:
    with store.reading() as txn:
        which = queue_filter(txn.policy, pool, person, code)
        tickets = Records.of(txn).waiting(which, offset=0, limit=MOST_ROWS)
        return txn.policy, _now(txn, clock_now), tickets


def read_waiting(store: Store, pool: str, person: str, code: str, offset: int, limit: int) -> list[Waiting]:
    with store.reading() as txn:
        which = queue_filter(txn.policy, pool, person, code)
        return Records.of(txn).waiting(which, offset=offset, limit=limit)


# -- the log ----------------------------------------------------------------------------------------------------------


def read_log(
    store: Store, catalogue: Catalogue, clock_now: Instant, asked: Asked, after: Cursor | None
) -> LogFacts:
    with store.reading() as txn:
        now, policy = _now(txn, clock_now), txn.policy
        entries = Records.of(txn).entries(asked.which(policy), after=after, limit=ENTRIES_A_PAGE + 1)
        return LogFacts(policy, now, entries, asked, after, titles_of(policy, catalogue))


def read_entries(
    store: Store, asked: Asked, after: Cursor | None, limit: int = AT_ONCE
) -> tuple[Policy, list[tuple[int, Entry]]]:
    """The next entries, the newest first: for downloads and programs."""
    with store.reading() as txn:
        return txn.policy, Records.of(txn).entries(asked.which(txn.policy), after=after, limit=limit)


def all_entries(store: Store, asked: Asked) -> Iterator[tuple[Policy, list[tuple[int, Entry]]]]:
    """All that was asked for, up to `MOST_ROWS`, a snapshot at a time: entries never change, so that nothing is told
    twice or left out.
    """
    after: Cursor | None = None
    for _ in range(MOST_ROWS // AT_ONCE):
        policy, entries = read_entries(store, asked, after)
        yield policy, entries
        if len(entries) < AT_ONCE:
            return
        after = Cursor(entries[-1][1].at, entries[-1][0])


# -- the policy -------------------------------------------------------------------------------------------------------


def read_policy(store: Store, clock_now: Instant, number: int | None) -> PolicyFacts | None:
    """One version with the one before it (None: the one in force); None where there is no such version."""
    with store.reading() as txn:
        records = Records.of(txn)
        versions = records.versions(VERSIONS)
        if number is None and versions:
            number = versions[0].number
        shown = None if number is None else records.version(number)
        text = None if number is None else records.text_of(number)
        if shown is None or text is None:
            return None
        before = records.before(shown.number)
        former = None if before is None else records.text_of(before)
        return PolicyFacts(versions, shown, text, before, former, _now(txn, clock_now))


def read_versions(store: Store, before: int | None, limit: int) -> tuple[int | None, list[Version]]:
    """The number of the version in force, and the versions before `before` (None: all), the newest first."""
    with store.reading() as txn:
        records = Records.of(txn)
        newest = records.versions(1)
        return (newest[0].number if newest else None), records.versions(limit, before=before)


# -- what-if ----------------------------------------------------------------------------------------------------------


def read_live(store: Store, clock_now: Instant) -> Live:
    """Everything that a scenario states, from one snapshot."""
    with store.reading() as txn:
        now, policy, records = _now(txn, clock_now), txn.policy, Records.of(txn)
        newest = records.versions(1)
        ledger = txn.ledger(None)
        left = [(grant, grant.units - ledger.budgets.drawn(grant)) for grant in ledger.grants]
        return Live(
            policy=policy,
            text=(records.text_of(newest[0].number) if newest else None) or "",
            now=now,
            people=txn.people(),
            nodes=txn.nodes(),
            leases=txn.live_leases(),
            tickets=txn.tickets(),
            reservations=[one for one in txn.reservations(now) if one.approved],
            budgets=list(budget_states(ledger, now)),
            recent=recent_use(txn, now),
            grants=[(grant, units) for grant, units in left if units > 0 and grant.until > now],
        )


def _now(txn: Transaction, clock_now: Instant) -> Instant:
    """Never before what was written last."""
    return max(clock_now, txn.latest())
