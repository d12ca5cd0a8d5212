"""Ways to end, and things to leave behind; the first argument says which."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path


def exit_like_oom() -> None:
    """An exit code, and a word, that look like the kernel's."""
    print("Killed", flush=True)
    os._exit(137)


def kill_itself() -> None:
    """The same signal as the kernel's."""
    os.kill(os.getpid(), signal.SIGKILL)


def close_everything() -> None:
    """Every descriptor, then an ordinary end."""
    os.closerange(0, 1024)
    os._exit(3)


def kill_everybody() -> None:
    """All that it may signal, and itself."""
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def ignore_signals() -> None:
    """All that can be ignored, then wait."""
    for number in range(1, 65):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    print("waiting", flush=True)
    time.sleep(3600)


def stop_everybody() -> None:
    """Nobody in the sandbox runs any more."""
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGSTOP)
    os.kill(0, signal.SIGSTOP)


def much_output() -> None:
    """Three times what is kept."""
    for _ in range(3 * 64):
        os.write(1, b"x" * 16384)


def all_bytes() -> None:
    """Each byte there is."""
    os.write(1, bytes(range(256)))


def artifacts() -> None:
    """Everything that is not a file of ours, where files are looked for."""
    Path("link.txt").symlink_to("/etc/passwd")
    Path("folder").symlink_to("/proc/self/root/etc")
    Path("one").write_text("two names")
    os.link("one", "two")
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("/code/socket")
    Path("true.txt").write_text("a file")


def daemonise() -> None:
    """A process that leaves its session, and every descriptor that others wait for."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 1024)
            time.sleep(3600)
        os._exit(0)
    print("left one", flush=True)


def keep_the_pipe() -> None:
    """A child that holds stdout open after the end."""
    if os.fork() == 0:
        time.sleep(3600)
    print("left one", flush=True)


def swap_names() -> None:
    """A process that turns a file into a link and back while files are collected."""
    Path("out.txt").write_text("mine")
    if os.fork() == 0:
        while True:
            with contextlib.suppress(OSError):
                Path("other").symlink_to("/etc/passwd")
                Path("other").rename("out.txt")
                Path("fresh").write_text("mine")
                Path("fresh").rename("out.txt")
    time.sleep(0.2)


def leave_marks() -> None:
    """Wherever there is room."""
    mark = sys.argv[2]
    for folder in ("/tmp", "/dev/shm", "/code", "/dev/mqueue"):  # noqa: S108
        with contextlib.suppress(OSError):
            Path(folder, mark).write_text(mark)
    print("marked", flush=True)


def find_marks() -> None:
    """What another run left."""
    mark, found = sys.argv[2], []
    for folder in ("/tmp", "/dev/shm", "/code", "/dev/mqueue", "/var/tmp", "/run"):  # noqa: S108
        with contextlib.suppress(OSError):
            found += [folder for name in os.listdir(folder) if mark in name]  # noqa: PTH208
    print(", ".join(found) or "nothing", flush=True)


def randomness() -> None:
    """The first that each source gives."""
    import random
    import uuid

    print(random.random(), uuid.uuid4(), os.urandom(8).hex(), flush=True)  # noqa: S311


def hash_image() -> None:
    """What every run of this image executes, as this run sees it."""
    import hashlib

    folders = ("/opt/codeforge", "/usr/local/bin", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu",
               "/usr/lib/aarch64-linux-gnu", "/etc")  # fmt: skip
    digest = hashlib.sha256()
    own = {"hostname", "hosts", "resolv.conf", "mtab"}  # these are each sandbox's
    for path in sorted(path for folder in folders for path in Path(folder).glob("*")):
        if path.is_file() and os.access(path, os.R_OK) and path.name not in own:
            digest.update(str(path).encode())
            digest.update(path.read_bytes())
    print(digest.hexdigest(), flush=True)


globals()[sys.argv[1]]()
