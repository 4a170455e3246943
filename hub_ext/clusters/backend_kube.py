"""Clusters as pods: a scheduler and workers, each made under its lease, among people's servers and behind the same wall.

Hours count from the moment a pod has a node, which the clock sees as it does for servers. Nothing is concluded from a
world that cannot be seen, and a request whose answer was lost is made again: a pod has the name of its record, so that
there are never two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
from dask_gateway_server.backends.db_base import Cluster, Worker
from kubernetes_asyncio.client import ApiException, V1DeleteOptions, V1Preconditions
from kubespawner.clients import load_config, shared_client

from hub_ext.clusters.backend import LEASE, START_FAILED, QuotaBackend
from hub_ext.clusters.lifecycle import Heartbeat
from hub_ext.clusters.manifests import (
    CLUSTER,
    LISTEN,
    ClusterPlan,
    ClusterSite,
    Manifest,
    Owner,
    scheduler_pod,
    secret,
    worker_pod,
)
from hub_ext.clusters.settings import SERVICE
from hub_ext.core.errors import HubError
from hub_ext.kube.pods import Pod, handle_of, is_over, lease_of, why_ended
from hub_ext.kube.watch import PodWatch
from hub_ext.quota.model import Policy, facts_of

ResultT = TypeVar("ResultT")
POD: Final = "pod"
"""In a record's state: the pod's handle, `NAMESPACE/NAME@UID`."""
REQUEST_SECONDS: Final = 20.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
GRACE_SECONDS: Final = 10
"""So long a scheduler or worker has to end by itself."""
GONE_SECONDS: Final = 30.0
"""So long it is waited until a pod is seen gone; after that the clock sees it."""
PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Answers of an API server after which the same request may well succeed."""
PORTS: Final = {
    "scheduler_address": LISTEN.scheduler,
    "dashboard_address": LISTEN.dashboard,
    "api_address": LISTEN.api,
}


class PodsUnseen(HubError):
    """The API server does not answer, so that nothing is known of what runs."""


@dataclass(frozen=True)
class KubePlace:
    """Where a gateway runs clusters in Kubernetes. `label` makes a label's value of a person's name."""

    site: ClusterSite
    label: Callable[[str], str]


