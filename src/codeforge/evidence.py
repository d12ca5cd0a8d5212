"""Evidence: what the host knows about how a run ended. Verdicts are made of nothing else."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from codeforge.wire import Exited


class KillReason(enum.StrEnum):
    """Why the host ended a run."""

    DEADLINE = "deadline"
    """Its time was up, on the host's clock."""
    FLOOD = "flood"
    """It wrote too much, by the host's count."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about an end, and who says so.

    Attributes:
        exited: init's report of what the kernel told it; ``None`` if init did not get to make one.
        killed: why the host ended it, if it did.
        oom_event: whether the engine reported an out-of-memory kill in this sandbox.
        stdout_bytes, stderr_bytes: how much came out, with what was not kept.
    """

    exited: Exited | None
    killed: KillReason | None
    oom_event: bool
    stdout_bytes: int = 0
    stderr_bytes: int = 0

    @property
    def oom_kills(self) -> int:
        """Processes that the kernel killed for want of memory, by its own counter."""
        return self.exited.oom_kills if self.exited else 0

    @property
    def pids_refused(self) -> int:
        """Processes and threads that the kernel refused above the limit, by its own counter."""
        return self.exited.pids_refused if self.exited else 0

    def to_dict(self) -> dict[str, Any]:
        """Everything, as values that ``json.dumps`` takes."""
        return {
            "exit_reported": self.exited is not None,
            "killed_by_host": self.killed.value if self.killed else None,
            "oom_event": self.oom_event,
            "oom_kills": self.oom_kills,
            "pids_refused": self.pids_refused,
            "stdout_bytes": self.stdout_bytes,
            "stderr_bytes": self.stderr_bytes,
        }


NOTHING_KNOWN = Evidence(exited=None, killed=None, oom_event=False)
