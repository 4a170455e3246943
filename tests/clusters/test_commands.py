from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from dask_gateway import scheduler_preload
from dask_gateway_server.tls import new_keypair
from distributed import Client
from distributed.cli import dask_scheduler, dask_worker
from distributed.security import Security

from hub_ext.clusters.commands import (
    Credentials,
    Listen,
    scheduler_command,
    scheduler_environment,
    worker_command,
    worker_environment,
)
from hub_ext.clusters.model import ClusterProfile, RmmPool
from hub_ext.core.errors import BadInput
from tests.clusters.examples import CPU, GPU, ROOT, SLICE, cluster_profile

CUDA_OPTIONS = (ROOT / "tests/data/clusters/dask-cuda-26.10-worker-options.txt").read_text().split()
"""Of `dask cuda worker`, as the wheel of dask-cuda 26.10 has them."""
CREDENTIALS = Credentials("c1", "http://127.0.0.1:1/api", "secret-token", "/c/dask.crt", "/c/dask.pem")
MIG = "MIG-41b3359c-e721-56e5-8009-12e5797ed514"
ADDRESS = "tls://127.0.0.1:8786"


def after(command: list[str], option: str) -> str:
    assert command.count(option) == 1, f"{option} stands {command.count(option)} times in {command}"
    return command[command.index(option) + 1]


# -- the scheduler ------------------------------------------------------------------------------------------------


def test_the_schedulers_whole_command() -> None:
    assert scheduler_command(Listen("0.0.0.0", 8786, 8787, 8788), ["/opt/bin/dask"]) == [
        *("/opt/bin/dask", "scheduler", "--protocol", "tls", "--host", "0.0.0.0", "--port", "8786"),
        *("--dashboard-address", "0.0.0.0:8787", "--preload", "hub_ext.notebook.scheduler_preload"),
        *("--dg-api-address", "0.0.0.0:8788", "--dg-heartbeat-period", "15"),
        *("--dg-adaptive-period", "3", "--dg-idle-timeout", "0"),
    ]


def test_dask_and_the_preload_know_every_option_of_the_scheduler() -> None:
    _, _, *arguments = scheduler_command(Listen())
    context = dask_scheduler.main.make_context("scheduler", arguments)
    assert (context.params["host"], context.params["port"]) == ("127.0.0.1", "0")
    preloaded = scheduler_preload.dask_setup.make_context("preload", list(context.params["preload_argv"]))
    assert preloaded.params == {
        "dg_adaptive_period": 3.0,
        "dg_heartbeat_period": 15.0,
        "dg_idle_timeout": 0.0,
        "dg_api_address": "127.0.0.1:0",
    }


# -- a worker -----------------------------------------------------------------------------------------------------


def test_a_cpu_workers_whole_command() -> None:
    assert worker_command(CPU, "w1", ADDRESS, directory="/scratch", host="127.0.0.1") == [
        *("dask", "worker", ADDRESS, "--name", "w1", "--host", "127.0.0.1"),
        *("--dashboard-address", "127.0.0.1:0", "--nthreads", "2", "--memory-limit", "7680MiB"),
        *("--local-directory", "/scratch", "--death-timeout", "60", "--nworkers", "1"),
    ]


def test_a_gpu_workers_whole_command() -> None:
    assert worker_command(SLICE, "w1", ADDRESS, directory="/scratch") == [
        *("dask", "cuda", "worker", ADDRESS, "--name", "w1"),
        *("--dashboard-address", ":0", "--nthreads", "1", "--memory-limit", "30720MiB"),
        *("--local-directory", "/scratch", "--death-timeout", "60"),
        *("--enable-cudf-spill", "--rmm-pool-size", "8192MiB", "--rmm-maximum-pool-size", "14336MiB"),
    ]


@pytest.mark.parametrize("profile", [CPU, SLICE, GPU], ids=lambda profile: profile.slug)
@pytest.mark.parametrize("host", [None, "127.0.0.1"])
def test_what_starts_a_worker_knows_all_its_options(profile: ClusterProfile, host: str | None) -> None:
    command = worker_command(profile, "w1", ADDRESS, directory="/scratch", host=host)
    options = [word for word in command if word.startswith("--")]
    if profile.gpu_class:
        assert set(options) <= set(CUDA_OPTIONS)
    else:
        context = dask_worker.main.make_context("worker", command[2:])
        assert context.params["scheduler"] == ADDRESS
        assert (context.params["name"], context.params["n_workers"]) == ("w1", "1")
    assert len(options) == len(set(options))


@pytest.mark.parametrize("rmm", [None, RmmPool(1024, 2048)])
def test_cudf_and_dask_never_spill_the_same_data(rmm: RmmPool | None) -> None:
    command = worker_command(replace(SLICE, rmm=rmm), "w1", ADDRESS, directory="/scratch")
    assert "--enable-cudf-spill" in command
    assert "--device-memory-limit" not in command
    assert ("--rmm-maximum-pool-size" in command) == (rmm is not None)


def test_a_worker_is_told_less_memory_than_its_lease_has() -> None:
    for profile in (CPU, SLICE, GPU, cluster_profile(worker={"cpu": 1000, "memory": 1024})):
        told = int(after(worker_command(profile, "w", ADDRESS, directory="/"), "--memory-limit")[:-3])
        assert 0 < told <= profile.worker["memory"] - 256


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:8786", "--preload=evil", "", "tls://a\n--preload evil", "inproc://x"]
)
def test_a_schedulers_address_that_is_none_starts_no_worker(address: str) -> None:
    with pytest.raises(BadInput, match="must begin with tls://"):
        worker_command(CPU, "w1", address, directory="/scratch")


