"""The gate before every start, by form and by REST alike: no server without a lease (ARCHITECTURE §4).

Policy outcomes are `SpawnException`s, which JupyterHub does not count as failures: any number of refusals in a row
leaves the hub running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

from jupyterhub import orm
from jupyterhub.spawner import Spawner, SpawnException
from jupyterhub.utils import url_escape_path, url_path_join, utcnow
from sqlalchemy.orm import object_session
from traitlets import Unicode, default

from hub_ext.core.decision import Refuse, Wait
from hub_ext.core.errors import BadInput, HubError, StoreUnavailable
from hub_ext.language import Language
from hub_ext.profiles.service import BadSelection, Chosen, Profiles, from_form
from hub_ext.quota.model import START_AGAIN_WITHIN, Lease, LeaseState, Policy
from hub_ext.quota.service import Admission, Answer

RETRY_SECONDS = 60
LOOK_AGAIN_SECONDS = 10
"""How soon a script may look at its ticket again."""
TICKETS = "/services/desk/tickets"
START_FAILED = "start-failed"
AGAIN_SECONDS = 2.0
"""How often the records are tried again while they are away."""
_LATER: set[asyncio.Task[None]] = set()
"""An event loop alone does not keep its tasks."""


class Words(Protocol):
    """How the gate speaks to people; every text in the language of their request."""

    def language(self, spawner: Any) -> Language: ...

    async def decision(self, answer: Answer, chosen: Chosen, language: Language) -> tuple[str, str]:
        """The sentence as plain text, and as HTML with what would be possible instead."""

    def in_line(self, answer: Answer, ticket_url: str, language: Language) -> tuple[str, str]:
        """Why somebody has to wait, as plain text, and as HTML that leads on to the waiting page."""

    def trouble(self, error: HubError, language: Language) -> tuple[str, str]:
        """A foreseen fault (database away, bad choice) as plain text and as HTML."""

    def ended(self, why: str, language: Language) -> tuple[str, str]:
        """Why a server, or its start, is over, as plain text and as HTML."""

    def over(self, person: str, server: str, why: str) -> None:
        """Remember why a server ended, for the page that its owner comes to."""

    def waiting(self, what: str, language: Language) -> str:
        """What a start waits for in the cluster, as one plain sentence."""

    async def form(self, spawner: Any) -> str:
        """The start page's form as HTML."""


@dataclass(frozen=True)
class Gate:
    """What a spawner needs to pass: the quota, the profiles, and the words to say no.

    `desk` False: there is none beside this hub, so that nobody is led to it. The place in line is the same.
    """

    admission: Admission
    profiles: Profiles
    words: Words
    desk: bool = True


