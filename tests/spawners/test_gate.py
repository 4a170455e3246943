"""What the gate does for starts that a hub was cut off in, and for ends that could not be written down at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.spawner import SpawnException

from hub_ext.core.errors import StoreUnavailable
from hub_ext.desk.clockwork import Clockwork
from hub_ext.quota.model import LeaseState
from hub_ext.spawners import gate
from hub_ext.spawners.kube import GatedKubeSpawner
from tests.support.fakes import ObedientHub, ObedientWorld
from tests.support.hub import ROOT
from tests.support.pod_spawners import Site, a_site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    # Making a spawner reads the way into the cluster; nobody is asked there.
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **options: None)
    with a_site(tmp_path, {}) as one:
        one.person("student", "hangang-univ", roles=("student",))
        yield one


def all_leases() -> list[Any]:
    assert GatedKubeSpawner.gate is not None
    with GatedKubeSpawner.gate.admission.store.reading() as txn:
        return txn.all_leases()


async def test_what_was_asked_before_a_restart_is_decided_after_it(site: Site) -> None:
    spawner = site.spawner("student", profile="h200-slice")
    spawner._undecided = True
    await spawner.run_post_stop_hook()
    (lease,) = all_leases()
    assert (lease.person, lease.profile, lease.state) == ("student", "h200-slice", LeaseState.BOOKED)
    # The clock starts it, and not this spawner, which is done.
    assert spawner.lease_id == ""
    await spawner.run_post_stop_hook()
    assert len(all_leases()) == 1


async def test_what_may_not_be_is_not_booked_after_a_restart_either(site: Site) -> None:
    spawner = site.spawner("student", profile="h200-4")
    spawner._undecided = True
    await spawner.run_post_stop_hook()
    assert all_leases() == []


async def test_what_a_hub_before_this_one_booked_is_left_to_the_clock(site: Site) -> None:
    before = site.spawner("student", profile="h200-slice")
    await before.pass_gate()
    spawner = site.spawner("student")
    spawner.load_state({"lease": before.lease_id})
    await spawner.run_post_stop_hook()
    assert site.lease(before.lease_id).state is LeaseState.BOOKED


async def test_an_end_is_written_down_once_the_records_are_there_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawner = site.spawner("student", profile="h200-slice")
    await spawner.pass_gate()
    lease_id, admission = spawner.lease_id, spawner._gate().admission
    away, find = 3, admission.find_now

    def find_later(wanted: str) -> Any:
        nonlocal away
        away -= 1
        if away >= 0:
            raise StoreUnavailable("The database is away. Nothing was booked. Try again.")
        return find(wanted)

    monkeypatch.setattr(admission, "find_now", find_later)
    monkeypatch.setattr(gate, "AGAIN_SECONDS", 0.001)
    spawner._stop_ordered = True
    await spawner.run_post_stop_hook()
    assert spawner.lease_id == ""
    await asyncio.gather(*gate._LATER)
    assert (site.lease(lease_id).state, site.lease(lease_id).reason) == (LeaseState.ENDING, "stopped")
    assert away < 0


async def test_its_owner_is_told_why_a_server_ended(site: Site) -> None:
    spawner = site.spawner("student", profile="h200-slice")
    await spawner.pass_gate()
    spawner._stop_ordered = True
    await spawner.run_post_stop_hook()
    words: Any = spawner._gate().words
    assert words.ended_line("student", "", "en").startswith("You stopped the server.")
    assert words.ended_line("student", "", "ko") != words.ended_line("student", "", "en")
    assert words.ended_line("student", "second", "en") == ""
    assert words.goes_on("student", "") == ""
    for why, want in (("taken-back", "line"), ("budget-spent", "hours"), ("ended", "")):
        words.over("student", "", why)
        assert words.goes_on("student", "") == want


@pytest.mark.parametrize(
    ("hub_base_url", "want"),
    [
        pytest.param("/hub/", "/services/desk/tickets/t1", id="at the root"),
        pytest.param("/ai/hub/", "/ai/services/desk/tickets/t1", id="below an address"),
        pytest.param("/hub/hub/", "/hub/services/desk/tickets/t1", id="below an address called hub"),
    ],
)
def test_a_ticket_is_found_beside_the_hub(hub_base_url: str, want: str) -> None:
    assert gate.ticket_url(hub_base_url, "t1") == want


async def test_who_has_to_wait_is_led_to_their_ticket(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs are as many as a student may have."""
    assert GatedKubeSpawner.gate is not None
    monkeypatch.setattr(GatedKubeSpawner, "gate", replace(GatedKubeSpawner.gate, desk=True))
    assert GatedKubeSpawner.gate is not None
    GatedKubeSpawner.gate = replace(GatedKubeSpawner.gate, desk=True)
    for name in ("one", "two"):
        await site.spawner("student", name, profile="h200").pass_gate()
    third = site.spawner("student", "three", profile="h200", minutes=60)
    with pytest.raises(SpawnException) as refused:
        await third.pass_gate()
    error = refused.value
    assert (error.status_code, error.reason) == (409, "person-at-cap")
    with third._gate().admission.store.reading() as txn:
        (ticket,) = txn.tickets(person="student")
    url = f"/services/desk/tickets/{ticket.id}"
    assert error.headers["Location"] == url
    assert error.headers["Refresh"] == f"0; url={url}"
    assert int(error.headers["Retry-After"]) > 0
    assert f'href="{url}"' in error.jupyterhub_html_message
    assert "You are in line" in error.jupyterhub_message
    # What was chosen is kept, to start the server with.
    assert (ticket.options["profile"], ticket.options["minutes"], ticket.ask.server) == ("h200", 60, "three")
    chosen = await third._gate().profiles.choose("student", "three", ticket.options)
    assert chosen.ask.amounts == ticket.ask.amounts


