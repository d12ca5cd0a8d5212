"""Verdicts: how a run or a cell ended, from what the host knows, and what to tell people. Pure.

The host's clock, the host's record of what it stopped, and the engine's out-of-memory event decide.
What init reports (an exit code or a signal, the kernel's counters) decides the rest. A program cannot
claim a timeout or an out-of-memory kill by what it prints, returns or raises.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codeforge.model import (
    MAX_MEMORY_BYTES,
    MAX_TIMEOUT_S,
    Evidence,
    KillReason,
    Limits,
    Status,
    format_memory,
)

if TYPE_CHECKING:
    from codeforge.model import CellError, CellStatus
    from codeforge.protocol import Ended

OOM_EVENT_WAIT_S = 2.0
"""How long to wait for the engine's out-of-memory event; it comes a little after the kernel's count."""

ERROR_TAIL_CHARS = 2000
"""How much of the end of stderr the error message of a run quotes."""


# --- Runs ------------------------------------------------------------------------------------------------


def decide_run(evidence: Evidence) -> Status:
    """Return the status of a run that ended this way.

    An out-of-memory kill comes first: it explains what followed, even if the program's first
    process went on, or the deadline came before the end.
    """
    if evidence.oom_event:
        return Status.OUT_OF_MEMORY
    match evidence.killed:
        case KillReason.DEADLINE:
            return Status.TIMEOUT
        case KillReason.FLOOD:
            return Status.OUTPUT_LIMIT
    if evidence.exited is None or evidence.exited.signal is not None:
        return Status.KILLED
    return Status.OK if evidence.exited.exit_code == 0 else Status.ERROR


def explain_run(status: Status, evidence: Evidence, limits: Limits, stderr: str) -> str | None:
    """Return why a run failed and what to do next, for people; ``None`` if it did not fail."""
    match status:
        case Status.OK:
            return None
        case Status.OUT_OF_MEMORY:
            limit = format_memory(limits.memory_bytes)
            larger = format_memory(min(2 * limits.memory_bytes, MAX_MEMORY_BYTES))
            return (
                "container killed (OOMKilled)\n"
                f"The memory limit was {limit}; increase it: memory_limit={larger!r}"
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


# --- Cells -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEvidence:
    """What is known about the end of a cell.

    Attributes:
        oom: whether the kernel killed the interpreter because of the memory limit.
        stopped: why the host stopped the cell, if it did.
        interrupted: whether the caller interrupted the cell.
        ended: how the interpreter ended, if it did.
        lost: whether the whole sandbox ended.
        raised: what the cell raised, in its interpreter's words.
    """

    oom: bool = False
    stopped: KillReason | None = None
    interrupted: bool = False
    ended: Ended | None = None
    lost: bool = False
    raised: CellError | None = None

    @property
    def alive(self) -> bool:
        """Whether the interpreter still runs."""
        return self.ended is None and not self.lost


def decide_cell(evidence: CellEvidence) -> CellStatus:
    """Return the status of a cell that ended this way; the order is that of ``decide_run``."""
    from codeforge.model import CellStatus  # here and below: a process without sessions does not need it

    if evidence.oom:
        return CellStatus.OUT_OF_MEMORY
    match evidence.stopped:
        case KillReason.DEADLINE:
            return CellStatus.TIMEOUT
        case KillReason.FLOOD:
            return CellStatus.OUTPUT_LIMIT
    if not evidence.alive:
        return CellStatus.ENDED
    if evidence.raised is None:
        return CellStatus.OK
    return CellStatus.INTERRUPTED if evidence.interrupted else CellStatus.ERROR


def explain_cell(status: CellStatus, evidence: CellEvidence, limits: Limits) -> CellError | None:
    """Return what the cell raised, or what ended it and what to do next; ``None`` if it did not fail."""
    from codeforge.model import CellError, CellStatus

    lost = "; the session's variables are lost: restart() starts a new interpreter"
    if evidence.alive:
        lost = ""
    traceback = evidence.raised.traceback if evidence.raised is not None else ()
    match status:
        case CellStatus.OK:
            return None
        case CellStatus.TIMEOUT:
            return CellError("TimeoutError", f"timed out after {limits.timeout_s:g} s{lost}", traceback)
        case CellStatus.OUTPUT_LIMIT:
            limit = format_memory(limits.flood_bytes)
            return CellError("OutputLimit", f"wrote more than {limit} to one stream{lost}", traceback)
        case CellStatus.OUT_OF_MEMORY:
            limit = format_memory(limits.memory_bytes)
            return CellError("MemoryError", f"out of memory at {limit}; raise memory_limit{lost}")
        case CellStatus.ENDED:
            return CellError("InterpreterEnded", f"{_how_it_ended(evidence.ended)}{lost}")
        case CellStatus.ERROR | CellStatus.INTERRUPTED:
            return evidence.raised


def _how_it_ended(ended: Ended | None) -> str:
    if ended is None:
        return "the interpreter is gone"
    if ended.signal is not None:
        return f"signal {ended.signal} ended the interpreter"
    return f"the interpreter ended with exit code {ended.exit_code}"
