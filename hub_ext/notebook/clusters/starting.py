"""`start`, `astart` and `connect`: a cluster is ordered, connected to, and waited for until its first worker is there.

1. Check what is asked for. 2. Order it: a refusal is told in words, and nothing is left. 3. Connect when its scheduler
runs. 4. Wish for workers. 5. Wait for the first one, saying what is waited for. 6. Warn where versions differ.

Whoever interrupts at any step leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from distributed import Client

from hub_ext.language import Speaker
from hub_ext.notebook.clusters.cluster import (
    Cluster,
    ClusterError,
    ClusterRefused,
    Order,
    in_words,
    open_gateway,
    server_here,
)
from hub_ext.notebook.clusters.telling import Telling
from hub_ext.notebook.clusters.versions import DaskVersionWarning, versions_differ
from hub_ext.notebook.clusters.view import sentence
from hub_ext.notebook.clusters.words import speaker

__all__ = ["Wish", "astart", "connect", "start"]

LOOK_SECONDS: Final = 0.25
ASK_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 3.0
"""A scheduler that is gone is tried for half a minute otherwise."""
MOST: Final = 10_000

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """How many workers: a number, or from `least` to `most` as the work needs them."""

    least: int
    most: int
    adapts: bool = False

    @classmethod
    def of(cls, workers: object, adapt: object, say: Speaker) -> Wish:
        """Raises ClusterError for anything that is no count of workers."""
        if adapt is None:
            count = _count(workers, "workers", say)
            return cls(count, count)
        if not isinstance(adapt, tuple | list) or len(adapt) != 2:
            raise ClusterError(
                say(
                    "{name} is {found}; write the least and the most workers, as (0, 8).",
                    name="adapt",
                    found=repr(adapt),
                )
            )
        least, most = (_count(one, "adapt", say) for one in adapt)
        if least > most:
            raise ClusterError(
                say("{name} is {found}; the least comes first.", name="adapt", found=repr(adapt))
            )
        return cls(least, most, adapts=True)

    async def tell(self, cluster: Cluster) -> str:
        """Tell the cluster, on its event loop; why it gets fewer for now, "" where it does not."""
        if self.adapts:
            return await cluster.wish("adapt", minimum=self.least, maximum=self.most, active=True)
        return await cluster.wish("scale", count=self.most)


def start(
    workers: int = 4,
    profile: str = "cpu",
    *,
    adapt: tuple[int, int] | None = None,
    minutes: int | None = None,
    idle_minutes: int = 20,
    pool: str | None = None,
    environment: Mapping[str, str] | None = None,
    tell: Tell | None = None,
    ordered: Callable[[str], None] | None = None,
) -> Client:
    """A cluster of so many workers, as a connected client; `client.cluster` is the cluster.

    It returns when the first worker is there (at once where none is wished for); the others follow, as many as the
    quota has room for, and more when room appears. `adapt=(least, most)` grows and shrinks with the work instead.

    Args:
        workers: how many.
        profile: the size of one worker, as `clusters.panel()` lists them.
        adapt: the least and the most workers, in place of `workers`.
        minutes: how long it may run; None for the profile's own length.
        idle_minutes: it is stopped when it did nothing for so long: 10, 20, 30 or 60.
        pool: whose share; None for the first of yours that has the profile.
        environment: variables for the scheduler and the workers.
        tell: where to say what is waited for, in place of the notebook's output.
        ordered: called with the cluster's name as soon as it has one.

    Raises ClusterRefused where the quota says no, with the reason and what would be possible; ClusterError for all else.
    """
    say = speaker()
    wish = Wish.of(workers, adapt, say)
    options = _options(profile, minutes, idle_minutes, pool, environment)
    gateway = open_gateway(say)
    order, cluster = Order(gateway, options, say), None
    try:
        with Telling(tell) as telling, in_words(say):
            telling(say("Starting the cluster …"))
            gateway.sync(order.send)
            name = gateway.sync(order.name)
            (ordered or _nothing)(name)
            cluster = Cluster.from_name(name, shutdown_on_close=True)
            try:
                client: Client = cluster.get_client()
            except OSError:
                # It may have been stopped just now: then that is what happened.
                gateway.sync(gateway._wait_for_start, name)
                raise
            telling(cluster.gateway.sync(wish.tell, cluster))
            steps = until_there(cluster, wish)
            while (step := cluster.gateway.sync(_next, steps)) is not None:
                telling(step)
            _warn(cast(Mapping[str, Any], client.get_versions()), say)
        return client
    except BaseException as problem:
        _quote(problem, gateway.sync(order.last_words) if _is_failure(problem) else "")
        if cluster is not None:
            cluster.close()
        gateway.sync(order.take_back)
        raise
    finally:
        gateway.close()


async def astart(
    workers: int = 4,
    profile: str = "cpu",
    *,
    adapt: tuple[int, int] | None = None,
    minutes: int | None = None,
    idle_minutes: int = 20,
    pool: str | None = None,
    environment: Mapping[str, str] | None = None,
    tell: Tell | None = None,
) -> Client:
    """As `start`, for code that awaits: the client and its cluster are asynchronous.

    Nothing ends an asynchronous cluster with the kernel but the hub, some minutes later: close it, as by
    `async with client.cluster:`.
    """
    say = speaker()
    wish = Wish.of(workers, adapt, say)
    options = _options(profile, minutes, idle_minutes, pool, environment)
    gateway = open_gateway(say, asynchronous=True)
    order, cluster = Order(gateway, options, say), None
    client: Client | None = None
    try:
        with Telling(tell) as telling, in_words(say):
            telling(say("Starting the cluster …"))
            await order.send()
            name = await order.name()
            cluster = Cluster.from_name(name, shutdown_on_close=True, asynchronous=True)
            await cluster
            try:
                client = found = cast(Client, await cluster.get_client())
            except OSError:
                await gateway._wait_for_start(name)
                raise
            telling(await wish.tell(cluster))
            async for step in until_there(cluster, wish):
                telling(step)
            _warn(await cast(Awaitable[Mapping[str, Any]], found.get_versions()), say)
        return found
    except BaseException as problem:
        _quote(problem, await order.last_words() if _is_failure(problem) else "")
        await asyncio.shield(_undo(client, cluster, order))
        raise
    finally:
        await gateway.close()


def connect(name: str | None = None) -> Client:
    """A client of a cluster of yours that runs already, as one of JupyterLab's sidebar or of another notebook.

    Args:
        name: the cluster's name; None for the one that was started last.

    The cluster goes on when this kernel ends. Raises ClusterError where there is none.
    """
    say = speaker()
    gateway = open_gateway(say)
    try:
        with in_words(say):
            found = sorted(gateway.list_clusters(), key=lambda report: report.start_time)
            names = [report.name for report in found]
            if not names or name not in (None, *names):
                raise ClusterError(say("No cluster of yours runs by that name. Start one."))
            cluster = Cluster.from_name(name or names[-1])
            client: Client = cluster.get_client()
        _warn(cast(Mapping[str, Any], client.get_versions()), say)
        return client
    finally:
        gateway.close()


def _is_failure(problem: BaseException) -> bool:
    """Whether its logs may say more: a refusal and an interrupt speak for themselves."""
    return isinstance(problem, ClusterError) and not isinstance(problem, ClusterRefused)


def _quote(problem: BaseException, words: str) -> None:
    if words:
        problem.add_note(words)


async def _undo(client: Client | None, cluster: Cluster | None, order: Order) -> None:
    if client is not None:
        await client.close()
    if cluster is not None:
        await cluster.close()
    await order.take_back()


async def until_there(cluster: Cluster, wish: Wish) -> AsyncIterator[str]:
    """What is waited for, each time it is another sentence; ends when the first worker is there.

    Raises ClusterError where the cluster ended meanwhile.
    """
    say, said, ask_again = cluster.say, "", 0.0
    clock = asyncio.get_running_loop().time
    while wish.least > 0:
        try:
            if await asyncio.wait_for(cluster.workers(), ANSWER_SECONDS):
                return
        except OSError:
            # The report says whether it is gone or only out of reach.
            pass
        if clock() >= ask_again:
            # Raises where the cluster is over.
            await cluster.gateway._wait_for_start(cluster.name)
            sentence = await _what_is_waited_for(cluster, wish, say)
            if sentence != said:
                said = sentence
                yield sentence
            ask_again = clock() + ASK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)


async def _what_is_waited_for(cluster: Cluster, wish: Wish, say: Speaker) -> str:
    try:
        state = await cluster.look()
    except ClusterError:
        state = None
    if state is None or state.waiting is None or state.live > 0:
        return say("The scheduler runs; waiting for the first of {count} workers …", count=wish.most)
    line = [say("No worker yet."), state.waiting.message]
    if state.waiting.place is not None:
        line.append(say("Place in line: {place}.", place=state.waiting.place))
    if state.waiting.eta:
        line.append(sentence(state.waiting.eta))
    line.append(say("It goes on by itself; interrupt to give up."))
    return " ".join(part for part in line if part)


async def _next(steps: AsyncIterator[str]) -> str | None:
    return await anext(steps, None)


def _warn(versions: Mapping[str, Any], say: Speaker) -> None:
    told = versions_differ(versions, say)
    if told:
        warnings.warn(DaskVersionWarning(told), stacklevel=3)


def _options(
    profile: str,
    minutes: int | None,
    idle_minutes: int,
    pool: str | None,
    environment: Mapping[str, str] | None,
) -> dict[str, Any]:
    options = {
        "profile": profile,
        "minutes": minutes,
        "idle_minutes": idle_minutes,
        "pool": pool,
        "environment": dict(environment) if environment else None,
        "server": server_here(),
    }
    return {name: value for name, value in options.items() if value is not None}


def _count(found: object, name: str, say: Speaker) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= MOST:
        raise ClusterError(
            say(
                "{name} is {found}; write a whole number of workers from 0 to {most}.",
                name=name,
                found=repr(found),
                most=MOST,
            )
        )
    return found


def _nothing(name: str) -> None:
    pass
