"""Times several ways to run a program, in turn.

Figures can be compared only within one run: the time to start a container depends on the machine, the engine
and what else is running. So the ways are interleaved, in a random order. They are compared with
``docker run`` and with the interpreter alone.
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
"""Threads that wait for commands. Starting them through asyncio costs a millisecond more."""

_INLINE = {"python": "-c", "node": "-e", "ts-node": "-e"}
"""The option by which an interpreter takes a program as an argument."""

REUSES = 100
"""How many runs of a batch use one sandbox."""

WARM_TIMEOUT_S = 120.0
"""How long warm sandboxes may take to be ready. TypeScript's take seconds."""

PAUSE_S = 0.1
"""The pause before each figure. Work that the previous one left in the background, such as removing its
container, must not slow the next one."""

DOCKER_RUN, COLD, WARM = "docker run", "codeforge, cold", "codeforge, warm"
FRESH, REUSED = "codeforge, fresh", "codeforge, reused"


@dataclass(frozen=True, slots=True)
class Program:
    """The program that every way runs, and the output it must print."""

    language: Language
    code: str
    output: bytes


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a program: ``measure`` runs it once and returns one figure."""

    name: str
    measure: Callable[[], Awaitable[float]]
    unit: str = "ms"


async def _no_wait() -> None:
    pass


async def interleaved(
    ways: Sequence[Way],
    rounds: Iterable[object],
    *,
    settle: Callable[[], Awaitable[object]] = _no_wait,
    warm_up: bool = True,
) -> tuple[Series, ...]:
    """Measure each way once a round.

    Args:
        ways: what to measure.
        rounds: how often; the values are not used.
        settle: awaited before each figure, and not part of it.
        warm_up: whether to run one more round first, which fills caches and does not count.
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


def within(seconds: float, *, at_least: int, at_most: int) -> Iterator[int]:
    """Count rounds until the time is over, but at least ``at_least`` and at most ``at_most`` of them."""
    end = time.monotonic() + seconds
    for number in range(at_most):
        if number >= at_least and time.monotonic() > end:
            return
        yield number


async def runs_per_second(
    callers: int, runs: Iterable[object], work: Callable[[], Awaitable[object]]
) -> float:
    """Do ``work`` once for each of ``runs``, with concurrent callers in loops, and return the rate."""
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
    """Return milliseconds until the last of concurrent callers is done. All of them start together."""
    return callers / await runs_per_second(callers, range(callers), work) * 1000


async def run_command(command: Sequence[str], expected: bytes, env: Mapping[str, str] | None = None) -> float:
    """Run a command, and return milliseconds from its start to its end.

    Raises:
        HostFailure: it did not print ``expected``.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _timed, command, expected, env)


def _timed(command: Sequence[str], expected: bytes, env: Mapping[str, str] | None) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, env=env)
    elapsed = time.perf_counter() - start
    _require(done.stdout, expected, f"{command[0]}: {done.stderr[-500:].decode(errors='replace').strip()}")
    return elapsed * 1000


async def run_fresh(executor: CodeExecutor, program: Program) -> float:
    """Run in a fresh sandbox, and return milliseconds from the call to the result.

    Raises:
        HostFailure: the output is wrong, or the engine or the sandbox failed.
    """
    start = time.perf_counter()
    result = await executor.execute(program.code, program.language.name)
    elapsed = time.perf_counter() - start
    _require(result.stdout_bytes, program.output, result.error)
    return elapsed * 1000


async def run_reusing(
    executor: CodeExecutor, program: Program, callers: int, runs: Iterable[object]
) -> float:
    """Run a batch in reused sandboxes, ``callers`` runs at a time, and return runs a second.

    Raises:
        HostFailure: the output is wrong, or the engine or a sandbox failed.
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
        raise HostFailure(f"the measured program did not print what it should\n{why or shown}")


