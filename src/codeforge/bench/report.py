"""Tables of figures for people: as text, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table as Grid

from codeforge.bench.chart import Bar, horizontal_bars
from codeforge.bench.figures import Series, Table, figure, times

OURS = "codeforge"
"""What the names of our own ways begin with."""


def draw(table: Table, about: Mapping[str, str]) -> str:
    """The picture of a table of milliseconds, slowest first."""
    bars = [_bar(series, table.series[0]) for series in sorted(table.series, key=lambda each: -each.median)]
    footer = (
        f"{about['date'][:10]}, codeforge {about['codeforge']}, Docker {about['docker']}, "
        f"kernel {about['kernel']}, {about['cpus']} CPUs, {len(table.series[0].values)} rounds, interleaved"
    )
    return horizontal_bars(table.title, bars, footer=footer)


def _bar(series: Series, reference: Series) -> Bar:
    ours = series.name.startswith(OURS)
    note = f"{times(series, reference)} {reference.name}" if ours and series is not reference else ""
    return Bar(series.name, series.median, series.p95, ours=ours, note=note)


def grid(table: Table) -> Grid:
    """The table as text. Figures that were taken once have no p95; memory is not a race."""
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
