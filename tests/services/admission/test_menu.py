"""What the menu shows is what an ask is answered: for the example centre, its people and all its profiles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub_ext.core.decision import Admit, Code, Decision, Wait
from hub_ext.core.people import Person
from hub_ext.factory import Factory
from hub_ext.profiles.service import Menu, Profiles
from hub_ext.quota.model import Outlook
from hub_ext.quota.service import Admission
from tests.services.store.city import check_laws
from tests.support.fakes import HandClock
from tests.support.state import example_files

START = 1_803_945_600
"""A Tuesday morning in Seoul, 2027."""
PEOPLE = ["student", "researcher", "instructor", "lead", "operator"]


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    made = example_files(tmp_path_factory.mktemp("example")).upgraded()
    for name, entry in made.documents.identity.people.items():
        made.admission.put_person(Person(name, entry.pools, entry.roles))
    return made


@pytest.fixture
async def profiles(factory: Factory) -> AsyncIterator[Profiles]:
    yield Profiles(Admission(factory.store, HandClock(START)), factory.documents.catalogue)
    with factory.store.reading() as txn:
        live, waiting = [lease.id for lease in txn.live_leases()], txn.tickets()
    for ticket in waiting:
        factory.admission.leave_now(ticket.id, ticket.ask.person)
    for lease in live:
        factory.admission.release_now(lease)
    check_laws(factory.store)


async def start(profiles: Profiles, person: str, profile: str, server: str, **options: Any) -> Decision:
    chosen = await profiles.choose(person, server, {"profile": profile, **options})
    return (await profiles.admission.admit(chosen.person, chosen.ask)).decision


BUSY: dict[str, list[tuple[str, str, str]]] = {
    "an empty centre": [],
    "a morning with some servers": [
        ("researcher", "h200", "a"),
        ("lead", "h200", "a"),
        ("student", "h200-slice", "a"),
    ],
    "a full centre": [
        *(
            ("lead", "h200-4", "a"),
            ("operator", "h200", "b"),
            ("operator", "h200", "c"),
            ("researcher", "h200", "d"),
        ),
        *((person, "h200-slice", f"s{number}") for person in PEOPLE for number in range(3)),
        *((person, "cpu-large", f"c{number}") for person in PEOPLE for number in range(2)),
    ],
}


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("before", BUSY.values(), ids=BUSY.keys())
async def test_the_menu_says_what_admission_then_answers(
    profiles: Profiles, before: list[tuple[str, str, str]], person: str
) -> None:
    started = [await start(profiles, *one) for one in before]
    assert sum(isinstance(decision, Admit) for decision in started) >= min(len(before), 3)
    menu = await profiles.menu(person)
    assert menu.decisions
    by_slug = {profile.slug: profile for profile in menu.profiles}
    for (slug, pool, combination), shown in menu.decisions.items():
        profile = by_slug[slug]
        choices = dict(zip((option.name for option in profile.options), combination, strict=True))
        options = choices | {"pool": pool} | ({"minutes": max(profile.minutes)} if profile.minutes else {})
        answered = await start(profiles, person, slug, "a new server", **options)
        # Where others wait for the same, their line decides: it may say more exactly why, and admits what is its turn.
        if not (isinstance(shown, Wait) and shown.code is Code.OTHERS_WAITING):
            assert answered == shown, (slug, pool, combination)
        await give_up(profiles, person)


async def give_up(profiles: Profiles, person: str) -> None:
    with profiles.admission.store.reading() as txn:
        leases = [lease for lease in txn.live_leases(person=person) if lease.server == "a new server"]
        tickets = [ticket for ticket in txn.tickets(person=person) if ticket.ask.server == "a new server"]
    for lease in leases:
        await profiles.admission.release(lease.id)
    for ticket in tickets:
        await profiles.admission.leave(ticket.id, person)


async def test_ones_own_place_in_line_keeps_nothing_from_what_would_take_it(profiles: Profiles) -> None:
    """While room is made for somebody, it is kept for them; they themselves may take something else instead."""
    for server in ("a", "b"):
        assert isinstance(await start(profiles, "operator", "h200", server), Admit)
    assert isinstance(await start(profiles, "operator", "h200", "c"), Wait)
    with profiles.admission.store.booking() as txn:
        (ticket,) = txn.tickets(person="operator")
        txn.put_outlooks({ticket.id: Outlook("no-node-free", {}, place=1, reclaims=("another's",))})

    def of_cpu_small(menu: Menu) -> Decision:
        return next(found for (slug, _, _), found in menu.decisions.items() if slug == "cpu-small")

    kept = of_cpu_small(await profiles.menu("operator"))
    assert isinstance(kept, Wait)
    assert kept.code is Code.OTHERS_WAITING
    own = await profiles.menu("operator", instead_of=ticket.id)
    assert isinstance(of_cpu_small(own), Admit)
