"""Processes killed at odd moments, a database that does not take part, a policy with a fault: nothing is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import yaml

from hub_ext.spawners.processes import LocalWorld, process_of
from tests.support.hub import ROOT, EmbeddedHub, Visitor, wait_for

MakeHub = Callable[..., EmbeddedHub]


def processes(hub: EmbeddedHub) -> dict[str, str]:
    """Lease id -> handle of each server's own process."""
    return {one.lease: one.handle for one in LocalWorld(hub.state).running() if one.main}


def one_to_one(hub: EmbeddedHub, *visitors: Visitor) -> bool:
    """Servers the hub knows, leases, and processes are the same things, and nothing is pending."""
    known = {
        (visitor.name, name)
        for visitor in visitors
        for name, server in visitor.servers().items()
        if server["ready"]
    }
    pending = any(server["pending"] for visitor in visitors for server in visitor.servers().values())
    leases = hub.leases()
    leased = {(lease["person"], lease["server"]) for lease in leases}
    return (
        not pending
        and known == leased
        and all(lease["state"] == "running" for lease in leases)
        and {lease["id"]: lease["handle"] for lease in leases} == processes(hub)
    )


def kill_hub(hub: EmbeddedHub) -> None:
    before = hub.child("hub").pid
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: hub.child("hub").pid != before, "the hub is started again")
    wait_for(lambda: answers(hub), "the hub answers again")


def answers(hub: EmbeddedHub) -> bool:
    import httpx

    try:
        return httpx.get(f"{hub.url}/hub/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_hub_killed_while_three_servers_run_finds_all_three_again(make_hub: MakeHub) -> None:
    hub = make_hub()
    student, lead = Visitor(hub, "student"), Visitor(hub, "lead")
    for visitor, server in ((student, ""), (student, "second"), (lead, "")):
        assert visitor.start({"profile": "cpu-small"}, server).status_code in (201, 202)
    for visitor, server in ((student, ""), (student, "second"), (lead, "")):
        visitor.wait_until_ready(server)
    before = processes(hub)
    assert len(before) == 3

    kill_hub(hub)

    wait_for(lambda: one_to_one(hub, student, lead), "servers, leases and processes are one to one")
    assert processes(hub) == before, "the very same processes"
    assert student.http.get("/user/student/lab").status_code == 200
    student.stop("second")
    wait_for(lambda: len(processes(hub)) == 2, "a server found again can be stopped")
    wait_for(lambda: one_to_one(hub, student, lead), "still one to one")


@pytest.mark.parametrize("moment", ["the lease is booked", "the process is started"])
def test_the_hub_killed_in_the_middle_of_a_start_leaves_no_orphan(make_hub: MakeHub, moment: str) -> None:
    hub = make_hub()
    student = Visitor(hub, "student")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: student.start({"profile": "h200", "minutes": 60}))
        if moment == "the lease is booked":
            wait_for(lambda: _lease_rows(hub), moment, every=0.002)
        else:
            wait_for(lambda: processes(hub), moment, every=0.002)
        kill_hub(hub)
    student = Visitor(hub, "student")
    wait_for(lambda: one_to_one(hub, student), "servers, leases and processes are one to one")
    # Whatever became of it, the person can have a server now.
    if not student.servers():
        assert student.start({"profile": "h200", "minutes": 60}).status_code in (201, 202)
    student.wait_until_ready()
    wait_for(lambda: one_to_one(hub, student), "one to one again")
    assert len(hub.leases()) == 1


def _lease_rows(hub: EmbeddedHub) -> int:
    with sqlite3.connect(f"file:{hub.state / 'ledger.sqlite'}?mode=ro", uri=True) as connection:
        return int(connection.execute("select count(*) from leases").fetchone()[0])


def test_a_server_killed_by_hand_ends_its_lease_and_leaves_no_kernel(make_hub: MakeHub) -> None:
    hub = make_hub()
    student = Visitor(hub, "student")
    assert student.start({"profile": "cpu-small"}).status_code in (201, 202)
    student.wait_until_ready()
    student.http.get("/user/student/lab")
    xsrf = next(c.value for c in student.http.cookies.jar if c.name == "_xsrf" and c.path == "/user/student/")
    made = student.http.post(
        "/user/student/api/kernels", json={"name": "python3"}, headers={"X-XSRFToken": str(xsrf)}
    )
    assert made.status_code == 201
    world = LocalWorld(hub.state)
    wait_for(lambda: len(world.running()) >= 2, "server and kernel run")
    (lease,) = hub.leases()
    process = process_of(lease["handle"])
    assert process is not None
    process.kill()
    wait_for(lambda: not hub.leases(), "the lease is released")
    wait_for(lambda: not world.running(), "the kernel is gone as well")
    assert hub.all_leases()[0]["reason"] == "died"
    wait_for(lambda: not student.servers(), "the hub knows as well")


@pytest.mark.parametrize("sibling", ["desk", "proxy"])
def test_a_sibling_that_is_killed_is_started_again_and_servers_go_on(make_hub: MakeHub, sibling: str) -> None:
    hub = make_hub()
    student = Visitor(hub, "student")
    student.start({"profile": "cpu-small"})
    student.wait_until_ready()
    before, pid = processes(hub), hub.child(sibling).pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: hub.child(sibling).pid != pid, f"{sibling} is started again")
    wait_for(lambda: answers(hub), "the hub can be reached")
    wait_for(lambda: student.http.get("/user/student/api").status_code == 200, "the server can be reached")
    assert processes(hub) == before


