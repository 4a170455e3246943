"""Builders: a small catalogue of clusters, and the text of a profile's file that can be changed in one place."""

from __future__ import annotations

from pathlib import Path

from hub_ext.auth.roles import ROLES
from hub_ext.clusters.loader import Around
from hub_ext.clusters.model import ClusterCatalogue, ClusterProfile, Image, RmmPool
from hub_ext.document_reading import Known
from hub_ext.profiles.model import Audience

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster_profiles"
DIGEST = f"registry.example/rapids@sha256:{'0a' * 32}"
RAPIDS = Image("rapids", DIGEST, {"en": "RAPIDS"})
NIGHTLY = Image("nightly", "registry.example/rapids:26.12-nightly", {"en": "Nightly"})
KNOWN = Known(gpu_classes=("h200", "h200-1g"), roles=ROLES, pools=("seoul", "hangang-univ"))
AROUND = Around(KNOWN, {"rapids": RAPIDS, "nightly": NIGHTLY}, {"h200": 141 * 1024, "h200-1g": 18 * 1024})


def cluster_profile(slug: str = "cpu", **changes: object) -> ClusterProfile:
    values: dict[str, object] = {
        "title": {"en": slug},
        "description": {"en": f"About {slug}."},
        "worker": {"cpu": 2000, "memory": 8192},
        "scheduler": {"cpu": 1000, "memory": 2048},
        "threads": 2,
        **changes,
    }
    return ClusterProfile(slug=slug, **values)  # type: ignore[arg-type]


CPU = cluster_profile("cpu", order=10, minutes=(60, 120, 240), default_minutes=120)
SLICE = cluster_profile(
    "slice",
    order=20,
    worker={"gpu.h200-1g": 1000, "cpu": 4000, "memory": 32768},
    threads=1,
    rmm=RmmPool(8192, 14336),
    images=(RAPIDS, NIGHTLY),
    environment={"STACK": "rapids", "MODE": "fast"},
)
GPU = cluster_profile(
    "gpu",
    order=30,
    worker={"gpu.h200": 1000, "cpu": 8000, "memory": 98304},
    threads=1,
    audience=Audience(roles=frozenset({"researcher"})),
)
CATALOGUE = ClusterCatalogue.of([GPU, CPU, SLICE])
ALL = CATALOGUE.slugs

TEXT = """\
# yaml-language-server: $schema=./schema.json
title: {en: GPU workers, ko: GPU 워커}
description: {en: For large data., ko: 큰 데이터를 다룹니다.}
order: 30
worker: {gpu.h200: 1, cpu: 8, memory: 96Gi}
threads: 2
scheduler: {cpu: 1, memory: 4Gi}
rmm: {pool: 64Gi, maximum: 120Gi}
environment: {STACK: rapids}
images: [rapids]
most_workers: 6
minutes: {choices: [60, 120, 240], default: 120}
for: {roles: [researcher], pools: [hangang-univ]}
"""
LEAST = """\
title: {en: T}
description: {en: D}
worker: {cpu: 1, memory: 1Gi}
scheduler: {cpu: 1, memory: 1Gi}
"""
