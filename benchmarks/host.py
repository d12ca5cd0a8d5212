"""Memory on the host: of idle sandboxes, and of the process that reads a flood of output."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

from measure import Measured, Target, shown
from references import HERE

from codeforge import LANGUAGES, CodeExecutor
from codeforge.bench.figures import Series, Table
from codeforge.bench.measure import WARM_TIMEOUT_S
from codeforge.model.languages import Language
from codeforge.policy import LABEL

CEILING_MB = {"python": 60, "javascript": 45}
INIT_CEILING_MB = 1
GROWTH_CEILING_MB = 32
STOCK = 2
"""How many warm sandboxes an executor keeps by default."""

SAMPLE_S = 0.005
SETTLED_S = 1.0


async def memory(rounds: int) -> AsyncGenerator[Measured, None]:
    """Measure the memory of an idle warm sandbox, and of its init alone, as the kernel's PSS."""
    found: dict[str, list[float]] = {}
    for _ in shown(-(-rounds // 10), "memory"):
        for row in LANGUAGES:
            for name, stock in ((f"{row.name}, alone", 1), (row.name, STOCK)):
                inits, all_of_it = await idle_sandboxes(row, stock)
                found.setdefault(name, []).append(all_of_it)
            found.setdefault(f"{row.name}, init", []).append(inits)
    series = tuple(Series(name, "MB", tuple(values)) for name, values in found.items())
    targets = [Target(name, at_most=ceiling) for name, ceiling in CEILING_MB.items()]
    init_targets = [Target(f"{row.name}, init", at_most=INIT_CEILING_MB) for row in LANGUAGES]
    notes = ("pages that sandboxes share, such as the interpreter's files, count in part for each",)
    title = f"an idle warm sandbox, preloaded: each of {STOCK}, or one alone"
    yield Measured(Table(title, series, notes), (*targets, *init_targets))


async def idle_sandboxes(row: Language, stock: int) -> tuple[float, float]:
    """Return megabytes of init, and of all processes, for each of ``stock`` warm sandboxes."""
    mark = uuid.uuid4().hex  # tells them from other executors' sandboxes
    marked = dataclasses.replace(row, env={**row.env, "BENCHMARK": mark})
    async with CodeExecutor(max_warm=stock, languages=[marked]) as executor:
        await executor.warm(count=stock, timeout=WARM_TIMEOUT_S)
        await asyncio.sleep(SETTLED_S)
        there = docker("ps", "--quiet", "--filter", f"label={LABEL}").split()
        listed = docker("inspect", "--format", "{{.Id}} {{.State.Pid}} {{.Config.Env}}", *there).splitlines()
        ours = [line.split()[:2] for line in listed if mark in line]
        inits = [int(init) for _, init in ours]
        pids = [int(pid) for name, _ in ours for pid in docker("top", name, "-eo", "pid").split()[1:]]
        return sum(map(pss_mb, inits)) / stock, sum(map(pss_mb, pids)) / stock


def docker(*arguments: str) -> str:
    """Return what the docker command prints, even if it fails: a container may be gone meanwhile."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False).stdout


def pss_mb(pid: int) -> float:
    """Return a process's memory in megabytes. A page that several processes share counts in part."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return (
        sum(int(kb) for kb in re.findall(r"^(?:Pss|SwapPss): +(\d+) kB", rollup, re.MULTILINE)) * 1024 / 1e6
    )


async def flood(rounds: int) -> AsyncGenerator[Measured, None]:
    """Measure how much a process that reads floods grows, and how fast the programs write."""
    growth, speeds = [], []
    for _ in shown(-(-rounds // 10), "flood"):
        grown, wrote = await watched_flood()
        growth.append(grown)
        speeds += wrote
    series = (
        Series("growth of the host process", "MB", tuple(growth)),
        Series("written by the program", "MB/s", tuple(speeds)),
    )
    targets = (
        Target("growth of the host process", at_most=GROWTH_CEILING_MB),
        Target("written by the program", at_least=100),
    )
    yield Measured(Table("a program that writes as fast as it can, two cores", series), targets)


async def watched_flood() -> tuple[float, list[float]]:
    """Return the largest growth of flood.py's process in megabytes, and each flood's megabytes a second."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, HERE / "flood.py", stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    before = most = resident_mb(process.pid)
    process.stdin.write(b"go\n")
    answer = asyncio.ensure_future(process.stdout.read())
    while not answer.done():
        most = max(most, resident_mb(process.pid))
        await asyncio.wait({answer}, timeout=SAMPLE_S)
    assert await process.wait() == 0
    return most - before, [float(line) for line in answer.result().split()]


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in megabytes; 0 if it has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6
