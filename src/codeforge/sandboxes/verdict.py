"""Verdicts: how a run ended, from what the host knows. Pure.

The host's own clock and its own kill record, and the engine's out-of-memory event, decide; what
init reports (exit code or signal, the cgroup's counters) fills in the rest. Nothing that the program
prints or returns can make itself a timeout or an out-of-memory.
"""

from __future__ import annotations

import signal

from codeforge.model import (
    MAX_MEMORY_BYTES,
    MAX_TIMEOUT_S,
    Evidence,
    KillReason,
    Limits,
    Status,
    format_memory,
)

ERROR_TAIL_CHARS = 2000
"""How much of stderr an error message for a person quotes."""


def decide(evidence: Evidence) -> Status:
    """The status of a run that ended this way.

    An out-of-memory kill comes first: it explains what followed, even if the program's first
    process went on, or the deadline came before the end.
    """
    if evidence.oom_event:
        return Status.OUT_OF_MEMORY
    if evidence.killed is KillReason.DEADLINE:
        return Status.TIMEOUT
    if evidence.killed is KillReason.FLOOD:
        return Status.OUTPUT_LIMIT
    if evidence.exited is None or evidence.exited.signal is not None:
        return Status.KILLED
    return Status.OK if evidence.exited.exit_code == 0 else Status.ERROR


def explain(status: Status, evidence: Evidence, limits: Limits, stderr: str) -> str | None:
    """Why it failed, for a person, with what to do next; ``None`` if it did not."""
    match status:
        case Status.OK:
            return None
        case Status.OUT_OF_MEMORY:
            now, more = (
                format_memory(limits.memory_bytes),
                format_memory(min(2 * limits.memory_bytes, MAX_MEMORY_BYTES)),
            )
            return (
                "container killed (OOMKilled)\n"
                f"The memory limit was {now}; increase it: memory_limit={more!r}"
            )
        case Status.TIMEOUT:
            longer = min(2 * limits.timeout_s, MAX_TIMEOUT_S)
            return f"timed out after {limits.timeout_s:g} s\nGive it longer: timeout={longer:g}"
        case Status.OUTPUT_LIMIT:
            return f"ended: it wrote more than {format_memory(limits.flood_bytes)} to one stream"
        case Status.KILLED:
            number = evidence.exited.signal if evidence.exited else None
            reason = f"killed by {_signal_name(number)}"
        case Status.ERROR:
            code = evidence.exited.exit_code if evidence.exited else None
            reason = f"exited with code {code}"
    tail = stderr.strip()[-ERROR_TAIL_CHARS:]
    return f"{reason}:\n{tail}" if tail else reason


def _signal_name(number: int | None) -> str:
    if number is None:
        return "a signal"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
