"""Sessions: how soon one is there, what a cell costs, what a fork costs, what they hold in memory.

    .venv/bin/python benchmarks/sessions.py                   # every table, two minutes
    .venv/bin/python benchmarks/sessions.py --only fork       # one
    .venv/bin/python benchmarks/sessions.py --check           # exit with 1 if a target is missed

Tables:
    start    from executor.session() to the first cell's result, without and with a stock
    cell     a cell in a session that is there, beside a fresh sandbox for the same
    fork     a session that holds a DataFrame of 200 MB: fork, and the copy's first result, beside making
             the DataFrame again in another session
    memory   the same session and ten idle copies of it, by the kernel's PSS
    many     fifty sessions at once

The engine is CODEFORGE_ENGINE's, or the first that answers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from measure import Measured, Target, around, heading, shown
from programs import HELLO

from codeforge import CodeExecutor, Session
from codeforge.bench.figures import Series, Table
from codeforge.bench.measure import WARM_TIMEOUT_S, Way, interleaved, load, run_fresh
from codeforge.errors import CodeForgeError
from codeforge.options import SessionOptions

Tables: TypeAlias = AsyncGenerator[Measured, None]

LANGUAGES = ("python", "javascript", "typescript")
COPIES = 10
SESSIONS = 50
SLOW = 4
"""What takes seconds is measured in this part of the rounds."""

FRAME = """
import numpy as np, pandas as pd
frame = pd.DataFrame(np.random.default_rng(0).random((1_250_000, 20)))
int(frame.memory_usage().sum()) // 1_000_000
"""
"""200 MB."""

PSS = """
import glob
def pss(path):
    try:
        with open(path) as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
