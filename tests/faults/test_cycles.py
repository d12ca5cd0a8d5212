"""Many sandboxes are launched and killed: nothing accumulates, in the daemon or in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from faults.conftest import WITHIN_S
from faults.second_daemon import SecondDaemon, grown
from faults.support import HELLO, Stage, play

pytestmark = pytest.mark.docker

CYCLES = int(os.environ.get("CODEFORGE_TEST_CYCLES", "120"))
WARM_UP = 24
GROWTH_MIB = 24


def test_nothing_accumulates_over_many_killed_sandboxes(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await _cycles(stage, WARM_UP)
        before, host, engine = daemon.holdings(), _memory_mib(), daemon.memory_mib()
        await _cycles(stage, CYCLES)
        await stage.until(lambda: not grown(before, daemon), WITHIN_S)
        assert daemon.memory_mib() - engine < GROWTH_MIB + CYCLES // 20
        assert _memory_mib() - host < GROWTH_MIB

    play(scenario, daemon, tmp_path, max_sandboxes=8, max_warm=0)


async def _cycles(stage: Stage, count: int) -> None:
    """Some are killed while they launch, some while they run, some at their deadline, and some not."""
    room = asyncio.Semaphore(8)

    async def cycle(number: int) -> None:
        async with room:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout((0.05, 0.3, 20, 20)[number % 4]):
                    code = "while True: pass" if number % 4 < 3 else HELLO
                    await stage.executor.execute(f"{code}\n# {count}, {number}", timeout=0.2)

    await asyncio.gather(*map(cycle, range(count)))
    await stage.until(lambda: not stage.executor.get_stats()["sandboxes"], WITHIN_S)


def _memory_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