class GateMixin(Spawner):
    """Admits each start before it happens. Mix in before the spawner class that does the starting.

    Without a gate (`gate` is None) the mixin does nothing: the class then behaves as the one below it.
    """

    gate: ClassVar[Gate | None] = None
    lease_id = Unicode("", help="The lease of the running or starting server; empty without one.")
    lease: Lease | None = None
    chosen: Chosen | None = None
    policy: Policy | None = None
    """The policy under which the lease was booked."""
    _stop_ordered = False
    _began_here = False
    """Whether it was this hub that booked the lease, and not one before its restart."""
    _undecided = False
    """Whether a hub before this one was cut off after the click and before the decision."""
    _decided: Any = None
    """What was chosen for the start that comes next, where that was decided before it."""

    # -- in: the form and REST ----------------------------------------------------------------------------------

    async def get_options_form(self) -> str:
        if self.gate is None:
            return str(await super().get_options_form())
        return await self.gate.words.form(self)

    @default("options_from_form")
    def _options_from_form_default(self) -> Callable[..., Any]:
        if self.gate is not None:
            return from_form
        # What the class below would have read it with: KubeSpawner's own way, or JupyterHub's.
        below = getattr(super(), "_options_from_form_default", None)
        return below() if below else self._passthrough_options_from_form  # type: ignore[no-any-return]

    def options_from_query(self, query_options: dict[str, list[str]]) -> Any:
        """`?opt-profile=h200&opt-minutes=60`: the saved form's names."""
        if self.gate is None:
            return super().options_from_query(query_options)
        return {name: values[0] if values else None for name, values in query_options.items()}

    # -- before the start ----------------------------------------------------------------------------------------

    async def decide_first(self, options: Any) -> None:
        """Pass the gate before JupyterHub prepares the server. Raises as `pass_gate`.

        `options` None: those of the last time, as JupyterHub would take them.
        """
        # 1. Written down as JupyterHub does it: a hub that is started after this one was killed decides it then.
        self._write_down_what_is_asked(options)
        # 2. Choose, decide and book.
        try:
            await self.admit(await self.choose())
        except Exception:
            self._cross_out_what_was_asked()
            raise
        # 3. What `start` will find.
        self._decided = self.user_options

    async def give_back_unused(self) -> None:
        """What was booked for a start that JupyterHub came nowhere with; nothing where it did."""
        if self._decided is None or self.pending:
            return
        self._cross_out_what_was_asked()
        lease_id, self._decided = self.lease_id, None
        try:
            await self._gate().admission.release(lease_id, who=self.user.name, why=START_FAILED)
        except StoreUnavailable as error:
            self._give_back_later(lease_id, START_FAILED, error, gone=True)
        self.lease_id, self.lease, self.chosen, self.policy = "", None, None, None

    def _write_down_what_is_asked(self, options: Any) -> None:
        row = self.orm_spawner
        if options is None:
            options = row.user_options or {}
        self.user_options = row.user_options = options
        row.started = utcnow(with_tz=False)
        path = url_path_join(self.user.base_url, url_escape_path(self.name), "/")
        row.server = orm.Server(base_url=path)
        self._commit()

    def _cross_out_what_was_asked(self) -> None:
        self.server = self.orm_spawner.started = None
        self._commit()

    def _asked_before_the_restart(self) -> bool:
        """Whether nothing runs of what was asked for a moment before this hub began, and nothing was booked either.

        To be asked when all servers are checked after a restart, by `poll`.
        """
        started = self.orm_spawner.started
        if not getattr(self, "_check_pending", False) or self.lease_id or started is None:
            return False
        return bool((utcnow(with_tz=False) - started).total_seconds() < START_AGAIN_WITHIN)

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
        await self.admit(await self.choose())

    async def choose(self) -> Chosen:
        """What was chosen, of what exists; nothing that was sent is trusted."""
        gate = self._gate()
        self._stop_ordered, self._began_here = False, True
        if (chosen := await self._decided_before()) is not None:
            return chosen
        self.lease_id, self.lease, self.chosen, self.policy = "", None, None, None
        try:
            return await gate.profiles.choose(self.user.name, self.name, self.user_options)
        except HubError as error:
            raise self.trouble(error) from None

    async def _decided_before(self) -> Chosen | None:
        """What was chosen, where it is what was decided a moment ago and its lease still waits for this start."""
        options, self._decided = self._decided, None
        if options is None or options != self.user_options:
            return None
        try:
            lease = await self._gate().admission.find(self.lease_id)
        except HubError as error:
            raise self.trouble(error) from None
        if lease is None or lease.state is not LeaseState.BOOKED or lease.handle is not None:
            return None
        self.lease = lease
        return self.chosen

    async def admit(self, chosen: Chosen) -> None:
        """Decide and book, in one transaction. From here on the post-stop hook gives the lease back, come what may."""
        if self.lease is not None and self.chosen is chosen:
            return  # decided before
        gate = self._gate()
        try:
            answer = await gate.admission.admit(chosen.person, chosen.ask, chosen.options)
        except HubError as error:
            raise self.trouble(error) from None
        if answer.lease is None:
            raise await self._no(answer, chosen)
        self.lease_id, self.lease, self.chosen = answer.lease.id, answer.lease, chosen
        self.policy = answer.policy
        self._say(
            "admitted", lease=answer.lease.id, pool=answer.lease.pool, guaranteed=answer.lease.guaranteed
        )

    async def _no(self, answer: Answer, chosen: Chosen) -> SpawnException:
        """Not now, or not at all. Who has a ticket is led to where it is watched; the place is kept whoever watches."""
        gate, decision = self._gate(), answer.decision
        words = gate.words
        language = words.language(self)
        if answer.ticket is not None:
            url = ticket_url(self.hub.base_url, answer.ticket.id) if gate.desk else ""
            error = outcome(409, answer.ticket.outlook.code, *words.in_line(answer, url, language))
            # Browsers follow `Refresh` also from the answer to a form; `Location` is for scripts.
            error.headers = {"Retry-After": str(LOOK_AGAIN_SECONDS)}
            if url:
                error.headers |= {"Location": url, "Refresh": f"0; url={url}"}
            return error
        assert isinstance(decision, Wait | Refuse)
        status = 409 if isinstance(decision, Wait) else 403
        return outcome(status, decision.code.value, *await words.decision(answer, chosen, language))

    async def mark_running(self) -> None:
        """The process was started or the pod bound: hours accrue from now on."""
        gate = self._gate()
        handle, node = self.handle_and_node()
        try:
            await gate.admission.running(self.lease_id, handle, node)
        except HubError as error:
            raise self.trouble(error) from None

    def trouble(self, error: HubError) -> SpawnException:
        """A foreseen fault, in the person's words."""
        words = self._gate().words
        return _trouble(error, *words.trouble(error, words.language(self)))

    def handle_and_node(self) -> tuple[str, str | None]:
        """What runs, and on which machine; for the spawner class to say."""
        raise NotImplementedError

    # -- the end --------------------------------------------------------------------------------------------------

    async def stop(self, now: bool = False) -> None:
        """Never touches the lease: KubeSpawner calls it inside a start."""
        self._stop_ordered = True
        await super().stop(now)

    async def poll(self) -> Any:
        """JupyterHub takes no spawner class that does not have its own."""
        return await super().poll()

    async def run_post_stop_hook(self) -> Any:
        """The method and not the trait, which a site may set: gives the lease back after every stop and failed start."""
        try:
            if self.gate is not None and self.lease_id:
                await self._give_back(self._gate())
            elif self.gate is not None and self._undecided:
                await self._book_what_was_asked()
        finally:
            hook = super().run_post_stop_hook()
            if isinstance(hook, Awaitable):
                await hook

    async def _give_back(self, gate: Gate) -> None:
        lease_id, why = self.lease_id, self._why_it_ended()
        try:
            # The order to stop first: to see that all is gone may take a while.
            if await self._write_end(gate, lease_id, why) and await self.is_gone():
                await gate.admission.release(lease_id, who=self.user.name, why=why)
        except StoreUnavailable as error:
            self._give_back_later(lease_id, why, error, gone=await self.is_gone())
        # Here and not in `clear_state`, which `poll` calls as soon as a process is gone, before this hook.
        self.lease_id, self.lease, self.chosen, self.policy = "", None, None, None
        self._decided = None

    def _give_back_later(self, lease_id: str, why: str, error: HubError, *, gone: bool) -> None:
        """Nothing is lost: reconcile sees that nothing runs any more, and charges until it was last seen.

        A start that failed must be written down by this hub, or the clock would take it for one that was cut off.
        """
        self.log.warning("Lease %s is given back later: %s", lease_id, error)
        later = asyncio.create_task(self._write_end_later(self._gate(), lease_id, why, gone=gone))
        _LATER.add(later)
        later.add_done_callback(_LATER.discard)

    async def _write_end(self, gate: Gate, lease_id: str, why: str) -> bool:
        """False where the lease is the clock's to go on with."""
        lease = await gate.admission.find(lease_id)
        if lease is None or (lease.state is LeaseState.BOOKED and not self._began_here):
            # A hub before this one was cut off in its start: the clock has it started again.
            return False
        ended = await gate.admission.ending(lease_id, self.user.name, why) or lease
        gate.words.over(self.user.name, self.name, ended.reason or why)
        return True

    async def _write_end_later(self, gate: Gate, lease_id: str, why: str, *, gone: bool) -> None:
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            if self._goes_on_elsewhere(lease_id):
                return
            try:
                if await self._write_end(gate, lease_id, why) and gone:
                    await gate.admission.release(lease_id, who=self.user.name, why=why)
            except StoreUnavailable:
                continue
            except Exception:
                self.log.exception("The end of lease %s could not be written down", lease_id)
            return

    def _goes_on_elsewhere(self, lease_id: str) -> bool:
        """Whether a newer start of this server took the booking over meanwhile."""
        newest = self.user.spawners.get(self.name)
        return newest is not None and getattr(newest, "lease_id", "") == lease_id

    async def _book_what_was_asked(self) -> None:
        """Decide now, so that nobody has to click again: the clock starts what is booked."""
        self._undecided = False
        try:
            await self.admit(await self.choose())
        except SpawnException as error:
            self.log.info(
                "%s asked for a server before the restart and does not get it: %s", self._log_name, error
            )
        self.lease_id, self.lease, self.chosen, self.policy = "", None, None, None

    def _why_it_ended(self) -> str:
        """A reason the clock or an operator wrote down before counts more than this one."""
        starting = self._spawn_future is not None and not self._spawn_future.done()
        if starting:
            return START_FAILED
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

    def write_down(self) -> None:
        """Keep the state now, and not only at the end of the start: a hub that is killed finds what it began."""
        self.orm_spawner.state = self.get_state()
        self._commit()

    def _commit(self) -> None:
        session = object_session(self.orm_spawner)
        assert session is not None
        session.commit()

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


def ticket_url(hub_base_url: str, ticket: str) -> str:
    """Where the desk shows a ticket: `hub_base_url` is `/hub/`, or what stands before it as well."""
    return f"{hub_base_url.rstrip('/').removesuffix('/hub')}{TICKETS}/{quote(ticket, safe='')}"


def _trouble(error: HubError, sentence: str, html: str) -> SpawnException:
    match error:
        case BadSelection():
            return outcome(400, "bad-selection", sentence, html)
        case BadInput():
            return outcome(400, "bad-input", sentence, html)
        case _:
            return outcome(503, "database-away", sentence, html)


def outcome(status: int, reason: str, sentence: str, html: str) -> SpawnException:
    """A foreseen end of a start; `reason` is a code in ASCII."""
    error = SpawnException(sentence, reason=reason, message_html=html, status_code=status)
    # `message_html` alone reaches only some of the hub's pages.
    error.jupyterhub_message, error.jupyterhub_html_message = sentence, html
    if status in (409, 503):
        error.headers = {"Retry-After": str(RETRY_SECONDS)}
    return error
