"""Run AI-written Python, JavaScript and TypeScript in fresh, locked-down containers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from codeforge._version import __version__

if TYPE_CHECKING:
    from codeforge.blocking import BlockingCodeExecutor, DockerCodeExecutor
    from codeforge.errors import CodeForgeError, HostFailure, InvalidRequest
    from codeforge.evidence import Evidence, KillReason
    from codeforge.executor import CodeExecutor
    from codeforge.languages import LANGUAGES, Language, TestRunner
    from codeforge.request import ExecutionRequest
    from codeforge.result import Event, ExecutionResult, Finished, Output, Status, TestOutcome

__all__ = [
    "LANGUAGES",
    "BlockingCodeExecutor",
    "CodeExecutor",
    "CodeForgeError",
    "DockerCodeExecutor",
    "Event",
    "Evidence",
    "ExecutionRequest",
    "ExecutionResult",
    "Finished",
    "HostFailure",
    "InvalidRequest",
    "KillReason",
    "Language",
    "Output",
    "Status",
    "TestOutcome",
    "TestRunner",
    "__version__",
]

_HOME = {
    "BlockingCodeExecutor": "blocking",
    "DockerCodeExecutor": "blocking",
    "CodeForgeError": "errors",
    "HostFailure": "errors",
    "InvalidRequest": "errors",
    "Evidence": "evidence",
    "KillReason": "evidence",
    "CodeExecutor": "executor",
    "LANGUAGES": "languages",
    "Language": "languages",
    "TestRunner": "languages",
    "ExecutionRequest": "request",
    "Event": "result",
    "ExecutionResult": "result",
    "Finished": "result",
    "Output": "result",
    "Status": "result",
    "TestOutcome": "result",
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``codeforge --version`` need not wait for an HTTP client."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"codeforge.{_HOME[name]}"), name)
