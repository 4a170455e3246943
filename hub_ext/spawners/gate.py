"""The gate before every start, by form and by REST alike: no server without a lease (ARCHITECTURE §4).

Policy outcomes are `SpawnException`s, which JupyterHub does not count as failures: any number of refusals in a row
leaves the hub running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from jupyterhub.spawner import Spawner, SpawnException
from traitlets import Unicode

from hub_ext.core.decision import Admit, Decision, Refuse, Wait
from hub_ext.core.errors import BadInput, HubError, StoreUnavailable
from hub_ext.language import Language
from hub_ext.profiles.service import BadSelection, Chosen, Profiles, from_form
from hub_ext.quota.model import Lease
from hub_ext.quota.service import Admission, Answer

RETRY_SECONDS = 60


class Words(Protocol):
    """How the gate speaks to people; every text in the language of their request."""

    def language(self, spawner: Any) -> Language: ...

    async def decision(self, answer: Answer, chosen: Chosen, language: Language) -> tuple[str, str]:
        """The sentence as plain text, and as HTML with what would be possible instead."""

    def trouble(self, error: HubError, language: Language) -> tuple[str, str]:
        """A foreseen fault (database away, bad choice) as plain text and as HTML."""

    async def form(self, spawner: Any) -> str:
        """The start page's form as HTML."""


@dataclass(frozen=True)
class Gate:
    """What a spawner needs to pass: the quota, the profiles, and the words to say no."""

    admission: Admission
    profiles: Profiles
    words: Words


class GateMixin(Spawner):
    """Admits each start before it happens. Mix in before the spawner class that does the starting.

    Without a gate (`gate` is None) the mixin does nothing: the class then behaves as the one below it.
    """

    gate: ClassVar[Gate | None] = None
    lease_id = Unicode("", help="The lease of the running or starting server; empty without one.")
    lease: Lease | None = None
    chosen: Chosen | None = None
    _stop_ordered = False

    # -- in: the form and REST ----------------------------------------------------------------------------------

    async def get_options_form(self) -> str:
        if self.gate is None:
            return str(await super().get_options_form())
        return await self.gate.words.form(self)

    def options_from_form(self, form_data: dict[str, list[str]]) -> dict[str, object]:
        return from_form(form_data)

    def options_from_query(self, query_options: dict[str, list[str]]) -> dict[str, object]:
        """`?opt-profile=h200&opt-minutes=60`: the saved form's names."""
        return {name: values[0] if values else None for name, values in query_options.items()}

    # -- the start -----------------------------------------------------------------------------------------------

    async def start(self) -> Any:
        if self.gate is None:
            return await super().start()
        await self.pass_gate()
        assert self.lease is not None
        started = await super().start()
        await self.mark_running()
        return started

    async def pass_gate(self) -> None:
        """Choose, decide and book, or raise a SpawnException that says why not."""
        gate = self._gate()
        language = gate.words.language(self)
        self._stop_ordered = False
        self.lease_id, self.lease, self.chosen = "", None, None
        try:
            # 1. What was chosen, of what exists; nothing that was sent is trusted.
            chosen = await gate.profiles.choose(self.user.name, self.name, self.user_options)
            # 2. Whether it may start: decided and booked in one transaction.
            answer = await gate.admission.admit(chosen.person, chosen.ask)
        except HubError as error:
            raise _trouble(error, *gate.words.trouble(error, language)) from None
        if answer.lease is None:
            raise _no(answer.decision, *await gate.words.decision(answer, chosen, language))
        # 3. From here on the post-stop hook gives the lease back, whatever happens.
        self.lease_id, self.lease, self.chosen = answer.lease.id, answer.lease, chosen
        self._say(
            "admitted", lease=answer.lease.id, pool=answer.lease.pool, guaranteed=answer.lease.guaranteed
        )

    async def mark_running(self) -> None:
        """The process was started or the pod bound: hours accrue from now on."""
        gate = self._gate()
        handle, node = self.handle_and_node()
        try:
            await gate.admission.running(self.lease_id, handle, node)
        except HubError as error:
            language = gate.words.language(self)
            raise _trouble(error, *gate.words.trouble(error, language)) from None

    def handle_and_node(self) -> tuple[str, str | None]:
        """What runs, and on which machine; for the spawner class to say."""
        raise NotImplementedError

    # -- the end --------------------------------------------------------------------------------------------------

    async def stop(self, now: bool = False) -> None:
        """Never touches the lease: KubeSpawner calls it inside a start."""
        self._stop_ordered = True
        await super().stop(now)

    async def poll(self) -> Any:
        return await super().poll()

    async def run_post_stop_hook(self) -> Any:
        """The method and not the trait, which a site may set: gives the lease back after every stop and failed start."""
        try:
            if self.gate is not None and self.lease_id:
                await self._give_back(self._gate())
        finally:
            hook = super().run_post_stop_hook()
            if isinstance(hook, Awaitable):
                await hook

    async def _give_back(self, gate: Gate) -> None:
        lease_id, why = self.lease_id, self._why_it_ended()
        try:
            await gate.admission.ending(lease_id, self.user.name, why)
            if await self.is_gone():
                await gate.admission.release(lease_id, who=self.user.name, why=why)
        except StoreUnavailable as error:
            # Nothing is lost: reconcile sees that nothing runs any more, and charges until it was last seen.
            self.log.warning("Lease %s is given back later by reconcile: %s", lease_id, error)
        # Here and not in `clear_state`, which `poll` calls as soon as a process is gone, before this hook.
        self.lease_id, self.lease, self.chosen = "", None, None

    def _why_it_ended(self) -> str:
        """A reason the clock or an operator wrote down before counts more than this one."""
        starting = self._spawn_future is not None and not self._spawn_future.done()
        if starting:
            return "start-failed"
        return "stopped" if self._stop_ordered else "died"

    async def is_gone(self) -> bool:
        """Whether what the lease ran is seen gone; for the spawner class to say."""
        return False

    # -- across restarts of the hub ---------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self.lease_id:
            state["lease"] = self.lease_id
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.lease_id = str(state.get("lease") or "")

    # -- small things -------------------------------------------------------------------------------------------------

    def _gate(self) -> Gate:
        assert self.gate is not None
        return self.gate

    def _say(self, event: str, **facts: object) -> None:
        self.log.info(
            "%s %s %s", self._log_name, event, " ".join(f"{key}={value}" for key, value in facts.items())
        )

    async def in_thread(self, work: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, work, *args)


def _no(decision: Decision, sentence: str, html: str) -> SpawnException:
    """403 for what waiting cannot cure, 409 with a time to try again for what it can."""
    match decision:
        case Refuse(code=code):
            return _outcome(403, code.value, sentence, html)
        case Wait(code=code):
            return _outcome(409, code.value, sentence, html)
        case Admit():
            raise AssertionError("an admitted ask has a lease")


def _trouble(error: HubError, sentence: str, html: str) -> SpawnException:
    match error:
        case BadSelection():
            return _outcome(400, "bad-selection", sentence, html)
        case BadInput():
            return _outcome(400, "bad-input", sentence, html)
        case _:
            return _outcome(503, "database-away", sentence, html)


def _outcome(status: int, reason: str, sentence: str, html: str) -> SpawnException:
    error = SpawnException(sentence, reason=reason, message_html=html, status_code=status)
    # `message_html` alone reaches only some of the hub's pages.
    error.jupyterhub_message, error.jupyterhub_html_message = sentence, html
    if status in (409, 503):
        error.headers = {"Retry-After": str(RETRY_SECONDS)}
    return error
