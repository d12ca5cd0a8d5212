"""An event loop with virtual time: minutes pass in no time, and every run of a test is the same.

The clock stands still while callbacks are ready, and jumps to the next timer when none is. If there is no
timer either, every task would wait forever: that is an error.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TOO_LONG_S = 10_000.0
"""Limit in virtual time; no test needs this long."""


class _Selector(selectors.DefaultSelector):
    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("every task waits, and no timer is set")
            self.now_s += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; its clock starts at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds that have passed in virtual time."""
        return self._virtual.now_s


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time, and return its result.

    Raises:
        TimeoutError: it does not end.
        AssertionError: a task or callback failed, and nothing retrieved its exception.
    """
    unretrieved: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unretrieved.append(context))
        async with asyncio.timeout(TOO_LONG_S):
            return await scenario

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        result = runner.run(bounded())
        gc.collect(0)  # a task reports an unretrieved exception when it is collected
    assert not unretrieved, unretrieved
    return result


async def settle(steps: int = 20) -> None:
    """Run the loop until everything that needs no time has happened."""
    for _ in range(steps):
        await asyncio.sleep(0)
