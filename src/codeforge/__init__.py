"""Run AI-written Python, JavaScript and TypeScript in fresh, locked-down containers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from codeforge._version import __version__

if TYPE_CHECKING:
    from codeforge.blocking import BlockingCodeExecutor, DockerCodeExecutor
    from codeforge.blocking_session import BlockingSession
    from codeforge.cells import CellError, CellOutput, CellResult, CellStatus, MimeBundle
    from codeforge.errors import (
        Busy,
        CannotFork,
        CodeForgeError,
        FileError,
        HostFailure,
        InvalidRequest,
        SessionEnded,
    )
    from codeforge.evidence import Evidence, KillReason
    from codeforge.executor import CodeExecutor
    from codeforge.languages import LANGUAGES, Language, TestRunner
    from codeforge.request import ExecutionRequest
    from codeforge.result import Event, ExecutionResult, Finished, Output, Status, TestOutcome
    from codeforge.session import Session

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

_HOME = {
    "BlockingCodeExecutor": "blocking",
    "BlockingSession": "blocking_session",
    "DockerCodeExecutor": "blocking",
    "CellError": "cells",
    "CellOutput": "cells",
    "CellResult": "cells",
    "CellStatus": "cells",
    "MimeBundle": "cells",
    "Busy": "errors",
    "CannotFork": "errors",
    "CodeForgeError": "errors",
    "FileError": "errors",
    "HostFailure": "errors",
    "InvalidRequest": "errors",
    "SessionEnded": "errors",
    "Evidence": "evidence",
    "KillReason": "evidence",
    "CodeExecutor": "executor",
    "Language": "languages",
    "LANGUAGES": "languages",
    "TestRunner": "languages",
    "ExecutionRequest": "request",
    "Event": "result",
    "ExecutionResult": "result",
    "Finished": "result",
    "Output": "result",
    "Status": "result",
    "TestOutcome": "result",
    "Session": "session",
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``codeforge --version`` need not wait for an HTTP client."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"codeforge.{_HOME[name]}"), name)
