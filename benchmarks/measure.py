"""What the benchmarks share: the command line, targets, printing, and progress on stderr."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import track

from codeforge import CodeExecutor
from codeforge.bench.figures import Table, figure
from codeforge.bench.measure import circumstances, load
from codeforge.bench.report import grid
from codeforge.errors import CodeForgeError


@dataclass(frozen=True, slots=True)
class Target:
    """What the median of a series should reach: a value, or a multiple of another series' median."""

    of: str
    at_most: float = math.inf
    at_least: float = 0.0
    versus: str | None = None

    def reached(self, table: Table) -> bool:
        """Return whether the median reaches it."""
        return self.at_least <= self._found(table) <= self.at_most

    def line(self, table: Table) -> str:
        """Return the measured value and the target, as one line."""
        bound, limit = ("at least", self.at_least) if self.at_least else ("at most", self.at_most)
        found, verdict = self._found(table), "reached" if self.reached(table) else "MISSED"
        if self.versus is None:
            series = table[self.of]
            return f"{self.of}: {figure(series, found)}, target {bound} {figure(series, limit)}: {verdict}"
        return f"{self.of}: {_times(found)} {self.versus}, target {bound} {_times(limit)}: {verdict}"

    def _found(self, table: Table) -> float:
        median = table[self.of].median
        return median if self.versus is None else median / table[self.versus].median


def _times(ratio: float) -> str:
    return f"{ratio:.3g} x"


@dataclass(frozen=True, slots=True)
class Measured:
    """A table and its targets."""

    table: Table
    targets: tuple[Target, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether every target was reached."""
        return all(target.reached(self.table) for target in self.targets)

    def show(self) -> None:
        """Print the table and its targets."""
        console = Console(highlight=False, soft_wrap=True)
        console.print()
        console.print(grid(self.table))
        for line in (*(target.line(self.table) for target in self.targets), *self.table.notes):
            console.print(f"  {line}", markup=False)

    def to_dict(self) -> dict[str, object]:
        """Return everything, for JSON."""
        targets = [
            {"text": target.line(self.table), "reached": target.reached(self.table)}
            for target in self.targets
        ]
        return {**self.table.to_dict(), "targets": targets}


async def around() -> dict[str, str]:
    """Return date, versions and load, which are printed above the tables."""
    async with CodeExecutor(max_warm=0) as executor:
        return {**circumstances(await executor.engine_info()), "load before": load()}


def heading(about: Mapping[str, str]) -> str:
    """Return them as one line."""
    return ", ".join(f"{key} {value}" for key, value in about.items())


def shown(rounds: int, what: str) -> Iterable[int]:
    """Yield the rounds, with a progress bar on stderr."""
    console = Console(stderr=True)
    return track(range(rounds), what, console=console, transient=True, disable=not console.is_terminal)


Tables: TypeAlias = AsyncGenerator[Measured, None]
Found: TypeAlias = dict[str, list[Measured]]


def command_line(about: str | None, tables: Iterable[str], share: str) -> argparse.ArgumentParser:
    """Return the shared options. ``share`` names the rows that are measured less often."""
    title, _, more = (about or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=title, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=20, help=f"how often each row is measured; {share} less (%(default)s)"
    )
    parser.add_argument(
        "--only", action="append", choices=list(tables), metavar="TABLE", help="one table; repeatable"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    return parser


async def show_all(tables: Mapping[str, Callable[[], Tables]]) -> Found:
    """Measure, and print each table when it is complete."""
    found: Found = {}
    for name, measure in tables.items():
        async with contextlib.aclosing(measure()) as measured:
            async for each in measured:
                found.setdefault(name, []).append(each)
                each.show()
                print(f"  load {load()}")
    return found


def conclude(asked: argparse.Namespace, found: Found, about: Mapping[str, str]) -> int:
    """Write the JSON file if asked to. Return 1 if a target was missed and ``--check`` was given, else 0."""
    if asked.json is not None:
        tables = {name: [each.to_dict() for each in measured] for name, measured in found.items()}
        asked.json.write_text(json.dumps({"circumstances": dict(about), "tables": tables}, indent=2) + "\n")
    missed = not all(each.reached for measured in found.values() for each in measured)
    return 1 if missed and asked.check else 0


def exit_with(main: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run ``main`` as a command: exit with its code, 130 for Ctrl-C, or one of our errors in a line."""
    try:
        raise SystemExit(asyncio.run(main()))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except CodeForgeError as error:
        raise SystemExit(f"Error: {error}") from None
