"""Kinds of sandboxes: two of one kind are interchangeable."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from codeforge.model import CODE_DIR, Language, Run, SandboxLimits

PRELOAD_FACTOR = 3
"""Nothing is preloaded if the memory limit is less than this many times what preloading takes."""

_IMPORT = re.compile(rb"^[ \t]*(?:import|from)\b.{,1000}", re.MULTILINE)
_WORD = re.compile(rb"\w{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxKind:
    """A kind of sandbox: what decides whether a run may take one that is in stock.

    Attributes:
        language: what it runs.
        limits: what bounds it.
        max_runs: how many runs it may take, one after another.
        steps: what its worker preloads before its first run.
        batch: the batch whose runs it takes, if it takes more than one.
        session: whether it is for a session: then its worker is the session's interpreter.
    """

    language: Language
    limits: SandboxLimits
    max_runs: int = 1
    steps: tuple[str, ...] = ()
    batch: int | None = None
    session: bool = False

    @classmethod
    def of(cls, run: Run, *, batch: int | None = None, max_runs: int = 1) -> SandboxKind:
        """The kind that a run needs; with ``max_runs`` above 1, for several such runs of one batch."""
        row, limits = run.language, run.limits.of_sandbox(run.language)
        if max_runs == 1:
            return cls(language=row, limits=limits)
        steps = preload_steps(row, limits) if row.forks else ()
        # Only up to the last step that the run names: the more an interpreter has loaded, the longer it takes
        # to fork. And only prefixes of the steps, so that a batch needs few kinds.
        last = max((steps.index(step) + 1 for step in named_steps(run, steps)), default=0)
        steps = steps[:last]
        return cls(language=row, limits=limits, max_runs=max_runs, steps=steps, batch=batch)

    @property
    def command(self) -> tuple[str, ...]:
        """The argv of its worker."""
        row = self.language
        return row.session if self.session else (*row.command, f"{CODE_DIR}/{row.file}")

    @property
    def template(self) -> bool:
        """Whether its worker forks a process for each run, rather than being replaced after each."""
        return self.max_runs > 1 and self.language.forks


def preload_steps(row: Language, limits: SandboxLimits) -> tuple[str, ...]:
    """The steps that a worker preloads; none if they would take memory that the run may need."""
    enough = limits.memory_bytes >= PRELOAD_FACTOR * row.idle_bytes
    return (*row.preload, *row.preload_named) if enough else ()


def named_steps(run: Run, steps: Iterable[str]) -> tuple[str, ...]:
    """The steps with a word that occurs in an import of the program or of a file beside it."""
    lines = itertools.chain.from_iterable(_IMPORT.findall(text) for text in run.files.values())
    words = {word.decode(errors="replace") for line in lines for word in _WORD.findall(line)}
    return tuple(step for step in steps if not words.isdisjoint(step.split()))
