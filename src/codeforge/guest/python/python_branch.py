"""FORK: makes a second session, a process of its own, with everything that this one has in memory.

A branch is a grandchild, so that init becomes its parent. Both share memory until one of them writes
to it, and open files for good. Threads, connections and child processes cannot be shared: while there
are any, the session does not fork. A branch has a copy of the files, in its working directory.
"""

from __future__ import annotations

import gc
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from codeforge.guest.python.python_cells import Cells, flush
    from codeforge.guest.python.python_channel import CONTROL_FD, Channel
else:
    from python_cells import flush
    from python_channel import CONTROL_FD

CODE_DIR = "/code"
MANY_OBJECTS = 100_000
SETTLE_S, SETTLE_STEPS, ENDING_STEPS = 0.01, 5, 200
"""A thread that was joined stays in /proc for a moment. How long to wait, and how often; the last number
is for threads that Python no longer knows."""

_ONE_PATH = (
    "open os.listdir os.scandir os.remove os.mkdir os.rmdir os.truncate os.chmod os.chown os.utime os.chdir"
    " os.setxattr os.removexattr os.walk os.fwalk glob.glob shutil.rmtree shutil.chown"
    " pathlib.Path.glob pathlib.Path.rglob sqlite3.connect"
)
_TWO_PATHS = "os.rename os.link os.symlink shutil.copyfile shutil.copytree shutil.move"
PATHS_OF = dict.fromkeys(_ONE_PATH.split(), 1) | dict.fromkeys(_TWO_PATHS.split(), 2)
"""Audited events, and how many of their first arguments are paths."""


