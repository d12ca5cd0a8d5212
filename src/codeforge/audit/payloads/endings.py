"""Ways to end, and what to leave for the host to collect; the first argument says which."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

RENAME_EXCHANGE = 2
AT_FDCWD = -100


def exit_like_oom() -> None:
    """Print and exit as if the kernel had killed it because memory ran out."""
    print("Killed", "OOMKilled", flush=True)
    os._exit(137)


def kill_itself() -> None:
    """End by the signal with which the kernel kills when memory runs out."""
    print("Killed", "OOMKilled", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def close_everything() -> None:
    """Close every descriptor, then end."""
    os.closerange(0, 1024)
    os._exit(3)


def kill_everybody() -> None:
    """Kill every process that it may signal, then itself."""
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def ignore_signals() -> None:
    """Ignore and block every signal, in several processes, and wait."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    print("waiting", flush=True)
    for _ in range(2):
        os.fork()
    while True:
        signal.sigtimedwait({signal.SIGTERM}, 100)


def stop_everybody() -> None:
    """Stop the processes that the next argument names as for ``kill`` (default: all), then its own group."""
    target = int(sys.argv[2]) if len(sys.argv) > 2 else -1
    os.fork()
    time.sleep(0.2)
    with contextlib.suppress(OSError):
        os.kill(target, signal.SIGSTOP)
    os.kill(0, signal.SIGSTOP)


def much_output() -> None:
    """Write three times what the host keeps."""
    for _ in range(3 * 64):
        os.write(1, b"x" * 16384)


def all_bytes() -> None:
    """Write every byte value, several times, to both streams."""
    for stream in (1, 2):
        os.write(stream, bytes(range(256)) * 9)


def artifacts() -> None:
    """Leave every kind of entry that is not a regular file of its own, and one regular file."""
    Path("true.txt").write_text("a file")
    Path("/tmp/elsewhere").write_text("no file of /code")  # noqa: S108 - in a sandbox
    targets = {
        "absolute": "/etc/passwd",
        "relative": "../etc/passwd",
        "loop": "loop",
        "dangling": "nothing",
        "root": "/",
        "by proc": "/proc/self/root/etc/passwd",
        "folder": "/proc/self/root/etc",
        "init's": "/proc/1/fd/1",
        "own": "true.txt",
        "device": "/dev/zero",
    }
    for name, target in targets.items():
        Path(name).symlink_to(target)
    Path("one").write_text("two names")
    os.link("one", "two")
    Path("deep").mkdir()
    Path("deep/etc").symlink_to("/etc")
    for pipe in ("pipe", "deep/pipe"):
        os.mkfifo(pipe)
    os.mkfifo("closed", 0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")


def daemonise() -> None:
    """Leave a busy process behind, in a session of its own, with every descriptor closed."""
    alive = Path("/tmp/alive")  # noqa: S108 - in a sandbox
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 1024)
            while True:
                alive.touch()
        os._exit(0)
    os.wait()
    while not alive.exists():
        time.sleep(0.01)
    print("left one", flush=True)


def keep_the_pipe() -> None:
    """Leave children that hold stdout open; print the time at which the program itself ends."""
    for _ in range(20):
        if os.fork() == 0:
            os.setsid()
            time.sleep(3600)
    print(time.monotonic(), flush=True)


def swap_names() -> None:
    """Leave a process that exchanges a file and a folder with links, while the host collects files."""
    Path("folder").mkdir()
    Path("folder/passwd").write_text("mine")
    Path("other").symlink_to("/etc")
    Path("passwd").write_text("mine")
    Path("link").symlink_to("/etc/passwd")
    libc = ctypes.CDLL(None)
    if os.fork() == 0:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.closerange(0, 3)
        while True:
            for one, other in ((b"folder", b"other"), (b"passwd", b"link")):
                libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)
    time.sleep(0.2)


def randomness() -> None:
    """Print the first value that each source of randomness gives."""
    import random
    import secrets
    import tempfile
    import uuid

    drawn: list[object] = [
        random.random(),  # noqa: S311 - it is the source that is looked at
        random.SystemRandom().random(),
        str(uuid.uuid4()),
        str(uuid.uuid1()),
        secrets.token_hex(),
        os.urandom(8).hex(),
        tempfile.mktemp(),  # noqa: S306 - for its name alone
    ]
    with contextlib.suppress(ImportError):
        import numpy

        drawn += [float(numpy.random.random()), float(numpy.random.default_rng().random())]
    print(json.dumps(drawn), flush=True)


def hash_image() -> None:
    """Print a hash of what every run of this image executes, as this run sees it."""
    import hashlib

    libraries = [
        f"{top}/lib/{machine}-linux-gnu" for top in ("", "/usr") for machine in ("x86_64", "aarch64")
    ]
    digest = hashlib.sha256()
    of_each_sandbox = {"hostname", "hosts", "resolv.conf", "mtab"}
    folders = ("/opt/codeforge", "/usr/local/bin", "/etc", *libraries)
    for path in sorted(path for folder in folders for path in Path(folder).glob("*")):
        if path.is_file() and os.access(path, os.R_OK) and path.name not in of_each_sandbox:
            digest.update(str(path).encode())
            digest.update(path.read_bytes())
    print(digest.hexdigest(), flush=True)


globals()[sys.argv[1]]()
