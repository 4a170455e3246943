from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hub_ext.cli import main
from tests.support.fakes import HandClock
from tests.support.state import Files, example_files, new_files

NOW = 1_806_714_000
"""2027-04-03, 10:00 in Seoul."""

POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools:
  seoul: {}
  univ:
    parent: seoul
    quota: {gpu.h200: {nominal: 2}}
    budgets: [{hours: 100, period: month}, {hours: 30, period: week}, {hours: 10, period: week, each: person}]
  lab:
    parent: univ
    quota: {gpu.h200: {nominal: 1}}
  guests:
    parent: seoul
    quota: {gpu.h200: {nominal: 1}}
    budgets: [{hours: 50, period: month}]
"""

Run = Callable[..., Result]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    made = HandClock(NOW)
    monkeypatch.setattr("hub_ext.factory.SystemClock", lambda: made)
    return made


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return new_files(tmp_path, POLICY, simulated_node={"gpu.h200": 8, "cpu": 64, "memory": "1Ti"})


@pytest.fixture
def example(tmp_path: Path) -> Files:
    return example_files(tmp_path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: HandClock) -> Run:
    """`run("leases", "--json")` against the hub in the test's folder. Whatever happens, nobody reads a stack trace."""
    for name in (
        "HUB_SETTINGS",
        "HUB_STATE",
        "HUB_PORT",
        "HUB_DATABASE_URL",
        "HUB_DEMO_PASSWORD",
        "HUB_LOG_LEVEL",
    ):
        monkeypatch.delenv(name, raising=False)

    def run_command(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, arguments, env={"HUB_SETTINGS": str(tmp_path / "hub.yaml")})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        assert result.exit_code == code, result.output
        return result

    return run_command