class Branching:
    """Forks this process, unless something in it cannot be copied."""

    def __init__(self, channel: Channel, cells: Cells) -> None:
        self._channel = channel
        self._cells = cells
        self._directory = os.getcwd()  # noqa: PTH109 - pathlib is the program's
        self._others: list[str] = []
        self._own_sockets = {_inode(CONTROL_FD)}
        self._kept_loop: Any = None
        if self._directory != CODE_DIR:
            self._guard(CODE_DIR)

    # --- What prevents it

    def _obstacle(self, handed_in: Sequence[int]) -> str | None:
        """Why this process cannot be forked, and what to do about it; None if it can."""
        return self._tasks() or self._threads() or self._children() or self._sockets(handed_in)

    def _tasks(self) -> str | None:
        loop = self._cells.loop
        if loop is None or loop.is_closed():
            return None
        import asyncio

        pending = [task.get_name() for task in asyncio.all_tasks(loop)]
        if pending:
            return f"asyncio tasks are pending ({_listed(pending)}): await or cancel them first"
        return None

    def _threads(self) -> str | None:
        self._cells.be_quiet()
        threading: Any = sys.modules.get("threading")
        for step in range(ENDING_STEPS):
            task_names = os.listdir("/proc/self/task")  # noqa: PTH208 - pathlib is the program's
            ids = {int(name) for name in task_names} - {os.getpid()}
            if not ids:
                return None
            known = {thread.native_id: thread.name for thread in threading.enumerate()} if threading else {}
            # A thread that Python has forgotten may be about to end, which takes a while on a busy machine.
            if step >= SETTLE_STEPS and not ids.isdisjoint(known):
                break
            time.sleep(SETTLE_S)
        names = [known.get(each, "one of a library's own") for each in sorted(ids)]
        return f"threads are running ({_listed(names)}): join them, or shut down what has them, first"

    def _children(self) -> str | None:
        running = []
        for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - pathlib is the program's; gVisor lists no children
            state_and_parent = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:2]
            if state_and_parent[1:] == [str(os.getpid())] and state_and_parent[0] not in "ZX":
                running.append(pid)
        if not running:
            return None
        names = [f"{pid} {_read(f'/proc/{pid}/comm')}" for pid in running]
        return f"child processes are running ({_listed(names)}): wait for them or end them first"

    def _sockets(self, handed_in: Sequence[int]) -> str | None:
        mine = {*self._own_sockets, *map(_inode, handed_in)}
        loop: Any = self._cells.loop
        for pair in ("_ssock", "_csock"):
            if getattr(loop, pair, None) is not None:
                mine.add(_inode(getattr(loop, pair).fileno()))
        found = []
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib is the program's
            try:
                info = os.fstat(int(name))
            except OSError:  # it was the listing's own
                continue
            if stat.S_ISSOCK(info.st_mode) and info.st_ino not in mine:
                found.append(f"descriptor {name}")
        return f"sockets are open ({_listed(found)}): close these connections first" if found else None

    # --- Forking

    def fork(self, directory: str, fds: list[int]) -> dict[str, Any]:
        """Fork; returns the message to send, in the parent and in the branch."""
        why = self._obstacle(fds)
        if why is None:
            flush()
            # After large imports a full collection would take longer than everything else.
            gc.collect(2 if len(gc.get_objects()) < MANY_OBJECTS else 1)
            gc.freeze()
            try:
                child = os.fork()
                if child == 0:
                    self._go_between()
                    self._become_branch(directory, fds)
                    return {"is": "ready"}
                status = os.waitpid(child, 0)[1]
                why = os.strerror(os.waitstatus_to_exitcode(status)) if status else None
            except OSError as error:
                why = os.strerror(error.errno or 0)
            why = why and f"the system cannot fork: {why}"
        for fd in fds:
            os.close(fd)
        return {"is": "forked"} if why is None else {"is": "not_forked", "why": why}

    def _go_between(self) -> None:
        """Fork again and leave, so that the branch becomes a child of init."""
        try:
            child = os.fork()
        except OSError as error:
            os._exit(error.errno or 1)
        if child:
            os._exit(0)

    def _become_branch(self, directory: str, fds: list[int]) -> None:
        self._channel.let_go()
        for standard, fd in zip((1, 2, CONTROL_FD), fds, strict=True):
            os.dup2(fd, standard, inheritable=standard != CONTROL_FD)
        for fd in fds:
            os.close(fd)
        self._channel.adopt()
        os.setsid()
        self._move(directory)
        loop: Any = self._cells.loop
        if loop is not None:
            # It shares the parent's epoll: closing the loop would change that.
            self._own_sockets |= {_inode(each.fileno()) for each in (loop._ssock, loop._csock) if each}
            self._kept_loop = loop
            self._cells.forget_loop()
        self._own_sockets.add(_inode(CONTROL_FD))
        renew_random_numbers()

    def _move(self, directory: str) -> None:
        """Change to the same directory in the branch's files."""
        try:
            below = os.path.relpath(os.getcwd(), self._directory)  # noqa: PTH109 - pathlib is the program's
        except OSError:
            below = os.curdir
        if self._directory != directory:
            old, self._directory = self._directory, directory
            self._guard(old)
        if below.partition(os.sep)[0] != os.pardir:
            os.chdir(directory)
            if os.path.isdir(below):  # noqa: PTH112 - pathlib is the program's
                os.chdir(below)

    # --- Other branches' files

    def _guard(self, directory: str) -> None:
        """From now on, refuse paths into that directory, except into this session's own."""
        if not self._others:
            sys.addaudithook(self._audit)
        if directory not in self._others:
            self._others.append(directory)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        for path in arguments[: PATHS_OF[event]] if event in PATHS_OF else ():
            if not isinstance(path, int | None):
                self._check(path)

    def _check(self, path: Any) -> None:
        try:
            name = os.path.normpath(os.fsdecode(path))
        except (TypeError, ValueError):
            return
        if name[:1] != "/" or _is_in(name, self._directory):
            return
        if any(_is_in(name, other) for other in self._others):
            raise PermissionError(
                13,
                f"the files of this branch are in its working directory, {self._directory}:"
                " use paths relative to it",
                name,
            )


def renew_random_numbers() -> None:
    """Seed again, as at the start of a program: numpy, and what preloaded modules set."""
    module: Any = sys.modules.get("numpy.random.mtrand")
    if module is not None:
        module.seed()
    preloads: Any = getattr(sys.modules["_frozen_importlib"]._find_spec, "__self__", None)
    if preloads is not None:
        preloads.renew()


def _is_in(name: str, directory: str) -> bool:
    return name == directory or name.startswith(directory.rstrip("/") + "/")


def _inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - pathlib is the program's
            return file.read().strip()
    except OSError:
        return ""


def _listed(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
