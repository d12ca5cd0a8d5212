"""Results: what a run returns. The host decides the verdicts in it."""

from __future__ import annotations

import base64
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from codeforge.protocol import Exited


class KillReason(enum.StrEnum):
    """Why the host stopped a run or a cell; there is no other reason."""

    DEADLINE = "deadline"
    """Its time was up, by the host's clock."""
    FLOOD = "flood"
    """It wrote too much to one stream, by the host's count."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about the end of a run, and who reported it.

    Attributes:
        exited: how init reported the end, from what the kernel told it; ``None``: it reported nothing.
        killed: why the host stopped the run, if it did.
        oom_event: whether the engine reported an out-of-memory kill in this sandbox.
        stdout_bytes, stderr_bytes: how much was written, kept or not.
    """

    exited: Exited | None
    killed: KillReason | None
    oom_event: bool
    stdout_bytes: int = 0
    stderr_bytes: int = 0

    @property
    def oom_kills(self) -> int:
        """How many processes the kernel killed for lack of memory, by its own counter."""
        return self.exited.oom_kills if self.exited else 0

    @property
    def pids_refused(self) -> int:
        """How many processes and threads above the limit the kernel refused, by its own counter."""
        return self.exited.pids_refused if self.exited else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence as values that ``json.dumps`` takes."""
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
    """The kernel killed it, or a child of it, for lack of memory."""
    KILLED = "killed"
    """A signal ended it, from any sender; ``signal`` has the number."""
    OUTPUT_LIMIT = "output_limit"
    """It flooded stdout or stderr and the host killed it."""


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """One test, as the test runner inside the sandbox reports it. The program could forge this report."""

    __test__ = False  # the name looks like a test class to pytest

    name: str
    outcome: Literal["passed", "failed", "error", "skipped"]
    duration: float
    """Seconds."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of output, as it came. ``text`` has whole characters only."""

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
        exit_code: the program's exit code, 0 to 255; ``None`` if a signal ended it.
        signal: the number of the signal that ended it, or ``None``.
        error: why it failed, for people to read; ``None`` if it did not fail.
        stdout_bytes, stderr_bytes: what it wrote, byte for byte, up to the limit.
        truncated: whether more was written than was kept.
        files: what it wrote under /code, by relative path.
        files_skipped: what it left there that is not in ``files``, by path, and why.
        execution_time: wall-clock seconds, from the program's start to its end.
        cpu_time: CPU seconds, user and system, of all its processes.
        memory_used: peak bytes of the whole sandbox.
        container_id: the engine's name for the sandbox that it ran in.
        evidence: what the verdict is based on.
        posture: what the kernel reported about the sandbox; docs/protocol.md has the fields.
        tests: the outcome of each test, from ``execute_with_tests``.
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
        """``stdout_bytes`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """``stderr_bytes`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def output(self) -> str:
        """The same as ``stdout``."""
        return self.stdout

    @property
    def timed_out(self) -> bool:
        """Whether the host stopped it at its deadline."""
        return self.status is Status.TIMEOUT

    @property
    def oom_killed(self) -> bool:
        """Whether the kernel killed it, or a child of it, for lack of memory."""
        return self.status is Status.OUT_OF_MEMORY

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that ``json.dumps`` takes, whatever the program wrote.

        Output that is not UTF-8 is there twice: readable under ``stdout``, exact under
        ``stdout_base64`` (likewise for stderr). Files are base64.
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