def test_everything_killed_at_once_is_found_again_by_the_next_start(make_hub: MakeHub) -> None:
    hub = make_hub()
    student = Visitor(hub, "student")
    student.start({"profile": "cpu-small"})
    student.wait_until_ready()
    before = processes(hub)
    assert hub.process is not None
    siblings = psutil.Process(hub.process.pid).children()
    for process in (psutil.Process(hub.process.pid), *siblings):
        process.kill()
    hub.process.wait(10)
    hub.start()
    wait_for(lambda: one_to_one(hub, student), "one to one")
    assert processes(hub) == before


def test_a_supervisor_killed_alone_is_followed_by_one_that_ends_what_it_left(make_hub: MakeHub) -> None:
    hub = make_hub()
    assert hub.process is not None
    siblings = psutil.Process(hub.process.pid).children()
    hub.process.kill()
    hub.process.wait(10)
    assert all(process.is_running() for process in siblings)
    hub.start()
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in siblings)


def test_a_locked_database_means_503_and_nothing_half_booked(make_hub: MakeHub) -> None:
    hub = make_hub()
    student = Visitor(hub, "student")
    lock = sqlite3.connect(hub.state / "ledger.sqlite", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        answer = student.start({"profile": "cpu-small"})
        assert answer.status_code == 503, answer.text
        assert "Retry-After" in answer.headers
        assert "Traceback" not in answer.text
        assert "sqlite" not in answer.text.lower()
        assert not processes(hub)
    finally:
        lock.execute("ROLLBACK")
        lock.close()
    assert not hub.leases()
    assert student.start({"profile": "cpu-small"}).status_code in (201, 202)
    student.wait_until_ready()
    wait_for(lambda: one_to_one(hub, student), "one to one")


def test_a_policy_with_a_fault_changes_nothing_and_a_good_one_counts_without_a_restart(
    make_hub: MakeHub,
) -> None:
    hub = make_hub()
    student = Visitor(hub, "student")
    policy = hub.folder / "pools.yaml"
    good = policy.read_text()
    policy.write_text(good.replace("kind: centre", "kind: centre\n    qota: {}", 1))
    wait_for(lambda: "qota" in hub.log("desk"), "the fault is told")
    assert f"{policy.name}:" in hub.log("desk"), "with file and line"
    assert hub.command("check", check=False) == ""
    assert student.start({"profile": "cpu-small"}).status_code in (201, 202)
    student.wait_until_ready()

    document = yaml.safe_load(good)
    document["pools"]["hangang-univ"]["person"] = {"servers": 0}
    policy.write_text(yaml.safe_dump(document, sort_keys=False))
    wait_for(lambda: "a new policy is in force" in hub.log("desk"), "the new policy counts")
    assert len(hub.leases()) == 1, "lowering a quota never kills anything"
    assert student.start({"profile": "cpu-small"}, "second").status_code == 403


def test_a_second_hub_on_the_same_state_says_so(make_hub: MakeHub) -> None:
    hub = make_hub()
    second = subprocess.run(
        [sys.executable, "-m", "hub_ext", "up"],
        cwd=ROOT,
        env=hub.full_environment(),
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert "runs already" in second.stderr
    assert "Traceback" not in second.stderr


def test_two_hubs_run_side_by_side(make_hub: MakeHub) -> None:
    first, second = make_hub("first"), make_hub("second")
    for hub in (first, second):
        student = Visitor(hub, "student")
        student.start({"profile": "cpu-small"})
        student.wait_until_ready()
    assert set(processes(first)).isdisjoint(processes(second))
    for hub in (first, second):
        assert len(hub.leases()) == 1


def test_operators_release_a_lease_with_a_reason(make_hub: MakeHub) -> None:
    hub = make_hub()
    student = Visitor(hub, "student")
    student.start({"profile": "cpu-small"})
    student.wait_until_ready()
    (lease,) = hub.leases()
    hub.command("release", lease["id"], "--why", "maintenance of the node")
    wait_for(lambda: not hub.leases(), "the lease is released")
    wait_for(lambda: not student.servers(), "the server is stopped")
    assert hub.all_leases()[0]["reason"] == "maintenance of the node"
    assert not processes(hub)


def test_a_lease_that_is_over_is_stopped_by_the_clock(make_hub: MakeHub, tmp_path: Path) -> None:
    policy = (ROOT / "policy" / "pools.yaml").read_text()
    document = yaml.safe_load(policy)
    for pool in document["pools"].values():
        pool["session"] = {**pool.get("session", {}), "min": "5s", "max": "20s"}
    hub = make_hub(documents={"pools.yaml": yaml.safe_dump(document, sort_keys=False)})
    student = Visitor(hub, "student")
    student.start({"profile": "h200-slice"})
    student.wait_until_ready()
    wait_for(lambda: not hub.leases(), "the clock stops it at its end", 90)
    assert hub.all_leases()[0]["reason"] == "ended"
    wait_for(lambda: not student.servers(), "the hub knows")
    assert not processes(hub)
