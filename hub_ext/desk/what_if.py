"""Plays one scenario in a process of its own, which ends when its time or memory is used up.

A scenario is any text that somebody sends: playing one may take as long and as much memory as they like. A thread could
not be ended, so the desk starts this module as a program (`python -m hub_ext.desk.what_if`): the scenario comes in on
standard input, an answer as JSON goes out. It knows no database and reads no file.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from hub_ext.core.errors import BadInput, Fault, FaultyDocument
from hub_ext.documents import Document, Place, parse_document
from hub_ext.quota.scenario import scenario_of
from hub_ext.quota.simulate import play

LONGEST_TEXT: Final = 2_000_000
"""Characters of a scenario: some five thousand leases, and the policy."""
SECONDS: Final = 90
MEMORY: Final = 512 << 20
"""Bytes of address space; five thousand leases and two thousand tickets need a third of it."""
NAME: Final = "scenario"
"""How faults call the document."""
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "SYSTEMROOT")
"""All that the program needs of the desk's environment, in which secrets may stand."""


@dataclass(frozen=True)
class Answer:
    """What came of a scenario (the output of `hub-ext simulate --json`), or what is wrong with it, by line."""

    outcome: Mapping[str, Any] | None = None
    faults: Sequence[Fault] = field(default_factory=tuple)


class TookTooLong(BadInput):
    """The scenario was given up: its time or memory was used up."""


class Busy(BadInput):
    """Another scenario is being played."""


class WhatIf:
    """Plays one scenario at a time, so that what-if questions never take more than one core from the desk."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._playing = asyncio.Lock()

    async def answer(self, text: str) -> Answer:
        """Raises Busy, TookTooLong."""
        if len(text) > LONGEST_TEXT:
            return Answer(faults=[_too_long()])
        if self._playing.locked():
            raise Busy("Another scenario is being played; try again in some seconds")
        async with self._playing:
            return await self._ask_program(text)

    async def _ask_program(self, text: str) -> Answer:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "hub_ext.desk.what_if",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
        )
        try:
            said, _ = await asyncio.wait_for(
                program.communicate(text.encode("utf-8", "surrogatepass")), self.seconds
            )
        except TimeoutError:
            raise TookTooLong(f"The scenario took longer than {self.seconds:g} s and was given up") from None
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
        if program.returncode:
            raise TookTooLong("The scenario needed more time or memory than one may take here")
        answer = json.loads(said)
        return Answer(answer["outcome"], [Fault(**fault) for fault in answer["faults"]])


def player_of(state: Any) -> WhatIf:
    """The one of an application, kept in its state."""
    if not hasattr(state, "what_if"):
        state.what_if = WhatIf()
    player: WhatIf = state.what_if
    return player


# -- the program ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Standard input to standard output, within limits. Ends with another code than 0 where they do not do."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    raw = sys.stdin.buffer.read()
    try:
        answer = answer_to(raw)
    except MemoryError:
        sys.exit(1)
    sys.stdout.write(json.dumps(asdict(answer), ensure_ascii=True))


def answer_to(raw: bytes) -> Answer:
    """Play it, or tell every fault with its line."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return Answer(faults=[Fault(NAME, 1, "the text holds half of a character", "Write a whole one.")])
    try:
        document = parse_document(text, NAME)
        _refuse_files(document)
        return Answer(play(scenario_of(document, Path("/nonexistent"))).__dict__)
    except FaultyDocument as error:
        return Answer(faults=error.faults)
    except BadInput as error:
        return Answer(faults=[Fault(NAME, 1, str(error), "")])


def _refuse_files(document: Document) -> None:
    """A policy stands in the scenario itself: a name would be that of a file of the desk's machine."""
    faults = [
        document.fault(
            place,
            "a policy is named here, and there are no files beside this form",
            "Write the policy itself, as it is done at the top.",
        )
        for place, value in _policies(document.data)
        if not isinstance(value, Mapping)
    ]
    if faults:
        raise FaultyDocument(faults)


def _policies(data: object) -> Iterator[tuple[Place, object]]:
    if not isinstance(data, Mapping):
        return
    if "policy" in data:
        yield ("policy",), data["policy"]
    events = data.get("events")
    for index, event in enumerate(events if isinstance(events, list) else ()):
        if isinstance(event, Mapping) and event.get("policy") is not None:
            yield ("events", index, "policy"), event["policy"]


def _too_long() -> Fault:
    return Fault(NAME, 1, f"the scenario is longer than {LONGEST_TEXT:,} characters", "Shorten it.")


if __name__ == "__main__":
    main()
