"""Profiles as KubeSpawner's `profile_list`: whole, accepted by plain KubeSpawner, and none leaking into the next."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kubespawner import KubeSpawner

from hub_ext.auth.roles import ROLES
from hub_ext.factory import pod_rules
from hub_ext.profiles.kube import Nodes, PodRules, profile_list
from hub_ext.profiles.loader import Known, load_profiles
from hub_ext.profiles.model import Choice, Option, Profile
from hub_ext.quota.document import load_policy
from hub_ext.settings import KubernetesSettings
from tests.profiles.examples import CATALOGUE, ROOT, profile

GOLDEN = Path(__file__).parents[1] / "data" / "profile_list.json"
FOR_GPUS = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
FOR_SLICES = {"key": "slices", "operator": "Exists"}
OF_THE_SITE = {"key": "people", "operator": "Exists"}
RULES = PodRules(
    image="hangang/notebook:dev",
    gpu_resources={"h200": "nvidia.com/gpu", "h200-1g": "nvidia.com/mig-1g.18gb"},
    gpu_nodes={
        "h200": Nodes({"gpu": "h200", "disk": "fast"}, [FOR_GPUS]),
        "h200-1g": Nodes({"gpu": "slices"}, [FOR_GPUS, FOR_SLICES]),
    },
    tolerations=[OF_THE_SITE],
)
DIFFERENT = [
    profile("cpu", environment={"THREADS": "2"}),
    profile("without-memory", amounts={"cpu": 1000}),
    profile("without-cpu", amounts={"memory": 4096}),
    profile("h200", amounts={"gpu.h200": 1000, "cpu": 16000, "memory": 196608}, image="rapids:1"),
    profile("slice", amounts={"gpu.h200-1g": 1000, "cpu": 8000, "memory": 65536}, environment={"CUDA": "1"}),
    profile(
        "chosen",
        options=(
            Option(
                "gpus",
                {"en": "GPUs"},
                (
                    Choice("none", {"en": "None"}, default=True),
                    Choice("two", {"en": "Two"}, {"gpu.h200": 2000, "memory": 131072}, {"GPUS": "2"}),
                ),
            ),
            Option(
                "stack",
                {"en": "Stack"},
                (
                    Choice("plain", {"en": "Plain"}, default=True),
                    Choice("torch", {"en": "Torch"}, environment={"STACK": "torch"}),
                ),
            ),
        ),
    ),
]
OF_THE_HUB = {
    "environment": {"HANGANG_DATA": "/shared"},
    "volumes": {"home": {"name": "home", "persistentVolumeClaim": {"claimName": "home-{username}"}}},
    "volume_mounts": {"home": {"name": "home", "mountPath": "/home/jovyan"}},
    "node_selector": {"site": "seoul"},
}
"""Traits that profiles add to."""
TRAITS = [
    "image",
    "environment",
    "cpu_limit",
    "cpu_guarantee",
    "mem_limit",
    "mem_guarantee",
    "volumes",
    "volume_mounts",
    "node_selector",
    "tolerations",
    "extra_resource_limits",
    "extra_resource_guarantees",
]


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)


def spawner(profiles: list[Profile]) -> KubeSpawner:
    return KubeSpawner(
        _mock=True, profile_list=profile_list(profiles, RULES), **json.loads(json.dumps(OF_THE_HUB))
    )


async def load(one: KubeSpawner, selection: Mapping[str, str]) -> dict[str, Any]:
    one.user_options = dict(selection)
    await one.load_user_options()
    return {name: getattr(one, name) for name in TRAITS}


def selections(profiles: list[Profile]) -> list[dict[str, str]]:
    return [
        {"profile": one.slug, **dict(zip((option.name for option in one.options), names, strict=True))}
        for one in profiles
        for names in itertools.product(
            *([choice.name for choice in option.choices] for option in one.options)
        )
    ]


# -- whole --------------------------------------------------------------------------------------------------------------


def test_the_examples_make_this_list(rewrite_golden: bool) -> None:
    policy = load_policy(ROOT / "policy" / "pools.yaml")
    known = Known(tuple(policy.gpu_classes), tuple(ROLES), set(policy.pools))
    found = profile_list(
        load_profiles(ROOT / "spawner_profiles", known), pod_rules(KubernetesSettings(), policy)
    )
    if rewrite_golden:
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


async def test_plain_kubespawner_takes_it_and_shows_its_form() -> None:
    one = KubeSpawner(_mock=True, profile_list=profile_list(CATALOGUE, RULES))
    form = await one.get_options_form()
    assert all(f'value="{each.slug}"' in form for each in CATALOGUE)
    one.user_options = one.options_from_form(
        {"profile": ["cpu"], "profile-option-cpu--memory": ["128gb"], "profile-option-cpu--stack": ["plain"]}
    )
    await one.load_user_options()
    assert (one.mem_limit, one.cpu_limit) == (128 * 2**30, 2.0)
    assert one.environment["BIG"] == "yes"


@pytest.mark.parametrize("number", range(len(selections(DIFFERENT))))
async def test_the_pod_of_each_choice_is_made(number: int) -> None:
    one = spawner(DIFFERENT)
    await load(one, selections(DIFFERENT)[number])
    pod = await one.get_pod_manifest()
    assert pod.spec.containers[0].name == "notebook"


# -- no leaks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", selections(DIFFERENT), ids=lambda one: "-".join(one.values()))
@pytest.mark.parametrize("after", selections(DIFFERENT), ids=lambda one: "-".join(one.values()))
async def test_nothing_of_one_start_is_left_for_the_next(
    before: dict[str, str], after: dict[str, str]
) -> None:
    fresh = await load(spawner(DIFFERENT), after)
    used = spawner(DIFFERENT)
    await load(used, before)
    assert await load(used, after) == fresh


async def test_what_the_hub_itself_sets_stays() -> None:
    one = spawner(DIFFERENT)
    for selection in selections(DIFFERENT):
        found = await load(one, selection)
        assert found["environment"]["HANGANG_DATA"] == "/shared"
        assert found["volumes"]["home"] == OF_THE_HUB["volumes"]["home"]
        assert found["node_selector"]["site"] == "seoul"


# -- parts --------------------------------------------------------------------------------------------------------------

PLACES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "no GPU": (
        {"profile": "cpu"},
        {"extra_resource_limits": {}, "node_selector": {"site": "seoul"}, "tolerations": [OF_THE_SITE]},
    ),
    "a GPU": (
        {"profile": "h200"},
        {
            "extra_resource_limits": {"nvidia.com/gpu": "1"},
            "extra_resource_guarantees": {"nvidia.com/gpu": "1"},
            "node_selector": {"site": "seoul", "gpu": "h200", "disk": "fast"},
            "tolerations": [OF_THE_SITE, FOR_GPUS],
            "image": "rapids:1",
        },
    ),
    "a slice": (
        {"profile": "slice"},
        {
            "extra_resource_limits": {"nvidia.com/mig-1g.18gb": "1"},
            "node_selector": {"site": "seoul", "gpu": "slices"},
            "tolerations": [OF_THE_SITE, FOR_GPUS, FOR_SLICES],
            "image": "hangang/notebook:dev",
        },
    ),
    "two GPUs by choice": (
        {"profile": "chosen", "gpus": "two", "stack": "torch"},
        {
            "extra_resource_limits": {"nvidia.com/gpu": "2"},
            "node_selector": {"site": "seoul", "gpu": "h200", "disk": "fast"},
            "mem_limit": 128 * 2**30,
            "cpu_limit": 2.0,
            "environment": {"HANGANG_DATA": "/shared", "GPUS": "2", "STACK": "torch"},
        },
    ),
}


@pytest.mark.parametrize(("selection", "want"), PLACES.values(), ids=PLACES)
async def test_where_a_choice_runs_and_what_it_gets(selection: dict[str, str], want: dict[str, Any]) -> None:
    found = await load(spawner(DIFFERENT), selection)
    assert {name: found[name] for name in want} == want


async def test_half_of_the_memory_may_be_shared() -> None:
    found = await load(spawner(DIFFERENT), {"profile": "h200"})
    assert found["volumes"]["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "98304Mi"}
    assert found["volume_mounts"]["shared-memory"] == {"name": "shared-memory", "mountPath": "/dev/shm"}


@pytest.mark.parametrize(
    ("requests", "want"),
    [
        pytest.param({}, (2.0, 64 * 2**30), id="what it shows"),
        pytest.param({"cpu": 100, "memory": 256}, (0.1, 256 * 2**20), id="less, to try it out"),
        pytest.param({"cpu": 9000, "memory": 10**6}, (2.0, 64 * 2**30), id="never more than it shows"),
    ],
)
async def test_what_is_asked_of_kubernetes(requests: dict[str, int], want: tuple[float, int]) -> None:
    rules = PodRules(RULES.image, RULES.gpu_resources, requests=requests)
    one = KubeSpawner(_mock=True, profile_list=profile_list([profile()], rules))
    await load(one, {"profile": "cpu"})
    assert (one.cpu_guarantee, one.mem_guarantee) == want
    assert (one.cpu_limit, one.mem_limit) == (2.0, 64 * 2**30)
