"""Looks a page over for what keeps people out (axe-core in a real Chromium): WCAG 2.2, levels A and AA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}, resultTypes: ['violations']})"


def violations(page: Page) -> list[str]:
    """What axe objects to on the page as it stands, one line for each place; a page without a fault has none."""
    assert AXE.is_file(), "axe-core is not installed: make set-up"
    # By the debugger: a page's own policy lets no script in, and need not for this.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate(_RUN, RULES)
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {node['html']} {_why(node)}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def check_access(page: Page) -> None:
    """Fails with all that axe objects to."""
    faults = violations(page)
    assert not faults, "\n".join([page.url, *faults])


def _why(node: dict[str, Any]) -> str:
    return "; ".join(check["message"] for kind in ("any", "all", "none") for check in node[kind])
