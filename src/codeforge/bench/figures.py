"""Measured figures, and how they are formatted."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from codeforge.bench.chart import milliseconds


@dataclass(frozen=True, slots=True)
class Series:
    """The figures of one way. Less is better, unless ``unit`` ends in ``/s``."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        """The value that 95 % of the values reach, by nearest rank."""
        ordered = sorted(self.values, reverse=self.unit.endswith("/s"))
        return ordered[-(-95 * len(ordered) // 100) - 1]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {**asdict(self), "median": self.median, "p95": self.p95}


@dataclass(frozen=True, slots=True)
class Table:
    """Series that were measured together. The others are compared with the first."""

    title: str
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Series:
        return {series.name: series for series in self.series}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "title": self.title,
            "series": [series.to_dict() for series in self.series],
            "notes": list(self.notes),
        }


def times(series: Series, reference: Series) -> str:
    """Format the ratio of two medians: ``0.61 x``, ``12 x``, ``1/70 of``."""
    ratio = series.median / reference.median
    if ratio < 0.1:
        return f"1/{1 / ratio:.0f} of"
    return f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.0f} x"


def figure(series: Series, value: float) -> str:
    """Format a value of the series with its unit."""
    match series.unit:
        case "ms":
            return milliseconds(value)
        case "/s":
            return f"{value:.1f}/s"
    return f"{value:.1f} {series.unit}"
