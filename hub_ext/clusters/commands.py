"""The command lines and environments of a cluster's processes: one scheduler, and workers of one process each.

A worker is exactly one process with at most one device: the gateway knows workers by their names, and `dask cuda worker`
gives a name of its own to each process it starts when it sees several GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hub_ext.clusters.model import ClusterProfile
from hub_ext.clusters.policy import ADAPT_SECONDS, DEATH_SECONDS, HEARTBEAT_SECONDS, worker_memory
from hub_ext.core.amounts import MIB, MILLI, Amounts
from hub_ext.core.errors import BadInput

PRELOAD: Final = "hub_ext.notebook.scheduler_preload"
"""What makes a scheduler tell the gateway how it is, and take its orders."""
MEND: Final = '["hub_ext.notebook.tls"]'
"""What keeps a failed connection of a worker from ending its others; a list, as Dask's settings want it."""
ENCRYPTED: Final = "tls://"
NO_DEVICE: Final = ""
"""Of `CUDA_VISIBLE_DEVICES`: a process that has no device must see none."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a cluster's processes listen; a port of 0 is one that is free."""

    host: str = "127.0.0.1"
    scheduler: int = 0
    dashboard: int = 0
    api: int = 0


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a cluster's processes know each other, and reach the gateway.

    `token` is the cluster's token itself, or the path of a file that holds it; only the scheduler gets it. `certificate` and `key` are paths: the
    cluster's own certificate is its authority too.
    """

    cluster: str
    api_url: str
    token: str = field(repr=False)
    certificate: str
    key: str


def scheduler_command(listen: Listen, program: Sequence[str] = ("dask",)) -> list[str]:
    """The scheduler's command line. Its own idle timeout is off: the gateway's reaper ends clusters, and says why."""
    return [
        *program,
        "scheduler",
        *("--protocol", "tls"),
        *("--host", listen.host),
        *("--port", str(listen.scheduler)),
        *("--dashboard-address", f"{listen.host}:{listen.dashboard}"),
        *("--preload", PRELOAD),
        *("--dg-api-address", f"{listen.host}:{listen.api}"),
        *("--dg-heartbeat-period", str(HEARTBEAT_SECONDS)),
        *("--dg-adaptive-period", str(ADAPT_SECONDS)),
        *("--dg-idle-timeout", "0"),
    ]


def worker_command(
    profile: ClusterProfile,
    name: str,
    scheduler_address: str,
    *,
    directory: str,
    host: str | None = None,
    port: int = 0,
    program: Sequence[str] = ("dask",),
) -> list[str]:
    """The command line of one worker. `directory` is where it spills; `host` None: the machine's own address; `port` is
    where other workers reach it, 0 any that is free.

    Raises BadInput for an address that is not one of TLS: it comes from the person's own scheduler.
    """
    if not scheduler_address.startswith(ENCRYPTED) or not scheduler_address.isprintable():
        raise BadInput(
            "The scheduler's address is none that a worker may connect to; it must begin with tls://"
        )
    return [
        *program,
        *(("cuda", "worker") if profile.gpu_class else ("worker",)),
        scheduler_address,
        *("--name", name),
        *(() if host is None else ("--host", host)),
        *(("--worker-port", str(port)) if port else ()),
        *("--dashboard-address", f"{host or ''}:0"),
        *("--nthreads", str(profile.threads)),
        *("--memory-limit", f"{worker_memory(profile.worker['memory'])}MiB"),
        *("--local-directory", directory),
        *("--death-timeout", str(DEATH_SECONDS)),
        *(_device_options(profile) if profile.gpu_class else ("--nworkers", "1")),
    ]


def _device_options(profile: ClusterProfile) -> list[str]:
    """With cuDF spilling by itself, buffer by buffer, a limit of Dask's own (`--device-memory-limit`) would move
    the same data twice.
    """
    options = ["--enable-cudf-spill"]
    if profile.rmm is not None:
        options += ["--rmm-pool-size", f"{profile.rmm.pool}MiB"]
        options += ["--rmm-maximum-pool-size", f"{profile.rmm.maximum}MiB"]
    return options


def scheduler_environment(
    profile: ClusterProfile, chosen: Mapping[str, str], credentials: Credentials
) -> dict[str, str]:
    """What the scheduler's process gets. It has no device; of GPU clusters it still reads the metadata of cuDF."""
    environment = _environment(profile, chosen, credentials, "SCHEDULER", profile.scheduler)
    environment["DASK_GATEWAY_API_TOKEN"] = credentials.token
    if profile.gpu_class:
        # It must agree with its workers about spilling, and must not look for a device when it imports RAPIDS.
        environment |= {"CUDF_SPILL": "on", "RAPIDS_NO_INITIALIZE": "1"}
    return environment | {"CUDA_VISIBLE_DEVICES": NO_DEVICE}


def worker_environment(
    profile: ClusterProfile,
    chosen: Mapping[str, str],
    credentials: Credentials,
    device: str | None = NO_DEVICE,
) -> dict[str, str]:
    """What a worker's process gets. `device` is the UUID of its one GPU or slice; None: whoever starts it says so.

    Raises BadInput where the profile and the number of devices do not agree.
    """
    if device is not None and bool(profile.gpu_class) != (device != NO_DEVICE and "," not in device):
        wanted = "exactly one device" if profile.gpu_class else "no device"
        raise BadInput(f"A worker of {profile.slug} has {wanted}, and not {device!r}")
    environment = _environment(profile, chosen, credentials, "WORKER", profile.worker)
    environment |= {"DASK_DISTRIBUTED__WORKER__PRELOAD": MEND, "DASK_DISTRIBUTED__NANNY__PRELOAD": MEND}
    if profile.gpu_class:
        # The scheduler is told to spill as the workers do.
        environment["DASK_CUDF_SPILL_WARNING"] = "False"
    return environment if device is None else environment | {"CUDA_VISIBLE_DEVICES": device}


def _environment(
    profile: ClusterProfile,
    chosen: Mapping[str, str],
    credentials: Credentials,
    role: str,
    amounts: Amounts,
) -> dict[str, str]:
    """The profile's variables, over them the person's, and over both what holds the cluster together."""
    return {
        **profile.environment,
        **chosen,
        "DASK_GATEWAY_API_URL": credentials.api_url,
        "DASK_GATEWAY_CLUSTER_NAME": credentials.cluster,
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": credentials.certificate,
        f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT": credentials.certificate,
        f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY": credentials.key,
        "CPU_LIMIT": f"{amounts['cpu'] / MILLI:g}",
        "MEM_LIMIT": str(amounts["memory"] * MIB),
    }
