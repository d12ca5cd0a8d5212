"""An event loop in a background thread, and how other threads wait for what runs there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from typing import Any, TypeVar

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
        """
        with self._lock:
            if self._closed:
                work.close()
                raise ExecutorClosed("the executor is closed")
            self._running = self._running or _Running()
            wait = self._running.begin(work)  # inside the lock, so that close() waits for it
        return wait()

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
        try:
            running.begin(last)()
        finally:
            running.stop()


class _Running:
    """A running thread with its loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="codeforge", daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, T]) -> Callable[[], T]:
        """Schedule ``work``; the returned function waits for it."""
        ended = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda _: ended.set())

        def wait() -> T:
            try:
                ended.wait()
            except BaseException:
                self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
                ended.wait(CANCEL_GRACE_S)
                raise
            try:
                return tasks[0].result()
            except asyncio.CancelledError:  # by stop()
                raise concurrent.futures.CancelledError from None

        self._loop.call_soon_threadsafe(start)
        return wait

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(_finish_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


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
