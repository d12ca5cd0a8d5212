"""Results: the value a run gives back. Verdicts in it were made by the host."""

from __future__ import annotations

import base64
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from codeforge.protocol import Exited


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


StreamName: TypeAlias = Literal["stdout", "stderr"]


class Status(enum.StrEnum):
    """How a run ended."""

    OK = "ok"
    """It ended by itself with exit code 0."""
    ERROR = "error"
    """It ended by itself with another exit code."""
    TIMEOUT = "timeout"
    """The host's clock ran out and the host killed it."""
    OUT_OF_MEMORY = "out_of_memory"
    """The kernel killed it, or a child of it, for want of memory."""
    KILLED = "killed"
    """A signal ended it, its own or another's; ``signal`` has the number."""
    OUTPUT_LIMIT = "output_limit"
    """It flooded stdout or stderr and the host killed it."""


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """One test, as the test runner inside the sandbox told it: a report, not proof."""

    __test__ = False  # not a test class, whatever pytest reads into the name

    name: str
    outcome: Literal["passed", "failed", "error", "skipped"]
    duration: float
    """Seconds."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of output, as it came. ``text`` never splits a character."""

    stream: StreamName
    text: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every stream."""

    result: ExecutionResult


Event: TypeAlias = Output | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """What a run did, and how it ended.

    Attributes:
        status: how it ended, decided by the host.
        exit_code: the program's, 0 to 255; ``None`` if a signal ended it.
        signal: number of the signal that ended it, else ``None``.
        error: ``None``, or why it failed, for a person to read.
        stdout_bytes, stderr_bytes: what it wrote, byte for byte, up to the limit.
        truncated: more was written than was kept.
        files: what it wrote under /code, by relative path.
        files_skipped: what it left there that was not brought out, and why.
        execution_time: wall-clock seconds, from the program's start to its end.
        cpu_time: seconds of CPU, user and system, of all its processes.
        memory_used: peak bytes of the whole sandbox.
        container_id: the sandbox it ran in, never used again.
        evidence: what the verdict was made of.
        posture: what the kernel said about the sandbox, field by field: docs/protocol.md.
        tests: per-test outcomes, from ``execute_with_tests``.
    """

    status: Status
    exit_code: int | None
    signal: int | None = None
    error: str | None = None
    stdout_bytes: bytes = b""
    stderr_bytes: bytes = b""
    truncated: bool = False
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    files_skipped: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    execution_time: float = 0.0
    cpu_time: float = 0.0
    memory_used: int = 0
    container_id: str = ""
    evidence: Evidence = NOTHING_KNOWN
    posture: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tests: tuple[TestOutcome, ...] = ()

    @property
    def success(self) -> bool:
        """Whether the program ended by itself with exit code 0."""
        return self.status is Status.OK

    @property
    def stdout(self) -> str:
        """What it wrote to stdout; bytes that are not UTF-8 become U+FFFD (see ``stdout_bytes``)."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """What it wrote to stderr; bytes that are not UTF-8 become U+FFFD (see ``stderr_bytes``)."""
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def output(self) -> str:
        """The same as ``stdout``."""
        return self.stdout

    @property
    def timed_out(self) -> bool:
        """Whether the host's clock ended it."""
        return self.status is Status.TIMEOUT

    @property
    def oom_killed(self) -> bool:
        """Whether the kernel ended it, or a child of it, for want of memory."""
        return self.status is Status.OUT_OF_MEMORY

    def to_dict(self) -> dict[str, Any]:
        """Everything, as values that ``json.dumps`` takes whatever bytes came out.

        Output that is not UTF-8 is there twice: readable under ``stdout``, exact under
        ``stdout_base64``. Files are base64.
        """
        plain: dict[str, Any] = {
            "success": self.success,
            "status": self.status.value,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "error": self.error,
            "output": self.output,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "truncated": self.truncated,
            "timed_out": self.timed_out,
            "oom_killed": self.oom_killed,
            "execution_time": self.execution_time,
            "cpu_time": self.cpu_time,
            "memory_used": self.memory_used,
            "container_id": self.container_id,
            "evidence": self.evidence.to_dict(),
            "posture": dict(self.posture),
            "files": {name: base64.b64encode(data).decode() for name, data in self.files.items()},
            "files_skipped": dict(self.files_skipped),
            "tests": [
                {"name": t.name, "outcome": t.outcome, "duration": t.duration, "message": t.message}
                for t in self.tests
            ],
        }
        for name, data in (("stdout", self.stdout_bytes), ("stderr", self.stderr_bytes)):
            if plain[name].encode() != data:
                plain[f"{name}_base64"] = base64.b64encode(data).decode()
        return plain
