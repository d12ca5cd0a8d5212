"""What the benchmarks share: targets, what is printed around figures, and progress on stderr."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track

from codeforge import CodeExecutor
from codeforge.bench.figures import Table, figure
from codeforge.bench.measure import circumstances, load
from codeforge.bench.report import grid


@dataclass(frozen=True, slots=True)
class Target:
    """What the median of a series should reach: by itself, or as a multiple of another's."""

    of: str
    at_most: float = math.inf
    at_least: float = 0.0
    beside: str | None = None

    def reached(self, table: Table) -> bool:
        """Whether it does."""
        return self.at_least <= self._found(table) <= self.at_most

    def told(self, table: Table) -> str:
        """What was found, and what should have been, in a line."""
        bound, limit = ("at least", self.at_least) if self.at_least else ("at most", self.at_most)
        found, verdict = self._found(table), "reached" if self.reached(table) else "MISSED"
        if self.beside is None:
            series = table[self.of]
            return f"{self.of}: {figure(series, found)}, target {bound} {figure(series, limit)}: {verdict}"
        return f"{self.of}: {_times(found)} {self.beside}, target {bound} {_times(limit)}: {verdict}"

    def _found(self, table: Table) -> float:
        median = table[self.of].median
        return median if self.beside is None else median / table[self.beside].median


def _times(ratio: float) -> str:
    return f"{ratio:.3g} x"


@dataclass(frozen=True, slots=True)
class Measured:
    """A table, and what it should have shown."""

    table: Table
    targets: tuple[Target, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether all of it did."""
        return all(target.reached(self.table) for target in self.targets)

    def show(self) -> None:
        """Print it."""
        console = Console(highlight=False, soft_wrap=True)
        console.print()
        console.print(grid(self.table))
        for line in (*(target.told(self.table) for target in self.targets), *self.table.notes):
            console.print(f"  {line}", markup=False)

    def to_dict(self) -> dict[str, object]:
        """Everything, for JSON."""
        told = [
            {"text": target.told(self.table), "reached": target.reached(self.table)}
            for target in self.targets
        ]
        return {**self.table.to_dict(), "targets": told}


async def around() -> dict[str, str]:
    """Date, versions and load, for the head of every table."""
    async with CodeExecutor(max_warm=0) as executor:
        return {**circumstances(await executor.engine_info()), "load before": load()}


def heading(about: Mapping[str, str]) -> str:
    """The same in a line."""
    return ", ".join(f"{key} {value}" for key, value in about.items())


def shown(rounds: int, what: str) -> Iterable[int]:
    """The rounds, with a bar on stderr while they go on."""
    console = Console(stderr=True)
    return track(range(rounds), what, console=console, transient=True, disable=not console.is_terminal)
