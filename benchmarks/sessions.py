"""Measures sessions: how long they take to start, to run a cell and to fork, and their memory.

    .venv/bin/python benchmarks/sessions.py                   # every table, two minutes
    .venv/bin/python benchmarks/sessions.py --only fork       # one
    .venv/bin/python benchmarks/sessions.py --check           # exit with 1 if a target is missed

Tables:
    start    from executor.session() to the first cell's result, without and with warm sandboxes
    cell     a cell in an open session, and the same program in a fresh sandbox
    fork     a session with a DataFrame of 200 MB: fork until the copy's first result, and making the
             DataFrame again in another session
    memory   the same session and ten idle copies of it, as the kernel's PSS
    many     fifty sessions at the same time

CODEFORGE_ENGINE names the engine; the default is the first that answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial

from measure import (
    Measured,
    Tables,
    Target,
    around,
    command_line,
    conclude,
    exit_with,
    heading,
    show_all,
    shown,
)
from programs import HELLO

from codeforge import CodeExecutor, Session
from codeforge.bench.figures import Series, Table
from codeforge.bench.measure import WARM_TIMEOUT_S, Way, interleaved, run_fresh
from codeforge.model import SessionOptions

LANGUAGES = ("python", "javascript", "typescript")
COPIES = 10
SESSIONS = 50
SLOW = 4
"""Measurements that take seconds have this fraction of the rounds."""

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
"""MiB of all processes of the sandbox, except init, whose memory cannot be read."""

AMPLE: SessionOptions = {"memory_limit": "2g", "cpu_quota": 100_000, "timeout": 120.0}


async def value(session: Session, code: str) -> str:
    """Run a cell that must succeed, and return its value."""
    result = await session.run(code)
    if not result.success or result.value is None:
        raise SystemExit(f"{code}: {result.error}")
    return result.value


async def started(executor: CodeExecutor, language: str) -> float:
    """Open a session, and return milliseconds from the call to the first result."""
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

        ways = [Way(f"{language}, cold", partial(started, cold, language)) for language in LANGUAGES]
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
        targets = (Target("fork", at_most=50), Target("fork", at_most=0.1, versus="made again"))
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
    yield Measured(table, (Target(name, at_most=1.3, versus="alone"),))


async def many(rounds: int) -> Tables:
    """Table ``many``."""
    title = f"{SESSIONS} sessions at the same time, each with pandas loaded"
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
    series = (Series("all open", "s", tuple(seconds)), Series("memory of all", "MB", tuple(held)))
    yield Measured(Table(title, series))


TABLES: Mapping[str, Callable[[int], Tables]] = {
    "start": start,
    "cell": cell,
    "fork": fork,
    "memory": memory,
    "many": many,
}


async def main() -> int:
    """Measure the tables that were asked for."""
    asked = command_line(__doc__, TABLES, "slow ones").parse_args()
    about = await around()
    print(heading(about))
    rounds = max(asked.rounds, 1)
    wanted = asked.only or TABLES
    found = await show_all({name: partial(TABLES[name], rounds) for name in wanted})
    return conclude(asked, found, about)


if __name__ == "__main__":
    exit_with(main)