class GatedKubeBackend(QuotaBackend):
    """Pods under leases; there are none without a quota."""

    place: KubePlace

    async def do_setup(self) -> None:
        load_config()
        self._pods = PodWatch(namespace=self.place.site.namespace, log=self.log)
        self._pods.label_selector = CLUSTER
        await self._pods.start()
        await super().do_setup()

    async def do_cleanup(self) -> None:
        await super().do_cleanup()
        await self._pods.stop()

    # -- a cluster -----------------------------------------------------------------------------------------------

    async def do_start_cluster(self, cluster: Cluster) -> AsyncIterator[dict[str, Any]]:
        lease = self._standing(cluster).scheduler
        assert lease is not None
        site, plan = self.place.site, self._plan(cluster)
        # 1. The pod first: it waits for its certificate, and takes that with it when it goes.
        pod = scheduler_pod(site, plan, lease, await self._policy(), facts_of(lease))
        made = await self._made(pod)
        yield {**cluster.state, POD: handle_of(made)}
        # 2. The certificate, which the workers get too.
        files = secret(
            site,
            plan,
            certificate=cluster.tls_cert.decode(),
            key=cluster.tls_key.decode(),
            token=cluster.token,
            owner=Owner(plan.scheduler, made["metadata"]["uid"]),
        )
        await self._patiently(
            lambda: shared_client("CoreV1Api").create_namespaced_secret(site.namespace, files),
            f"the secret {plan.secret}",
            there=True,
        )

    async def do_stop_cluster(self, cluster: Cluster) -> None:
        await self._end(cluster.name, cluster.state, self.why_stopped(cluster))

    # -- a worker ------------------------------------------------------------------------------------------------

    async def do_start_worker(self, worker: Worker) -> AsyncIterator[dict[str, Any]]:
        cluster, lease = worker.cluster, self.lease_of(worker)
        plan = self._plan(cluster)
        pod = worker_pod(
            self.place.site,
            plan,
            lease,
            await self._policy(),
            facts_of(lease),
            name=worker.name,
            scheduler_address=cluster.scheduler_address,
            owner=Owner(plan.scheduler, _uid(cluster.state)),
        )
        yield {**worker.state, POD: handle_of(await self._made(pod))}

    async def do_stop_worker(self, worker: Worker) -> None:
        if LEASE in worker.state:
            why = self.why_ended(worker) if POD in worker.state else START_FAILED
            await self._end(worker.state[LEASE], worker.state, why)

    # -- what is seen of them ------------------------------------------------------------------------------------

    async def do_check_clusters(self, clusters: Sequence[Cluster]) -> list[bool]:
        return self._not_over([cluster.state for cluster in clusters])

    async def do_check_workers(self, workers: Sequence[Worker]) -> list[bool]:
        return self._not_over([worker.state for worker in workers])

    def _not_over(self, states: Sequence[Mapping[str, Any]]) -> list[bool]:
        """What was just made may not be seen yet: only what is seen to be over is over."""
        return [not (self._pods.in_sight and self._is_over(state)) for state in states]

    async def which_are_gone(self, states: Mapping[str, Mapping[str, Any]]) -> set[str]:
        if not self._pods.in_sight:
            raise PodsUnseen("The pods of clusters cannot be seen: the API server does not answer")
        return {lease for lease, state in states.items() if self._seen(state) is None or self._is_over(state)}

    def _seen(self, state: Mapping[str, Any]) -> Pod | None:
        """The very pod of a record, as it is seen now."""
        pod = self._pods.resources.get(_key(state))
        return pod if pod is not None and handle_of(pod) == state.get(POD) else None

    def _seen_last(self, state: Mapping[str, Any]) -> Pod | None:
        """The very pod of a record, where it is seen gone."""
        pod = self._pods.gone.get(_key(state))
        return pod if pod is not None and handle_of(pod) == state.get(POD) else None

    def _is_over(self, state: Mapping[str, Any]) -> bool:
        pod = self._seen(state)
        return is_over(pod) if pod is not None else self._seen_last(state) is not None

    async def may_be_at(self, cluster: Cluster, heartbeat: Heartbeat) -> bool:
        """Whether these are the addresses of its own pod: nothing else in the cluster is ever reached in its name."""
        if not self._pods.in_sight:
            raise PodsUnseen("The scheduler's pod cannot be seen right now: the API server does not answer")
        pod = self._seen(cluster.state)
        address = None if pod is None else (pod.get("status") or {}).get("podIP")
        told = {name: urlsplit(getattr(heartbeat, name)) for name in PORTS if getattr(heartbeat, name)}
        return address is not None and all(
            (one.hostname, one.port) == (address, PORTS[name]) for name, one in told.items()
        )

    async def last_words(self, cluster: Cluster) -> dict[str, str]:
        """Nobody here may read the logs of people's pods; what the cluster says of their end is known."""
        found = {}
        for name, state in (
            ("scheduler", cluster.state),
            *((one.name, one.state) for one in cluster.workers.values()),
        ):
            gone = self._seen_last(state)
            why = why_ended(gone, gone=True) if gone is not None else why_ended(self._seen(state))
            if why is not None:
                found[name] = why.value
        return found

    # -- requests ------------------------------------------------------------------------------------------------

    async def _made(self, pod: Manifest) -> Pod:
        """The pod as the API server has it, also where it was made by an earlier try or an earlier gateway."""
        api, namespace, name = (
            shared_client("CoreV1Api"),
            pod["metadata"]["namespace"],
            pod["metadata"]["name"],
        )
        found = await self._patiently(
            lambda: api.create_namespaced_pod(namespace, pod), f"the pod {name}", there=True
        )
        if found is None:
            found = await self._patiently(lambda: api.read_namespaced_pod(name, namespace), f"the pod {name}")
        made: Pod = api.api_client.sanitize_for_serialization(found)
        if lease_of(made) != lease_of(pod):
            raise PodsUnseen(f"There is another pod of the name {name}; it is waited for its end")
        return made

    async def _end(self, lease_id: str, state: Mapping[str, Any], why: str) -> None:
        """Delete what runs under the lease, and give the lease back once that is seen gone; the clock does where it
        takes longer.
        """
        assert self.quota is not None
        # What a gateway that was killed had made, and not written down, carries the lease's label.
        handles = {handle_of(pod) for pod in self._pods.resources.values() if lease_of(pod) == lease_id}
        handles |= {state[POD]} if POD in state else set()
        await asyncio.gather(*(self._delete(handle) for handle in handles))
        give_up = time.monotonic() + GONE_SECONDS
        for handle in handles:
            while not self._pods.in_sight or self._seen({POD: handle}) is not None:
                left = give_up - time.monotonic()
                if left <= 0:
                    await self.quota.admission.ending(lease_id, SERVICE, why)
                    return
                await self._pods.changed(_key({POD: handle}) if self._pods.in_sight else "", left)
        await self.give_back(lease_id, why)

    async def _delete(self, handle: str) -> None:
        namespace, _, name = _key({POD: handle}).partition("/")
        options = V1DeleteOptions(
            grace_period_seconds=GRACE_SECONDS, preconditions=V1Preconditions(uid=_uid({POD: handle}))
        )
        await self._patiently(
            lambda: shared_client("CoreV1Api").delete_namespaced_pod(name, namespace, body=options),
            f"the pod {name}",
            gone=True,
        )

    async def _patiently(
        self,
        request: Callable[[], Awaitable[ResultT]],
        what: str,
        *,
        there: bool = False,
        gone: bool = False,
    ) -> ResultT | None:
        """Make a request until the API server takes it; whoever calls limits the time. None where it was done already:
        `there` for what exists, `gone` for what does not, or not as the one that was meant.
        """
        pause, told = FIRST_PAUSE, False
        while True:
            try:
                return await asyncio.wait_for(request(), REQUEST_SECONDS)
            except ApiException as error:
                if (there and error.status == 409) or (gone and error.status in (404, 409)):
                    return None
                if error.status not in PASSING:
                    raise
                reason: object = error.status
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = type(error).__name__
            if not told:
                self.log.warning("%s: the API server does not take a request now (%s)", what, reason)
                told = True
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    # -- small things --------------------------------------------------------------------------------------------

    def _plan(self, cluster: Cluster) -> ClusterPlan:
        kept = self._kept(cluster)
        return ClusterPlan(
            cluster.name,
            self.place.label(cluster.username),
            kept.profile,
            kept.image or self.place.site.rules.image,
            kept.selection.environment,
        )

    async def _policy(self) -> Policy:
        assert self.quota is not None
        admission = self.quota.admission

        def read() -> Policy:
            with admission.store.reading() as txn:
                return txn.policy

        return await admission.in_thread(read)


def _key(state: Mapping[str, Any]) -> str:
    return str(state.get(POD, "")).partition("@")[0]


def _uid(state: Mapping[str, Any]) -> str:
    return str(state.get(POD, "")).partition("@")[2]
