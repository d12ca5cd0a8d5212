"""What a program can write, execute and find in the file system.

It looks for canaries where a host or another run might have left one. With the argument ``everywhere``, it
looks in every file, except in the folders that further arguments name.
"""

from __future__ import annotations

import ctypes
import glob
import mmap
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from codeforge.audit.payloads.observe import PLACES, attempt, distinct, reach, report, syscall

CANARY = re.compile(rb"codeforge-" rb"canary-[0-9a-f]{16}")
MAY_BE_WRITABLE = (*PLACES, "/dev/mqueue")
NOT_WALKED = ("/proc", "/sys")
WALKED_APART = ("/proc/self", "/proc/sys")
# Where a host or another run could have left something.
CANARIES_IN = (
    "/etc",
    "/root",
    "/home",
    "/run",
    "/var",
    "/mnt",
    "/media",
    "/srv",
    "/host",
    "/opt",
    *MAY_BE_WRITABLE,
)
MAX_READ_BYTES = 256 * 1024
SECRETS = (
    "/run/secrets",
    "/var/run/secrets",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/root/.ssh",
    "/root/.docker",
    "/root/.aws",
    "/etc/shadow",
    "/.dockerenv.d",
    "/proc/1/environ",
)
PROCESS_FILES = ("environ", "cmdline", "maps", "mounts", "mountinfo", "comm", "cgroup")
MARK = "codeforge-audit-was-here"
MS_REMOUNT, MS_BIND = 32, 4096
AT_FDCWD, MOUNT_ATTR_RDONLY = -100, 1


def walk(folder: str = "/") -> Iterator[os.DirEntry[str]]:
    """Yield every entry below the folder that this user may see."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False) and entry.path not in NOT_WALKED:
                    yield from walk(entry.path)
    except OSError:
        return


def make_file(path: str) -> None:
    """Make and remove an empty file."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.unlink(path)  # noqa: PTH108 - beside os.open


def make_folder(path: str) -> None:
    """Make and remove a folder."""
    Path(path).mkdir()
    Path(path).rmdir()


def make_link(path: str) -> None:
    """Make and remove a link."""
    Path(path).symlink_to("nowhere")
    Path(path).unlink()


def make_pipe(path: str) -> None:
    """Make and remove a named pipe."""
    os.mkfifo(path)
    Path(path).unlink()


MAKERS: tuple[Callable[[str], None], ...] = (make_file, make_folder, make_link, make_pipe)


def is_writable(folder: str) -> bool:
    """Whether an entry of any kind can be made in the folder."""
    return any(attempt(make, f"{folder}/{MARK}") == "allowed" for make in MAKERS)


def is_open_for_writing(path: str) -> bool:
    """Whether the file can be opened for writing; nothing is written."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
    except OSError:
        return False
    return True


def copied(source: str, place: str) -> str:
    """Copy a file, make the copy executable, and return its path."""
    path = shutil.copy(source, place)
    Path(path).chmod(0o700)
    return path


def run_script(place: str) -> None:
    """Execute a script."""
    path = Path(place, "script")
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    subprocess.run([str(path)], check=True)


def run_program(place: str) -> None:
    """Execute a program."""
    subprocess.run([copied("/usr/bin/env", place), "true"], check=True, capture_output=True)


def run_by_loader(place: str) -> None:
    """Let the dynamic loader, which may be executed, load a program."""
    loader = (glob.glob("/lib64/ld-linux*") + glob.glob("/lib/ld-linux*"))[0]  # noqa: PTH207 - one line
    subprocess.run([loader, copied("/usr/bin/env", place), "true"], check=True, capture_output=True)


def libc_copied(place: str) -> str:
    """Copy the C library, and return the copy's path."""
    with open("/proc/self/maps") as maps:  # noqa: PTH123 - read line by line
        return copied(next(line.split()[-1] for line in maps if "libc.so" in line), place)


def map_code(place: str) -> None:
    """Map a file as code."""
    file = os.open(libc_copied(place), os.O_RDONLY)
    mmap.mmap(file, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)


def load_library(place: str) -> None:
    """Load a library."""
    try:
        ctypes.CDLL(libc_copied(place))
    except OSError as error:  # which has the loader's words and no number
        raise ImportError from error


WAYS_TO_EXECUTE = {
    "script": run_script,
    "program": run_program,
    "program by the loader": run_by_loader,
    "code mapped": map_code,
    "library loaded": load_library,
}


def executed() -> dict[str, str]:
    """Try each way to execute a file from a writable folder."""
    return {what: distinct(attempt(way, place) for place in PLACES) for what, way in WAYS_TO_EXECUTE.items()}


def remount(point: str) -> None:
    """Make a mount writable."""
    syscall("mount", b"none", point.encode(), None, MS_REMOUNT, None)


