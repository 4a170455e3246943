"""What `hub-ext usage` and `hub-ext requests` print: rows for accounting, and who asks for hours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date

import click

from hub_ext.desk.hours_report import request_rows
from hub_ext.desk.tables_csv import csv_parts
from hub_ext.desk.usage import Row, names
from hub_ext.desk.usage_report import By, all_pages, sacct_pages
from hub_ext.quota.model import RequestState
from hub_ext.quota.ports import Store
from hub_ext.quota.ports_hours import UsageScope

SHOWN = {
    "lease": ("lease", "person", "pool", "resource", "gpus", "admitted", "start", "end", "gpu_hours"),
    "day": ("day", "pool", "person", "leases", "gpu_hours"),
}
"""The columns of the table that people read; files have all of them."""
REQUEST_COLUMNS = ("made_at", "made_by", "pool", "budget", "person", "hours", "until", "state", "why")


def print_report(store: Store, by: By, form: str, first: date, last: date) -> None:
    """One row per lease or per day, page by page."""
    scope = UsageScope(first, last)
    if form == "csv":
        for part in csv_parts(names(by), all_pages(store, scope, by)):
            click.echo(part, nl=False)
    elif form == "json":
        head = json.dumps({"from": str(first), "to": str(last), "by": by})[:-1]
        click.echo(f'{head}, "rows": [', nl=False)
        for separator, row in _separated(all_pages(store, scope, by)):
            click.echo(f"{separator}\n{json.dumps(dict(row), ensure_ascii=False)}", nl=False)
        click.echo("\n]}")
    else:
        shown = [
            [_text(row[name]) for name in SHOWN[by]] for page in all_pages(store, scope, by) for row in page
        ]
        click.echo(_table([SHOWN[by], *shown]) if shown else "Nothing ran in this time.")


def print_sacct(store: Store, first: date, last: date) -> None:
    """What ended in this time, as `sacct --parsable2` writes jobs."""
    for page in sacct_pages(store, UsageScope(first, last)):
        for line in page:
            click.echo(line)


def print_requests(store: Store, *, everything: bool, as_json: bool) -> None:
    """Requests for hours, the newest first: those that are open, or all."""
    states = None if everything else [RequestState.OPEN]
    rows = []
    before = None
    while True:
        with store.reading() as txn:
            found = txn.requests(states=states, before=before)
            rows += request_rows(txn, found)
        if not found:
            break
        before = (found[-1].made_at, found[-1].id)
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        shown = [[_text(row[name]).replace("\n", " ") for name in REQUEST_COLUMNS] for row in rows]
        click.echo(_table([REQUEST_COLUMNS, *shown]))
    else:
        click.echo(
            "Nobody has asked for hours." if everything else "No request for hours waits for an answer."
        )


def _separated(pages: Iterator[list[Row]]) -> Iterator[tuple[str, Row]]:
    separator = ""
    for page in pages:
        for row in page:
            yield separator, row
            separator = ","


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
