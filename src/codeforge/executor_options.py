"""The keyword arguments of the executors, and the defaults of requests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypedDict

from codeforge.engines import Engine, OnChoice
from codeforge.model import ExecutionRequest, Language, Limits, Run

DEFAULTS = Limits()

AnyRequest: TypeAlias = ExecutionRequest | Mapping[str, Any] | Run
"""A request, a mapping with its fields, or a request that ``CodeExecutor.validate`` has checked."""


class ExecutorOptions(TypedDict, total=False):
    """The keyword arguments of the executors.

    Sizes are in Docker's notation (``"1g"``) or in bytes. docs/api.md has the defaults.

    Attributes:
        images: language name to image reference, for languages that should use another image.
        languages: the languages that the executor runs; add yours to ``codeforge.LANGUAGES``.
        engine: ``docker``, ``podman``, ``bubblewrap``, or ``auto``, the first of these that answers. Default:
            CODEFORGE_ENGINE, else ``auto``. Or an ``Engine`` instance, which the executor closes;
            then ``runtime``, ``docker_host`` and ``allow_unenforced_limits`` are not allowed.
        runtime: Docker's OCI runtime, such as ``runsc`` (gVisor). Default: CODEFORGE_RUNTIME, else the
            daemon's default.
        docker_host: address of Docker or Podman (``unix:///...``). Default: where their own commands find it.
        allow_unenforced_limits: let bubblewrap run programs even if it cannot limit memory, CPU and processes
            on this machine. Otherwise that is an error.
        on_engine: called with the engine that ``auto`` chose, and with the engines it passed over and why.
        max_output_bytes: how much of stdout, and of stderr, a result keeps.
        max_files_bytes: how much of what a run wrote under /code a result keeps.
        max_sandboxes: how many sandboxes may exist at once; further callers wait in a queue.
        max_warm: how many of them may be kept ready for future runs; 0 keeps none.
        warm_memory: how much memory the ready ones may take.
        max_waiting: how many callers may wait in the queue; one more gets ``Busy``.
        session_memory: how much the memory limits of all sessions may add up to; one more session gets
            ``Busy``. Default: three quarters of the machine's memory.
    """

    images: Mapping[str, str] | None
    languages: Iterable[Language]
    engine: str | Engine | None
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


def machine_memory() -> int:
    """Return the size of this machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
