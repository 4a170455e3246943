"""Charts as SVG, made on the server: bars by day, and the thin bar of a budget or a cap. Pure; no library, no script.

Every chart says in words what it shows, names each bar to those who point at it, and stands beside the same numbers as
a table. Colours come from the style sheet by the key of a series (`hd-fill--used`); lines and patterns tell them apart
as well. The drawing stretches to its place, its labels do not: they are text of the page, readable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from markupsafe import Markup

WHOLE: Final = 1000
"""Shares and heights are in thousandths."""
_STEPS: Final = (1, 2, 5, 10)
_SLOT: Final = 10
"""Width of the place of one bar in the drawing's own units."""
_LABELS: Final = 6
"""No more labels than this stand under a chart: they have room on a phone."""


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of part in each bar: `key` picks its colour, `name` stands in the legend and the table."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a value for each series, lowest first; `label` names it, `short` stands under it, `told` is its hint."""

    label: str
    values: tuple[Decimal, ...]
    short: str = ""
    told: str = ""


@dataclass(frozen=True, slots=True)
class BarChart:
    """Stacked bars. `name` makes ids unique on a page; `table` labels the numbers beside it, `first` their first column.

    `summary` says in one sentence what there is to see.
    """

    name: str
    title: str
    summary: str
    series: tuple[Series, ...]
    bars: tuple[Bar, ...]
    unit: str
    table: str
    first: str


def top_of(values: Sequence[Decimal]) -> Decimal:
    """The end of the axis: the next of 1, 2, 5 × 10ⁿ that no value exceeds; 1 where there is none above zero."""
    highest = max(values, default=Decimal(0))
    if highest <= 0:
        return Decimal(1)
    scale = Decimal(10) ** math.floor(highest.log10())
    return next(step * scale for step in _STEPS if step * scale >= highest)


def number(value: Decimal) -> str:
    """Without needless zeros, thousands apart, at most two decimals."""
    text = f"{value.quantize(Decimal('0.01')):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def bar_chart(chart: BarChart) -> Markup:
    """The chart with its legend, its axis and its table, as one figure."""
    top = top_of([sum(bar.values, Decimal(0)) for bar in chart.bars])
    return Markup(
        '<figure class="hd-chart"><figcaption class="hd-chart__head"><h3>{title}</h3>'
        '<p class="hg-muted">{summary}</p>{legend}</figcaption>'
        '<div class="hd-chart__plot"><p class="hd-chart__y" aria-hidden="true">'
        "<span>{top} {unit}</span><span>{half}</span><span>0</span></p>{drawing}<span></span>{labels}</div>"
        "{table}</figure>"
    ).format(
        title=chart.title,
        summary=chart.summary,
        legend=_legend(chart.series),
        top=number(top),
        half=number(top / 2),
        unit=chart.unit,
        drawing=_drawing(chart, top),
        labels=_labels(chart.bars),
        table=_table(chart),
    )


def thin_bar(parts: Sequence[tuple[str, int]], told: str, *, mark: int | None = None) -> Markup:
    """One line of up to 1000 thousandths: each part with its key; `mark` is a limit to be seen (a soft warning)."""
    drawn, left = [], 0
    for key, share in parts:
        width = max(0, min(WHOLE - left, share))
        drawn.append(
            Markup('<rect class="hd-fill--{}" x="{}" width="{}" height="8"></rect>').format(key, left, width)
        )
        left += width
    if mark is not None:
        drawn.append(
            Markup('<rect class="hd-mark" x="{}" width="4" height="8"></rect>').format(
                max(0, min(WHOLE - 4, mark))
            )
        )
    return Markup(
        '<svg class="hg-bar" viewBox="0 0 1000 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="hg-bar__all" width="1000" height="8"></rect>{}</svg>'
    ).format(told, _joined(drawn))


