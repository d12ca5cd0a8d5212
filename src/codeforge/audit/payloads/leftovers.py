"""Leaves marks wherever another run might find them (``leave``), looks for them (``find``), or ``both``.

The second argument is the mark.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import socket
import sys
import time
from pathlib import Path

from codeforge.audit.payloads.observe import PLACES, attempt, report, syscall

MARK = sys.argv[2]
HIDDEN = "/tmp/.hidden/deep"  # noqa: S108 - in a sandbox
LEFT_IN = (*PLACES, str(Path.home()), "/code/__pycache__", HIDDEN, "/dev/mqueue")
LOOKED_IN = (*LEFT_IN, "/var/tmp", "/run", str(Path(HIDDEN).parent))  # noqa: S108 - in a sandbox
PORT = 45678
_WAIT = "import time; time.sleep(600)"
KEPT: list[socket.socket] = []


def leave() -> dict[str, object]:
    """Leave files, variables, sockets and a process. Return whether kernel objects could be made."""
    for folder in LEFT_IN:
        with contextlib.suppress(OSError):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, MARK).write_text(MARK)
    kernel_objects = {
        "shared memory": attempt(syscall, "shmget", 0x1234, 4096, 0o1600),
        "key": attempt(syscall, "add_key", b"user", MARK.encode(), b"x", 1, -4),
    }
    builtins.MARK = MARK  # type: ignore[attr-defined]
    json.MARK = MARK  # type: ignore[attr-defined]
    os.environ["MARK"] = MARK
    abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    abstract.bind(f"\0{MARK}")
    KEPT.extend((abstract, socket.create_server(("127.0.0.1", PORT))))
    os.umask(0o777)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            try:
                os.execv(sys.executable, [sys.executable, "-c", _WAIT, MARK])  # noqa: S606 - none is wanted
            finally:
                os._exit(1)
        os._exit(0)
    return {"uid": os.getuid(), **kernel_objects}


def marked_folders() -> list[str]:
    """Return the folders in which an entry has the mark in its name."""
    found = []
    for folder in LOOKED_IN:
        with contextlib.suppress(OSError):
            found += [folder] if any(MARK in path.name for path in Path(folder).iterdir()) else []
    return found


def commands() -> str:
    """Return the command lines of all other processes."""
    texts = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.name != str(os.getpid()):
                texts.append((process / "cmdline").read_text())
    return "".join(texts)


def find() -> dict[str, object]:
    """Return where the mark, or a trace of the run that left it, is found."""
    shared_memory = Path("/proc/sysvipc/shm")
    traces = {
        "builtins": hasattr(builtins, "MARK"),
        "json": hasattr(json, "MARK"),
        "environment": "MARK" in os.environ,
        "abstract socket": MARK in Path("/proc/net/unix").read_text(),
        "process": MARK in commands(),
        "port": attempt(socket.create_server, ("127.0.0.1", PORT)) != "allowed",
        "shared memory": shared_memory.exists() and len(shared_memory.read_text().splitlines()) > 1,
        "umask": os.umask(0o22) != 0o22,
        "hidden folder": Path(HIDDEN).parent.exists(),
    }
    return {"uid": os.getuid(), "found": marked_folders() + [name for name, there in traces.items() if there]}


def both() -> dict[str, object]:
    """Leave marks, and find them in the same run."""
    left = leave()
    time.sleep(0.3)
    return left | find()


report({"leave": leave, "find": find, "both": both}[sys.argv[1]]())
