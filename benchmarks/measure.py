"""What the benchmarks share: medians and percentiles, and the circumstances that a figure needs."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Sequence

from codeforge import CodeExecutor, __version__


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(values: Sequence[float]) -> str:
    """``median (p95)`` in milliseconds, of seconds."""
    return f"{statistics.median(values) * 1000:7.1f} ms  (p95 {percentile(values, 0.95) * 1000:7.1f})"


async def circumstances() -> str:
    """Date, versions and load, for the head of every table."""
    async with CodeExecutor() as executor:
        info = await executor.engine_info()
    return (
        f"{datetime.date.today()}, codeforge {__version__}, Docker {info.version}, kernel {info.kernel}, "
        f"Python {platform.python_version()}, {info.cpus} CPUs, loadavg {os.getloadavg()[0]:.2f}"
    )
