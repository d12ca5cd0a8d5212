"""Keyword arguments that several functions hand on, as types."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import TypedDict

from codeforge.engines.choose import OnChoice
from codeforge.languages import Language


class ExecutorOptions(TypedDict, total=False):
    """The keyword arguments of ``CodeExecutor`` after the three defaults."""

    images: Mapping[str, str] | None
    languages: Iterable[Language]
    engine: str | None
    runtime: str | None
    docker_host: str | None
    allow_unenforced_limits: bool
    on_engine: OnChoice | None
    max_output_bytes: int
    max_files_bytes: int
    max_sandboxes: int
    max_warm: int
    warm_memory: str | int
    max_waiting: int
    session_memory: str | int | None


class RequestOptions(TypedDict, total=False):
    """The fields of ``ExecutionRequest`` after ``code`` and ``language``."""

    timeout: float | None
    memory_limit: str | int | None
    network_enabled: bool
    env_vars: Mapping[str, str] | None
    stdin: str | bytes | AsyncIterable[bytes] | None
    args: Sequence[str]
    files: Mapping[str, str | bytes] | None
    cpu_quota: int | None
    type_check: bool


class SessionOptions(TypedDict, total=False):
    """The keyword arguments of ``CodeExecutor.session`` after ``language``."""

    timeout: float | None
    memory_limit: str | int | None
    cpu_quota: int | None
    network_enabled: bool
    env_vars: Mapping[str, str] | None
    files: Mapping[str, str | bytes] | None
    idle_timeout: float | None
