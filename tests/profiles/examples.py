"""Builders: a small catalogue, and the text of a profile's file that can be changed in one place."""

from __future__ import annotations

from pathlib import Path

from hub_ext.auth.roles import ROLES
from hub_ext.profiles.catalogue import Catalogue
from hub_ext.profiles.loader import Known
from hub_ext.profiles.model import Audience, Choice, Option, Profile

ROOT = Path(__file__).parents[2]
KNOWN = Known(gpu_classes=("h200", "h200-1g"), roles=ROLES, pools=("seoul", "hangang-univ"))

MEMORY = Option(
    "memory",
    {"en": "Memory"},
    (
        Choice("64gb", {"en": "64 GB"}, default=True),
        Choice("128gb", {"en": "128 GB"}, {"memory": 131072}, {"BIG": "yes"}),
    ),
)
STACK = Option(
    "stack",
    {"en": "Stack"},
    (
        Choice("plain", {"en": "Plain"}),
        Choice("rapids", {"en": "RAPIDS"}, environment={"STACK": "rapids"}, default=True),
    ),
)


def profile(slug: str = "cpu", **changes: object) -> Profile:
    values: dict[str, object] = {
        "title": {"en": slug},
        "description": {"en": f"About {slug}."},
        "amounts": {"cpu": 2000, "memory": 65536},
        **changes,
    }
    return Profile(slug=slug, **values)  # type: ignore[arg-type]


CATALOGUE = Catalogue.of(
    [
        profile(
            "h200", order=20, amounts={"gpu.h200": 1000, "cpu": 16000, "memory": 196608}, options=(STACK,)
        ),
        profile("cpu", order=10, options=(MEMORY, STACK), minutes=(60, 120, 240), default_minutes=120),
        profile("h200-4", order=30, audience=Audience(roles=frozenset({"researcher"}))),
    ]
)
ALL = CATALOGUE.slugs

TEXT = """\
# yaml-language-server: $schema=./schema.json
title: {en: Large CPU server, ko: 큰 CPU 서버}
description: {en: For tables., ko: 표를 다룹니다.}
order: 50
resources: {cpu: 16, memory: 64Gi}
options:
  memory:
    title: {en: Memory, ko: 메모리}
    choices:
      64gb:
        title: {en: 64 GB}
        default: true
      128gb:
        title: {en: 128 GB}
        resources: {memory: 128Gi}
minutes: {choices: [60, 120, 240], default: 120}
for: {roles: [student], pools: [hangang-univ]}
environment: {THREADS: "16"}
"""
