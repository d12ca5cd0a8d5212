"""``codeforge bench``: measure how fast this machine runs programs, and what else could run them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from codeforge.bench import (
    COLD,
    Program,
    Table,
    Way,
    circumstances,
    compare_with_warm,
    draw,
    grid,
    interleaved,
    load,
    references,
    run_fresh,
    sustained,
    within,
)
from codeforge.cli.terminal import print_json
from codeforge.engines import ENGINES
from codeforge.errors import ImageNotFound, InvalidRequest, Unsupported
from codeforge.executor import CodeExecutor
from codeforge.model import Language

_DOCKER, _PODMAN, BUBBLEWRAP = ENGINES
HELLO = b"hello\n"
LATENCY_SHARE = 0.5
"""The share of a language's time in which latency is measured. In the rest it is throughput."""

MIN_SECONDS, MAX_SECONDS = 1, 3600


def perform(names: Sequence[str], *, seconds: float, as_json: bool, chart: Path | None) -> int:
    """Measure, print the tables, and return the exit code."""
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise InvalidRequest(f"--seconds must be between {MIN_SECONDS} and {MAX_SECONDS}, not {seconds:g}")
    if chart is not None and not (chart.suffix == ".svg" and chart.parent.is_dir()):
        raise InvalidRequest(f"--chart: {chart} must be an .svg file in an existing folder")
    tables, about = asyncio.run(_measure(names, seconds))
    if as_json:
        print_json({"circumstances": about, "tables": [table.to_dict() for table in tables]})
    else:
        _print(tables, about)
    if chart is not None:
        try:
            chart.write_text(draw(tables[0], about), encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"--chart: cannot write {chart}: {error.strerror}") from error
    return 0


async def _measure(names: Sequence[str], seconds: float) -> tuple[list[Table], dict[str, str]]:
    before, tables = load(), []
    async with CodeExecutor(max_warm=0) as cold:
        if (await cold.engine()).name == BUBBLEWRAP:
            raise Unsupported(
                "bench needs Docker or Podman; the engine is bubblewrap\n"
                "Choose another: CODEFORGE_ENGINE=docker codeforge bench"
            )
        about = circumstances(await cold.engine_info())
        programs = [Program(row, row.smoke, HELLO) for row in await present(cold, names)]
        share = seconds / len(programs)
        with _progress(2 * len(programs)) as step:
            for program in programs:
                step(f"{program.language.name}: call to result")
                tables.append(await latency(cold, program, share * LATENCY_SHARE))
                step(f"{program.language.name}: {callers()} callers")
                tables.append(await throughput(program, share * (1 - LATENCY_SHARE)))
    return tables, about | {"load_before": before, "load_after": load()}


async def present(executor: CodeExecutor, names: Sequence[str]) -> list[Language]:
    """Return the languages to measure: the named ones, else those whose image is on this machine."""
    rows = [executor.languages.find(name) for name in names] or list(executor.languages)
    there = [row for row in rows if await executor.images.find(row.image) is not None]
    missing = [row for row in rows if row not in there]
    if missing and (names or not there):
        raise ImageNotFound(
            f"not on this machine: {', '.join(row.image for row in missing)}\n"
            f"Pull or build it first: codeforge images pull {' '.join(row.name for row in missing)}"
        )
    return there


async def latency(cold: CodeExecutor, program: Program, seconds: float) -> Table:
    """Measure the time from the call to the result, with one caller."""
    others = [*references(program), Way(COLD, functools.partial(run_fresh, cold, program))]
    async with CodeExecutor() as warm:
        series = await compare_with_warm(
            program, others, within(seconds, at_least=1, at_most=40), warm, warm_up=False
        )
    counted = tuple(dataclasses.replace(each, values=_counted(each.values)) for each in series)
    return Table(f"hello in {program.language.name}, from the call to the result", counted)


def _counted(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return the values without the first, which filled caches, if more than two were measured."""
    return values[1:] if len(values) > 2 else values


async def throughput(program: Program, seconds: float) -> Table:
    """Measure runs a second with many callers. Each way gets a slice of the time."""
    ways = list(sustained(program, callers(), seconds / 3))
    series = await interleaved(ways, range(1), warm_up=False)
    return Table(f"hello in {program.language.name}, {callers()} callers at once", series)


def callers() -> int:
    """Return how many callers keep the machine busy. More would only wait for each other."""
    return 2 * (os.cpu_count() or 1)


@contextlib.contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar on stderr if it is a terminal. Call the value at the start of each step."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as display:
        bar = display.add_task("", total=steps, completed=-1)

        def step(name: str) -> None:
            display.update(bar, description=name, advance=1)

        yield step


def _print(tables: Sequence[Table], about: Mapping[str, str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in about.items()))
    for table in tables:
        console.print()
        console.print(grid(table))
