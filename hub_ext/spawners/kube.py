"""Servers as pods: KubeSpawner with the gate before each start, awake on the watch's events, and patient with the cluster.

What is KubeSpawner's stays KubeSpawner's: without a gate every method here does what the one below does, and how a
site's pods look is set by traits (`hub_ext.bootstrap`). With a gate a start is

1. the selection is read, before KubeSpawner applies it (it raises on what it does not know),
2. KubeSpawner applies the profile,
3. the quota decides and books,
4. the finished pod is looked at again, after the site's own hook, and created,
5. hours count from the moment it has a node, and the start is over when it answers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import aiohttp
from jupyterhub.spawner import SpawnException
from kubernetes_asyncio.client import ApiException
from kubespawner import KubeSpawner
from kubespawner.slugs import safe_slug

from hub_ext.core.clock import Seconds
from hub_ext.kube.pods import (
    End,
    Pod,
    Wait,
    Waiting,
    answers,
    exit_code,
    handle_of,
    is_over,
    lease_of,
    node_of,
    why_ended,
    why_waiting,
)
from hub_ext.kube.watch import EventWatch, PodWatch
from hub_ext.quota.model import facts_of
from hub_ext.spawners.gate import GateMixin, outcome
from hub_ext.spawners.manifests import annotations_of, complaints, labels_of

LOOK_SECONDS: Final = 2.0
"""How often a pod that waits is looked at though nothing about it changed: its events may say more."""
PATIENCE: Final[Mapping[Waiting, Seconds]] = {
    Waiting.NODE: 120,
    Waiting.IMAGE_MISSING: 45,
    Waiting.CRASHING: 60,
}
"""How long a pod may stand still in a trouble before the start is given up; any other state has the whole time."""
MARGIN_SECONDS: Final = 10
"""A start is given up in words so long before JupyterHub would cut it off without any."""
PASSING: Final = (429, 500, 502, 503, 504)
"""Answers of the API server after which the same request may well succeed."""
ANSWER_LOOKS: Final = (0.02, 0.25)
"""Seconds between two looks whether a server listens: the first, and the longest."""


class GatedKubeSpawner(GateMixin, KubeSpawner):
    """A pod per server, started only with a lease."""

    _why_over: End | None = None
    """What ended the server or its start, where the cluster told."""
    _gave_up = False
    """Whether the start was given up here: what JupyterHub then stops was not stopped by the person."""
    patience: ClassVar[Mapping[Waiting, Seconds]] = PATIENCE
    _start_future: asyncio.Future[Any] | None
    """KubeSpawner's own, of the start that is under way or was the last."""

    # -- the start --------------------------------------------------------------------------------------------------

    def start(self) -> Any:
        """KubeSpawner's, not the mixin's: the gate is passed where the choice is applied."""
        return KubeSpawner.start(self)

    async def _start(self) -> Any:
        if self.gate is None:
            return await super()._start()
        self._why_over, self._gave_up = None, False
        try:
            url = await super()._start()
        except (ApiException, aiohttp.ClientError, TimeoutError) as error:
            self.log.warning("%s is not started: the cluster did not take it (%s)", self._log_name, error)
            raise self._given_up(_refusal(error)) from error
        await self._until_it_listens(str(url))
        # Without a probe a pod is ready as soon as its program runs, and that may have been for a moment only.
        if (why := self._why_ended_while_starting()) is not None:
            raise self._given_up(why)
        return url

    async def load_user_options(self) -> None:
        if self.gate is None:
            await super().load_user_options()
            return
        # 1. What was chosen, of what exists.
        chosen = await self.choose()
        # 2. KubeSpawner's own way to apply it.
        self.user_options = {"profile": chosen.selection.profile, **chosen.selection.choices}
        await super().load_user_options()
        # 3. Whether it may start.
        await self.admit(chosen)
        # Written down at once: a hub that is killed now knows the lease after its restart.
        self.write_down()

    async def get_pod_manifest(self) -> Any:
        pod = await super().get_pod_manifest()
        if self.gate is not None and self.lease is not None and self.policy is not None:
            meta = pod.metadata
            meta.labels = {**(meta.labels or {}), **self._lease_labels()}
            annotations = annotations_of(self.lease, self.policy, facts_of(self.lease))
            meta.annotations = {**(meta.annotations or {}), **annotations}
        return pod

    def _lease_labels(self) -> dict[str, str]:
        assert self.lease is not None
        assert self.policy is not None
        return labels_of(self.lease, self.policy, safe_slug(self.user.name))

    # -- the pod ----------------------------------------------------------------------------------------------------

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        """Gets the pod as it will be, after the site's hook. Returns once it answers.

        KubeSpawner then looks again and again at growing intervals, of seconds in the end; here a start is awake the
        moment the watch tells of a change, and KubeSpawner finds what it looks for at its first look.
        """
        if self.gate is None or self.lease is None or self.policy is None:
            return bool(await super()._make_create_pod_request(pod, request_timeout))
        found = complaints(
            self.api.api_client.sanitize_for_serialization(pod), self.lease, self.policy, self._lease_labels()
        )
        if found:
            self.log.error("The pod of %s goes beyond its lease: %s", self._log_name, "; ".join(found))
            raise self._given_up(End.START_FAILED)
        if not await self._created(pod, request_timeout):
            return False
        # A pod that needs something else made first (a secret, a service) cannot be waited for here.
        if not (self.internal_ssl or self.services_enabled or self.after_pod_created_hook):
            await self._until_it_answers()
        return True

    async def _created(self, pod: Any, seconds: float) -> bool:
        """Whether the pod exists now. False: worth another try."""
        name = pod.metadata.name
        self.log.info("Creating pod %s/%s", self.namespace, name)
        try:
            await asyncio.wait_for(self.api.create_namespaced_pod(self.namespace, pod), seconds)
        except (TimeoutError, aiohttp.ClientError) as error:
            self.log.warning("Pod %s: no answer (%s); trying again", name, type(error).__name__)
            return False
        except ApiException as error:
            if error.status == 409:
                return await self._exists_already(name, seconds)
            if error.status in PASSING:
                self.log.warning("Pod %s: the API server answers %s; trying again", name, error.status)
                return False
            raise
        return True

    async def _exists_already(self, name: str, seconds: float) -> bool:
        """A pod of that name exists: ours, of a request whose answer was lost, or one of a former start, which goes."""
        with suppress(TimeoutError, aiohttp.ClientError, ApiException):
            found = await asyncio.wait_for(self.api.read_namespaced_pod(name, self.namespace), seconds)
            labels = found.metadata.labels or {}
            if (
                lease_of({"metadata": {"labels": labels}}) == self.lease_id
                and not found.metadata.deletion_timestamp
            ):
                return True
            self.log.info("Pod %s is one of a former start: ending it", name)
            # KubeSpawner's own: the order to stop is not the person's.
            await KubeSpawner.stop(self, True)
        return False

    async def _make_create_pvc_request(self, pvc: Any, request_timeout: float) -> bool:
        if self.gate is None:
            return bool(await super()._make_create_pvc_request(pvc, request_timeout))
        return await self._patiently(super()._make_create_pvc_request(pvc, request_timeout))

    async def _make_delete_pod_request(
        self, pod_name: str, delete_options: Any, grace_seconds: int, request_timeout: float
    ) -> bool:
        request = super()._make_delete_pod_request(pod_name, delete_options, grace_seconds, request_timeout)
        return bool(await request) if self.gate is None else await self._patiently(request)

    async def _patiently(self, request: Any) -> bool:
        """False, for another try, where the API server is away or overrun for the moment."""
        try:
            return bool(await request)
        except aiohttp.ClientError:
            return False
        except ApiException as error:
            if error.status in PASSING:
                return False
            raise

    async def _until_it_answers(self) -> None:
        """Waits on the watch; hours count from the moment the pod has a node. Raises SpawnException with the reason."""
        watch = self.pod_reflector
        loop = asyncio.get_running_loop()
        give_up = loop.time() + max(1, self.start_timeout - MARGIN_SECONDS)
        placed, trouble, since = False, None, loop.time()
        while True:
            pod = self._own_pod()
            if pod is not None:
                if not placed and node_of(pod) is not None:
                    placed = True
                    # Where the records are away for a moment, the clock writes it down later.
                    with suppress(SpawnException):
                        await self.mark_running()
                    continue
                if answers(pod):
                    return
            if (why := self._why_ended_while_starting()) is not None:
                raise self._given_up(why)
            wait = self._wait(pod)
            now = loop.time()
            # What is not seen may long have got over its trouble.
            if wait.what is not trouble or not watch.in_sight:
                trouble, since = wait.what, now
            if now > give_up or now - since > self.patience.get(wait.what, math.inf):
                self.log.warning("The start of %s is given up: %s %s", self._log_name, wait.what, wait.detail)
                raise self._given_up(_outcome_of(wait))
            await watch.changed(self._key, LOOK_SECONDS)

    async def _until_it_listens(self, url: str) -> None:
        """JupyterHub asks next whether the server answers, at growing intervals: let its first question find it."""
        parts = urlsplit(url)
        pause, longest = ANSWER_LOOKS
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.http_timeout / 2
        while loop.time() < give_up:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(parts.hostname, parts.port), 2)
            except (OSError, TimeoutError):
                pod = self._own_pod()
                if pod is None or is_over(pod):
                    return
                await asyncio.sleep(pause)
                pause = min(longest, pause * 1.3)
                continue
            writer.close()
            return

    def _why_ended_while_starting(self) -> End | None:
        pod, gone = self._own_pod(), self._gone_pod()
        if pod is not None:
            return (why_ended(pod) or End.START_FAILED) if is_over(pod) else None
        return (why_ended(gone, gone=True) or End.DELETED) if gone is not None else None

    def _given_up(self, why: End) -> SpawnException:
        """In the person's words; JupyterHub does not count it as a failure of the hub."""
        words = self._gate().words
        self._why_over, self._gave_up = why, True
        status = 409 if self._why_over is End.NO_ROOM else 503
        return outcome(status, self._why_over.value, *words.ended(self._why_over, words.language(self)))

    # -- how it is seen ---------------------------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        return f"{self.namespace}/{self.pod_name}"

    def _own_pod(self) -> Pod | None:
        """This start's pod, not one of the same name from before."""
        pod: Pod | None = self.pod_reflector.pods.get(self._key)
        return pod if pod is not None and lease_of(pod) == self.lease_id else None

    def _gone_pod(self) -> Pod | None:
        pod: Pod | None = self.pod_reflector.gone.get(self._key)
        return pod if pod is not None and lease_of(pod) == self.lease_id else None

    def _wait(self, pod: Pod | None) -> Wait:
        events = (
            self.event_reflector.about(self.pod_name) if isinstance(self.event_reflector, EventWatch) else ()
        )
        return why_waiting(pod, events)

    async def _start_watching_pods(self, replace: bool = False) -> Any:
        if self.gate is None:
            return await super()._start_watching_pods(replace)
        # It mends itself: there is nothing to replace.
        return await self._start_reflector(
            kind="pods",
            reflector_class=PodWatch,
            labels={"component": self.component_label},
            omit_namespace=self.enable_user_namespaces,
        )

    async def _start_watching_events(self, replace: bool = False) -> Any:
        if self.gate is None:
            return await super()._start_watching_events(replace)
        return await self._start_reflector(
            kind="events",
            reflector_class=EventWatch,
            fields={"involvedObject.kind": "Pod"},
            omit_namespace=self.enable_user_namespaces,
        )

    def handle_and_node(self) -> tuple[str, str | None]:
        pod = self._own_pod()
        return (handle_of(pod), node_of(pod)) if pod is not None else ("", None)

    def clear_state(self) -> None:
        super().clear_state()
        if self.gate is not None:
            # That of a former start: a page that shows the progress would take it for this one's.
            self._start_future = None

    # -- progress ---------------------------------------------------------------------------------------------------

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What the start waits for, in words, once for each change."""
        if self.gate is None:
            async for event in super().progress():
                yield event
            return
        words = self._gate().words
        language = words.language(self)
        told: Waiting | None = None
        while self._start_future is None or not self._start_future.done():
            if self.pod_reflector is None or not self.lease_id:
                await asyncio.sleep(0.1)
                continue
            pod = self._own_pod()
            wait = self._wait(pod)
            if wait.what is not told:
                told = wait.what
                yield {"progress": _PROGRESS[told], "message": words.waiting(told, language)}
            await self.pod_reflector.changed(self._key, LOOK_SECONDS)

    # -- the end ----------------------------------------------------------------------------------------------------

    async def poll(self) -> int | None:
        """None while the pod is there, or cannot be seen: an unseen world is no empty one."""
        status: int | None
        if self.gate is None:
            status = await super().poll()
            return status
        watch = await self._start_watching_pods()
        # The check of all servers after a restart of the hub.
        checking = bool(getattr(self, "_check_pending", False))
        if not watch.in_sight:
            # Nothing is concluded before the world was seen once.
            if not checking:
                return None
            await watch.seen()
        pod = watch.pods.get(self._key)
        if pod is None:
            self._undecided |= self._asked_before_the_restart()
            if not self._stop_ordered and (gone := self._gone_pod()) is not None:
                self._why_over = why_ended(gone, gone=True)
            return 1
        if is_over(pod):
            self._why_over = why_ended(pod)
            if self.delete_stopped_pods:
                await KubeSpawner.stop(self, True)
            return exit_code(pod)
        status = await super().poll()
        return status

    def _why_it_ended(self) -> str:
        if self._why_over is not None and (self._gave_up or not self._stop_ordered):
            return self._why_over.value
        return super()._why_it_ended()

    async def is_gone(self) -> bool:
        watch = self.pod_reflector
        if watch is None or not watch.in_sight:
            return False
        return not any(lease_of(pod) == self.lease_id and not is_over(pod) for pod in watch.pods.values())

    # -- across restarts of the hub -----------------------------------------------------------------------------------

    async def get_url(self) -> str:
        """Where the server is. A hub that was killed while it started finds the pod here, and waits until it answers.

        The address that JupyterHub wrote down at the beginning of a start is one of its own, and no pod's.
        """
        written_down = str(await super().get_url())
        if self.gate is None:
            return written_down
        watch = await self._start_watching_pods()
        await watch.seen()
        give_up = asyncio.get_running_loop().time() + self.start_timeout
        while (pod := watch.pods.get(self._key)) is not None and not is_over(pod):
            if answers(pod):
                url = str(self._get_pod_url(pod))
                await self._until_it_listens(url)
                # What is written down has the server's path as well: where only that differs, nothing is to be mended.
                return written_down if urlsplit(written_down).netloc == urlsplit(url).netloc else url
            if asyncio.get_running_loop().time() > give_up:
                break
            await watch.changed(self._key, LOOK_SECONDS)
        return written_down


_PROGRESS: Final[Mapping[Waiting, int]] = {
    Waiting.PLACE: 10,
    Waiting.NODE: 15,
    Waiting.VOLUME: 25,
    Waiting.IMAGE: 40,
    Waiting.IMAGE_MISSING: 40,
    Waiting.CONTAINER: 60,
    Waiting.CRASHING: 60,
    Waiting.ANSWER: 85,
}


def _outcome_of(wait: Wait) -> End:
    match wait.what:
        case Waiting.NODE:
            return End.NO_ROOM
        case Waiting.IMAGE_MISSING | Waiting.IMAGE:
            return End.IMAGE_MISSING
        case _:
            return End.START_FAILED


def _refusal(error: Exception) -> End:
    """A pod that the API server refuses as such is a fault of the site; anything else is the cluster's absence."""
    if isinstance(error, ApiException) and 400 <= (error.status or 0) < 500 and error.status != 429:
        return End.START_FAILED
    return End.CLUSTER_AWAY
