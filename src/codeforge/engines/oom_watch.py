"""Watches for out-of-memory kills in a control group that an engine makes, and removes once it is empty.

Theory of operation: the group's event counts are kept open, and the kernel wakes the event loop when they
change. So they are read while the group exists, however late the end of the run is handled. Version 1
signals an eventfd, and signals it once more when the group is removed. In version 2 the file can be polled.
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
    """Watches the control group of a process until the first kill in it. Belongs to one event loop.

    Args:
        pid: a process in the group.
        on_oom: called when the kernel has killed a process because memory ran out, or is about to.

    Raises:
        EngineError: there is no such process on this machine, or its group cannot be watched.
    """

    def __init__(self, pid: int, on_oom: Callable[[], object]) -> None:
        self._on_oom = on_oom
        self._loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            try:
                groups = groups_of(pid)
                if "memory" in groups:
                    self._file = _opened(groups["memory"] / "memory.oom_control", stack)
                    self._events: int | select.epoll = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                    stack.callback(os.close, self._events)
                    (groups["memory"] / "cgroup.event_control").write_text(f"{self._events} {self._file}")
                else:
                    self._file = _opened(_event_file(groups[""]), stack)
                    self._events = stack.enter_context(select.epoll())
                    os.pread(self._file, 4096, 0)  # only changes after a read are reported
                    self._events.register(self._file, select.EPOLLPRI | select.EPOLLET)
            except (OSError, KeyError) as error:
                raise EngineError(f"cannot watch process {pid} for out-of-memory kills: {error}") from error
            self._loop.add_reader(self._events, self._on_event)
            stack.callback(self._loop.remove_reader, self._events)
            self._open = stack.pop_all()

    def close(self) -> None:
        """Stop watching. May be called again."""
        self._open.close()

    def _on_event(self) -> None:
        events = self._events
        by_eventfd = isinstance(events, int)
        signals = os.eventfd_read(events) if isinstance(events, int) else len(events.poll(0))
        try:
            kills = oom_kills(os.pread(self._file, 4096, 0).decode())
            # An eventfd is signalled just before the kill.
            killed, removed = by_eventfd or kills > 0, False
        except OSError:
            # The group is gone, which is one signal; a second one was for a kill.
            killed, removed = by_eventfd and signals > 1, True
        if killed:
            self._on_oom()
        if killed or removed:
            self.close()


def _opened(path: Path, stack: contextlib.ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _event_file(group: Path) -> Path:
    """The file that counts kills in that group: its own, or that of the nearest parent that limits memory."""
    for folder in (group, *group.parents):
        if (path := folder / "memory.events").exists():
            return path
    raise FileNotFoundError(f"no memory.events in {group}")
