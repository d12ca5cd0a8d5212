"""Runs programs that flood stdout, while ``host.flood`` watches this process's memory.

It prints ``ready`` after a first run, waits for a line, and prints each flood's megabytes a second.
"""

from __future__ import annotations

import asyncio
import sys

from programs import FLOOD, HELLO

from codeforge import CodeExecutor, Status
from codeforge.bench.measure import run_fresh
from codeforge.model.limits import CPU_PERIOD_US, Limits

FLOODS = 8


async def main() -> None:
    """Run an ordinary program, then the floods."""
    async with CodeExecutor(max_warm=0) as executor:
        await run_fresh(executor, HELLO)
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(FLOODS):
            # With half a core, the CPU would be the bottleneck.
            result = await executor.execute(FLOOD, cpu_quota=2 * CPU_PERIOD_US)
            assert result.status is Status.OUTPUT_LIMIT, result.error
            print(Limits().flood_bytes / 1e6 / result.execution_time, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
