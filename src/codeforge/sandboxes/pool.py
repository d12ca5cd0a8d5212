"""The pool: leases sandboxes to callers, and keeps warm ones in stock.

Theory of operation: callers do not launch sandboxes. A caller takes one of its kind from the stock, or
waits in line; the pool launches for the waiters, in their order. A sandbox that has been launched goes to
the first waiter of its kind, else into the stock. So a cold start, an empty stock and a pool that keeps no
stock are the same case. After its lease a sandbox is destroyed in the background; one that was launched
for a batch and is clean again is treated like one that has just been launched.

``_balance`` decides what to launch, for which waiter, and what to discard to make room. It is called after
every change and never awaits, so the event loop is its lock. The stock is refilled when nobody waits, and
a moment after the run that took from it.

Invariant: every sandbox is counted in ``_alive`` from before its launch until the engine has removed it.
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
"""Default: with 512 MiB each, their memory limits add up to 16 GiB."""

MAX_WARM = 8
"""Default bound of the stock, which grows to it only if callers find it empty."""

WARM_MEMORY_BYTES: int = 1 * GiB
"""Default bound of the memory that the stock may take."""

MAX_WAITING = 10_000
"""Default bound of the line."""

LAUNCHES_AT_ONCE = 8
"""With more, Docker does not start more containers a second; see docs/performance.md."""

REFILLS_AT_ONCE = 2
REFILL_DELAY_S = 0.05
"""By then a short run has ended, and no launch has slowed it down."""

CPUS = os.cpu_count() or 1
"""At most this many sandboxes preload at a time, and none while this many are leased."""

TEND_S = 10.0
"""How often the stock is checked for sandboxes that nobody takes."""


class Pool:
    """Leases sandboxes, first come, first served. Belongs to one event loop.

    Args:
        engine: launches the sandboxes; ``close`` closes it.
        max_sandboxes: how many may exist at the same time: launching, in stock, leased or being removed.
        max_warm: how many of them, of all kinds together, may be in stock.
        warm_memory_bytes: how much memory those may take, estimated by ``Language.idle_bytes``.
        max_waiting: how many callers may wait in line.
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
        self, kind: SandboxKind, *, named: bool = False, no_wait: bool = False
    ) -> AsyncIterator[Sandbox]:
        """Lease a sandbox that is ready, for one run or one session.

        Args:
            kind: the kind of sandbox.
            named: prefer one that has preloaded the language's ``preload_named``.
            no_wait: raise ``Busy`` rather than wait for another caller to return its sandbox.

        Raises:
            Busy: the line is full; or, with ``no_wait``, all ``max_sandboxes`` are in use.
            ExecutorClosed: the pool was closed.
            HostFailure: the sandbox could not be launched.
        """
        shelf = self._shelf(kind)
        if no_wait and self._leased + len(self._line) >= self._max_sandboxes:
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
            self._put_back(sandbox)
            self._balance()

    def keep(self, kind: SandboxKind, count: int) -> None:
        """Keep at least ``count`` sandboxes of a kind in stock from now on.

        Raises:
            InvalidRequest: together with what is kept already, that exceeds a bound of the stock.
            ExecutorClosed: the pool was closed.
        """
        self._stock.keep(self._shelf(kind), count)
        self._balance()

    async def until_warm(self, kind: SandboxKind, count: int) -> None:
        """Wait until ``count`` sandboxes of a kind are in stock and have nothing left to preload.

        Raises:
            ExecutorClosed: the pool was closed.
            HostFailure: one could not be launched.
        """
        while not (shelf := self._shelf(kind)).is_warm(count):
            if shelf.error is not None:
                raise shelf.error
            await self._change()

    def forget_batch(self, batch: int) -> None:
        """Discard the sandboxes that are kept for a batch: it has no more runs."""
        for kind in [kind for kind in self._stock if kind.batch == batch]:
            shelf = self._stock.pop(kind)
            for sandbox in list(shelf.ready):
                self._discard(shelf, sandbox)

    def stats(self) -> dict[str, int]:
        """How many sandboxes there are in each state, and how many were launched, found warm or not found."""
        return {
            "sandboxes": self._alive,
            "leased": self._leased,
            # A copy: the blocking executor asks from another thread than the one that changes the stock.
            "warm": sum(len(shelf.ready) for shelf in list(self._stock.values())),
            "launching": self._launching,
            "waiting": len(self._line),
            **{name: self._counts[name] for name in ("launched", "found_warm", "found_none")},
        }

    async def close(self) -> None:
        """Refuse further leases, destroy all sandboxes, and close the engine. Waits until all are gone."""
        self._closed = True
        if self._refilling is not None:
            self._refilling.cancel()
        for waiter in self._line:
            if not waiter.served.done():
                waiter.served.set_exception(ExecutorClosed("the executor is closed"))
        for shelf in self._stock.values():
            for sandbox in list(shelf.ready):
                self._discard(shelf, sandbox)
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
        # Taking from stock cannot jump the queue: a waiter of this kind would already have it.
        while shelf.ready:
            sandbox = shelf.best(named=named)
            watching = shelf.remove(sandbox)
            self._refill_in(REFILL_DELAY_S)
            try:
                await asyncio.wait({watching})  # only one task may read a channel
            except asyncio.CancelledError:
                self._retire(sandbox)
                raise
            if watching.cancelled():
                return sandbox
            self._retire(sandbox)  # lost at the same moment
        return await self._wait(shelf)

    async def _wait(self, shelf: Shelf) -> Sandbox:
        # Waiters for whom a sandbox can be launched right away do not count as waiting.
        if len(self._line) >= self._max_waiting + self._max_sandboxes - self._leased - self._leaving:
            raise Busy(f"{len(self._line)} requests are waiting for a sandbox already; try again later")
        waiter = Waiter(shelf, asyncio.get_running_loop().create_future())
        self._line[waiter] = shelf.waiting[waiter] = None
        self._balance()
        try:
            return await waiter.served
        except asyncio.CancelledError:
            if waiter.served.done() and not waiter.served.cancelled() and not waiter.served.exception():
                self._put_back(waiter.served.result())  # served at the same moment
            raise
        finally:
            self._leave_line(waiter)
            self._balance()

    def _leave_line(self, waiter: Waiter) -> None:
        self._line.pop(waiter, None)
        waiter.shelf.waiting.pop(waiter, None)

    def _next_in_line(self, shelf: Shelf) -> Waiter | None:
        """Take the first waiter of that kind out of the line."""
        while shelf.waiting:
            waiter = next(iter(shelf.waiting))
            self._leave_line(waiter)
            if not waiter.served.done():  # it may just have been cancelled
                return waiter
        return None

    # --- Returning ------------------------------------------------------------------------------------

    def _put_back(self, sandbox: Sandbox) -> None:
        """After a launch or a lease: give it to a waiter of its kind, put it into stock, or destroy it."""
        shelf = self._stock.get(sandbox.kind)
        if self._closed or shelf is None or not sandbox.usable or self._blocks_first_waiter(sandbox, shelf):
            self._retire(sandbox)
        elif (waiter := self._next_in_line(shelf)) is not None:
            waiter.served.set_result(sandbox)
        elif shelf.stocked and (len(shelf.ready) >= shelf.target or not self._stock.fits(shelf)):
            self._retire(sandbox)
        else:
            watching = self._spawn(sandbox.watch())
            shelf.ready[sandbox] = watching
            watching.add_done_callback(functools.partial(self._on_loss, shelf, sandbox))

    def _blocks_first_waiter(self, sandbox: Sandbox, shelf: Shelf) -> bool:
        """Whether a batch's sandbox takes the room that the first waiter, of another kind, needs.

        Otherwise a long batch could keep it waiting forever.
        """
        first = self._first_unserved()
        full = self._alive - self._leaving >= self._max_sandboxes
        return sandbox.runs > 0 and full and first is not None and first.shelf is not shelf

    def _on_loss(self, shelf: Shelf, sandbox: Sandbox, watching: asyncio.Task[None]) -> None:
        if sandbox in shelf.ready and not watching.cancelled():
            self._discard(shelf, sandbox)
            lost = SandboxLost("a sandbox in stock was lost; was the engine stopped?")
            shelf.failed(lost, asyncio.get_running_loop().time())
            self._balance()

    def _discard(self, shelf: Shelf, sandbox: Sandbox) -> None:
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
        """Launch for the waiters, and schedule a refill of the stock."""
        if self._closed:
            return
        while self._launching < LAUNCHES_AT_ONCE and (waiter := self._first_unserved()) is not None:
            if not self._make_room(waiter.shelf):
                break
            self._launch(waiter.shelf)
        self._refill_in(REFILL_DELAY_S)
        self._announce()

    def _first_unserved(self) -> Waiter | None:
        """The first waiter for whom no sandbox is being launched."""
        seen: Counter[Shelf] = Counter()
        for waiter in self._line:
            seen[waiter.shelf] += 1
            if seen[waiter.shelf] > waiter.shelf.launching:
                return waiter
        return None

    def _make_room(self, shelf: Shelf) -> bool:
        """Whether one more may be launched now; if not, discard one from stock, which makes room later."""
        if self._alive < self._max_sandboxes:
            return True
        other = self._stock.to_discard(ignore=shelf)
        if other is not None and self._leaving == 0:
            self._discard(other, other.worst())
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
            self._put_back(launching.result())
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
            self._refilling.cancel()  # it was set for the end of a pause
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

    # --- In the background ----------------------------------------------------------------------------

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            now = asyncio.get_running_loop().time()
            for shelf in [shelf for shelf in self._stock.values() if shelf.stocked]:
                shelf.tend(now)
                while len(shelf.ready) > shelf.target:
                    self._discard(shelf, shelf.worst())
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
        """A sandbox with steps left to preload; none while callers or launches need the machine."""
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
