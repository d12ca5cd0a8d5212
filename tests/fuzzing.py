"""How many examples property tests generate: few by default, many with ``CODEFORGE_FUZZ=long``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

LONG = os.environ.get("CODEFORGE_FUZZ") == "long"
LONGER = 40


def examples(count: int, *, steps: int = 50) -> settings:
    """Settings for ``count`` examples (times ``LONGER`` in a long run) and, for state machines, ``steps``."""
    return settings(
        max_examples=count * (LONGER if LONG else 1),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
