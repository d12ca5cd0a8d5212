"""The stock: what the pool has, and wants to have, of one kind of sandbox. No I/O here.

Demand is learned: each caller who finds nothing raises the target by one, and what was left over all
the time since the last look is half given up.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from dataclasses import dataclass, field

from codeforge.sandbox import Sandbox, SandboxKind

IDLE_S = 300.0
"""A kind that nobody asked for so long is not kept."""

BACKOFF_S = (0.5, 30.0)
"""First and longest pause after a refill failed."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A caller in line."""

    shelf: Shelf
    served: asyncio.Future[Sandbox]


@dataclass(eq=False, slots=True)
class Shelf:
    """One kind.

    Attributes:
        used_s: when somebody last asked for it, on the event loop's clock.
        target: how many are to be ready.
        floor: below which the target does not fall.
        launching: how many are on their way.
        retry_s: when refilling may be tried again.
        error: why it last failed.
        ready: those in stock, each with the task that listens to it.
        waiting: who waits for one, in their order.
    """

    kind: SandboxKind
    used_s: float
    target: int = 0
    floor: int = 0
    launching: int = 0
    retry_s: float = 0.0
    error: BaseException | None = None
    ready: dict[Sandbox, asyncio.Task[None]] = field(default_factory=dict)
    waiting: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)
    _spare: int = 0
    _failures: int = 0

    @property
    def stocked(self) -> bool:
        """Whether it is refilled; what a batch has left over is only kept."""
        return self.kind.batch is None

    @property
    def missing(self) -> int:
        """How many are to be launched to reach the target."""
        return self.target - len(self.ready) - self.launching

    def is_warm(self, count: int) -> bool:
        """Whether so many could take a run at once, and nothing more is to be preloaded."""
        done = [s for s in self.ready if not s.stepping and s.steps_left == s.named_left]
        return count <= len(done) == len(self.ready) and self.to_preload() is None

    @property
    def unused(self) -> bool:
        """Whether nothing would be lost with it."""
        return not (self.target or self.launching or self.ready or self.waiting)

    def best(self, *, named: bool = False) -> Sandbox:
        """The one for a run that does, or does not, name what only half of the stock has preloaded."""
        left = 0 if named else len(self.kind.language.preload_named)

        def wait(sandbox: Sandbox) -> tuple[bool, bool, int]:
            return sandbox.stepping, sandbox.steps_left > left, abs(sandbox.steps_left - left)

        return min(self.ready, key=wait)

    def to_preload(self) -> Sandbox | None:
        """The one whose worker is to do its next step: all do the first ones, half of them the named ones."""
        named = len(self.kind.language.preload_named)
        resting = [s for s in self.ready if s.steps_left and not s.stepping]
        plain = [s for s in resting if s.steps_left > s.named_left]
        deep = sum(s.named_left < named for s in self.ready)
        begun = [s for s in resting if s.steps_left < named]
        to_begin = resting if deep < (len(self.ready) + 1) // 2 else []
        return min(plain or begun or to_begin, key=lambda sandbox: sandbox.steps_left, default=None)

    def worst(self) -> Sandbox:
        """The one to give up first."""
        return max(self.ready, key=lambda sandbox: sandbox.steps_left)

    def remove(self, sandbox: Sandbox) -> asyncio.Task[None]:
        """Take one out; returns the task that listens to it, told to stop."""
        listening = self.ready.pop(sandbox)
        listening.cancel()
        self._spare = min(self._spare, len(self.ready))
        return listening

    def ask(self, now_s: float, most: int) -> None:
        """Somebody wants one."""
        self.used_s = now_s
        if self.stocked:
            wanted = self.target + (not self.ready)
            self.target = max(self.floor, min(most, max(1, wanted)))

    def tend(self, now_s: float) -> None:
        """Want fewer, if there were more than anybody took since the last time."""
        least = 0 if now_s - self.used_s > IDLE_S else 1
        if least == 0:
            self.target = self.floor
        elif self._spare > 0:
            self.target = max(self.floor, least, self.target - (self._spare + 1) // 2)
        self._spare = len(self.ready)

    def failed(self, error: BaseException, now_s: float) -> None:
        """A launch failed, or what it made broke off: do not refill for a while."""
        self.error = error
        if now_s < self.retry_s:
            return  # one failure, of which several hear
        first, longest = BACKOFF_S
        pause_s = min(longest, first * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        # Not all at once, should several executors have lost the same engine.
        self.retry_s = now_s + pause_s * random.uniform(0.75, 1.25)  # noqa: S311

    def succeeded(self) -> None:
        """Somebody got one."""
        self._failures, self.retry_s, self.error = 0, 0.0, None
