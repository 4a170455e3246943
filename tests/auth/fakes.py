"""Fakes, named by how they behave."""

from __future__ import annotations


class HandClock:
    """Moves only by hand."""

    def __init__(self) -> None:
        self.at = 1_000_000

    def now(self) -> int:
        return self.at
