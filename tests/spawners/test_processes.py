"""The local world on real processes: found by their labels, told apart for good, and ended with all they started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from hub_ext.spawners import processes
from hub_ext.spawners.processes import (
    FACTS_LABEL,
    LEASE_LABEL,
    STATE_LABEL,
    LocalWorld,
    handle_of,
    labels,
    process_of,
    read_facts,
)
from tests.support.hub import wait_for

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def world(tmp_path: Path) -> LocalWorld:
    return LocalWorld(tmp_path / "state")


@pytest.fixture
def start(world: LocalWorld) -> Iterator[Start]:
    """Start a process with the labels of a lease of this world; all of them are ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(
        lease: str | bytes,
        *command: str,
        state: str = world.state,
        environment: dict[str, Any] | None = None,
        **facts: Any,
    ) -> subprocess.Popen[bytes]:
        whole: dict[str, Any] = {
            "PATH": os.environ["PATH"],
            **labels(Path(state), "", facts),
            LEASE_LABEL: lease,
        }
        whole |= environment or {}
        process = subprocess.Popen(
            command or ("sleep", "600"), env=whole, stdin=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        # The kernel says that a program was started a moment before it shows its environment.
        wait_for(psutil.Process(process.pid).environ, "its environment can be read", every=0.001)
        return process

    yield start_one
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def handle(process: subprocess.Popen[bytes]) -> str:
    return handle_of(psutil.Process(process.pid))


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


# -- what runs ---------------------------------------------------------------------------------------------------------


def test_a_server_is_found_with_what_its_labels_say(world: LocalWorld, start: Start) -> None:
    facts = {"person": "김하늘", "server": "실험 2", "amounts": {"gpu.h200": 1000}, "devices": ["GPU-1"]}
    before = int(time.time())
    process = start("l1", **facts)
    (found,) = world.running()
    assert (found.lease, found.handle, found.main, found.node) == ("l1", handle(process), True, world.node)
    assert found.labels == facts
    assert before - 2 <= found.started_at <= int(time.time()) + 1


def test_the_oldest_process_is_the_server_and_the_others_are_what_it_started(
    world: LocalWorld, start: Start
) -> None:
    first = start("l1")
    # The kernel counts in hundredths of a second; of two that begin in the same one, the smaller pid is the older.
    second, other = start("l1"), start("l2")
    found = {running.handle: (running.lease, running.main) for running in world.running()}
    assert found == {handle(first): ("l1", True), handle(second): ("l1", False), handle(other): ("l2", True)}


def test_children_inherit_the_label(world: LocalWorld, start: Start) -> None:
    start("l1", *shell("sleep 600 & wait"))
    wait_for(lambda: len(world.running()) == 2, "shell and child are found")
    assert sorted(running.main for running in world.running()) == [False, True]


def test_processes_of_another_hub_and_without_a_label_are_not_seen(
    world: LocalWorld, start: Start, tmp_path: Path
) -> None:
    start("l1", state=str(tmp_path / "another"))
    start("l2", environment={LEASE_LABEL: ""})
    assert world.running() == []
    assert not world.runs("l1")
    assert LocalWorld(tmp_path / "another").runs("l1")


@pytest.mark.parametrize(
    "label", [pytest.param(b"\xff\xfe", id="that is no text"), pytest.param("l1\nl2", id="of two lines")]
)
def test_a_label_names_no_lease(world: LocalWorld, start: Start, label: Any) -> None:
    start(label)
    start("honest")
    assert [running.lease for running in world.running()] == ["honest"]


FACTS = {
    "nothing": {},
    "no JSON": {FACTS_LABEL: "person=student"},
    "half of it": {FACTS_LABEL: '{"person": "stud'},
    "a list": {FACTS_LABEL: '["student"]'},
    "a number of ten thousand digits": {FACTS_LABEL: "9" * 10_000},
    "nesting deeper than anybody can read": {FACTS_LABEL: "[" * 100_000},
    "bytes that are no text": {FACTS_LABEL: b'{"person": "\xff'},
}


@pytest.mark.parametrize("environment", FACTS.values(), ids=FACTS.keys())
def test_facts_that_cannot_be_read_are_none(
    world: LocalWorld, start: Start, environment: dict[str, Any]
) -> None:
    process = start("l1", environment={FACTS_LABEL: "", **environment})
    (found,) = world.running()
    assert (found.handle, found.labels) == (handle(process), {})
    assert world.leases_of("student", "") == set()


def test_a_process_without_facts_has_none() -> None:
    assert read_facts({}) == {}


def test_the_leases_of_a_server_are_found_by_person_and_name(world: LocalWorld, start: Start) -> None:
    for lease, person, server in (
        ("l1", "student", ""),
        ("l2", "student", ""),
        ("l3", "student", "two"),
        ("l4", "lead", ""),
    ):
        start(lease, person=person, server=server)
    assert world.leases_of("student", "") == {"l1", "l2"}
    assert world.leases_of("student", "two") == {"l3"}
    assert world.leases_of("nobody", "") == set()


# -- one process, told apart from all others ---------------------------------------------------------------------------------


def test_a_handle_names_one_process_until_it_is_gone_and_a_zombie_is_gone(
    world: LocalWorld, start: Start
) -> None:
    process = start("l1", "cat")
    name = handle(process)
    found = process_of(name)
    assert found is not None
    assert found.pid == process.pid
    assert process.stdin is not None
    process.stdin.close()
    wait_for(
        lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE,
        "it ended, and nobody took notice",
    )
    assert process_of(name) is None
    assert not world.runs("l1")
    assert world.running() == []
    process.wait()
    assert process_of(name) is None


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(lambda name: name.replace("@", "@1", 1), id="that began at another time"),
        pytest.param(lambda name: name + "0", id="before the machine was started anew"),
        pytest.param(lambda name: name.partition("@")[0], id="by its pid alone"),
    ],
)
def test_a_pid_that_is_used_again_is_not_the_process(start: Start, of: Callable[[str], str]) -> None:
    assert process_of(of(handle(start("l1")))) is None


