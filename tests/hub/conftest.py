"""One real embedded hub for the tests of a module, and fresh ones for tests that break things."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import EmbeddedHub


def _dump(hub: EmbeddedHub) -> None:
    """What went wrong is in the logs: pytest shows this beside a failure."""
    for name in ("hub", "desk", "proxy"):
        print(f"--- {name}.log\n{hub.log(name)[-6000:]}")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedHub]:
    one = EmbeddedHub(tmp_path_factory.mktemp("hub"))
    try:
        one.start()
        yield one
    finally:
        _dump(one)
        one.stop()


@pytest.fixture
def make_hub(tmp_path: Path) -> Iterator[Callable[..., EmbeddedHub]]:
    """Start a hub of the test's own: `make_hub(settings={…}, documents={…})`."""
    made: list[EmbeddedHub] = []

    def make(name: str = "hub", **kwargs: Any) -> EmbeddedHub:
        folder = tmp_path / name
        folder.mkdir()
        one = EmbeddedHub(folder, **kwargs)
        made.append(one)
        one.start()
        return one

    try:
        yield make
    finally:
        for one in made:
            _dump(one)
            one.stop()
