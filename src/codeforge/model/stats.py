"""Statistics of the runs of one executor."""

from __future__ import annotations

import collections
from typing import Any

from codeforge.model.result import ExecutionResult


class RunStats:
    """Counts finished runs by status and by language."""

    def __init__(self) -> None:
        self._by_status: collections.Counter[str] = collections.Counter()
        self._by_language: collections.Counter[str] = collections.Counter()
        self._run_s = 0.0

    def add(self, language: str, result: ExecutionResult) -> None:
        """Count a run."""
        self._by_status[result.status.value] += 1
        self._by_language[language] += 1
        self._run_s += result.execution_time

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, and the seconds of all runs together."""
        return {
            "runs": self._by_status.total(),
            "by_status": dict(self._by_status),
            "by_language": dict(self._by_language),
            "run_seconds": self._run_s,
        }
