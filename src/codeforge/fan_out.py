"""Bounded concurrency: awaits work for many items, a fixed number at once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


async def fan_out(
    work: Callable[[S], Coroutine[Any, Any, T]], items: Iterable[S], width: int, *, ordered: bool
) -> AsyncGenerator[tuple[int, T], None]:
    """Await ``work(item)`` for each item, ``width`` at once; yield each item's index and result.

    Items are taken one by one: at most ``width`` are started and not yet yielded, so the iterable may be
    endless. If the caller leaves the loop, or an item raises, the others are cancelled.

    Args:
        work: the coroutine function for an item.
        items: any number of items.
        width: how many are awaited at once.
        ordered: whether to yield in the order of the items; otherwise, in the order in which they end.
    """
    running: dict[asyncio.Task[T], int] = {}
    numbered = enumerate(items)
    try:
        while True:
            for index, item in itertools.islice(numbered, width - len(running)):
                running[asyncio.create_task(work(item))] = index
            if not running:
                return
            watched = [next(iter(running))] if ordered else list(running)
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=_failed):  # an exception must not lose finished results
                yield running.pop(task), await task
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None
