"""The centre of hundreds of clusters: a ledger, and gateway, clock and proxy as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from sqlalchemy import Engine, func, select

from bench.kubernetes import READY_AFTER
from hub_ext.core.people import Person
from hub_ext.db.engine import make_engine, reading
from hub_ext.db.tables import leases, live
from hub_ext.db.upgrade import make_schema, upgrade
from hub_ext.factory import Factory
from hub_ext.settings import GATEWAY_SCHEMA, free_ports
from tests.support.cluster import Cluster
from tests.support.crowd import PRETENDED
from tests.support.databases import new_postgresql
from tests.support.hub import wait_for
from tests.support.kube_hub import GATEWAY
from tests.support.state import Files, new_files

AT_ONCE = 20
"""So many requests at a time: as many as dask-gateway's backend makes."""
POOLS = 10
POLICY = """
version: 1
timezone: Asia/Seoul
gpu_classes: {h200: {resource: nvidia.com/gpu, hours: "1", memory: 141Gi}}
pools:
"""
POOL = "  %(name)s: {quota: {cpu: {nominal: %(cpu)d}, memory: {nominal: %(memory)dGi}}}\n"
PROFILE = """
title: {en: CPU workers}
description: {en: For tables.}
worker: {cpu: %(cpu)d, memory: 1Gi}
scheduler: {cpu: %(cpu)d, memory: 1Gi}
most_workers: %(most)d
minutes: {choices: [240], default: 240}
"""
NAMES = re.compile(r"[0-9a-f]{8,}(-[0-9a-f]{8,})?")
PROCESSES = ("clock", "dask-proxy", "gateway")


@dataclass
class Size:
    """So many clusters of so many workers; `spare` are the workers of each that may come beside. `cpu` is of one pod."""

    clusters: int
    workers: int
    cpu: int
    spare: int = 1

    @property
    def pods(self) -> int:
        return self.clusters * (1 + self.workers)

    @property
    def nodes(self) -> int:
        return -(-self.most_pods // 240)

    @property
    def most_pods(self) -> int:
        return self.clusters * (1 + self.workers + self.spare)

    @property
    def people(self) -> list[str]:
        return [f"person-{number}" for number in range(self.clusters)]

    @staticmethod
    def pool_of(person: str) -> str:
        return f"pool-{int(person.rpartition('-')[2]) % POOLS}"


@dataclass
class Centre:
    """A gateway with its clock and its proxy as processes."""

    files: Files
    factory: Factory
    namespace: str
    hub_port: int
    gateway_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @cached_property
    def engine(self) -> Engine:
        return make_engine(self.factory.settings.ledger_url)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}/api"

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self.processes[name].pid)

    def start(self, name: str) -> None:
        with (self.files.folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "hub_ext", name],
                cwd=self.files.folder,
                env={**os.environ, **self.files.environment, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> str:
        return (self.files.folder / f"{name}.log").read_text(errors="replace")

    def answers(self) -> bool:
        assert self.processes["gateway"].poll() is None, self.log("gateway")[-4000:]
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
        return False

    def knows_nodes(self, number: int) -> bool:
        with self.factory.store.reading() as txn:
            return sum(node.ready for node in txn.nodes() or ()) > number

    def leases(self) -> int:
        with reading(self.engine) as connection:
            return connection.scalar(select(func.count()).select_from(leases).where(live)) or 0

    def warnings(self) -> Counter[str]:
        """What the gateway complained of, without names."""
        lines = (line for line in self.log("gateway").splitlines() if line.startswith(("[W", "[E", "[C")))
        return Counter(NAMES.sub("…", line.partition("]")[2].strip())[:80] for line in lines)


@contextmanager
def ledger(kind: str) -> Iterator[str | None]:
    """The address of a database of this run; None for SQLite files in the centre's folder."""
    if kind == "sqlite":
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(new_postgresql())
        except pytest.skip.Exception as why:
            sys.exit(f"{why}; --database sqlite does without it")
        # What was booked survives a power cut, as at a site.
        made.run("ALTER SYSTEM SET fsync = on", "SELECT pg_reload_conf()")
        yield made.url


@contextmanager
def centre(folder: Path, namespace: str, size: Size, database: str | None) -> Iterator[Centre]:
    hub, gateway, http, tcp = free_ports(4)
    per_pool = -(-size.clusters // POOLS) * (1 + size.workers + size.spare)
    quota = {"cpu": per_pool * size.cpu, "memory": per_pool}
    identity = {"people": {name: {"pools": [size.pool_of(name)], "roles": ["lead"]} for name in size.people}}
    files = new_files(
        folder,
        POLICY + "".join(POOL % {"name": f"pool-{number}", **quota} for number in range(POOLS)),
        identity=yaml.safe_dump(identity),
        run_on="kubernetes",
        cluster_profiles="clusters",
        kubernetes={
            "namespace": namespace,
            "hub_url": f"http://127.0.0.1:{hub}",
            "gateway_url": f"http://127.0.0.1:{gateway}",
            "gateway_port": gateway,
            "dask_proxy_port": http,
            "dask_port": tcp,
            "tolerations": [PRETENDED],
            "priority_class": None,
        },
        **({} if database is None else {"database_url": database}),
    )
    (folder / "clusters").mkdir()
    (folder / "clusters" / "cpu.yaml").write_text(
        PROFILE % {"cpu": size.cpu, "most": size.workers + size.spare}
    )
    factory = Factory(files.settings())
    factory.settings.state_dir.mkdir(parents=True, exist_ok=True)
    upgrade(factory.settings.ledger_url)
    if database is not None:
        make_schema(factory.settings.ledger_url, GATEWAY_SCHEMA)
    factory.put_in_force(factory.documents, who="bench")
    for name in size.people:
        factory.admission.put_person(Person(name, (size.pool_of(name),), frozenset({"lead"})))
    made = Centre(files, factory, namespace, hub, gateway)
    try:
        for name in PROCESSES:
            made.start(name)
        wait_for(made.answers, "the gateway answers")
        wait_for(lambda: made.knows_nodes(size.nodes), "the clock has counted the nodes")
        yield made
    except BaseException:
        print(f"--- gateway.log\n{made.log('gateway')[-6000:]}\n--- clock.log\n{made.log('clock')[-3000:]}")
        raise
    finally:
        for process in made.processes.values():
            process.terminate()
        for process in made.processes.values():
            process.wait(60)
        made.engine.dispose()
        factory.store.close()


@contextmanager
def empty_nodes(cluster: Cluster, size: Size) -> Iterator[None]:
    """Pretended nodes with room for all pods, which have one address at which the stub answers."""
    sizes = ("--gpus", "0", "--cpu", str(size.cpu * 250), "--memory", "2Ti")
    with cluster.pretended_nodes(size.nodes, *sizes):
        cluster.program("pretended-pods", "--ready-after", str(READY_AFTER), "--address", GATEWAY)
        try:
            yield
        finally:
            cluster.program("pretended-pods")
