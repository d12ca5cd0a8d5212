"""Time limits that hold on a busy machine, too."""

from __future__ import annotations

import os


def scaled(seconds: float) -> float:
    """A limit that is right on an idle machine, multiplied by how many processes compete for each core."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
