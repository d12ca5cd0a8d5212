"""Ways to take more than a fair share; the first argument says which."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from codeforge.audit.payloads.observe import attempt, report, syscall

ENOUGH = 100_000
MiB = 1024 * 1024
DESCRIPTORS = 1024
INOTIFY_WANTED, PIPES_WANTED = 200, 300
F_SETPIPE_SZ, F_GETPIPE_SZ = 1031, 1032
PAGE_BITS = 12


def say(**observed: object) -> None:
    """Report observations as text."""
    report({name: str(value) for name, value in observed.items()})


def repeat(action: Callable[[], object]) -> None:
    """Repeat an action until it is refused; report how often it was allowed, and the refusal."""
    count, answer = 0, "allowed"
    while answer == "allowed" and count < ENOUGH:
        answer = attempt(action)
        count += answer == "allowed"
    say(count=count, answer=answer)


def fork_one() -> None:
    """Start a child that waits."""
    if os.fork() == 0:
        signal.pause()


def start_thread() -> None:
    """Start a thread that waits."""
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


def open_null() -> None:
    """Open one more file."""
    os.open("/dev/null", os.O_RDONLY)


def fork_bomb() -> None:
    """Start children until no more are allowed."""
    repeat(fork_one)


def thread_bomb() -> None:
    """Start threads until no more are allowed."""
    repeat(start_thread)
    os._exit(0)


def descriptors() -> None:
    """Open files until no more are allowed."""
    repeat(open_null)


def memory_bomb() -> None:
    """Take memory and use it."""
    kept = []
    while True:
        kept.append(b"x" * (4 * MiB))


def child_memory_bomb() -> None:
    """Do the same in a child, report how the child ended, and exit with 0."""
    child = os.fork()
    if child == 0:
        memory_bomb()
    say(child=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def fill(folder: str) -> tuple[str, int]:
    """Write files, each as large as it may become, until the folder is full.

    Returns:
        the name of the last error, and the number of bytes written.
    """
    written, problem = 0, "none"
    for number in range(1000):
        file = os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                written += os.write(file, b"x" * 65536)
        except OSError as error:
            problem = errno.errorcode[error.errno or 0]
        os.close(file)
        if problem == "ENOSPC":
            break
    return problem, written


def fill_folder() -> None:
    """Fill the folders that the further arguments name, then wait for the end of stdin."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    filled = {folder: fill(folder) for folder in sys.argv[2:]}
    problems = {problem for problem, _ in filled.values()}
    say(answer=", ".join(sorted(problems)), **{folder: written for folder, (_, written) in filled.items()})
    sys.stdin.read()


def many_files() -> None:
    """Make empty files in the folder that the next argument names, until no more are allowed."""
    numbers = itertools.count()
    repeat(lambda: os.close(os.open(f"{sys.argv[2]}/{next(numbers)}", os.O_CREAT)))


def one_huge_file() -> None:
    """Make a file with a hole in it."""
    with Path("huge").open("wb") as file:
        say(answer=attempt(os.ftruncate, file.fileno(), 1 << 50))


def flood() -> None:
    """Write without end, from two processes, to the streams that the further arguments name."""
    streams = [int(number) for number in sys.argv[2:]]
    line = b"x" * 999_999 + b"\n"
    if len(streams) > 1:
        os.fork()
    while True:
        for stream in streams:
            os.write(stream, line)


def spin() -> None:
    """Keep four processes busy for two seconds."""
    until = time.monotonic() + 2
    for _ in range(3):
        if os.fork() == 0:
            break
    while time.monotonic() < until:
        pass


def zombies() -> None:
    """Start grandchildren that only process 1 can wait for."""
    for _ in range(500):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
    say(answer="went on")


def inotify_instances() -> tuple[int, str]:
    """Make inotify instances; return how many, and the error of the next one."""
    libc = ctypes.CDLL(None, use_errno=True)
    for count in range(INOTIFY_WANTED):
        if libc.inotify_init1(0) < 0:
            return count, errno.errorcode[ctypes.get_errno()]
    return INOTIFY_WANTED, "none"


def queued_signals() -> tuple[int, str]:
    """Queue signals; return how many, and the error of the next one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    info = (ctypes.c_int32 * 32)(signal.SIGRTMIN, 0, -1)
    for count in range(ENOUGH):
        answer = attempt(syscall, "rt_sigqueueinfo", os.getpid(), int(signal.SIGRTMIN), info)
        if answer != "allowed":
            return count, answer
    return ENOUGH, "none"


def take_user_budget() -> None:
    """Use up what the kernel counts by user: inotify instances, signals, pages in pipes. Then wait."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    instances, inotify = inotify_instances()
    queued, queue = queued_signals()
    pipes = [os.pipe()[1] for _ in range(PIPES_WANTED)]
    pages = sum(fcntl.fcntl(pipe, F_GETPIPE_SZ) for pipe in pipes) >> PAGE_BITS
    for pipe in pipes:
        if attempt(fcntl.fcntl, pipe, F_SETPIPE_SZ, MiB) != "allowed":
            break
    all_pages = sum(fcntl.fcntl(pipe, F_GETPIPE_SZ) for pipe in pipes) >> PAGE_BITS
    say(
        uid=os.getuid(),
        instances=instances,
        inotify=inotify,
        queued=queued,
        queue=queue,
        pages=pages,
        all_pages=all_pages,
    )
    sys.stdin.read()


def heartbeat() -> None:
    """Print every 50 ms, without end."""
    while True:
        os.write(1, b".")
        time.sleep(0.05)


globals()[sys.argv[1]]()
