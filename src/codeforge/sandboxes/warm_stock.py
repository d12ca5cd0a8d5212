"""The stock: what the pool has, and wants to have, of each kind of sandbox. No I/O here.

Demand is learned: each caller who finds nothing raises the target by one, and what was left over all
the time since the last look is half given up.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from codeforge.errors import InvalidRequest
from codeforge.model import format_memory
from codeforge.sandboxes.kind import SandboxKind
from codeforge.sandboxes.sandbox import Sandbox

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


class Stock(dict[SandboxKind, Shelf]):
    """The shelves of all kinds, and what may be on them together.

    Args:
        max_warm: sandboxes.
        memory_bytes: what they may hold, by their languages' ``idle_bytes``.
    """

    def __init__(self, max_warm: int, memory_bytes: int) -> None:
        super().__init__()
        self.max_warm = max_warm
        self._memory_bytes = memory_bytes

    def keep(self, shelf: Shelf, count: int) -> None:
        """Have the shelf's target not fall below ``count``.

        Raises:
            InvalidRequest: with all that is to be kept already, it is more than may be.
        """
        floors = {other: other.floor for other in self.values()} | {shelf: max(shelf.floor, count)}
        total, memory = sum(floors.values()), _idle_bytes(floors)
        if total > self.max_warm or memory > self._memory_bytes:
            raise InvalidRequest(
                f"{total} sandboxes that hold about {format_memory(memory)} cannot be kept warm: max_warm is "
                f"{self.max_warm}, and warm_memory {format_memory(self._memory_bytes)}"
            )
        shelf.floor = floors[shelf]
        shelf.target = max(shelf.target, shelf.floor)
        shelf.retry_s, shelf.error = 0.0, None

    def fits(self, shelf: Shelf) -> bool:
        """Whether there may be one more of that kind."""
        there = {s: len(s.ready) + s.launching for s in self.values() if s.stocked}
        memory = _idle_bytes(there) + shelf.kind.language.idle_bytes
        return sum(there.values()) < self.max_warm and memory <= self._memory_bytes

    def to_refill(self, now_s: float) -> Shelf | None:
        """The shelf that lacks a sandbox, the one used last first."""
        lacking = (s for s in self.values() if s.stocked and s.missing > 0 and s.retry_s <= now_s)
        return max(filter(self.fits, lacking), key=lambda shelf: shelf.used_s, default=None)

    def pause_s(self, now_s: float) -> float | None:
        """How long until a shelf that lacks a sandbox may be tried again, if any waits for that."""
        return min(
            (s.retry_s - now_s for s in self.values() if s.missing > 0 and s.retry_s > now_s), default=None
        )

    def to_give_up(self, *, beside: Shelf) -> Shelf | None:
        """The shelf to take one from, if another kind needs the room: the one longest unused."""
        others = (shelf for shelf in self.values() if shelf.ready and shelf is not beside)
        return min(others, key=lambda shelf: shelf.used_s, default=None)

    def to_preload(self) -> Sandbox | None:
        """The sandbox whose worker is to do its next step."""
        found = (shelf.to_preload() for shelf in self.values())
        return next((sandbox for sandbox in found if sandbox is not None), None)


def _idle_bytes(counts: Mapping[Shelf, int]) -> int:
    return sum(count * shelf.kind.language.idle_bytes for shelf, count in counts.items())
