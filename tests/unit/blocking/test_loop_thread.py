"""The background thread: it starts with the first call, serves many threads, and ends with ``close``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from codeforge.blocking import loop_thread
from codeforge.blocking.loop_thread import LoopThread
from codeforge.errors import ExecutorClosed


async def nothing() -> None:
    pass


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "codeforge"]


async def name_of_thread() -> str:
    return threading.current_thread().name


def test_one_thread_is_started_by_the_first_call_and_ended_by_close() -> None:
    loop = LoopThread()
    assert threads() == []
    assert [loop.wait_for(name_of_thread()) for _ in range(3)] == ["codeforge"] * 3
    assert threads() == ["codeforge"]
    loop.close(nothing())
    assert threads() == []


def test_close_without_a_call_starts_no_thread_and_runs_nothing() -> None:
    ran: list[bool] = []

    async def last() -> None:
        ran.append(True)

    loop = LoopThread()
    loop.close(last())
    loop.close(last())
    assert (ran, threads()) == ([], [])


def test_a_call_after_close_is_refused() -> None:
    loop = LoopThread()
    loop.close(nothing())
    with pytest.raises(ExecutorClosed, match="the executor is closed"):
        loop.wait_for(nothing())


def test_close_gives_other_calls_time_to_return() -> None:
    loop = LoopThread()
    begun, ending = threading.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await ending.wait()
        await asyncio.sleep(0.01)
        return "done"

    async def last() -> None:
        ending.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(loop.wait_for, work())
        assert begun.wait(30)
        loop.close(last())
        assert running.result(30) == "done"


def test_a_call_that_begins_just_before_close_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    released, closed = threading.Event(), threading.Event()

    class PausingLock:
        """A lock that stops all threads but this one after they have released it."""

        def __init__(self) -> None:
            self._lock = threading.Lock()

        def __enter__(self) -> None:
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()
            if threading.current_thread() is not threading.main_thread():
                released.set()
                assert closed.wait(30)

    loop = LoopThread()
    loop.wait_for(nothing())
    monkeypatch.setattr(loop, "_lock", PausingLock())
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(loop.wait_for, name_of_thread())
        assert released.wait(30)
        loop.close(nothing())
        closed.set()
        assert running.result(30) == "codeforge"


def test_close_cancels_calls_that_do_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_thread, "CLOSE_GRACE_S", 0.01)
    loop = LoopThread()
    begun = threading.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(loop.wait_for, hang())
        assert begun.wait(30)
        loop.close(nothing())
        with pytest.raises(concurrent.futures.CancelledError):
            running.result(30)


def test_leaving_an_iteration_early_closes_the_generator() -> None:
    loop = LoopThread()
    closed: list[bool] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(100):
                yield number
        finally:
            closed.append(True)

    items = loop.iterate(numbers())
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert closed == [True]
    assert list(loop.iterate(numbers())) == list(range(100))
    loop.close(nothing())


@pytest.mark.parametrize("scheduled", [True, False])
def test_an_interrupt_while_a_call_is_scheduled_leaves_nothing_running(
    scheduled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = LoopThread()
    loop.wait_for(nothing())
    running = loop._running
    assert running is not None
    schedule = running.loop.call_soon_threadsafe

    async def hang() -> None:
        await asyncio.Event().wait()

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    def interrupted(callback: Callable[[], object]) -> None:
        monkeypatch.setattr(running.loop, "call_soon_threadsafe", schedule)
        if scheduled:
            schedule(callback)
        raise KeyboardInterrupt

    monkeypatch.setattr(running.loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.wait_for(hang())
    assert loop.wait_for(tasks()) == 1  # itself
    loop.close(nothing())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_the_work_reaches_its_caller_and_leaves_the_thread_running(
    error: type[BaseException],
) -> None:
    async def leave() -> None:
        raise error

    loop = LoopThread()
    with pytest.raises(error):
        loop.wait_for(leave())
    assert loop.wait_for(name_of_thread()) == "codeforge"
    loop.close(nothing())


def test_a_blocking_call_from_the_thread_itself_is_refused() -> None:
    loop = LoopThread()

    async def call_again() -> None:
        loop.wait_for(nothing())

    with pytest.raises(RuntimeError, match="would never return"):
        loop.wait_for(call_again())
    loop.close(nothing())
