"""Measuring: ways to get from a program to its output, each timed in turn with the others.

Figures are worth something only beside others of the same run: a container's start depends on the
machine, the engine, and what else goes on. So ways are interleaved, in an order that changes. What is
compared with is what a person would do instead: ``docker run``, or the interpreter alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import platform
import posixpath
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from codeforge._version import __version__
from codeforge.bench.figures import Series
from codeforge.engines import EngineInfo
from codeforge.errors import HostFailure
from codeforge.executor import CodeExecutor
from codeforge.model import GUEST_DIR, Language, Limits
from codeforge.policy import USER_IDS, container_spec

_THREADS = ThreadPoolExecutor(32, thread_name_prefix="command")
"""Threads that wait for commands: asyncio's own way to start one costs a millisecond more."""

_INLINE = {"python": "-c", "node": "-e", "ts-node": "-e"}
"""How interpreters take a program as an argument."""

REUSES = 100
"""Runs in one sandbox of a batch."""

WARM_TIMEOUT_S = 120.0
"""For a stock to fill; a TypeScript sandbox takes seconds to be ready."""

PAUSE_S = 0.1
"""Before every figure: by then what the last one left to the background, such as removing its container,
is over, and does not fall to the next."""

DOCKER_RUN, COLD, WARM = "docker run", "codeforge, cold", "codeforge, warm"
FRESH, REUSED = "codeforge, fresh", "codeforge, reused"


@dataclass(frozen=True, slots=True)
class Program:
    """What every way runs, and what it must print."""

    language: Language
    code: str
    output: bytes


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do something: ``measure`` does it once and gives one figure."""

    name: str
    measure: Callable[[], Awaitable[float]]
    unit: str = "ms"


async def _at_once() -> None:
    pass


async def interleaved(
    ways: Sequence[Way],
    rounds: Iterable[object],
    *,
    settle: Callable[[], Awaitable[object]] = _at_once,
    warm_up: bool = True,
) -> tuple[Series, ...]:
    """Measure each way once a round. ``settle`` is waited for before each figure, and not part of it.

    To warm up, one more round comes first, which fills caches, connects, and does not count.
    """
    values: dict[str, list[float]] = {way.name: [] for way in ways}

    async def measure(way: Way) -> float:
        await settle()
        await asyncio.sleep(PAUSE_S)
        return await way.measure()

    if warm_up:
        for way in ways:
            await measure(way)
    for _ in rounds:
        for way in random.sample(ways, len(ways)):
            values[way.name].append(await measure(way))
    return tuple(Series(way.name, way.unit, tuple(values[way.name])) for way in ways)


def within(seconds: float, *, least: int, most: int) -> Iterator[int]:
    """Count rounds until the time is over, but at least ``least`` and at most ``most`` of them."""
    end = time.monotonic() + seconds
    for number in range(most):
        if number >= least and time.monotonic() > end:
            return
        yield number


async def at_once(callers: int, runs: Iterable[object], work: Callable[[], Awaitable[object]]) -> float:
    """How often a second ``work`` is done, once for each of ``runs``, by so many callers in loops."""
    left, done = iter(runs), 0

    async def caller() -> None:
        nonlocal done
        for _ in left:
            await work()
            done += 1

    start = time.perf_counter()
    tasks = [asyncio.create_task(caller()) for _ in range(callers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done / (time.perf_counter() - start)


async def until_last(callers: int, work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds until the last of so many callers, who all come at once, has what it wants."""
    return callers / await at_once(callers, range(callers), work) * 1000


