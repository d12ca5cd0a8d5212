"""Families: the branches of one session, and how many sessions there may be.

A session never waits for another: who has one may keep it for hours. It is admitted if the memory limits
of all together stay within their bound, and a sandbox can be had at once; else its caller is told ``Busy``.
"""

from __future__ import annotations

import asyncio
import itertools

from codeforge import protocol
from codeforge.errors import Busy, ExecutorClosed
from codeforge.model import CODE_DIR, MAX_TIMEOUT_S, Run, format_memory
from codeforge.sandboxes import Pool, SandboxKind
from codeforge.sessions.connection import Link


class Families:
    """All sessions of an executor.

    Args:
        pool: leases their sandboxes.
        memory_bytes: what their memory limits may come to.
    """

    def __init__(self, pool: Pool, memory_bytes: int) -> None:
        self._pool = pool
        self._memory_bytes = memory_bytes
        self._open: set[Family] = set()
        self._closed = False

    def __len__(self) -> int:
        return sum(family.open for family in self._open)

    async def open(self, family: Family, frames: list[bytes], anew: list[bytes] | None = None) -> Link:
        """Lease a sandbox for it, and send these frames; ``anew`` start another interpreter in it.

        Raises:
            Busy: there is no room for one now.
            ExecutorClosed: there will be none.
            HostFailure: it could not be started.
        """
        if self._closed:
            raise ExecutorClosed("the executor is closed")
        run = family.run
        self._open = {other for other in self._open if other.open}
        taken = sum(other.run.limits.memory_bytes for other in self._open)
        if taken + run.limits.memory_bytes > self._memory_bytes:
            raise Busy(
                f"{len(self._open)} sessions may take {format_memory(taken)} of memory already, of "
                f"{format_memory(self._memory_bytes)} (session_memory); close some, or lower memory_limit"
            )
        self._open.add(family)
        try:
            kind = SandboxKind(
                language=run.language, limits=run.limits.of_sandbox(run.language), session=True
            )
            return await Link.open(self._pool, kind, frames, anew)
        except BaseException:
            self._open.discard(family)
            raise

    async def close(self) -> None:
        """End all of them, and admit no more."""
        self._closed = True
        for family in list(self._open):
            await family.close()


class Family:
    """What the branches of a session share: the sandbox, and what started it.

    Args:
        all_of_them: who it is one of.
        run: limits, variables and files that it starts with.
        idle_timeout: seconds.

    Attributes:
        link: to the sandbox, once there is one.
    """

    def __init__(self, all_of_them: Families, run: Run, idle_timeout: float | None) -> None:
        self._all = all_of_them
        self.run = run
        self.link: Link | None = None
        self.idle_timeout = idle_timeout
        self._opening = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def close(self) -> None:
        """End all branches."""
        if self.link is not None:
            await self.link.close()

    def next_cell(self) -> int:
        """Cells of all branches have different numbers, so that none takes another's for its own."""
        return next(self._numbers)

    @property
    def open(self) -> bool:
        """Whether it has a sandbox, or is about to."""
        return self.link is None or not (self.link.closed or self.link.lost)

    async def link_up(self) -> Link:
        """The sandbox's link; the first caller opens it."""
        async with self._opening:
            if self.link is None:
                # Where the interpreter is to read variables when it starts, it is started anew.
                anew = self.start_frames(0) if self.run.fresh else None
                self.link = await self._all.open(self, self._first_frames(), anew)
            return self.link

    def _first_frames(self) -> list[bytes]:
        run = self.run
        return [
            protocol.limits(output_bytes=0, files_bytes=0, max_age_s=MAX_TIMEOUT_S),
            *(protocol.file(path, data) for path, data in run.files.items()),
            protocol.command(run.argv, run.env, run.cwd),
        ]

    def start_frames(self, number: int) -> list[bytes]:
        """What starts an interpreter anew."""
        run = self.run
        cwd = branch_dir(number) if run.cwd == CODE_DIR else run.cwd
        command = protocol.command(run.argv, run.env, cwd)
        return [command, protocol.worker(), command]


def branch_dir(number: int) -> str:
    """The directory that a branch's files are in."""
    return f"/tmp/.branches/{number}" if number else CODE_DIR  # noqa: S108 - in the sandbox
