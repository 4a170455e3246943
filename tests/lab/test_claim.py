"""The claim of a server: once, whoever comes how often, and until the desk has heard it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from hub_ext.core.errors import HubError
from hub_ext.notebook.lab.claim import PAUSES, STEADY_PAUSE, TRIES, Claim, watch_identities
from hub_ext.notebook.lab.desk import DeskAway, Refused, Told
from hub_ext.notebook.lab.model import Lease

WAITING = Lease("l1", 2_000_000_000, "12:33")
CLAIMED = Lease("l1", 2_000_000_000, "12:33", unclaimed=False)


class ScriptedDesk:
    """Answers one after the other; the last for ever. An exception is raised."""

    def __init__(
        self, leases: Sequence[Lease | HubError | None], claims: Sequence[HubError | None] = (None,)
    ) -> None:
        self.leases, self.answers = list(leases), list(claims)
        self.claims: list[str] = []

    async def lease(self, language: str) -> Told:
        await asyncio.sleep(0)
        found = self.leases.pop(0) if len(self.leases) > 1 else self.leases[0]
        if isinstance(found, HubError):
            raise found
        return Told(found, None)

    async def claim(self, lease: str) -> None:
        self.claims.append(lease)
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


def claim_of(desk: ScriptedDesk) -> tuple[Claim, list[float]]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return Claim(desk, sleep=sleep), slept  # type: ignore[arg-type]


async def test_a_hundred_requests_at_once_and_later_ones_claim_once() -> None:
    desk = ScriptedDesk([WAITING])
    claim, slept = claim_of(desk)

    async def request() -> None:
        claim.somebody_came()

    await asyncio.gather(*(request() for _ in range(100)))
    await claim.settled()
    await asyncio.gather(*(request() for _ in range(100)))
    await claim.settled()
    assert desk.claims == ["l1"]
    assert slept == []


@pytest.mark.parametrize(
    ("leases", "answers", "claims", "pauses"),
    [
        pytest.param([CLAIMED], [None], 0, 0, id="somebody came already"),
        pytest.param([DeskAway("gone"), DeskAway("gone"), WAITING], [None], 1, 2, id="the desk comes back"),
        pytest.param([None, None, WAITING], [None], 1, 2, id="the lease is written late"),
        pytest.param([Refused(403, "no"), WAITING], [None], 1, 1, id="rights come late"),
        pytest.param(
            [WAITING], [DeskAway("slow"), DeskAway("slow"), None], 3, 2, id="no answer to the claim"
        ),
        pytest.param([WAITING, CLAIMED], [DeskAway("slow")], 1, 1, id="the claim was heard, its answer lost"),
        pytest.param([WAITING], [Refused(409, "not to be claimed")], 1, 0, id="nothing to claim"),
        pytest.param([WAITING], [Refused(404, "no such lease")], 1, 0, id="it ended meanwhile"),
    ],
)
async def test_is_tried_until_the_desk_has_heard_it(
    leases: list[Any], answers: list[Any], claims: int, pauses: int
) -> None:
    desk = ScriptedDesk(leases, answers)
    claim, slept = claim_of(desk)
    claim.somebody_came()
    await claim.settled()
    assert len(desk.claims) == claims
    assert slept == list(PAUSES[:pauses])


async def test_gives_up_long_after_it_has_run_out() -> None:
    desk = ScriptedDesk([DeskAway("gone")])
    claim, slept = claim_of(desk)
    claim.somebody_came()
    await claim.settled()
    assert len(slept) == TRIES
    assert set(slept[len(PAUSES) :]) == {STEADY_PAUSE}
    assert sum(slept) > 20 * 60


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a while"])
async def test_only_those_who_are_known_have_come(waits: bool) -> None:
    def at_once(handler: str) -> str | None:
        return handler or None

    async def after_a_while(handler: str) -> str | None:
        return handler or None

    provider = SimpleNamespace(get_user=after_a_while if waits else at_once)
    came: list[int] = []
    watch_identities(provider, lambda: came.append(1))
    assert await provider.get_user("") is None
    assert came == []
    assert await provider.get_user("somebody") == "somebody"
    assert came == [1]
