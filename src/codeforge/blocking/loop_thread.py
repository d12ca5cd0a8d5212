"""An event loop in a background thread, and how other threads wait for what runs there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator
from typing import Any, Generic, TypeVar

from codeforge.errors import ExecutorClosed

T = TypeVar("T")

CANCEL_GRACE_S = 10.0
"""How long an interrupted call may take to cancel its work."""

CLOSE_GRACE_S = 5.0
"""How long calls in other threads may take to return after ``close``."""


class LoopThread:
    """Runs coroutines for any number of threads. Its own thread is a daemon, started by the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._closed = False

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` and return what it returns. If the caller is interrupted (Ctrl-C), it is cancelled.

        Raises:
            ExecutorClosed: ``close`` was called before.
            concurrent.futures.CancelledError: ``close`` was called meanwhile, and the work did not end.
        RuntimeError: the caller is code that the work itself calls, such as its iterable of requests.
        """
        call = _Call(work)
        try:
            with self._lock:
                if self._closed:
                    raise ExecutorClosed("the executor is closed")
                self._running = self._running or _Running()
                if threading.current_thread() is self._running.thread:
                    raise RuntimeError("a blocking call from the executor's own thread would never return")
                call.schedule(self._running.loop)  # inside the lock, so that close() waits for it
            return call.result()
        except BaseException:  # Ctrl-C may come at any point of this block
            call.abandon()
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Yield what ``items`` yields, and close it at the end."""
        try:
            while (item := self.wait_for(_next_or_none(items))) is not None:
                yield item
        finally:
            self.wait_for(_close(items))

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run ``last``, give other calls time to return, and end the thread.

        If no thread was started, or this was called before, ``last`` is not run.
        """
        with self._lock:
            self._closed, running, self._running = True, self._running, None
        if running is None:
            last.close()
            return
        call = _Call(last)
        try:
            call.schedule(running.loop)
            call.result()
        except BaseException:
            call.abandon()
            raise
        finally:
            running.stop()


class _Running:
    """A running thread with its loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, name="codeforge", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        """Run the loop. A task's SystemExit or Ctrl-C stops it, and stays in the task for its caller."""
        while True:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue
            return

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(_finish_others(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class _Call(Generic[T]):
    """One coroutine that a thread waits for while the loop runs it."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None
        self._ended = threading.Event()

    def schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_soon_threadsafe(self._start)

    def result(self) -> T:
        self._ended.wait()
        assert self._task is not None  # noqa: S101 - it has ended, so it was started
        try:
            return self._task.result()
        except asyncio.CancelledError:  # by _Running.stop
            raise concurrent.futures.CancelledError from None

    def abandon(self) -> None:
        """Cancel the work, and wait until it has ended. Does nothing if it has."""
        if self._loop is None:
            self._work.close()
        elif not self._ended.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._cancel)
                self._ended.wait(CANCEL_GRACE_S)

    # In the loop's thread

    def _start(self) -> None:
        assert self._loop is not None  # noqa: S101 - schedule sets it
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(lambda _: self._ended.set())

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:  # the interrupt came before _start was scheduled
            self._work.close()
            self._ended.set()


async def _finish_others() -> None:
    """Wait until the other tasks of this loop have ended; cancel those that do not end in time."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, hanging = await asyncio.wait(others, timeout=CLOSE_GRACE_S)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def _next_or_none(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()
