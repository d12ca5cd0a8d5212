"""Helpers of the contract tests that look at the engine from outside."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator

from codeforge import BlockingCodeExecutor
from codeforge.sandboxes.pool import MAX_WARM
from observer import OBSERVER, Executor


def docker(*arguments: str) -> str:
    """Return the output of ``docker ARGUMENTS``. For tests that run on Docker only."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


SHARED: list[Executor] = []
"""Executors that many tests share; their warm sandboxes come and go at any time."""


@contextlib.contextmanager
def shared_executor(*, warm: bool) -> Iterator[BlockingCodeExecutor]:
    """An executor that many tests share, with a warm stock or without."""
    with BlockingCodeExecutor(max_warm=MAX_WARM if warm else 0) as shared:
        SHARED.append(shared)
        yield shared


def sandboxes(*, all_states: bool = True) -> set[str]:
    """Return the ids of all sandboxes on the engine, except those of the shared executors."""
    # Asked last, so that it includes a sandbox that a shared executor launches meanwhile.
    found = OBSERVER.all(running=not all_states)
    return found.difference(*(OBSERVER.of(executor) for executor in SHARED))


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait until the condition is true; return whether it was within the time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
