"""Kinds: what makes two sandboxes interchangeable, and what their workers preload."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from codeforge.model import CODE_DIR, Language, Run, SandboxLimits

PRELOAD_FACTOR = 3
"""With a memory limit of less than so many times what preloading takes, nothing is preloaded."""

_IMPORT = re.compile(rb"^[ \t]*(?:import|from)\b.{,1000}", re.MULTILINE)
_WORD = re.compile(rb"\w{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxKind:
    """What makes two sandboxes interchangeable.

    Attributes:
        language: the row.
        limits: those that the sandbox itself has; the others are each run's.
        max_runs: how many runs it may take, one after another.
        steps: what its worker preloads before its first run.
        batch: whose runs it may take, if more than one.
        session: its worker is a session's interpreter, and no run comes into it.
    """

    language: Language
    limits: SandboxLimits
    max_runs: int = 1
    steps: tuple[str, ...] = ()
    batch: int | None = None
    session: bool = False

    @classmethod
    def of(cls, run: Run, *, batch: int | None = None, max_runs: int = 1) -> SandboxKind:
        """What such a run needs; with ``max_runs`` above 1, for more runs like it of the same batch."""
        row, limits = run.language, run.limits.of_sandbox(run.language)
        if max_runs == 1:
            return cls(language=row, limits=limits)
        steps = preload_steps(row, limits) if row.forks else ()
        # An interpreter takes the longer to fork the more it has loaded; and each step is on top of those
        # before it, so that a batch needs few kinds.
        last = max((steps.index(step) + 1 for step in named_steps(run, steps)), default=0)
        steps = steps[:last]
        return cls(language=row, limits=limits, max_runs=max_runs, steps=steps, batch=batch)

    @property
    def command(self) -> tuple[str, ...]:
        """Argv of its worker."""
        row = self.language
        return row.session if self.session else (*row.command, f"{CODE_DIR}/{row.file}")

    @property
    def template(self) -> bool:
        """Whether its worker forks the runs, or there is a new one for each."""
        return self.max_runs > 1 and self.language.forks


def preload_steps(row: Language, limits: SandboxLimits) -> tuple[str, ...]:
    """What a worker of that language does beforehand, if it takes nothing that its run may need."""
    enough = limits.memory_bytes >= PRELOAD_FACTOR * row.idle_bytes
    return (*row.preload, *row.preload_named) if enough else ()


def named_steps(run: Run, steps: Iterable[str]) -> tuple[str, ...]:
    """Those of the steps of which a word occurs where the program, or a file beside it, imports something."""
    lines = itertools.chain.from_iterable(_IMPORT.findall(text) for text in run.files.values())
    words = {word.decode(errors="replace") for line in lines for word in _WORD.findall(line)}
    return tuple(step for step in steps if not words.isdisjoint(step.split()))