def remount_bind(point: str) -> None:
    """Make one mount writable, not its file system."""
    syscall("mount", b"none", point.encode(), None, MS_REMOUNT | MS_BIND, None)


def clear_read_only(point: str) -> None:
    """Make a mount writable by the newer system call."""
    attributes = (ctypes.c_uint64 * 4)(0, MOUNT_ATTR_RDONLY, 0, 0)
    syscall("mount_setattr", AT_FDCWD, point.encode(), 0, attributes, 32)


def remounts() -> dict[str, str]:
    """Try to make every mount writable."""
    with open("/proc/self/mountinfo") as mounts:  # noqa: PTH123 - read line by line
        points = [line.split()[4] for line in mounts]
    return {
        "remount": distinct(attempt(remount, point) for point in points),
        "remount alone": distinct(attempt(remount_bind, point) for point in points),
        "clear read-only": distinct(attempt(clear_read_only, point) for point in points),
        "write to / afterwards": reach(["/mark"], make_file),
    }


def tokens(text: bytes) -> set[str]:
    """Return the canaries in a text."""
    return {match.decode() for match in CANARY.findall(text)}


def process_tokens() -> set[str]:
    """Return the canaries in what the kernel shows of processes and mounts."""
    found = tokens("\0".join(f"{key}={value}" for key, value in os.environ.items()).encode())
    for process in Path("/proc").glob("[0-9]*"):
        for name in PROCESS_FILES:
            try:
                found |= tokens((process / name).read_bytes())
            except OSError:
                continue
    return found


def is_searched(path: str) -> bool:
    """Whether the file's content is searched for canaries."""
    if sys.argv[1:2] == ["everywhere"]:
        return not path.startswith(tuple(sys.argv[2:]) or "//")
    return path.startswith(CANARIES_IN)


def file_tokens(entry: os.DirEntry[str]) -> set[str]:
    """Return the canaries in a file's name or content."""
    found = tokens(os.fsencode(entry.path))
    if is_searched(entry.path) and entry.is_file(follow_symlinks=False):
        try:
            with open(entry.path, "rb") as file:  # noqa: PTH123 - it may be no regular file any more
                found |= tokens(file.read(MAX_READ_BYTES))
        except OSError:
            pass
    return found


def heeds_set_id(path: str) -> bool:
    """Whether the kernel heeds a set-user-id bit there: not on a mount with nosuid."""
    return not os.statvfs(path).f_flag & os.ST_NOSUID


def left_behind(folder: str) -> bool:
    """Whether the folder holds anything that this run did not bring."""
    brought = {"main.py", "codeforge", "__pycache__"}
    return not brought.issuperset(os.listdir(folder))  # noqa: PTH208 - names are wanted


def list_or_read(path: str) -> None:
    """List a folder or open a file."""
    if Path(path).is_dir():
        os.listdir(path)  # noqa: PTH208 - beside os.open
    else:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def some(found: list[str], otherwise: str) -> str:
    """Return the first of the paths as text, or ``otherwise`` if there are none."""
    return ", ".join(sorted(found)[:20]) or otherwise


def main() -> None:
    """Walk over everything once, and try the rest."""
    own = [folder for folder in MAY_BE_WRITABLE if Path(folder).is_dir() and left_behind(folder)]
    folders, opened, privileged, strange, looked = ["/", *WALKED_APART], [], [], [], 0
    for folder in WALKED_APART:
        folders += [entry.path for entry in walk(folder) if entry.is_dir(follow_symlinks=False)]
    found = process_tokens()
    for entry in walk():
        looked += 1
        found |= file_tokens(entry)
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            folders.append(entry.path)
        elif stat.S_ISBLK(mode):
            strange.append(entry.path)
        elif stat.S_ISREG(mode):
            if mode & (stat.S_ISUID | stat.S_ISGID) and heeds_set_id(entry.path):
                privileged.append(entry.path)
            if not entry.path.startswith(MAY_BE_WRITABLE) and is_open_for_writing(entry.path):
                opened.append(entry.path)
    written = [folder for folder in folders if is_writable(folder)]
    report(
        {
            "writable": some([path for path in written if not path.startswith(MAY_BE_WRITABLE)], "none else"),
            "own places": ", ".join(sorted(set(PLACES) & set(written))),
            "opened for writing": some(opened, "none"),
            **remounts(),
            **executed(),
            "setuid files": some(privileged, "none"),
            "block devices": some(strange, "none"),
            "secrets": some([path for path in SECRETS if attempt(list_or_read, path) == "allowed"], "none"),
            "left behind": ", ".join(own) or "nothing",
            "canaries": ", ".join(sorted(found)) or "none",
            "environment": ", ".join(sorted(os.environ)),
            "entries looked at": str(looked),
        }
    )


main()