# -- what they get ------------------------------------------------------------------------------------------------


def test_what_holds_a_cluster_together_wins_over_profile_and_person() -> None:
    hostile = {"DASK_GATEWAY_API_URL": "http://evil", "CUDA_VISIBLE_DEVICES": "0", "MEM_LIMIT": "1"}
    profile = replace(SLICE, environment={**SLICE.environment, **hostile})
    for found in (
        scheduler_environment(profile, {**hostile, "MODE": "slow"}, CREDENTIALS),
        worker_environment(profile, {**hostile, "MODE": "slow"}, CREDENTIALS, MIG),
    ):
        assert found["DASK_GATEWAY_API_URL"] == CREDENTIALS.api_url
        assert found["CUDA_VISIBLE_DEVICES"] != "0"
        assert found["MEM_LIMIT"] != "1"
        assert (found["STACK"], found["MODE"]) == ("rapids", "slow")
        assert found["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"


def test_only_the_scheduler_gets_the_clusters_token() -> None:
    assert scheduler_environment(CPU, {}, CREDENTIALS)["DASK_GATEWAY_API_TOKEN"] == "secret-token"
    assert "secret-token" not in worker_environment(CPU, {}, CREDENTIALS).values()
    assert "secret-token" not in repr(CREDENTIALS)


def test_a_process_without_a_device_sees_none() -> None:
    assert scheduler_environment(GPU, {}, CREDENTIALS)["CUDA_VISIBLE_DEVICES"] == ""
    assert worker_environment(CPU, {}, CREDENTIALS)["CUDA_VISIBLE_DEVICES"] == ""


def test_a_gpu_worker_sees_its_one_device() -> None:
    assert worker_environment(SLICE, {}, CREDENTIALS, MIG)["CUDA_VISIBLE_DEVICES"] == MIG
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(SLICE, {}, CREDENTIALS, None)


@pytest.mark.parametrize(("profile", "device"), [(SLICE, ""), (SLICE, f"{MIG},{MIG}"), (CPU, MIG)])
def test_a_worker_never_runs_with_another_number_of_devices(profile: ClusterProfile, device: str) -> None:
    with pytest.raises(BadInput, match=f"A worker of {profile.slug} has"):
        worker_environment(profile, {}, CREDENTIALS, device)


def test_scheduler_and_workers_of_a_gpu_cluster_agree_about_spilling() -> None:
    assert scheduler_environment(SLICE, {}, CREDENTIALS)["CUDF_SPILL"] == "on"
    assert "CUDF_SPILL" not in scheduler_environment(CPU, {}, CREDENTIALS)


def test_each_is_told_what_it_has() -> None:
    found = worker_environment(CPU, {}, CREDENTIALS)
    assert (found["CPU_LIMIT"], found["MEM_LIMIT"]) == ("2", str(8 * 2**30))
    assert scheduler_environment(CPU, {}, CREDENTIALS)["CPU_LIMIT"] == "1"


# -- with a real Dask ---------------------------------------------------------------------------------------------

PROGRAM = [sys.executable, "-m", "dask"]


class Gateway:
    """Hears what schedulers tell."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")
        )
        self.heard.put_nowait((await reader.readexactly(length)).decode())
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def running(
    command: list[str], environment: Mapping[str, str], folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        start_new_session=True,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.mark.slow
async def test_a_real_cluster_computes_and_its_worker_ends_with_its_scheduler(tmp_path: Path) -> None:
    certificate, key = new_keypair("c1")
    (tmp_path / "dask.crt").write_bytes(certificate)
    (tmp_path / "dask.pem").write_bytes(key)
    gateway = Gateway()
    server = await asyncio.start_server(gateway.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    credentials = Credentials(
        "c1", f"http://127.0.0.1:{port}/api", "t", str(tmp_path / "dask.crt"), str(tmp_path / "dask.pem")
    )
    profile = cluster_profile(worker={"cpu": 1000, "memory": 1024}, threads=1)
    scheduler = scheduler_command(Listen(), PROGRAM)
    async with (
        server,
        asyncio.timeout(120),
        running(scheduler, scheduler_environment(profile, {}, credentials), tmp_path) as first,
    ):
        # 1. The scheduler tells where it is, encrypted.
        address = _address_in(await gateway.heard.get())
        assert address.startswith("tls://127.0.0.1:")
        worker = worker_command(
            profile, "w1", address, directory=str(tmp_path), host="127.0.0.1", program=PROGRAM
        )
        environment = worker_environment(profile, {"GREETING": "안녕"}, credentials)
        async with running(worker, environment, tmp_path) as second:
            # 2. Its worker computes, and has what it was given.
            security = Security(
                tls_ca_file=credentials.certificate,
                tls_client_cert=credentials.certificate,
                tls_client_key=credentials.key,
                require_encryption=True,
            )
            async with Client(address, security=security, asynchronous=True) as client:
                await client.wait_for_workers(1)
                assert await client.submit(os.getenv, "GREETING") == "안녕"
                workers = (await client.scheduler.identity())["workers"].values()
                assert [(one["name"], one["nthreads"], one["memory_limit"]) for one in workers] == [
                    ("w1", 1, 768 * 2**20)
                ]
            # 3. Without its scheduler the worker ends by itself.
            first.kill()
            assert await second.wait() is not None


def _address_in(heartbeat: str) -> str:
    return str(json.loads(heartbeat)["scheduler_address"])