sum(map(pss, glob.glob("/proc/[0-9]*/smaps_rollup"))) // 1024
"""
"""MiB of all processes of the sandbox but init, which nobody can look into."""

AMPLE: SessionOptions = {"memory_limit": "2g", "cpu_quota": 100_000, "timeout": 120.0}


async def value(session: Session, code: str) -> str:
    """What a cell that must go well comes to."""
    result = await session.run(code)
    if not result.success or result.value is None:
        raise SystemExit(f"{code}: {result.error}")
    return result.value


async def started(executor: CodeExecutor, language: str) -> float:
    """Milliseconds from the call to the first result."""
    began = time.perf_counter()
    async with executor.session(language) as session:
        await value(session, "1 + 1")
        return (time.perf_counter() - began) * 1000


async def start(rounds: int) -> Tables:
    """Table ``start``."""
    title = "session, from the call to the first cell's result"
    async with CodeExecutor(max_warm=0) as cold, CodeExecutor(max_warm=len(LANGUAGES)) as warm:

        async def settle() -> None:
            await warm.warm(LANGUAGES, count=1, sessions=True, timeout=WARM_TIMEOUT_S)

        ways = [Way(f"{language}, no stock", partial(started, cold, language)) for language in LANGUAGES]
        ways += [Way(f"{language}, warm", partial(started, warm, language)) for language in LANGUAGES]
        yield Measured(Table(title, await interleaved(ways, shown(rounds, title), settle=settle)))


async def cell(rounds: int) -> Tables:
    """Table ``cell``."""
    title = "a cell, 1 + 1"

    async def round_trip(session: Session) -> float:
        began = time.perf_counter()
        await value(session, "1 + 1")
        return (time.perf_counter() - began) * 1000

    async with contextlib.AsyncExitStack() as stack:
        executor = await stack.enter_async_context(CodeExecutor())
        ways = []
        for language in LANGUAGES:
            session = await stack.enter_async_context(executor.session(language))
            ways.append(Way(f"session, {language}", partial(round_trip, session)))
        ways.append(Way("fresh sandbox, python", partial(run_fresh, executor, HELLO)))
        yield Measured(Table(title, await interleaved(ways, shown(rounds, title))))


async def fork(rounds: int) -> Tables:
    """Table ``fork``."""
    title = "another session with a DataFrame of 200 MB, until its first result"
    look = "float(frame.iloc[0, 0])"
    async with CodeExecutor() as executor, executor.session(**AMPLE) as session:
        await value(session, FRAME)

        async def copied() -> float:
            began = time.perf_counter()
            [copy] = await session.fork()
            await value(copy, look)
            took = (time.perf_counter() - began) * 1000
            await copy.close()
            return took

        async def made_again() -> float:
            began = time.perf_counter()
            async with executor.session(**AMPLE) as other:
                await value(other, FRAME)
                await value(other, look)
                return (time.perf_counter() - began) * 1000

        ways = [Way("fork", copied), Way("made again", made_again)]
        table = Table(title, await interleaved(ways, shown(-(-rounds // 2), title)))
        targets = (Target("fork", at_most=50), Target("fork", at_most=0.1, beside="made again"))
        yield Measured(table, targets)


async def memory(rounds: int) -> Tables:
    """Table ``memory``."""
    title = "memory of a session with a DataFrame of 200 MB"
    alone, together = [], []
    async with CodeExecutor() as executor:
        for _ in shown(-(-rounds // SLOW), title):
            async with executor.session(**AMPLE) as session:
                await value(session, FRAME)
                alone.append(float(await value(session, PSS)))
                copies = await session.fork(COPIES)
                for copy in copies:
                    await value(copy, "1 + 1")
                together.append(float(await value(session, PSS)))
    name = f"with {COPIES} idle copies"
    table = Table(title, (Series("alone", "MB", tuple(alone)), Series(name, "MB", tuple(together))))
    yield Measured(table, (Target(name, at_most=1.3, beside="alone"),))


async def many(rounds: int) -> Tables:
    """Table ``many``."""
    title = f"{SESSIONS} sessions at once, each with pandas loaded"
    seconds, held = [], []
    async with CodeExecutor(max_sandboxes=SESSIONS + 10, max_warm=0) as executor:
        for _ in shown(-(-rounds // (5 * SLOW)), title):
            async with contextlib.AsyncExitStack() as stack:
                began = time.perf_counter()
                sessions = [
                    await stack.enter_async_context(executor.session(memory_limit="256m", timeout=120))
                    for _ in range(SESSIONS)
                ]
                await asyncio.gather(*(value(session, "import pandas; 1") for session in sessions))
                seconds.append(time.perf_counter() - began)
                held.append(sum([float(await value(session, PSS)) for session in sessions]))
    series = (Series("all there", "s", tuple(seconds)), Series("memory of all", "MB", tuple(held)))
    yield Measured(Table(title, series))


TABLES: Mapping[str, Callable[[int], Tables]] = {
    "start": start,
    "cell": cell,
    "fork": fork,
    "memory": memory,
    "many": many,
}


def options() -> argparse.Namespace:
    """The command line."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="how often each row is measured (%(default)s)")
    parser.add_argument(
        "--only", action="append", choices=TABLES, metavar="TABLE", help="one table; repeatable"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    return parser.parse_args()


async def measure(names: Sequence[str], rounds: int) -> tuple[dict[str, list[Measured]], dict[str, str]]:
    """Measure and print the tables."""
    about = await around()
    print(heading(about))
    found: dict[str, list[Measured]] = {}
    for name in names:
        async with contextlib.aclosing(TABLES[name](rounds)) as tables:
            async for measured in tables:
                found.setdefault(name, []).append(measured)
                measured.show()
                print(f"  load {load()}")
    return found, about


def main() -> int:
    """Measure what was asked for; 0, or 1 if a target is missed and --check was given."""
    asked = options()
    found, about = asyncio.run(measure(asked.only or list(TABLES), max(asked.rounds, 1)))
    if asked.json is not None:
        tables = {name: [each.to_dict() for each in measured] for name, measured in found.items()}
        asked.json.write_text(json.dumps({"circumstances": about, "tables": tables}, indent=2) + "\n")
    missed = not all(each.reached for measured in found.values() for each in measured)
    return 1 if missed and asked.check else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except CodeForgeError as error:
        raise SystemExit(f"Error: {error}") from None