@pytest.mark.parametrize("name", ["", "@", "x@1", "-1@1", "0@1", "1.5@2", f"{2**70}@1", "4194304@1@", "김@1"])
def test_what_is_no_handle_names_no_process(name: str) -> None:
    assert process_of(name) is None


def test_a_machine_whose_time_of_day_is_set_knows_its_servers_still(
    start: Start, world: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psutil works out when a process began from the time of day: after a step every process would be another one."""
    first, second = start("l1"), start("l1")
    name = handle(first)
    true = psutil._pslinux.boot_time()
    for step in (3600, -3600, 1):
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda step=step: true + step)
        psutil.Process(second.pid).create_time()
        assert handle(first) == name
        assert process_of(name) is not None
        mains = [running.handle for running in world.running() if running.main]
        assert mains == [name]


def test_a_remembered_process_of_the_same_pid_is_not_taken_for_the_one_that_runs(
    start: Start, world: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psutil remembers processes by pid from one look to the next."""
    process = start("l1")
    former = psutil.Process(process.pid)
    monkeypatch.setattr(former, "_ident", (process.pid, 1.0))
    monkeypatch.setattr(former, "_create_time", 1.0)
    monkeypatch.setitem(psutil._pmap, process.pid, former)
    (found,) = world.running()
    assert found.started_at > 1
    world.stop_lease("l1")
    assert gone(process.pid)


# -- ending -----------------------------------------------------------------------------------------------------------------------


def test_ending_a_lease_ends_all_that_carries_its_label_and_nothing_else(
    world: LocalWorld, start: Start
) -> None:
    processes_of_l1 = [start("l1"), start("l1", *shell("sleep 600 & wait"))]
    other = start("l2")
    wait_for(lambda: len(world.running()) == 4, "all four are found")
    world.stop_lease("l1")
    assert all(gone(process.pid) for process in processes_of_l1)
    assert not world.runs("l1")
    assert not gone(other.pid)
    assert [running.lease for running in world.running()] == ["l2"]


def test_what_ignores_a_polite_word_is_killed(
    world: LocalWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TERM_SECONDS", 0.1)
    process = start("l1", *shell('trap "" TERM; sleep 600 & exec sleep 600'))
    wait_for(lambda: "sleep" in psutil.Process(process.pid).name(), "it will not listen")
    wait_for(lambda: len(world.running()) == 2, "nor will its child")
    (server,) = [running for running in world.running() if running.main]
    world.stop(server)
    assert not world.runs("l1")
    assert gone(process.pid)


def test_what_is_halted_is_ended_too(
    world: LocalWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TERM_SECONDS", 0.1)
    process = start("l1")
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it is halted")
    world.stop_lease("l1")
    assert gone(process.pid)


def test_a_zombie_that_its_parent_leaves_lying_is_not_waited_for(
    world: LocalWorld, start: Start, tmp_path: Path
) -> None:
    """A hub that is busy takes notice of its children's ends later."""
    inner = f"{STATE_LABEL}={world.state} {LEASE_LABEL}=l1 sleep 600 & exec sleep 601"
    start("outside", *shell(inner), state=str(tmp_path / "another"))
    wait_for(lambda: world.runs("l1"), "the inner one runs")
    began = time.monotonic()
    world.stop_lease("l1")
    assert not world.runs("l1")
    assert time.monotonic() - began < processes.TERM_SECONDS / 2


def test_ending_what_does_not_run_does_nothing(world: LocalWorld, start: Start) -> None:
    start("l2")
    world.stop_lease("l1")
    (running,) = world.running()
    world.stop(replace(running, lease="l3"))
    assert world.runs("l2")


def test_what_is_not_ours_to_end_is_left_running_without_a_fault(
    world: LocalWorld, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TERM_SECONDS", 0.05)
    monkeypatch.setattr(processes, "KILL_SECONDS", 0.05)

    def denied(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "terminate", denied)
    monkeypatch.setattr(psutil.Process, "kill", denied)
    start("l1")
    world.stop_lease("l1")
    assert world.runs("l1")
