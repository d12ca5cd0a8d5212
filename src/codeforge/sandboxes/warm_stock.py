"""The stock of warm sandboxes: how many the pool has of each kind, and how many it should have. No I/O.

It learns the demand: a caller that finds no sandbox of its kind raises the kind's target by one. At regular
intervals, half of the sandboxes that were not needed since the last time are discarded.
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
"""A kind that has not been asked for in this time is no longer kept."""

BACKOFF_S = (0.5, 30.0)
"""The first and the longest pause after a failed refill."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A caller that waits in line for a sandbox."""

    shelf: Shelf
    served: asyncio.Future[Sandbox]


@dataclass(eq=False, slots=True)
class Shelf:
    """The sandboxes of one kind that are in stock, and the callers that wait for one.

    Attributes:
        kind: the kind.
        used_s: when it was last asked for, on the event loop's clock.
        target: how many should be ready.
        floor: the least that the target may fall to.
        launching: how many are being launched.
        retry_s: when it may be refilled again, after a failure.
        error: why a launch last failed, if none has succeeded since.
        ready: the sandboxes in stock, each with the task that watches it.
        waiting: the waiters, in their order.
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
    _spare: int = 0  # the fewest that were in stock since the last call of ``tend``
    _failures: int = 0

    @property
    def stocked(self) -> bool:
        """Whether it is refilled. A batch's kind is not: its sandboxes are only kept between runs."""
        return self.kind.batch is None

    @property
    def missing(self) -> int:
        """How many have to be launched to reach the target."""
        return self.target - len(self.ready) - self.launching

    def is_warm(self, count: int) -> bool:
        """Whether ``count`` are ready for a run, and none has anything left to preload."""
        done = [s for s in self.ready if not s.stepping and s.steps_left == s.named_left]
        return count <= len(done) == len(self.ready) and self.to_preload() is None

    @property
    def unused(self) -> bool:
        """Whether it can be dropped without losing anything."""
        return not (self.target or self.launching or self.ready or self.waiting)

    def best(self, *, named: bool = False) -> Sandbox:
        """The best one for a run; ``named``: the run needs the named steps, which half of them have done."""
        left = 0 if named else len(self.kind.language.preload_named)

        def wait(sandbox: Sandbox) -> tuple[bool, bool, int]:
            return sandbox.stepping, sandbox.steps_left > left, abs(sandbox.steps_left - left)

        return min(self.ready, key=wait)

    def to_preload(self) -> Sandbox | None:
        """The sandbox that should do its next step: all do the plain steps, half of them the named ones."""
        named = len(self.kind.language.preload_named)
        resting = [s for s in self.ready if s.steps_left and not s.stepping]
        plain = [s for s in resting if s.steps_left > s.named_left]
        deep = sum(s.named_left < named for s in self.ready)
        begun = [s for s in resting if s.steps_left < named]
        to_begin = resting if deep < (len(self.ready) + 1) // 2 else []
        return min(plain or begun or to_begin, key=lambda sandbox: sandbox.steps_left, default=None)

    def worst(self) -> Sandbox:
        """The one to discard first: it has preloaded least."""
        return max(self.ready, key=lambda sandbox: sandbox.steps_left)

    def remove(self, sandbox: Sandbox) -> asyncio.Task[None]:
        """Take one out of stock; returns the task that watched it, which has been cancelled."""
        watching = self.ready.pop(sandbox)
        watching.cancel()
        self._spare = min(self._spare, len(self.ready))
        return watching

    def ask(self, now_s: float, max_target: int) -> None:
        """Count a caller that wants one; raises the target, up to ``max_target``, if none is ready."""
        self.used_s = now_s
        if self.stocked:
            wanted = self.target + (not self.ready)
            self.target = max(self.floor, min(max_target, max(1, wanted)))

    def tend(self, now_s: float) -> None:
        """Lower the target if some were never needed since the last call."""
        if now_s - self.used_s > IDLE_S:
            self.target = self.floor
        elif self._spare > 0:
            self.target = max(self.floor, 1, self.target - (self._spare + 1) // 2)
        self._spare = len(self.ready)

    def failed(self, error: BaseException, now_s: float) -> None:
        """Pause refilling: a launch failed, or a sandbox in stock was lost."""
        self.error = error
        if now_s < self.retry_s:
            return  # the same failure, reported by another sandbox
        first, longest = BACKOFF_S
        pause_s = min(longest, first * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        # At random: executors that have lost the same engine should not all retry at the same time.
        self.retry_s = now_s + pause_s * random.uniform(0.75, 1.25)  # noqa: S311 - no secret

    def succeeded(self) -> None:
        """Forget failures: a caller has got a sandbox."""
        self._failures, self.retry_s, self.error = 0, 0.0, None


class Stock(dict[SandboxKind, Shelf]):
    """The shelves of all kinds, and their common bounds.

    Args:
        max_warm: how many sandboxes may be in stock.
        memory_bytes: how much memory they may take, estimated by ``Language.idle_bytes``.
    """

    def __init__(self, max_warm: int, memory_bytes: int) -> None:
        super().__init__()
        self.max_warm = max_warm
        self._memory_bytes = memory_bytes

    def keep(self, shelf: Shelf, count: int) -> None:
        """Keep at least ``count`` on a shelf.

        Raises:
            InvalidRequest: together with what other shelves keep, that exceeds a bound.
        """
        floors = {other: other.floor for other in self.values()} | {shelf: max(shelf.floor, count)}
        total, memory = sum(floors.values()), _idle_bytes(floors)
        if total > self.max_warm or memory > self._memory_bytes:
            raise InvalidRequest(
                f"{total} sandboxes of about {format_memory(memory)} cannot be kept warm: max_warm is "
                f"{self.max_warm}, and warm_memory {format_memory(self._memory_bytes)}"
            )
        shelf.floor = floors[shelf]
        shelf.target = max(shelf.target, shelf.floor)
        shelf.retry_s, shelf.error = 0.0, None

    def fits(self, shelf: Shelf) -> bool:
        """Whether the bounds allow one more on that shelf."""
        counts = {s: len(s.ready) + s.launching for s in self.values() if s.stocked}
        memory = _idle_bytes(counts) + shelf.kind.language.idle_bytes
        return sum(counts.values()) < self.max_warm and memory <= self._memory_bytes

    def to_refill(self, now_s: float) -> Shelf | None:
        """The shelf to launch a sandbox for: of those below their target, the most recently used."""
        lacking = (s for s in self.values() if s.stocked and s.missing > 0 and s.retry_s <= now_s)
        return max(filter(self.fits, lacking), key=lambda shelf: shelf.used_s, default=None)

    def pause_s(self, now_s: float) -> float | None:
        """How long until the next shelf that is below its target may be refilled again, if one is paused."""
        return min(
            (s.retry_s - now_s for s in self.values() if s.missing > 0 and s.retry_s > now_s), default=None
        )

    def to_discard(self, *, ignore: Shelf) -> Shelf | None:
        """The shelf to discard a sandbox from, so that ``ignore`` has room: the one longest unused."""
        others = (shelf for shelf in self.values() if shelf.ready and shelf is not ignore)
        return min(others, key=lambda shelf: shelf.used_s, default=None)

    def to_preload(self) -> Sandbox | None:
        """The sandbox that should do its next step."""
        found = (shelf.to_preload() for shelf in self.values())
        return next((sandbox for sandbox in found if sandbox is not None), None)


def _idle_bytes(counts: Mapping[Shelf, int]) -> int:
    return sum(count * shelf.kind.language.idle_bytes for shelf, count in counts.items())
