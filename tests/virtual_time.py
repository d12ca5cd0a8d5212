"""An event loop whose clock jumps: what takes minutes takes no time, and comes out the same every time.

The clock stands still while there is something to do, and goes straight to the next timer when there is
not. If there is no timer either, everybody would wait for ever: that is an error.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TOO_LONG_S = 10_000.0
"""Of virtual time; nothing here has to wait for so long."""


class _Selector(selectors.DefaultSelector):
    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits, and nothing is to come")
            self.now_s += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; its time begins at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds that would have passed."""
        return self._virtual.now_s


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run it to its end in virtual time.

    Raises:
        TimeoutError: it has no end.
        AssertionError: something failed of which nobody was told.
    """
    untold: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: untold.append(context))
        async with asyncio.timeout(TOO_LONG_S):
            return await scenario

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        result = runner.run(bounded())
        gc.collect(0)  # a task tells of its exception when it goes
    assert not untold, untold
    return result


async def settle(steps: int = 20) -> None:
    """Let everything happen that needs no time."""
    for _ in range(steps):
        await asyncio.sleep(0)
