"""Memory and CPU limits: on folders that behave as the kernel's, and on the kernel itself where it lets us."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_ext.spawners.limits import CGROUPS, Limits, entering, find_limits
from tests.support.fakes import FakeControlGroups

V1 = {
    "memory": ("cgroup.procs", "memory.limit_in_bytes"),
    "cpu": ("cgroup.procs", "cpu.cfs_period_us", "cpu.cfs_quota_us"),
}
V2 = {"": ("cgroup.procs", "cgroup.controllers", "cgroup.subtree_control", "memory.max", "cpu.max")}
STATE = Path("state")


@pytest.fixture
def version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeControlGroups:
    groups = FakeControlGroups(tmp_path / "cgroup", V1)
    for name, files in V1.items():
        (groups.root / name).mkdir(parents=True)
        for file in files:
            (groups.root / name / file).touch()
    groups.install(monkeypatch)
    return groups


@pytest.fixture
def version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeControlGroups:
    groups = FakeControlGroups(tmp_path / "cgroup", V2)
    groups.root.mkdir()
    (groups.root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (groups.root / "cgroup.subtree_control").touch()
    groups.install(monkeypatch)
    return groups


def contents(folders: tuple[Path, ...]) -> dict[str, str]:
    """What was written into the groups."""
    return {
        path.name: path.read_text() for folder in folders for path in folder.iterdir() if path.read_text()
    }


def groups_in(root: Path) -> list[str]:
    """Every group of ours."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("hangang-hub-*/**") if path.is_dir())


AMOUNTS = {"memory": 64, "cpu": 500, "gpu.h200": 1000}
LIMITS = {
    "half a core and 64 MiB": (AMOUNTS, {"memory": "67108864", "quota": "50000"}),
    "two cores, any memory": ({"cpu": 2000}, {"quota": "200000"}),
    "the least the kernel takes": ({"cpu": 1}, {"quota": "1000"}),
    "a GPU and nothing else": ({"gpu.h200": 1000}, {}),
    "nothing": ({}, {}),
}


@pytest.mark.parametrize(("amounts", "want"), LIMITS.values(), ids=LIMITS.keys())
def test_version_1(version_1: FakeControlGroups, amounts: dict[str, int], want: dict[str, str]) -> None:
    limits = find_limits(STATE, root=version_1.root)
    assert (limits.version, limits.applied, len(limits.trees)) == (1, True, 2)
    found = contents(limits.prepare("l1", amounts))
    period = {"cpu.cfs_period_us": "100000"} if "quota" in want else {}
    names = {"memory": "memory.limit_in_bytes", "quota": "cpu.cfs_quota_us"}
    assert found == period | {names[key]: value for key, value in want.items()}


@pytest.mark.parametrize(("amounts", "want"), LIMITS.values(), ids=LIMITS.keys())
def test_version_2(version_2: FakeControlGroups, amounts: dict[str, int], want: dict[str, str]) -> None:
    limits = find_limits(STATE, root=version_2.root)
    assert (limits.version, limits.applied, len(limits.trees)) == (2, True, 1)
    for folder in (version_2.root, *limits.trees):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory"
    found = contents(limits.prepare("l1", amounts))
    expected = {
        "memory.max": want.get("memory"),
        "cpu.max": f"{want['quota']} 100000" if "quota" in want else None,
    }
    assert found == {name: value for name, value in expected.items() if value}


def test_each_hub_and_each_lease_has_its_own_groups_and_keeps_them_when_asked_again(
    version_2: FakeControlGroups,
) -> None:
    first, second = (find_limits(Path(name), root=version_2.root) for name in ("one", "two"))
    assert set(first.trees).isdisjoint(second.trees)
    assert find_limits(Path("one"), root=version_2.root) == first
    assert first.prepare("l1", AMOUNTS) == first.prepare("l1", AMOUNTS) != first.prepare("l2", AMOUNTS)


def test_entering_puts_the_child_into_every_group(version_1: FakeControlGroups) -> None:
    folders = find_limits(STATE, root=version_1.root).prepare("l1", AMOUNTS)
    entering(folders)()
    assert [(folder / "cgroup.procs").read_text() for folder in folders] == ["0", "0"]


def test_removing_removes_the_groups_of_one_lease_once_nothing_runs_in_them(
    version_1: FakeControlGroups,
) -> None:
    limits = find_limits(STATE, root=version_1.root)
    folders, others = limits.prepare("l1", AMOUNTS), limits.prepare("l2", AMOUNTS)
    version_1.busy.add(folders[0])
    limits.remove("l1")
    limits.remove("never made")
    assert [folder.exists() for folder in (*folders, *others)] == [True, False, True, True]
    version_1.busy.clear()
    limits.remove("l1")
    assert not folders[0].exists()


def test_groups_of_servers_that_ended_while_no_hub_ran_are_removed_at_its_next_start(
    version_1: FakeControlGroups,
) -> None:
    limits = find_limits(STATE, root=version_1.root)
    over, running = limits.prepare("over", AMOUNTS), limits.prepare("running", AMOUNTS)
    version_1.busy |= set(running)
    assert find_limits(STATE, root=version_1.root) == limits
    assert [folder.exists() for folder in (*over, *running)] == [False, False, True, True]


# -- where there are none ---------------------------------------------------------------------------------------------------


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    limits = find_limits(STATE, root=tmp_path / "nothing")
    assert (limits, limits.applied) == (Limits(), False)
    assert limits.prepare("l1", AMOUNTS) == ()
    limits.remove("l1")
    entering(())()


@pytest.mark.parametrize("missing", ["memory", "cpu"])
def test_half_of_version_1_is_none_and_leaves_nothing_behind(
    version_1: FakeControlGroups, missing: str
) -> None:
    for path in (version_1.root / missing).iterdir():
        path.unlink()
    (version_1.root / missing).rmdir()
    assert find_limits(STATE, root=version_1.root) == Limits()
    assert groups_in(version_1.root) == []


def test_a_version_1_without_cpu_quotas_is_none_and_leaves_nothing_behind(
    version_1: FakeControlGroups,
) -> None:
    version_1.files = {**V1, "cpu": ("cgroup.procs", "cpu.shares")}
    assert find_limits(STATE, root=version_1.root) == Limits()
    assert groups_in(version_1.root) == []


@pytest.mark.parametrize(
    "controllers",
    [
        pytest.param("", id="none"),
        pytest.param("cpu", id="without memory"),
        pytest.param("memoryx cpu", id="of another name"),
    ],
)
def test_a_version_2_whose_controllers_are_not_ours_is_none(
    version_2: FakeControlGroups, controllers: str
) -> None:
    (version_2.root / "cgroup.controllers").write_text(controllers)
    assert find_limits(STATE, root=version_2.root) == Limits()
    assert groups_in(version_2.root) == []


@pytest.mark.parametrize("who", ["a read-only root", "a tree that may not be divided"])
def test_a_version_2_that_refuses_is_none_and_leaves_nothing_behind(
    version_2: FakeControlGroups, who: str
) -> None:
    if who == "a read-only root":
        version_2.refused.add("cgroup.subtree_control")
    else:
        version_2.files = {"": ("cgroup.procs",)}
    assert find_limits(STATE, root=version_2.root) == Limits()
    assert groups_in(version_2.root) == []


def test_a_system_that_refuses_after_all_says_so(version_2: FakeControlGroups) -> None:
    """The spawner then starts the server without limits, and tells."""
    limits = find_limits(STATE, root=version_2.root)
    version_2.refused.add("memory.max")
    with pytest.raises(OSError, match="Permission denied"):
        limits.prepare("l1", AMOUNTS)
    limits.remove("l1")
    assert groups_in(version_2.root) == [limits.trees[0].name]


# -- the kernel itself -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def real_limits(tmp_path: Path) -> Iterator[Limits]:
    """Limits of a hub of this test's own; nothing of it is left when the test is over."""
    limits = find_limits(tmp_path)
    if not limits.applied:
        pytest.skip("this system lets us make no control groups")
    yield limits
    for tree in limits.trees:
        tree.rmdir()
    assert not list(CGROUPS.glob(f"**/{limits.trees[0].name}"))


