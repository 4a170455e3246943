"""Reports of any length as files: read, written and sent page by page, none of it on the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from fastapi.responses import StreamingResponse

from hub_ext.desk.tables_csv import Row, csv_parts
from hub_ext.quota.service import Admission


async def streamed(
    admission: Admission, parts: Iterator[str], *, media_type: str, name: str | None = None
) -> StreamingResponse:
    """The parts, one after the other; `name` makes it a file to keep.

    The first part is there before the answer begins, so that what cannot be read is told as an error; if a later one
    fails, the connection breaks, and no reader takes half a report for the whole.
    """
    first = await admission.in_thread(next, parts, None)

    async def all_parts() -> AsyncIterator[str]:
        part: str | None = first
        while part is not None:
            if part:
                yield part
            part = await admission.in_thread(next, parts, None)

    headers = {"Cache-Control": "no-store"}
    if name is not None:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return StreamingResponse(all_parts(), media_type=media_type, headers=headers)


async def streamed_table(
    admission: Admission,
    fields: Sequence[str],
    pages: Iterable[Iterable[Row]],
    *,
    name: str,
    mark: bool = True,
) -> StreamingResponse:
    """A table as a file for spreadsheets; `name` is ASCII without an ending, `mark` the byte order mark for Excel."""
    parts = csv_parts(fields, pages, mark=mark)
    return await streamed(admission, parts, media_type="text/csv; charset=utf-8", name=f"{name}.csv")
