"""The sessions of an executor: how many there may be, and which of them share a sandbox.

A session never waits for another one, whose owner may keep it for hours. It is admitted if the memory
limits of all sessions stay within their bound and a sandbox can be leased at once; otherwise its caller
gets ``Busy``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator

from codeforge import protocol
from codeforge.errors import Busy, ExecutorClosed
from codeforge.model import CODE_DIR, MAX_TIMEOUT_S, Run, format_memory
from codeforge.sandboxes import Pool, SandboxKind
from codeforge.sessions.connection import Connection


class SessionRegistry:
    """All sessions of an executor.

    Args:
        pool: leases their sandboxes.
        memory_bytes: bound on the sum of their memory limits.

    Attributes:
        pool: as above.
    """

    def __init__(self, pool: Pool, memory_bytes: int) -> None:
        self.pool = pool
        self._memory_bytes = memory_bytes
        self._groups: set[SessionGroup] = set()
        self._closed = False

    def __len__(self) -> int:
        """How many groups hold a sandbox, or are getting one."""
        # A copy: the blocking executor asks from another thread than the one that changes the set.
        return sum(group.is_open for group in list(self._groups))

    @contextlib.contextmanager
    def admission(self, group: SessionGroup) -> Iterator[None]:
        """Admit a group, whose sandbox is leased inside the block; if that fails, it is not admitted.

        Raises:
            Busy: there is no room for another session.
            ExecutorClosed: the registry was closed.
        """
        if self._closed:
            raise ExecutorClosed("the executor is closed")
        self._groups = {other for other in self._groups if other.is_open}
        taken = sum(other.run.limits.memory_bytes for other in self._groups)
        if taken + group.run.limits.memory_bytes > self._memory_bytes:
            raise Busy(
                f"{len(self._groups)} sessions may take {format_memory(taken)} of memory already, of "
                f"{format_memory(self._memory_bytes)} (session_memory); close some, or lower memory_limit"
            )
        self._groups.add(group)
        try:
            yield
        except BaseException:
            self._groups.discard(group)
            raise

    async def close(self) -> None:
        """End all sessions, and admit no more."""
        self._closed = True
        for group in list(self._groups):
            await group.close()


class SessionGroup:
    """A session and its forks: the branches that share one sandbox.

    Args:
        registry: admits it.
        run: the limits, variables and files that it starts with.
        idle_timeout: seconds without use after which a branch is closed; ``None``: never.

    Attributes:
        connection: to the sandbox; ``None`` before the first use.
    """

    def __init__(self, registry: SessionRegistry, run: Run, idle_timeout: float | None) -> None:
        self.run = run
        self.idle_timeout = idle_timeout
        self.connection: Connection | None = None
        self._registry = registry
        self._connecting = asyncio.Lock()
        self._cell_numbers = itertools.count(1)

    @property
    def is_open(self) -> bool:
        """Whether it holds a sandbox, or is to get one."""
        return self.connection is None or not (self.connection.closed or self.connection.lost)

    async def connect(self) -> Connection:
        """Return the connection to the sandbox; the first caller leases the sandbox and starts it.

        Raises:
            Busy: there is no room for another session.
            ExecutorClosed: the executor is closed.
            HostFailure: it could not be started.
        """
        async with self._connecting:
            if self.connection is None:
                run = self.run
                kind = SandboxKind(
                    language=run.language, limits=run.limits.of_sandbox(run.language), session=True
                )
                # The interpreter that waits in the sandbox has not seen variables that are read at its start.
                restart_frames = self.start_frames(0) if run.fresh else None
                with self._registry.admission(self):
                    self.connection = await Connection.open(
                        self._registry.pool, kind, self._first_frames(), restart_frames
                    )
            return self.connection

    async def close(self) -> None:
        """End all branches, and give the sandbox back."""
        if self.connection is not None:
            await self.connection.close()

    def next_cell_number(self) -> int:
        """Return a number for a cell, which no other cell of the group has."""
        return next(self._cell_numbers)

    def _first_frames(self) -> list[bytes]:
        run = self.run
        return [
            protocol.limits(output_bytes=0, files_bytes=0, max_age_s=MAX_TIMEOUT_S),
            *(protocol.file(path, data) for path, data in run.files.items()),
            protocol.command(run.argv, run.env, run.cwd),
        ]

    def start_frames(self, number: int) -> list[bytes]:
        """Return the frames that start a new interpreter for a branch."""
        run = self.run
        cwd = branch_dir(number) if run.cwd == CODE_DIR else run.cwd
        command = protocol.command(run.argv, run.env, cwd)
        return [command, protocol.worker(), command]


def branch_dir(number: int) -> str:
    """Return the directory of a branch's files."""
    return f"/tmp/.branches/{number}" if number else CODE_DIR  # noqa: S108 - a path inside the sandbox
