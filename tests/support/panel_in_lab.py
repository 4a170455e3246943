"""A notebook with the panel for clusters, in JupyterLab in a browser."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Locator, Page

from tests.support.axe import AXE, RULES
from tests.support.hub import wait_for

AXE_ON_OURS = """
rules => axe.run(
  {include: [[".hangang-clusters"]]},
  {runOnly: {type: "tag", values: rules}, rules: {"heading-order": {enabled: false}}, resultTypes: ["violations"]},
)
"""


def notebook_of(*cells: str) -> str:
    """The text of a notebook with these cells."""
    written = [
        {
            "cell_type": "code",
            "id": f"c{n}",
            "source": text,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for n, text in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return json.dumps({"cells": written, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


class PanelInLab:
    """A notebook with the panel in it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @property
    def panel(self) -> Locator:
        return self.page.locator(".hangang-clusters")

    def run(self, cell: int) -> Locator:
        """Run the cell, as soon as the kernel takes it; its output."""
        found = self.page.locator(".jp-Notebook .jp-CodeCell").nth(cell)
        prompt = found.locator(".jp-InputPrompt").first

        def asked() -> bool:
            if prompt.inner_text().strip() in ("[ ]:", ""):
                found.locator(".cm-content").click()
                self.page.keyboard.press("Control+Enter")
                self.page.wait_for_timeout(500)
            return re.fullmatch(r"\[\d+\]:", prompt.inner_text().strip()) is not None

        wait_for(asked, "the cell to have run", 90)
        return found.locator(".jp-OutputArea-output")

    def button(self, name: str) -> Locator:
        return self.panel.get_by_role("button", name=name, exact=True)

    def violations(self) -> list[str]:
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = self.page.evaluate(AXE_ON_OURS, RULES)
        return [f"{one['id']}: {node['html']}" for one in found["violations"] for node in one["nodes"]]

    def overflows(self) -> bool:
        """Whether something of the panel is cut off at its side."""
        return bool(self.panel.evaluate("node => node.scrollWidth > node.clientWidth + 1"))
