"""Run AI-written Python, JavaScript and TypeScript in fresh, locked-down sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge._version import __version__
from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.blocking import BlockingCodeExecutor, BlockingSession, DockerCodeExecutor
    from codeforge.errors import (
        Busy,
        CannotFork,
        CodeForgeError,
        FileError,
        HostFailure,
        InvalidRequest,
        SessionEnded,
    )
    from codeforge.executor import CodeExecutor
    from codeforge.model import (
        LANGUAGES,
        CellError,
        CellOutput,
        CellResult,
        CellStatus,
        Event,
        Evidence,
        ExecutionRequest,
        ExecutionResult,
        Finished,
        KillReason,
        Language,
        MimeBundle,
        Output,
        Status,
        TestOutcome,
        TestRunner,
    )
    from codeforge.sessions import Session

__all__ = [
    "LANGUAGES",
    "BlockingCodeExecutor",
    "BlockingSession",
    "Busy",
    "CannotFork",
    "CellError",
    "CellOutput",
    "CellResult",
    "CellStatus",
    "CodeExecutor",
    "CodeForgeError",
    "DockerCodeExecutor",
    "Event",
    "Evidence",
    "ExecutionRequest",
    "ExecutionResult",
    "FileError",
    "Finished",
    "HostFailure",
    "InvalidRequest",
    "KillReason",
    "Language",
    "MimeBundle",
    "Output",
    "Session",
    "SessionEnded",
    "Status",
    "TestOutcome",
    "TestRunner",
    "__version__",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_exports(
        __name__,
        blocking="BlockingCodeExecutor BlockingSession DockerCodeExecutor",
        errors="Busy CannotFork CodeForgeError FileError HostFailure InvalidRequest SessionEnded",
        executor="CodeExecutor",
        model=(
            "CellError CellOutput CellResult CellStatus Event Evidence ExecutionRequest ExecutionResult "
            "Finished KillReason LANGUAGES Language MimeBundle Output Status TestOutcome TestRunner"
        ),
        sessions="Session",
    )
