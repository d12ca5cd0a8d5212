"""Ways to take more than one's share; the first argument says which."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from pathlib import Path

from codeforge.audit.payloads.observe import attempt

ENOUGH = 100_000
MiB = 1024 * 1024


def say(**observed: object) -> None:
    """One line for the host."""
    print(json.dumps({name: str(value) for name, value in observed.items()}), flush=True)


def fork_bomb() -> None:
    """Children that wait, until there may be no more."""
    count, answer = 0, "allowed"
    while answer == "allowed" and count < ENOUGH:
        answer = attempt(fork_one)
        count += answer == "allowed"
    say(count=count, answer=answer)


def fork_one() -> None:
    """A child that waits."""
    if os.fork() == 0:
        time.sleep(3600)


def thread_bomb() -> None:
    """Threads that wait."""
    count, answer = 0, "allowed"
    while answer == "allowed" and count < ENOUGH:
        answer = attempt(threading.Thread(target=time.sleep, args=(3600,), daemon=True).start)
        count += answer == "allowed"
    say(count=count, answer=answer)
    os._exit(0)


def memory_bomb() -> None:
    """Memory that is used."""
    kept = []
    while True:
        kept.append(b"x" * (4 * MiB))


def child_memory_bomb() -> None:
    """The same in a child, while the program itself ends well."""
    child = os.fork()
    if child == 0:
        memory_bomb()
    os.waitpid(child, 0)


def fill(folder: str) -> None:
    """Files of a megabyte."""
    written, answer, number = 0, "allowed", 0
    while answer == "allowed" and written < 4096 * MiB:
        answer = attempt(Path(folder, str(number)).write_bytes, b"x" * MiB)
        written += MiB if answer == "allowed" else 0
        number += 1
    say(megabytes=written // MiB, answer=answer)


def fill_tmp() -> None:
    """All of /tmp."""
    fill("/tmp")  # noqa: S108


def fill_shm() -> None:
    """All of /dev/shm."""
    fill("/dev/shm")  # noqa: S108


def many_files() -> None:
    """Empty ones."""
    count, answer = 0, "allowed"
    while answer == "allowed" and count < ENOUGH:
        answer = attempt(Path("/tmp", str(count)).touch)  # noqa: S108
        count += answer == "allowed"
    say(count=count, answer=answer)


def one_huge_file() -> None:
    """A file with a hole in it."""
    with Path("huge").open("wb") as file:
        say(answer=attempt(os.ftruncate, file.fileno(), 1 << 50))


def descriptors() -> None:
    """Open files."""
    count, answer = 0, "allowed"
    while answer == "allowed" and count < ENOUGH:
        answer = attempt(os.open, "/dev/null", os.O_RDONLY)
        count += answer == "allowed"
    say(count=count, answer=answer)


def flood() -> None:
    """Both streams, for ever."""
    while True:
        os.write(1, b"x" * 65536)
        os.write(2, b"x" * 65536)


def spin() -> None:
    """Four busy processes for two seconds."""
    until = time.monotonic() + 2
    for _ in range(3):
        if os.fork() == 0:
            break
    while time.monotonic() < until:
        pass


def zombies() -> None:
    """Children that nobody waits for, of a child that is gone: process 1 must."""
    for _ in range(300):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
    say(answer="went on")


def take_user_budget() -> None:
    """What the kernel counts by user: inotify instances and pipe buffers; then wait."""
    libc, count = ctypes.CDLL(None, use_errno=True), 0
    while libc.inotify_init() >= 0 and count < ENOUGH:
        count += 1
    for _ in range(400):
        if attempt(os.pipe) != "allowed":
            break
    say(inotify=count)
    sys.stdin.read()


def use_user_budget() -> None:
    """The same, a little of it."""
    import fcntl

    instance = ctypes.CDLL(None, use_errno=True).inotify_init()
    read, _ = os.pipe()
    size = fcntl.fcntl(read, 1032)  # F_GETPIPE_SZ
    say(inotify="allowed" if instance >= 0 else "refused", pipe=size)


def heartbeat() -> None:
    """A sign of life, for as long as it is let."""
    while True:
        os.write(1, b".")
        time.sleep(0.05)


globals()[sys.argv[1]]()
