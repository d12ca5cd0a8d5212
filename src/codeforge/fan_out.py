"""Many at once, but only so many: what ``execute_many`` and ``as_finished`` have in common."""

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
    """Await ``work(item)`` for each item, ``width`` at once; yield index and outcome.

    Items are taken as it goes: at most ``width`` are begun and not yielded, so an endless iterable is
    fine. Leave the loop, or have one of them raise, and the others are cancelled.

    Args:
        work: what is done with an item.
        items: any number.
        width: how many at once.
        ordered: in the order of the items, or in that in which they end.
    """
    running: dict[asyncio.Task[T], int] = {}
    numbered = enumerate(items)
    try:
        while True:
            for index, item in itertools.islice(numbered, width - len(running)):
                running[asyncio.create_task(work(item))] = index
            if not running:
                return
            looked_at = [next(iter(running))] if ordered else list(running)
            done, _ = await asyncio.wait(looked_at, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=_failed):  # what one raises must not cost the outcome of another
                yield running.pop(task), await task
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None
