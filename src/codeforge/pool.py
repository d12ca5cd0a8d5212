"""The pool: leases a sandbox for one run. It keeps no warm stock yet: every lease launches.

Nobody else launches sandboxes, so this is also where their number is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from codeforge.engines import Engine
from codeforge.errors import ExecutorClosed
from codeforge.languages import Language
from codeforge.limits import Limits, require_int
from codeforge.sandbox import Sandbox

MAX_SANDBOXES = 32
"""At once, by default: 16 GiB of memory limits at 512 MiB each."""


class Pool:
    """Leases sandboxes, at most ``max_sandboxes`` at once, first come first served."""

    def __init__(self, engine: Engine, *, owner: str, max_sandboxes: int = MAX_SANDBOXES) -> None:
        require_int("max_sandboxes", max_sandboxes, 1, 10_000)
        self._engine = engine
        self._owner = owner
        self._free = asyncio.Semaphore(max_sandboxes)
        self._closed = False
        self.leased = 0

    @contextlib.asynccontextmanager
    async def lease(self, language: Language, limits: Limits) -> AsyncIterator[Sandbox]:
        """A sandbox that is ready, for one run; it is destroyed when the lease ends.

        Raises:
            ExecutorClosed: the pool was closed.
            HostFailure: the sandbox could not be launched.
        """
        async with self._free:
            if self._closed:
                raise ExecutorClosed("the executor is closed")
            self.leased += 1
            try:
                sandbox = await Sandbox.launch(self._engine, language, limits, self._owner)
                try:
                    yield sandbox
                finally:
                    await sandbox.destroy()
            finally:
                self.leased -= 1

    async def close(self) -> None:
        """Lease no more; what is leased ends with the engine."""
        self._closed = True
        await self._engine.close()
