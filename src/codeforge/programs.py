"""Programs of this machine, run as child processes that do not outlive the call that started them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

LOG_TAIL_LINES = 40


@contextlib.asynccontextmanager
async def running(
    *command: str | Path,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    end_with: signal.Signals = signal.SIGKILL,
) -> AsyncIterator[Process]:
    """Start a program in its own session, with an empty stdin.

    If it still runs when the block ends, its whole process group gets a signal, and the block waits for it.

    Args:
        command: the program and its arguments.
        stdout: ``PIPE``, ``DEVNULL`` or a file.
        stderr: the same, or ``STDOUT``.
        cwd: where it starts.
        env: variables on top of this process's own.
        pass_fds: descriptors that it inherits.
        end_with: the signal; a program that has to clean up needs another than SIGKILL.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        pass_fds=pass_fds,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, end_with)
            await process.wait()


async def run_program(
    *command: str | Path,
    on_line: Callable[[str], object],
    stall_s: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    end_with: signal.Signals = signal.SIGKILL,
) -> tuple[int, list[str]]:
    """Run a program to its end.

    Args:
        command: the program and its arguments.
        on_line: called with each line that it writes to stdout or stderr.
        stall_s: seconds that it may be silent; ``None``: no limit.
        cwd: where it starts.
        env: variables on top of this process's own.
        pass_fds: descriptors that it inherits.
        end_with: the signal that ends its process group after a timeout or cancellation.

    Returns:
        its exit code, and the last lines that it wrote.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it was silent for too long, and was ended.
    """
    log: list[str] = []
    async with running(
        *command, stdout=PIPE, stderr=STDOUT, cwd=cwd, env=env, pass_fds=pass_fds, end_with=end_with
    ) as process:
        while line := await _next_line(process, stall_s):
            log = [*log[-LOG_TAIL_LINES:], line.decode("utf-8", "replace").rstrip()]
            on_line(log[-1])
        return await asyncio.wait_for(process.wait(), stall_s), log


async def _next_line(process: Process, stall_s: float | None) -> bytes:
    """``b""`` at the end of its output."""
    assert process.stdout is not None  # noqa: S101 - run_program asks for a pipe
    async with asyncio.timeout(stall_s):
        return await process.stdout.readline()
