"""Out-of-memory kills in a control group that somebody else makes, and removes as soon as it is empty.

Theory of operation: the group's file of counts is kept open, and the kernel wakes the event loop when
it changes; so it is read while the group is there, however late the end of the run is looked at.
Version 1 rings an eventfd, once more when the group is removed. Version 2 lets the file be polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from pathlib import Path

from codeforge.engines.cgroups import groups_of, oom_kills
from codeforge.errors import EngineError


class OomWatch:
    """Watches the control group of one process until the first kill in it. Belongs to one event loop.

    Args:
        pid: a process that is in it.
        noticed: called when the kernel has killed in it for want of memory, or is about to.

    Raises:
        EngineError: there is no such process on this machine, or its group may not be watched.
    """

    def __init__(self, pid: int, noticed: Callable[[], object]) -> None:
        self._noticed = noticed
        self._loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            try:
                groups = groups_of(pid)
                if "memory" in groups:
                    self._file = _opened(groups["memory"] / "memory.oom_control", stack)
                    self._bell: int | select.epoll = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                    stack.callback(os.close, self._bell)
                    (groups["memory"] / "cgroup.event_control").write_text(f"{self._bell} {self._file}")
                else:
                    self._file = _opened(_counted_in(groups[""]), stack)
                    self._bell = stack.enter_context(select.epoll())
                    os.pread(self._file, 4096, 0)  # only what changes after a read is told
                    self._bell.register(self._file, select.EPOLLPRI | select.EPOLLET)
            except (OSError, KeyError) as error:
                raise EngineError(f"process {pid} cannot be watched for want of memory: {error}") from error
            self._loop.add_reader(self._bell, self._ring)
            stack.callback(self._loop.remove_reader, self._bell)
            self._open = stack.pop_all()

    def close(self) -> None:
        """Watch no more. May be called again."""
        self._open.close()

    def _ring(self) -> None:
        by_eventfd = isinstance(self._bell, int)
        rung = os.eventfd_read(self._bell) if isinstance(self._bell, int) else len(self._bell.poll(0))
        try:
            kills = oom_kills(os.pread(self._file, 4096, 0).decode())
            # An eventfd is rung just before the kill.
            noticed, over = by_eventfd or kills > 0, False
        except OSError:
            # The group is gone, which is one ring; more than that was a kill.
            noticed, over = by_eventfd and rung > 1, True
        if noticed:
            self._noticed()
        if noticed or over:
            self.close()


def _opened(path: Path, stack: contextlib.ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _counted_in(group: Path) -> Path:
    """Where kills in that group are counted: in itself, or above where memory is not its own matter."""
    for folder in (group, *group.parents):
        if (path := folder / "memory.events").exists():
            return path
    raise FileNotFoundError(f"no memory.events in {group}")