def share_of(part: int, whole: int) -> int:
    """Thousandths, between none and all; something is never nothing."""
    if part <= 0 or whole <= 0:
        return 0
    return max(1, min(WHOLE, part * WHOLE // whole))


def _drawing(chart: BarChart, top: Decimal) -> Markup:
    bars = [_bar(bar, place, chart.series, top) for place, bar in enumerate(chart.bars)]
    width = max(1, len(chart.bars)) * _SLOT
    lines = _joined(
        Markup('<path class="hd-line" d="M0 {0}H{1}"></path>').format(height, width)
        for height in (0, WHOLE // 2)
    )
    return Markup(
        '<svg class="hd-chart__svg" viewBox="0 0 {width} 1000" preserveAspectRatio="none" role="img"'
        ' aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{title}</title>'
        '<desc id="{name}-desc">{summary}</desc>{lines}{bars}</svg>'
    ).format(
        width=width,
        name=chart.name,
        title=chart.title,
        summary=chart.summary,
        lines=lines,
        bars=_joined(bars),
    )


def _bar(bar: Bar, place: int, series: Sequence[Series], top: Decimal) -> Markup:
    parts, base = [], Decimal(0)
    left = place * _SLOT
    for one, value in zip(series, bar.values, strict=True):
        height = int(value * WHOLE / top)
        if value > 0:
            above = WHOLE - int(base * WHOLE / top) - height
            parts.append(
                Markup('<rect class="hd-fill--{}" x="{}" y="{}" width="8" height="{}"></rect>').format(
                    one.key, left + 1, max(0, above), max(4, height)
                )
            )
        base += value
    # The whole slot answers to the pointer, also where its bar is low.
    return Markup(
        '<g class="hd-slot"><title>{}</title><rect class="hd-slot__all" x="{}" width="10" height="1000"></rect>{}</g>'
    ).format(bar.told or bar.label, left, _joined(parts))


def _labels(bars: Sequence[Bar]) -> Markup:
    """Texts under the bars that they name: the last one's, and some before it at even steps."""
    count = len(bars)
    step = max(1, -(-count // _LABELS))
    texts = []
    for place in range((count - 1) % step if count else 0, count, step):
        share = (2 * place + 1) * 50 / count
        anchor = "start" if share < 4 else "end" if share > 96 else "middle"
        at = {"start": 0.0, "end": 100.0}.get(anchor, share)
        bar = bars[place]
        texts.append(
            Markup('<text x="{:.2f}%" y="14" text-anchor="{}">{}</text>').format(
                at, anchor, bar.short or bar.label
            )
        )
    return Markup('<svg class="hd-chart__x" width="100%" height="18" aria-hidden="true">{}</svg>').format(
        _joined(texts)
    )


def _legend(series: Sequence[Series]) -> Markup:
    if len(series) < 2:
        return Markup("")
    entries = _joined(
        Markup(
            '<li><svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">'
            '<rect class="hd-fill--{}" width="12" height="12" rx="2"></rect></svg> {}</li>'
        ).format(one.key, one.name)
        for one in series
    )
    return Markup('<ul class="hd-legend">{}</ul>').format(entries)


def _table(chart: BarChart) -> Markup:
    head = _joined(
        Markup('<th scope="col" class="hd-number">{} ({})</th>').format(one.name, chart.unit)
        for one in chart.series
    )
    rows = _joined(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            bar.label,
            _joined(Markup('<td class="hd-number">{}</td>').format(number(value)) for value in bar.values),
        )
        for bar in chart.bars
    )
    return Markup(
        '<details class="hg-more hd-chart__table"><summary>{summary}</summary><div class="hd-scroll" tabindex="0"'
        ' role="region" aria-label="{title}"><table class="hd-table"><caption class="visually-hidden">{title}</caption>'
        '<thead><tr><th scope="col">{first}</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    ).format(summary=chart.table, title=chart.title, first=chart.first, head=head, rows=rows)


def _joined(parts: Iterable[str]) -> Markup:
    return Markup("").join(parts)
