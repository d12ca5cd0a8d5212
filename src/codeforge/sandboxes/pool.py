"""The pool: leases sandboxes, and keeps warm ones in stock.

Theory of operation: a caller never launches. It takes a sandbox of its kind from the stock, or it gets
in line, and launches are made for those in line, in their order. A launched sandbox goes to the first
who waits for its kind, else into the stock. So having no stock, being told to keep none, and a cold
start are the same thing. After a lease a sandbox is destroyed in the background; one that was launched
for a batch, and came out clean, goes where a launched one goes.

``_balance`` decides what to launch, for whom, and what to give up for it; it is called after every
change, and nothing in it waits: all of it happens between two steps of the event loop, which is its
lock. Refilling comes after everybody in line, and a moment after the run that made it necessary.

Rule: every sandbox is counted in ``_alive`` from before its launch until the engine has removed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from codeforge.engines import Engine
from codeforge.errors import Busy, ExecutorClosed, SandboxLost
from codeforge.model import GiB
from codeforge.sandboxes.kind import SandboxKind
from codeforge.sandboxes.sandbox import Sandbox
from codeforge.sandboxes.user_ids import UserIds
from codeforge.sandboxes.warm_stock import Shelf, Stock, Waiter

T = TypeVar("T")

MAX_SANDBOXES = 32
"""At once, by default: 16 GiB of memory limits at 512 MiB each."""

MAX_WARM = 8
"""In stock at most, by default; it grows to that only if callers find it empty."""

WARM_MEMORY_BYTES: int = 1 * GiB
"""What the stock may hold of the machine's memory, by default."""

MAX_WAITING = 10_000
"""In line at most, by default."""

LAUNCHES_AT_ONCE = 8
"""More do not make Docker start more containers in a second; see docs/performance.md."""

REFILLS_AT_ONCE = 2
REFILL_DELAY_S = 0.05
"""A short run is over by then, and had the machine to itself."""

CPUS = os.cpu_count() or 1
"""Beside so many runs nothing is preloaded, and no more than so many sandboxes do at once."""

TEND_S = 10.0
"""How often the stock is looked at for what nobody takes."""