async def compare_with_warm(
    program: Program,
    others: Iterable[Way],
    rounds: Iterable[object],
    executor: CodeExecutor,
    *,
    warm_up: bool = True,
) -> tuple[Series, ...]:
    """Measure milliseconds from the call to the result, with one caller: other ways, and warm sandboxes.

    Such a caller finds warm sandboxes ready and nothing else running. So every figure, including those of the
    other ways, waits until the executor's warm sandboxes are ready.
    """
    ways = [*others, Way(WARM, functools.partial(run_fresh, executor, program))]
    settle = functools.partial(executor.warm, [program.language.name], timeout=WARM_TIMEOUT_S)
    return await interleaved(ways, rounds, settle=settle, warm_up=warm_up)


def sustained(program: Program, callers: int, seconds: float) -> Iterator[Way]:
    """Yield ways to measure runs a second: ``docker run`` if installed, fresh sandboxes, reused ones."""

    def runs() -> Iterator[int]:
        return within(seconds, at_least=callers, at_most=1_000_000)

    async def containers() -> float:
        return await runs_per_second(callers, runs(), lambda: run_command(command or [], program.output))

    async def fresh() -> float:
        async with CodeExecutor() as executor:  # no warm sandboxes yet: this measures the sustained rate
            return await runs_per_second(callers, runs(), lambda: run_fresh(executor, program))

    async def reused() -> float:
        async with CodeExecutor() as executor:
            return await run_reusing(executor, program, callers, runs())

    command = docker_run(program)
    if command is not None:
        yield Way(DOCKER_RUN, containers, "/s")
    yield Way(FRESH, fresh, "/s")
    yield Way(REUSED, reused, "/s")


def interpreter(language: Language) -> str:
    """Return the command that a person would type: ``python``, ``node``, ``ts-node``."""
    words = (word for word in reversed(language.command) if not word.startswith((GUEST_DIR, "-")))
    return posixpath.basename(next(words, ""))


def references(program: Program) -> Iterator[Way]:
    """Yield other ways to run the program on this machine: ``docker run``, and the bare interpreter."""
    bare_name = f"bare {interpreter(program.language)}"
    for name, command in ((DOCKER_RUN, docker_run(program)), (bare_name, bare(program))):
        if command is not None:
            yield Way(name, functools.partial(run_command, command, program.output))


def docker_run(program: Program) -> list[str] | None:
    """Return ``docker run`` with the flags of the executor's containers, as far as the command has them.

    None if there is no docker command, or if the interpreter's option for a program is unknown.
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
        "--pull=never",
        "--read-only",
        "--network=none",
        "--security-opt=no-new-privileges",
        "--cap-drop=ALL",
        f"--memory={host['Memory']}",
        f"--memory-swap={host['MemorySwap']}",
        f"--shm-size={host['ShmSize']}",
        f"--cpu-period={host['CpuPeriod']}",
        f"--cpu-quota={host['CpuQuota']}",
        f"--cpu-shares={host['CpuShares']}",
        f"--pids-limit={host['PidsLimit']}",
        f"--oom-score-adj={host['OomScoreAdj']}",
        "--ipc=private",
        "--cgroupns=private",
        "--log-driver=none",
        *(f"--dns={server}" for server in host["Dns"]),
        f"--user={spec['User']}",
        f"--workdir={spec['WorkingDir']}",
        *(f"--tmpfs={path}:{options}" for path, options in host["Tmpfs"].items()),
        *(f"--ulimit={each['Name']}={each['Soft']}:{each['Hard']}" for each in host["Ulimits"]),
        *(f"--env={variable}" for variable in spec["Env"]),
    ]


def bare(program: Program) -> list[str] | None:
    """Return a command that runs the program without a sandbox, or None if the interpreter is missing."""
    name = interpreter(program.language)
    # "python" on the path may be a script that first looks for the interpreter.
    path = sys.executable if name == "python" else shutil.which(name)
    if path is None or name not in _INLINE:
        return None
    return [path, _INLINE[name], program.code]


def circumstances(engine: EngineInfo) -> dict[str, str]:
    """Return what the figures depend on: date, versions and machine."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "codeforge": __version__,
        engine.name.lower(): engine.version,
        "kernel": engine.kernel,
        "python": platform.python_version(),
        "cpus": str(engine.cpus),
    }


def load() -> str:
    """Return the machine's load averages over 1, 5 and 15 minutes."""
    return " ".join(f"{average:.2f}" for average in os.getloadavg())
