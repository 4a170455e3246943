"""Whole pods and claims, as the settings, the profiles and the ledger make them, compared with golden files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from traitlets.config import Config

import hub_ext.profiles.service
from hub_ext.kube.pods import facts_of
from hub_ext.spawners.kube import GatedKubeSpawner
from hub_ext.spawners.manifests import complaints
from tests.support.fakes import HandClock
from tests.support.pod_spawners import Site, a_site

GOLDEN = Path(__file__).parents[1] / "data" / "pods"
LEASE = "0123456789abcdef0123456789abcdef"
FOR_GPUS = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
KUBERNETES: dict[str, Any] = {
    "image": "hangang/notebook:dev",
    "home": {"storage_class": "fast", "size": "20Gi", "access_modes": ["ReadWriteMany"]},
    "shared_claim": "city-data",
    "gpu_nodes": {"h200": {"node_selector": {"example.com/gpu": "h200"}, "tolerations": [FOR_GPUS]}},
}
TRIED_OUT: dict[str, Any] = {
    "image": "hangang/notebook:dev",
    "scratch": None,
    "priority_class": None,
    "requests": {"cpu": "100m", "memory": "256Mi"},
}
CASES: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    "h200": (KUBERNETES, "", {"profile": "h200", "minutes": "60"}),
    "h200-slice-named": (KUBERNETES, "second", {"profile": "h200-slice", "minutes": "60"}),
    "cpu-large-128gb": (KUBERNETES, "", {"profile": "cpu-large", "memory": "128gb", "minutes": "60"}),
    "cpu-small-tried-out": (TRIED_OUT, "", {"profile": "cpu-small", "minutes": "60"}),
}


@pytest.fixture(autouse=True)
def _as_it_always_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster, one clock, one lease."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr(hub_ext.profiles.service, "new_lease_id", lambda: LEASE)
    monkeypatch.setattr("hub_ext.factory.SystemClock", lambda: HandClock(1_803_945_600))


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with a_site(tmp_path, getattr(request, "param", KUBERNETES)) as made:
        yield made


async def admitted(site: Site, server: str, options: dict[str, str]) -> GatedKubeSpawner:
    site.person("kim@hangang.example", "hangang-univ")
    spawner = site.spawner("kim@hangang.example", server, **options)
    await spawner.load_user_options()
    return spawner


async def pod_of(spawner: GatedKubeSpawner) -> dict[str, Any]:
    found: dict[str, Any] = spawner.api.api_client.sanitize_for_serialization(
        await spawner.get_pod_manifest()
    )
    return found


@pytest.mark.parametrize(("name", "given"), CASES.items(), ids=CASES)
async def test_the_whole_pod(name: str, given: Any, tmp_path: Path, rewrite_golden: bool) -> None:
    kubernetes, server, options = given
    with a_site(tmp_path, kubernetes) as site:
        spawner = await admitted(site, server, options)
        pod = await pod_of(spawner)
        claim = spawner.api.api_client.sanitize_for_serialization(spawner.get_pvc_manifest())
        assert complaints(pod, spawner.lease, spawner.policy, spawner._lease_labels()) == []
    found = {"pod": pod, "claim": claim}
    path = GOLDEN / f"{name}.yaml"
    if rewrite_golden:
        path.write_text(yaml.safe_dump(found, allow_unicode=True, width=200), encoding="utf-8")
    assert found == yaml.safe_load(path.read_text(encoding="utf-8"))


# -- what must hold whatever the golden files say -------------------------------------------------------------------------


async def test_a_pod_carries_its_lease_in_words_that_an_adoption_reads(site: Site) -> None:
    spawner = await admitted(site, "", {"profile": "h200", "minutes": "60"})
    lease = site.lease(LEASE)
    assert facts_of(await pod_of(spawner)) == {
        "person": "kim@hangang.example",
        "server": "",
        "pool": "hangang-univ",
        "profile": "h200",
        "amounts": dict(lease.amounts),
        "ends_at": lease.ends_at,
        "devices": [],
    }


async def test_servers_of_one_person_share_one_home_and_nothing_else(site: Site) -> None:
    site.person("kim@hangang.example", "hangang-univ")
    spawners = [site.spawner("kim@hangang.example", name) for name in ("", "second")]
    assert len({spawner.pvc_name for spawner in spawners}) == 1
    assert len({spawner.pod_name for spawner in spawners}) == 2
    assert not any(spawner.delete_pvc for spawner in spawners)


async def test_people_whose_names_look_alike_have_homes_of_their_own(site: Site) -> None:
    names = ["kim", "Kim", "kim@hangang.example", "kim-hangang.example", "김", "kim--second"]
    assert len({site.spawner(name).pvc_name for name in names}) == len(names)


async def test_where_nothing_was_booked_a_pod_says_nothing_of_a_lease(site: Site) -> None:
    pod = await pod_of(site.spawner("kim"))
    assert not any(name.startswith("hangang-hub/") for name in pod["metadata"]["labels"])


async def test_without_a_gate_it_is_plain_kubespawner() -> None:
    """Traits, not class defaults, make our pods what they are."""
    assert GatedKubeSpawner.gate is None
    from kubespawner import KubeSpawner

    ours, plain = (kind(_mock=True, config=Config()) for kind in (GatedKubeSpawner, KubeSpawner))
    for name in KubeSpawner.class_traits():
        if name in ("pod_reflector", "event_reflector", "db", "hub", "user", "api", "orm_spawner"):
            continue
        if name == "options_from_form":  # a method bound to each
            continue
        assert getattr(ours, name, None) == getattr(plain, name, None), name
    assert await pod_of(ours) == await pod_of(plain)  # type: ignore[arg-type]
