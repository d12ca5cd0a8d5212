"""Time limits for a busy machine."""

from __future__ import annotations

import os


def scaled(seconds: float) -> float:
    """Return the limit of an idle machine, multiplied by the number of processes that compete for a core."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