class Pool:
    """Leases sandboxes, first come first served. Belongs to one event loop.

    Args:
        engine: launches them.
        max_sandboxes: at once, whatever they do.
        max_warm: of all kinds together, kept ready for callers to come.
        warm_memory_bytes: what those may hold, by their languages' ``idle_bytes``.
        max_waiting: callers in line.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_sandboxes: int = MAX_SANDBOXES,
        max_warm: int = MAX_WARM,
        warm_memory_bytes: int = WARM_MEMORY_BYTES,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._engine = engine
        self._uids = UserIds()
        self._max_sandboxes = max_sandboxes
        self._max_waiting = max_waiting
        self._stock = Stock(min(max_warm, max_sandboxes), warm_memory_bytes)
        self._line: OrderedDict[Waiter, None] = OrderedDict()
        self._alive = self._launching = self._leaving = self._leased = 0
        self._counts: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._refilling: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._closed = False

    @contextlib.asynccontextmanager
    async def lease(
        self, kind: SandboxKind, *, named: bool = False, at_once: bool = False
    ) -> AsyncIterator[Sandbox]:
        """A sandbox that is ready, for one run or session.

        Args:
            kind: what it must be.
            named: whether one that has preloaded the language's ``preload_named`` would be better.
            at_once: not to wait until another caller is done with his.

        Raises:
            Busy: too many are in line, or, if it is to be at once, as many are leased as may.
            ExecutorClosed: the pool was closed.
            HostFailure: the sandbox could not be launched.
        """
        shelf = self._shelf(kind)
        if at_once and self._leased + len(self._line) >= self._max_sandboxes:
            raise Busy(f"{self._max_sandboxes} sandboxes are in use, as many as may be (max_sandboxes)")
        shelf.ask(asyncio.get_running_loop().time(), self._stock.max_warm)
        self._counts["found_warm" if shelf.ready else "found_none"] += 1
        sandbox = await self._take(shelf, named=named)
        shelf.succeeded()
        self._leased += 1
        try:
            yield sandbox
        finally:
            self._leased -= 1
            self._take_in(sandbox)
            self._balance()

    def keep(self, kind: SandboxKind, count: int) -> None:
        """Have at least ``count`` in stock from now on.

        Raises:
            InvalidRequest: with all that is to be kept already, it is more than may be.
            ExecutorClosed: the pool was closed.
        """
        self._stock.keep(self._shelf(kind), count)
        self._balance()

    async def until_warm(self, kind: SandboxKind, count: int) -> None:
        """Wait until so many are in stock and have preloaded all they can.

        Raises:
            ExecutorClosed: the pool was closed.
            HostFailure: one could not be launched.
        """
        while not (shelf := self._shelf(kind)).is_warm(count):
            if shelf.error is not None:
                raise shelf.error
            await self._change()

    def forget_batch(self, batch: int) -> None:
        """There will be no more runs of that batch."""
        for kind in [kind for kind in self._stock if kind.batch == batch]:
            shelf = self._stock.pop(kind)
            for sandbox in list(shelf.ready):
                self._give_up(shelf, sandbox)

    def stats(self) -> dict[str, int]:
        """Sandboxes now, by what they do, and what leases found since the start."""
        return {
            "sandboxes": self._alive,
            "leased": self._leased,
            "warm": sum(len(shelf.ready) for shelf in self._stock.values()),
            "launching": self._launching,
            "waiting": len(self._line),
            **{name: self._counts[name] for name in ("launched", "found_warm", "found_none")},
        }

    async def close(self) -> None:
        """Lease no more, and end everything. Returns when no sandbox is left."""
        self._closed = True
        if self._refilling is not None:
            self._refilling.cancel()
        for waiter in self._line:
            if not waiter.served.done():
                waiter.served.set_exception(ExecutorClosed("the executor is closed"))
        for shelf in self._stock.values():
            for sandbox in list(shelf.ready):
                self._give_up(shelf, sandbox)
        self._announce()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engine.close()
        self._uids.close()

    # --- Taking ---------------------------------------------------------------------------------------

    def _shelf(self, kind: SandboxKind) -> Shelf:
        if self._closed:
            raise ExecutorClosed("the executor is closed")
        if not self._tasks:
            self._spawn(self._tend())
            for _ in range(CPUS):
                self._spawn(self._preload())
        return self._stock.setdefault(kind, Shelf(kind, asyncio.get_running_loop().time()))

    async def _take(self, shelf: Shelf, *, named: bool) -> Sandbox:
        # Who finds one in stock is not before anybody: with somebody in line for it, it were not there.
        while shelf.ready:
            sandbox = shelf.best(named=named)
            listening = shelf.remove(sandbox)
            self._refill_in(REFILL_DELAY_S)
            try:
                await asyncio.wait({listening})  # one reads a channel at a time
            except asyncio.CancelledError:
                self._retire(sandbox)
                raise
            if listening.cancelled():
                return sandbox
            self._retire(sandbox)  # it broke off in the same moment
        return await self._wait(shelf)

    async def _wait(self, shelf: Shelf) -> Sandbox:
        # Those for whom there is room do not wait for anybody.
        if len(self._line) >= self._max_waiting + self._max_sandboxes - self._leased - self._leaving:
            raise Busy(f"{len(self._line)} requests are waiting for a sandbox already; try again later")
        waiter = Waiter(shelf, asyncio.get_running_loop().create_future())
        self._line[waiter] = shelf.waiting[waiter] = None
        self._balance()
        try:
            return await waiter.served
        except asyncio.CancelledError:
            if waiter.served.done() and not waiter.served.cancelled() and not waiter.served.exception():
                self._take_in(waiter.served.result())  # it was served in the same moment
            raise
        finally:
            self._leave_line(waiter)
            self._balance()

    def _leave_line(self, waiter: Waiter) -> None:
        self._line.pop(waiter, None)
        waiter.shelf.waiting.pop(waiter, None)

    def _next_in_line(self, shelf: Shelf) -> Waiter | None:
        """The first who waits for that kind; leaves the line."""
        while shelf.waiting:
            waiter = next(iter(shelf.waiting))
            self._leave_line(waiter)
            if not waiter.served.done():  # it may have been cancelled a moment ago
                return waiter
        return None

    # --- Giving back ----------------------------------------------------------------------------------

    def _take_in(self, sandbox: Sandbox) -> None:
        """It comes from a launch or a lease, and goes to who waits for it, into the stock, or away."""
        shelf = self._stock.get(sandbox.kind)
        if self._closed or shelf is None or not sandbox.usable or self._is_in_the_way(sandbox, shelf):
            self._retire(sandbox)
        elif (waiter := self._next_in_line(shelf)) is not None:
            waiter.served.set_result(sandbox)
        elif shelf.stocked and (len(shelf.ready) >= shelf.target or not self._stock.fits(shelf)):
            self._retire(sandbox)
        else:
            listening = self._spawn(sandbox.watch())
            shelf.ready[sandbox] = listening
            listening.add_done_callback(functools.partial(self._broke_off, shelf, sandbox))

    def _is_in_the_way(self, sandbox: Sandbox, shelf: Shelf) -> bool:
        """Whether who is first in line can get none for it: a batch must not go on for ever before him."""
        first = self._first_unprovided()
        full = self._alive - self._leaving >= self._max_sandboxes
        return sandbox.runs > 0 and full and first is not None and first.shelf is not shelf

    def _broke_off(self, shelf: Shelf, sandbox: Sandbox, listening: asyncio.Task[None]) -> None:
        if sandbox in shelf.ready and not listening.cancelled():
            self._give_up(shelf, sandbox)
            lost = SandboxLost("a sandbox broke off while it waited; was the engine stopped?")
            shelf.failed(lost, asyncio.get_running_loop().time())
            self._balance()

    def _give_up(self, shelf: Shelf, sandbox: Sandbox) -> None:
        shelf.remove(sandbox)
        self._retire(sandbox)

    def _retire(self, sandbox: Sandbox) -> None:
        self._leaving += 1
        self._spawn(sandbox.destroy()).add_done_callback(functools.partial(self._is_gone, sandbox.uid))

    def _is_gone(self, uid: int, destroying: asyncio.Task[None]) -> None:
        self._leaving -= 1
        self._alive -= 1
        if not destroying.cancelled() and destroying.exception() is None:
            self._uids.give_back(uid)
        self._balance()

    # --- Launching ------------------------------------------------------------------------------------

    def _balance(self) -> None:
        """Launch for those in line; see to the stock a moment later."""
        if self._closed:
            return
        while self._launching < LAUNCHES_AT_ONCE and (waiter := self._first_unprovided()) is not None:
            if not self._make_room(waiter.shelf):
                break
            self._launch(waiter.shelf)
        self._refill_in(REFILL_DELAY_S)
        self._announce()

    def _first_unprovided(self) -> Waiter | None:
        """The first in line for whom nothing is on its way."""
        provided: Counter[Shelf] = Counter()
        for waiter in self._line:
            provided[waiter.shelf] += 1
            if provided[waiter.shelf] > waiter.shelf.launching:
                return waiter
        return None

    def _make_room(self, shelf: Shelf) -> bool:
        if self._alive < self._max_sandboxes:
            return True
        other = self._stock.to_give_up(beside=shelf)
        if other is not None and self._leaving == 0:
            self._give_up(other, other.worst())
        return False

    def _launch(self, shelf: Shelf) -> None:
        shelf.launching += 1
        self._launching += 1
        self._alive += 1
        self._counts["launched"] += 1
        launching = self._spawn(self._start(shelf.kind))
        launching.add_done_callback(functools.partial(self._launched, shelf))

    async def _start(self, kind: SandboxKind) -> Sandbox:
        uid = self._uids.take()
        try:
            return await Sandbox.launch(self._engine, kind, uid)
        except BaseException:
            self._uids.give_back(uid)
            raise

    def _launched(self, shelf: Shelf, launching: asyncio.Task[Sandbox]) -> None:
        shelf.launching -= 1
        self._launching -= 1
        error = asyncio.CancelledError() if launching.cancelled() else launching.exception()
        if error is None:
            self._take_in(launching.result())
        else:
            self._alive -= 1
            shelf.failed(error, asyncio.get_running_loop().time())
            waiter = self._next_in_line(shelf)
            if waiter is not None:
                waiter.served.set_exception(error)
        self._balance()

    def _refill_in(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._refilling is not None and self._refilling.when() > loop.time() + delay_s:
            self._refilling.cancel()  # it was to end the pause of some kind
            self._refilling = None
        if self._refilling is None:
            self._refilling = loop.call_later(delay_s, self._refill)

    def _refill(self) -> None:
        self._refilling = None
        if self._line:
            return
        now = asyncio.get_running_loop().time()
        while self._launching < REFILLS_AT_ONCE and self._alive < self._max_sandboxes:
            shelf = self._stock.to_refill(now)
            if shelf is None:
                break
            self._launch(shelf)
        pause_s = self._stock.pause_s(now)
        if pause_s is not None:
            self._refill_in(pause_s)

    # --- While nothing else happens -------------------------------------------------------------------

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            now = asyncio.get_running_loop().time()
            for shelf in [shelf for shelf in self._stock.values() if shelf.stocked]:
                shelf.tend(now)
                while len(shelf.ready) > shelf.target:
                    self._give_up(shelf, shelf.worst())
                if shelf.unused:
                    del self._stock[shelf.kind]
            self._balance()

    async def _preload(self) -> None:
        while True:
            sandbox = self._to_preload()
            if sandbox is None:
                await self._change()
            else:
                await sandbox.preload()
                self._announce()

    def _to_preload(self) -> Sandbox | None:
        """One whose worker has steps left; none while callers or launches need the machine."""
        if self._line or self._launching or self._leased >= CPUS:
            return None
        return self._stock.to_preload()

    async def _change(self) -> None:
        await self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
