"""Looking at the engine from outside, as the contract tests need it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from codeforge.policy import LABEL


def docker(*arguments: str) -> str:
    """What ``docker ARGUMENTS`` prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


SHARED: set[str] = set()
"""Labels of executors that many tests share: their stock comes and goes."""


def sandboxes(*, all_states: bool = True) -> set[str]:
    """Ids of all sandboxes on the engine, but for the shared executors'."""
    flags = ["--all"] if all_states else []

    def labelled(label: str) -> set[str]:
        return set(docker("ps", "--quiet", "--no-trunc", *flags, "--filter", f"label={label}").split())

    # The shared ones last: one that is made meanwhile must be among them.
    return labelled(LABEL).difference(*map(labelled, SHARED))


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
