"""Looking at the engine from outside, as the contract tests need it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from observer import OBSERVER, Executor


def docker(*arguments: str) -> str:
    """What ``docker ARGUMENTS`` prints: for tests of Docker alone."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


SHARED: list[Executor] = []
"""Executors that many tests share: their stock comes and goes."""


def sandboxes(*, all_states: bool = True) -> set[str]:
    """Ids of all sandboxes on the engine, but for the shared executors'."""
    # The shared ones last: one that is made meanwhile must be among them.
    found = OBSERVER.all(running=not all_states)
    return found.difference(*(OBSERVER.of(executor) for executor in SHARED))


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
