"""What operators and sign-ins write down: policies, grants, people and machines. Each one short transaction."""

from __future__ import annotations

from collections.abc import Sequence

from hub_ext.core.clock import Clock, Instant
from hub_ext.core.errors import BadInput, NameTaken
from hub_ext.core.people import Person
from hub_ext.quota.booking import new_id, path_of
from hub_ext.quota.ledger import find_budget, refold
from hub_ext.quota.model import Grant, Lease, Node, Policy
from hub_ext.quota.ports import Store, Transaction
from hub_ext.quota.sums import Sums


class Records:
    """The part of `Admission` that decides nothing."""

    store: Store
    clock: Clock

    def load_policy(self, text: str, policy: Policy, *, who: str) -> list[Lease]:
        """Put a policy in force: refold every sum under it. Returns the leases that became guaranteed."""
        with self.store.booking() as txn:
            now = self._now(txn)
            kept = txn.ledger(None).sums if txn.policy_digest else Sums()
            sums = refold(
                policy,
                txn.live_leases(),
                txn.charges(),
                kept,
                txn.grants(),
                since=now,
                reservations=txn.reservations(now),
            )
            txn.put_policy(text, policy, sums, now=now, who=who)
            ledger = txn.ledger(None)
            promoted = ledger.promote(txn.borrowed_leases(policy.pools), now)
            txn.save(ledger, promoted)
            return promoted

    def grant_hours(
        self,
        pool: str,
        units: int,
        until: Instant,
        *,
        why: str,
        who: str,
        period: str | None,
        person: str | None,
    ) -> Grant:
        """Put a pot of hours beside one budget. Raises BadInput where it is not clear which, or has run out."""
        with self.store.booking() as txn:
            now = self._now(txn)
            try:
                of = find_budget(txn.policy, pool, period, person)
            except ValueError as error:
                raise BadInput(str(error)) from error
            if until <= now:
                raise BadInput("The grant would have run out already; give a later date with --until")
            ledger = txn.ledger(path_of(txn.policy, pool), [person or ""])
            grant = Grant(new_id(), pool, of.budget.name, of.person, units, until, why, now, who)
            ledger.grant(grant)
            txn.save(ledger, [])
            return grant

    def put_person(self, person: Person, *, issuer: str = "", subject: str = "") -> None:
        with self.store.booking() as txn:
            txn.put_person(person, issuer=issuer, subject=subject, now=self._now(txn))

    def sign_in(self, person: Person, issuer: str, subject: str) -> None:
        """Write down somebody whom a provider signed in. Raises NameTaken for a name that belongs to another.

        A name that no provider's person has had yet becomes this one's: also a demo person's.
        """
        with self.store.booking() as txn:
            if txn.holder(person.name) not in (None, ("", ""), (issuer, subject)):
                raise NameTaken(f"The user name {person.name} belongs to somebody else.")
            txn.put_person(person, issuer=issuer, subject=subject, now=self._now(txn))

    def name_of(self, issuer: str, subject: str) -> str | None:
        with self.store.reading() as txn:
            return txn.name_of(issuer, subject)

    def person(self, name: str) -> Person | None:
        with self.store.reading() as txn:
            return txn.person(name)

    def put_nodes(self, nodes: Sequence[Node]) -> None:
        with self.store.booking() as txn:
            txn.put_nodes(nodes)

    def _now(self, txn: Transaction) -> Instant:
        """Never before the newest entry: a clock that was set back charges nothing twice."""
        return max(self.clock.now(), txn.latest())
