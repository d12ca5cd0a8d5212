"""Shows a table of figures as text or as a chart."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table as Grid

from codeforge.bench.chart import Bar, horizontal_bars
from codeforge.bench.figures import Series, Table, figure, times
from codeforge.engines import ENGINES

OURS = "codeforge"
"""The prefix of our own series' names."""


def draw(table: Table, about: Mapping[str, str]) -> str:
    """Return a table of milliseconds as a chart, slowest first.

    Args:
        table: the first series is the one that the others are compared with.
        about: what ``measure.circumstances`` returns.
    """
    bars = [_bar(series, table.series[0]) for series in sorted(table.series, key=lambda each: -each.median)]
    engine = next(name for name in ENGINES if name in about)
    rounds = len(table.series[0].values)
    footer = (
        f"{about['date'][:10]}, codeforge {about['codeforge']}, {engine.title()} {about[engine]}, "
        f"kernel {about['kernel']}, {about['cpus']} CPUs, "
        + (f"{rounds} rounds, interleaved" if rounds > 1 else "1 round")
    )
    return horizontal_bars(table.title, bars, footer=footer)


def _bar(series: Series, reference: Series) -> Bar:
    ours = series.name.startswith(OURS)
    note = f"{times(series, reference)} {reference.name}" if ours and series is not reference else ""
    p95 = series.p95 if len(series.values) > 1 else None
    return Bar(series.name, series.median, p95, ours=ours, note=note)


def grid(table: Table) -> Grid:
    """Return the table as text. A series with one value has no p95; memory has no comparison."""
    first = table.series[0]
    race = first.unit in ("ms", "/s")
    shown = Grid(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    shown.add_column()
    for heading in ("median", "p95", *([first.name] if race else [])):
        shown.add_column(heading, justify="right")
    for series in table.series:
        p95 = figure(series, series.p95) if len(series.values) > 1 else ""
        ratio = [times(series, first)] if race else []
        shown.add_row(series.name, figure(series, series.median), p95, *ratio)
    return shown
