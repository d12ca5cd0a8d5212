"""The keyword arguments of the methods that run something, for ``**options: Unpack[...]``.

Every one of them is a field of ``ExecutionRequest``, which says what it means.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from typing import TypedDict

from codeforge.errors import did_you_mean


class _SandboxOptions(TypedDict, total=False):
    memory_limit: str | int | None
    network_enabled: bool
    env_vars: Mapping[str, str] | None


class _SetupOptions(TypedDict, total=False):
    files: Mapping[str, str | bytes] | None
    cpu_quota: int | None


class ExecuteOptions(_SetupOptions, total=False):
    """The keyword-only arguments of ``execute`` that are fields of ``ExecutionRequest``."""

    stdin: str | bytes | AsyncIterable[bytes] | None
    args: Sequence[str]
    type_check: bool


class RunnerOptions(ExecuteOptions, _SandboxOptions, total=False):
    """The fields of ``ExecutionRequest`` that a test run takes after code, language and timeout.

    The test runner reads ``stdin``; its type check ignores ``type_check``.
    """


class RequestOptions(RunnerOptions, total=False):
    """The fields of ``ExecutionRequest`` after ``code`` and ``language``."""

    timeout: float | None


class SessionOptions(_SetupOptions, _SandboxOptions, total=False):
    """The fields of ``ExecutionRequest`` that a session takes after the language."""

    timeout: float | None


def check_options(method: str, options: Mapping[str, object], allowed: frozenset[str]) -> None:
    """Refuse keyword arguments that ``method`` does not take, in the words that Python uses.

    Args:
        method: the method's name.
        options: the keyword arguments it was given.
        allowed: the names it takes: the keys of one of the classes above.

    Raises:
        TypeError: with the nearest name that it takes, if one is near.
    """
    for name in options:
        if name not in allowed:
            raise TypeError(
                f"{method}() got an unexpected keyword argument {name!r}{did_you_mean(name, allowed)}"
            )