HUNGRY = "held = bytearray(256 << 20); held[::4096] = b'x' * len(held[::4096]); print('not killed')"


def test_a_server_that_takes_more_memory_than_it_asked_for_is_killed_and_the_others_are_not(
    real_limits: Limits,
) -> None:
    folders = real_limits.prepare("hungry", {"memory": 64, "cpu": 1000})
    modest = real_limits.prepare("modest", {"memory": 512, "cpu": 1000})
    ran = {
        name: subprocess.run(
            [sys.executable, "-c", HUNGRY], preexec_fn=entering(groups), capture_output=True, timeout=30
        )
        for name, groups in (("hungry", folders), ("modest", modest))
    }
    assert (ran["hungry"].returncode, ran["hungry"].stdout) == (-9, b"")
    assert (ran["modest"].returncode, ran["modest"].stdout) == (0, b"not killed\n")
    for lease in ("hungry", "modest"):
        real_limits.remove(lease)
    assert not any(folder.exists() for folder in (*folders, *modest))


def test_a_server_and_all_it_starts_are_in_its_groups_which_stay_while_they_run(real_limits: Limits) -> None:
    folders = real_limits.prepare("l1", {"memory": 64, "cpu": 250})
    child = subprocess.Popen(
        ["sh", "-c", "cat /proc/self/cgroup; exec cat"],
        preexec_fn=entering(folders),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    lines = iter(child.stdout.readline, b"")
    ours = real_limits.trees[0].name
    found = [line for line in (next(lines) for _ in real_limits.trees) if f"/{ours}/l1".encode() in line]
    while len(found) < len(real_limits.trees):
        line = next(lines)
        found += [line] if f"/{ours}/l1".encode() in line else []
    real_limits.remove("l1")
    assert all(folder.exists() for folder in folders), "it runs: its groups stay"
    child.stdin.close()
    child.wait(30)
    child.stdout.close()
    real_limits.remove("l1")
    assert not any(folder.exists() for folder in folders)
