"""The world of pods: what runs in the cluster with our labels, and which nodes there are, for the clock.

The clock works in threads; the watches live on an event loop in a thread of their own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiohttp
from kubernetes_asyncio.client import ApiException, V1DeleteOptions, V1Preconditions
from kubespawner.clients import load_config, shared_client

from hub_ext.core.amounts import Amounts
from hub_ext.core.errors import HubError
from hub_ext.kube.nodes import machines
from hub_ext.kube.pods import (
    Pod,
    bound_at,
    facts_of,
    handle_of,
    is_over,
    key_of,
    lease_of,
    node_of,
    why_ended,
)
from hub_ext.kube.watch import NodeWatch, PodWatch, Watch
from hub_ext.quota.model import Node, Policy
from hub_ext.quota.ports import Running

ResultT = TypeVar("ResultT")

FIRST_LOOK_SECONDS: Final = 10.0
"""How long the first look waits for the cluster; later ones never wait."""
REQUEST_SECONDS: Final = 10.0


class ClusterUnseen(HubError):
    """The API server does not answer, so that nothing is known of what runs: nothing is concluded from that."""


@dataclass
class Cluster:
    """The pods of `namespace` and the nodes of the cluster.

    `tolerations` are those of all our pods, `gpu_tolerations` those of pods with a GPU besides; `instead` replaces the
    sizes of nodes that it names.
    """

    namespace: str
    tolerations: Sequence[Mapping[str, Any]] = ()
    instead: Amounts = field(default_factory=dict)
    gpu_tolerations: Sequence[Mapping[str, Any]] = ()
    _loop: asyncio.AbstractEventLoop | None = None
    _pods: PodWatch | None = None
    """Of all namespaces: what is not ours takes room on the nodes."""
    _nodes: NodeWatch | None = None

    # -- the world of `hub_ext.quota.ports` ---------------------------------------------------------------------------

    def running(self) -> list[Running]:
        """Raises ClusterUnseen."""
        found = []
        for pod in self._seen(self._pod_watch()):
            lease = lease_of(pod)
            if lease and self._is_ours(pod) and not is_over(pod):
                running = Running(lease, handle_of(pod), bound_at(pod), True, node_of(pod), facts_of(pod))
                found.append(running)
        return found

    def ended(self) -> Mapping[str, str]:
        watch = self._pod_watch()
        gone = [pod for pod in list(watch.gone.values()) if self._is_ours(pod)]
        over = [pod for pod in list(watch.resources.values()) if self._is_ours(pod) and is_over(pod)]
        reasons = {lease_of(pod): why_ended(pod, gone=True) for pod in gone}
        reasons |= {lease_of(pod): why_ended(pod) for pod in over}
        return {lease: why.value for lease, why in reasons.items() if lease and why is not None}

    def strangers(self) -> list[str]:
        """Pods among people's that carry no lease: they take room on their node, and are not ours to end."""
        pods = self._seen(self._pod_watch())
        return sorted(
            key_of(pod) for pod in pods if self._is_ours(pod) and not lease_of(pod) and not is_over(pod)
        )

    def stop(self, running: Running) -> None:
        """Have the very pod deleted; it is gone when the watch tells so."""
        name, _, uid = running.handle.rpartition("@")
        namespace, _, name = name.partition("/")
        self._do(self._delete(namespace, name, uid))

    # -- nodes ----------------------------------------------------------------------------------------------------------

    def nodes(self, policy: Policy) -> list[Node]:
        """The machines that may take our pods. Raises ClusterUnseen."""
        pods = self._seen(self._pod_watch())
        assert self._nodes is not None
        resources = {gpu.resource: f"gpu.{name}" for name, gpu in policy.gpu_classes.items()}
        found = machines(
            self._seen(self._nodes),
            pods,
            resources,
            self.tolerations,
            self.instead,
            gpu_tolerations=self.gpu_tolerations,
            namespace=self.namespace,
        )
        return [Node(one.name, one.capacity, ready=one.ready, only_gpus=one.only_gpus) for one in found]

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _pod_watch(self) -> PodWatch:
        self._start()
        assert self._pods is not None
        return self._pods

    def _is_ours(self, pod: Pod) -> bool:
        return bool(pod["metadata"].get("namespace") == self.namespace)

    def _seen(self, watch: Watch) -> list[Pod]:
        if not watch.in_sight:
            raise ClusterUnseen("The cluster cannot be seen: its API server does not answer")
        return list(watch.resources.values())

    def _start(self) -> None:
        if self._loop is not None:
            return
        try:
            load_config()
        except Exception as error:  # whatever is wrong with a kubeconfig, in the client's own many ways
            raise ClusterUnseen(f"There is no way into a cluster: {error}") from error
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="cluster", daemon=True).start()
        self._do(self._start_watches())

    async def _start_watches(self) -> None:
        self._pods, self._nodes = PodWatch(omit_namespace=True), NodeWatch()
        watches: list[Watch] = [self._pods, self._nodes]
        for watch in watches:
            await watch.start()
        looks = asyncio.gather(*(watch.seen() for watch in watches))
        await asyncio.wait([looks], timeout=FIRST_LOOK_SECONDS)

    async def _delete(self, namespace: str, name: str, uid: str) -> None:
        options = V1DeleteOptions(preconditions=V1Preconditions(uid=uid)) if uid else V1DeleteOptions()
        request = shared_client("CoreV1Api").delete_namespaced_pod(name, namespace, body=options)
        try:
            await asyncio.wait_for(request, REQUEST_SECONDS)
        except ApiException as error:
            # 404: gone; 409: another pod has the name by now.
            if error.status not in (404, 409):
                raise HubError(
                    f"Pod {namespace}/{name} cannot be ended: the API server answers {error.status}"
                ) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ClusterUnseen(f"Pod {namespace}/{name} cannot be ended: no answer") from error

    def _do(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