async def test_a_hub_without_a_desk_leads_nobody_to_it(site: Site) -> None:
    """Beside a site's own hub there is none: the place in line is the same, and said in words."""
    for name in ("one", "two"):
        await site.spawner("student", name, profile="h200").pass_gate()
    third = site.spawner("student", "three", profile="h200", minutes=60)
    with pytest.raises(SpawnException) as refused:
        await third.pass_gate()
    error = refused.value
    assert set(error.headers) == {"Retry-After"}
    assert "services/desk" not in error.jupyterhub_html_message
    assert "You are in line" in error.jupyterhub_html_message


# -- when many start ------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """One server starts, and no other may at the same time."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **options: None)
    policy = tmp_path / "pools.yaml"
    text = (ROOT / "policy" / "pools.yaml").read_text()
    assert "starts: 64" in text
    policy.write_text(text.replace("starts: 64", "starts: 1"))
    with a_site(tmp_path, {}, policy=policy) as one:
        for name in ("first", "second", "third"):
            one.person(name, "hangang-vision")
        yield one


def clock(site: Site) -> Clockwork:
    assert GatedKubeSpawner.gate is not None
    world = ObedientWorld()
    return Clockwork(GatedKubeSpawner.gate.admission, world, ObedientHub(world), starts_seconds=None)


def waiting(site: Site) -> set[str]:
    assert GatedKubeSpawner.gate is not None
    with GatedKubeSpawner.gate.admission.store.reading() as txn:
        return {ticket.ask.person for ticket in txn.tickets()}


async def test_a_start_that_only_waits_for_others_is_led_to_its_ticket_and_has_its_turn(busy: Site) -> None:
    first, second = (busy.spawner(name, profile="h200") for name in ("first", "second"))
    await first.pass_gate()
    with pytest.raises(SpawnException) as refused:
        await second.pass_gate()
    assert (refused.value.status_code, refused.value.reason) == (409, "starts-busy")
    assert waiting(busy) == {"second"}
    admission = first._gate().admission
    await admission.running(first.lease_id, "a-handle", None)
    await admission.in_thread(clock(busy).tick)
    # The clock asks for the start; its gate finds what was booked.
    await second.pass_gate()
    assert (waiting(busy), busy.lease(second.lease_id).state) == (set(), LeaseState.BOOKED)


async def test_who_comes_in_a_rush_joins_the_line_though_a_start_has_just_finished(busy: Site) -> None:
    """The clock books for all of them together; nobody passes those who wait."""
    first, second, third = (busy.spawner(name, profile="h200") for name in ("first", "second", "third"))
    await first.pass_gate()
    with pytest.raises(SpawnException):
        await second.pass_gate()
    admission = first._gate().admission
    await admission.running(first.lease_id, "a-handle", None)
    with pytest.raises(SpawnException) as refused:
        await third.pass_gate()
    assert refused.value.reason == "starts-busy"
    assert waiting(busy) == {"second", "third"}
    await admission.in_thread(clock(busy).tick)
    assert len(waiting(busy)) == 1


async def test_what_was_asked_before_a_restart_waits_in_line_and_holds_nothing_up(busy: Site) -> None:
    first, second = (busy.spawner(name, profile="h200") for name in ("first", "second"))
    await first.pass_gate()
    second._undecided = True
    await second.run_post_stop_hook()
    assert waiting(busy) == {"second"}
