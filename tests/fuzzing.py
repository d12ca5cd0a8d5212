"""How much is tried where inputs are made up: little by default, much with ``CODEFORGE_FUZZ=long``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

LONG = os.environ.get("CODEFORGE_FUZZ") == "long"
LONGER = 40


def examples(count: int, *, steps: int = 50) -> settings:
    """So many examples, and ``LONGER`` times as many in a long run; ``steps`` for what goes step by step."""
    return settings(
        max_examples=count * (LONGER if LONG else 1),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
