"""The profiles as KubeSpawner's `profile_list`, also for a site that keeps plain KubeSpawner.

Each entry states every trait that any other could have set: KubeSpawner merges overrides into one spawner object, so
that what an entry leaves out would be left over from the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from hub_ext.core.amounts import MIB, MILLI, Amounts, is_gpu
from hub_ext.kube.site import DISK, LEAST_DISK, NO_DEVICES, SHARED_MEMORY, VISIBLE_DEVICES, Nodes, PodRules
from hub_ext.language import DEFAULT
from hub_ext.profiles.model import Choice, Option, Profile

__all__ = ["Nodes", "PodRules", "profile_list"]


def profile_list(profiles: Iterable[Profile], rules: PodRules) -> list[dict[str, Any]]:
    """`c.KubeSpawner.profile_list`; titles in English, KubeSpawner's form has one language."""
    profiles = list(profiles)
    unset = dict.fromkeys(name for profile in profiles for name in _variables(profile))
    return [_entry(profile, rules, unset) for profile in profiles]


def _variables(profile: Profile) -> Iterator[str]:
    yield from profile.environment
    for option in profile.options:
        for choice in option.choices:
            yield from choice.environment


_NO_SIZES: Final[Mapping[str, Any]] = {
    "cpu_limit": None,
    "cpu_guarantee": None,
    "mem_limit": None,
    "mem_guarantee": None,
    "volumes": {SHARED_MEMORY: None},
    "volume_mounts": {SHARED_MEMORY: None},
}


def _entry(profile: Profile, rules: PodRules, unset: Mapping[str, None]) -> dict[str, Any]:
    """`unset` takes out of the environment what any profile may have put in."""
    entry: dict[str, Any] = {
        "slug": profile.slug,
        "display_name": profile.title[DEFAULT],
        "description": profile.description.get(DEFAULT, ""),
        "kubespawner_override": {
            "image": profile.image or rules.image,
            **_NO_SIZES,
            **_sizes(profile.amounts, rules),
            **_gpus(profile.amounts, rules),
            "environment": {**unset, VISIBLE_DEVICES: _visible(profile.amounts), **profile.environment},
        },
    }
    if profile.options:
        entry["profile_options"] = {
            option.name: _option(option, profile, rules) for option in profile.options
        }
    return entry


def _option(option: Option, profile: Profile, rules: PodRules) -> dict[str, Any]:
    return {
        "display_name": option.title[DEFAULT],
        "choices": {choice.name: _choice(choice, profile, rules) for choice in option.choices},
    }


def _choice(choice: Choice, profile: Profile, rules: PodRules) -> dict[str, Any]:
    override: dict[str, Any] = _sizes(choice.amounts, rules)
    environment: dict[str, str | None] = dict(choice.environment)
    if any(is_gpu(resource) for resource in choice.amounts):
        amounts = {**profile.amounts, **choice.amounts}
        override |= _gpus(amounts, rules)
        environment[VISIBLE_DEVICES] = _visible(amounts)
    if environment:
        override["environment"] = environment
    entry: dict[str, Any] = {"display_name": choice.title[DEFAULT], "kubespawner_override": override}
    if choice.default:
        entry["default"] = True
    return entry


def _sizes(amounts: Amounts, rules: PodRules) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    if cpu := amounts.get("cpu"):
        sizes |= {"cpu_limit": cpu / MILLI, "cpu_guarantee": min(cpu, rules.requests.get("cpu", cpu)) / MILLI}
    if memory := amounts.get("memory"):
        asked = min(memory, rules.requests.get("memory", memory))
        sizes |= {
            "mem_limit": memory * MIB,
            "mem_guarantee": asked * MIB,
            # Kubernetes' own 64 MiB are too little for CUDA, NCCL and data loaders. What is used counts as memory.
            "volumes": {
                SHARED_MEMORY: {
                    "name": SHARED_MEMORY,
                    "emptyDir": {"medium": "Memory", "sizeLimit": f"{memory // 2}Mi"},
                }
            },
            "volume_mounts": {SHARED_MEMORY: {"name": SHARED_MEMORY, "mountPath": "/dev/shm"}},
        }
    return sizes


def _visible(amounts: Amounts) -> str | None:
    """Where a node's runtime shows all GPUs to whoever names none, a server without GPUs must say so. Those with some
    are told which by the device plugin.
    """
    return None if any(is_gpu(resource) and amount for resource, amount in amounts.items()) else NO_DEVICES


def _gpus(amounts: Amounts, rules: PodRules) -> dict[str, Any]:
    """The devices, and where they are. None takes out what another profile put in."""
    counts: dict[str, str | None] = dict.fromkeys(rules.gpu_resources.values())
    selector: dict[str, str | None] = {
        key: None for nodes in rules.gpu_nodes.values() for key in nodes.node_selector
    }
    tolerations = list(rules.tolerations)
    for resource, amount in amounts.items():
        name = resource.removeprefix("gpu.")
        if is_gpu(resource) and amount:
            counts[rules.gpu_resources[name]] = str(-(-amount // MILLI))
            nodes = rules.gpu_nodes.get(name, Nodes())
            selector |= nodes.node_selector
            tolerations += [toleration for toleration in nodes.tolerations if toleration not in tolerations]
    # What a server writes beside its home would else fill the node, and other people's servers would be evicted.
    disk = {} if rules.disk is None else {DISK: f"{rules.disk}Mi"}
    return {
        "extra_resource_limits": {**counts, **disk},
        "extra_resource_guarantees": {**counts, **({DISK: LEAST_DISK} if disk else {})},
        "node_selector": selector,
        "tolerations": tolerations,
    }
