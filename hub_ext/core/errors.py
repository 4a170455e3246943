"""Errors a person can act on: what happened, to what, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass


class HubError(Exception):
    """Something foreseen went wrong; its text is fit to be read by the person who caused it."""


class BadInput(HubError):
    """A value from outside (file, form, request, command line) cannot be used as it stands."""


class NameTaken(BadInput):
    """A user name belongs to somebody else: to the first issuer and subject that had it."""


class StoreUnavailable(HubError):
    """The database did not take part: locked, read-only, full or away. Nothing was booked."""


class SchemaMismatch(HubError):
    """The database has another schema version than this program; only `hub-ext db upgrade` migrates."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in a document an operator wrote.

    `line` counts from 1; `instead` says what to write, so that the fault can be mended without a manual.
    """

    file: str
    line: int
    what: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}. {self.instead}".rstrip()


class FaultyDocument(BadInput):
    """A document with at least one fault. Whatever was in force before it stays in force."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults
