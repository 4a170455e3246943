"""A real Chromium for tests; they skip with a reason only where none can be had."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
REPORTS = Path(__file__).resolve().parents[2] / "reports" / "screenshots"
"""Screenshots are kept here, for people to look at after a run."""


def chromium_path() -> str | None:
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )


needs_chromium = pytest.mark.skipif(
    chromium_path() is None, reason="no Chromium on this machine: install the package chromium"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def screenshot_path(name: str) -> Path:
    REPORTS.mkdir(parents=True, exist_ok=True)
    return REPORTS / f"{name}.png"