async def run_command(command: Sequence[str], expected: bytes, env: Mapping[str, str] | None = None) -> float:
    """Milliseconds of one command, from its start to its output and its end.

    Raises:
        HostFailure: it printed anything but ``expected``.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _timed, command, expected, env)


def _timed(command: Sequence[str], expected: bytes, env: Mapping[str, str] | None) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, env=env)
    elapsed = time.perf_counter() - start
    _require(done.stdout, expected, f"{command[0]}: {done.stderr[-500:].decode(errors='replace').strip()}")
    return elapsed * 1000


async def run_fresh(executor: CodeExecutor, program: Program) -> float:
    """Milliseconds of one run in a sandbox of its own, from the call to the result.

    Raises:
        HostFailure: the program did not print what it should, or the engine or the sandbox failed.
    """
    start = time.perf_counter()
    result = await executor.execute(program.code, program.language.name)
    elapsed = time.perf_counter() - start
    _require(result.stdout_bytes, program.output, result.error)
    return elapsed * 1000


async def run_reusing(
    executor: CodeExecutor, program: Program, callers: int, runs: Iterable[object]
) -> float:
    """Runs a second of one batch, as many as ``runs`` has, ``callers`` at once in reused sandboxes.

    Raises:
        HostFailure: the program did not print what it should, or the engine or a sandbox failed.
    """
    requests = ({"code": program.code, "language": program.language.name} for _ in runs)
    batch = executor.as_finished(requests, concurrency=callers, max_runs_per_sandbox=REUSES)
    start, done = time.perf_counter(), 0
    async with contextlib.aclosing(batch) as results:
        async for _, result in results:
            _require(result.stdout_bytes, program.output, result.error)
            done += 1
    return done / (time.perf_counter() - start)


def _require(output: bytes, expected: bytes, why: str | None) -> None:
    if output != expected:
        shown = output[:500].decode(errors="replace")
        raise HostFailure(f"what was measured did not print what it should\n{why or shown}")


async def beside_warm(
    program: Program,
    others: Iterable[Way],
    rounds: Iterable[object],
    executor: CodeExecutor,
    *,
    warm_up: bool = True,
) -> tuple[Series, ...]:
    """Milliseconds from the call to the result, one caller: the others, and the executor's warm stock.

    Whoever asks for one run at a time finds the stock full again, and nothing else going on; so
    before every figure, also those of the others, that is waited for.
    """
    ways = [*others, Way(WARM, functools.partial(run_fresh, executor, program))]
    settle = functools.partial(executor.warm, [program.language.name], timeout=WARM_TIMEOUT_S)
    return await interleaved(ways, rounds, settle=settle, warm_up=warm_up)


def sustained(program: Program, callers: int, seconds: float) -> Iterator[Way]:
    """Runs a second by so many callers: ``docker run`` if it is there, fresh sandboxes, reused ones."""

    def runs() -> Iterator[int]:
        return within(seconds, least=callers, most=1_000_000)

    async def containers() -> float:
        return await at_once(callers, runs(), lambda: run_command(command or [], program.output))

    async def fresh() -> float:
        async with CodeExecutor() as executor:  # its stock is empty: what counts is what can be kept up
            return await at_once(callers, runs(), lambda: run_fresh(executor, program))

    async def reused() -> float:
        async with CodeExecutor() as executor:
            return await run_reusing(executor, program, callers, runs())

    command = docker_run(program)
    if command is not None:
        yield Way(DOCKER_RUN, containers, "/s")
    yield Way(FRESH, fresh, "/s")
    yield Way(REUSED, reused, "/s")


def interpreter(language: Language) -> str:
    """What a person would call, without what our workers need: ``python``, ``node``, ``ts-node``."""
    words = (word for word in reversed(language.command) if not word.startswith((GUEST_DIR, "-")))
    return posixpath.basename(next(words, ""))


def references(program: Program) -> Iterator[Way]:
    """What else runs the program on this machine, once: ``docker run``, and the bare interpreter."""
    bare_name = f"bare {interpreter(program.language)}"
    for name, command in ((DOCKER_RUN, docker_run(program)), (bare_name, bare(program))):
        if command is not None:
            yield Way(name, functools.partial(run_command, command, program.output))


def docker_run(program: Program) -> list[str] | None:
    """``docker run`` with the flags of the executor's own container, as far as the command has them.

    ``None`` where there is no docker command, or no telling how the interpreter takes a program.
    """
    language = program.language
    name = interpreter(language)
    if name not in _INLINE or shutil.which("docker") is None:
        return None
    return ["docker", "run", "--rm", *_flags(language), language.image, name, _INLINE[name], program.code]


def _flags(language: Language) -> list[str]:
    spec = container_spec(language, Limits().of_sandbox(language), owner="benchmark", uid=USER_IDS.start)
    host = spec["HostConfig"]
    return [
        "--pull=never", "--read-only", "--network=none", "--security-opt=no-new-privileges", "--cap-drop=ALL",
        f"--memory={host['Memory']}", f"--memory-swap={host['MemorySwap']}", f"--shm-size={host['ShmSize']}",
        f"--cpu-period={host['CpuPeriod']}", f"--cpu-quota={host['CpuQuota']}",
        f"--cpu-shares={host['CpuShares']}", f"--pids-limit={host['PidsLimit']}",
        f"--oom-score-adj={host['OomScoreAdj']}", "--ipc=private", "--cgroupns=private", "--log-driver=none",
        *(f"--dns={server}" for server in host["Dns"]),
        f"--user={spec['User']}", f"--workdir={spec['WorkingDir']}",
        *(f"--tmpfs={path}:{options}" for path, options in host["Tmpfs"].items()),
        *(f"--ulimit={each['Name']}={each['Soft']}:{each['Hard']}" for each in host["Ulimits"]),
        *(f"--env={variable}" for variable in spec["Env"]),
    ]  # fmt: skip


def bare(program: Program) -> list[str] | None:
    """The program on this machine's own interpreter, without any sandbox, if it has one."""
    name = interpreter(program.language)
    # Not the "python" on the path: that may be a script which looks for the interpreter first.
    path = sys.executable if name == "python" else shutil.which(name)
    if path is None or name not in _INLINE:
        return None
    return [path, _INLINE[name], program.code]


def circumstances(engine: EngineInfo) -> dict[str, str]:
    """What a figure depends on, apart from what was measured."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "codeforge": __version__,
        engine.name.lower(): engine.version,
        "kernel": engine.kernel,
        "python": platform.python_version(),
        "cpus": str(engine.cpus),
    }


def load() -> str:
    """The machine's load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{average:.2f}" for average in os.getloadavg())
