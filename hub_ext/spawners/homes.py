"""Where people's files lie on this machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote


def home_of(homes: Path, person: str) -> Path:
    """One home per person, for all that they run; no name leads out of the folder of homes."""
    name = quote(person, safe="@+ ")
    return homes / (f"%2E{name[1:]}" if name.startswith(".") else name)
