"""A pytest plugin: fails the run when a test was skipped that CI did not expect to be, or when none ran at all.

Used by `.ci/run` as `-p check_skips`. It sees what a report file cannot: the markers of each test, modules skipped
as a whole while they were collected, and tests that were deselected. What may be skipped is in `expected_skips`.
The verdict goes to the terminal, above pytest's closing line, and into the file named by `SKIPS_VERDICT`, so that
`.ci/run` can tell a good verdict from a plugin that never came to speak.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Seen:
    """What happened to the tests so far, by test id."""

    expected_markers: dict[str, str]
    markers: dict[str, set[str]] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    expected: dict[str, str] = field(default_factory=dict)
    unexpected: dict[str, str] = field(default_factory=dict)
    deselected: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Why the run cannot count as passed; empty if it can."""
        problems = []
        if not self.ran:
            problems.append("no test ran")
        if self.unexpected:
            problems.append(f"{len(self.unexpected)} skipped unexpectedly")
        if self.deselected:
            problems.append(f"{len(self.deselected)} deselected")
        return problems


SEEN = pytest.StashKey[Seen]()


def read_expected_markers(path: Path) -> dict[str, str]:
    """The file's markers with their reasons; a marker without a reason is an error."""
    markers = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            marker, reason = line.split(maxsplit=1)
            markers[marker] = reason
    return markers


class SkipCheck:
    """Collects every outcome and speaks at the end."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self.seen.markers[item.nodeid] = {mark.name for mark in item.iter_markers()}

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.seen.deselected.extend(item.nodeid for item in items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        # A module that skips itself while it is imported takes all its tests along: never expected.
        if report.skipped:
            self.seen.unexpected[report.nodeid] = reason_of(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "wasxfail"):
            # Ran and failed as foretold, or was not run on purpose; only the first one counts as run.
            if report.when == "call":
                self.seen.ran.add(report.nodeid)
            else:
                self.seen.unexpected[report.nodeid] = f"xfail without running: {report.wasxfail}"
        elif report.skipped:
            allowed = self.seen.markers.get(report.nodeid, set()) & self.seen.expected_markers.keys()
            group = self.seen.expected if allowed else self.seen.unexpected
            group[report.nodeid] = reason_of(report)
        elif report.when == "call":
            self.seen.ran.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        problems = self.seen.problems
        if problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        verdict = os.environ.get("SKIPS_VERDICT")
        if verdict:
            Path(verdict).write_text(", ".join(problems) or "as expected", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        seen = self.seen
        terminalreporter.section("what did not run")
        for title, group in (("expected", seen.expected), ("NOT EXPECTED", seen.unexpected)):
            terminalreporter.line(f"skipped, {title}: {len(group)}")
            for reason, number in Counter(group.values()).most_common():
                terminalreporter.line(f"  {number} x {reason}")
            for nodeid in group:
                terminalreporter.line(f"    {nodeid}")
        if seen.deselected:
            terminalreporter.line(f"deselected, NOT EXPECTED: {len(seen.deselected)}")
        for problem in seen.problems:
            terminalreporter.line(f"CI counts this run as failed: {problem}.", red=True)


def reason_of(report: pytest.CollectReport | pytest.TestReport) -> str:
    """The text of a skip, without file and line."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def pytest_configure(config: pytest.Config) -> None:
    """Starts watching."""
    seen = Seen(read_expected_markers(Path(__file__).with_name("expected_skips")))
    config.stash[SEEN] = seen
    config.pluginmanager.register(SkipCheck(seen), "skip-check")
