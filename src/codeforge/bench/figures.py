"""Figures: what was measured, and how a person reads it. Values only."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from codeforge.bench.chart import milliseconds


@dataclass(frozen=True, slots=True)
class Series:
    """The figures of one way. Less is better, but where ``unit`` ends in ``/s``."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the values are better."""
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        """95 % of the values are at least this good, by nearest rank."""
        ordered = sorted(self.values, reverse=self.unit.endswith("/s"))
        return ordered[-(-95 * len(ordered) // 100) - 1]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**asdict(self), "median": self.median, "p95": self.p95}


@dataclass(frozen=True, slots=True)
class Table:
    """Series that were measured together; the first is what the others are compared with."""

    title: str
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Series:
        return {series.name: series for series in self.series}[name]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "title": self.title,
            "series": [series.to_dict() for series in self.series],
            "notes": list(self.notes),
        }


def times(series: Series, reference: Series) -> str:
    """The ratio of the medians as a person reads it: ``0.61 x``, ``12 x``, ``1/70 of``."""
    ratio = series.median / reference.median
    if ratio < 0.1:
        return f"1/{1 / ratio:.0f} of"
    return f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.0f} x"


def figure(series: Series, value: float) -> str:
    """A value of the series with its unit."""
    match series.unit:
        case "ms":
            return milliseconds(value)
        case "/s":
            return f"{value:.1f}/s"
    return f"{value:.1f} {series.unit}"
