"""One Keycloak for all tests that need it, and hubs that sign people in through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.hub import ROOT, EmbeddedHub
from tests.support.keycloak import Keycloak

RULES = (ROOT / "policy" / "identity-oidc.yaml").read_text()
MakeHub = Callable[..., EmbeddedHub]


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    one = Keycloak(tmp_path_factory.mktemp("keycloak"))
    try:
        one.start()
        yield one
    finally:
        one.stop()
        print(f"--- keycloak.log\n{one.log.read_text(errors='replace')[-3000:]}")


@pytest.fixture(scope="module")
def make_provider_hub(keycloak: Keycloak, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeHub]:
    """A hub with `oidc:` that asks again after a second: `make_provider_hub(grace="1h")`."""
    made: list[EmbeddedHub] = []

    def make(identity: str = RULES, **changes: Any) -> EmbeddedHub:
        one = EmbeddedHub(tmp_path_factory.mktemp("hub"), documents={"identity.yaml": identity})
        oidc = keycloak.settings(one, **{"refresh": "1s", **changes})
        one.settings = {"oidc": oidc}
        made.append(one)
        one.start()
        return one

    try:
        yield make
    finally:
        for one in made:
            print(f"--- hub.log\n{one.log('hub')[-8000:]}")
            one.stop()
