"""What can be written, executed and found."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from codeforge.audit.payloads.observe import attempt, report, syscall

CANARY = re.compile(rb"codeforge-" rb"canary-[0-9a-f]{16}")
WRITABLE = ("/code", "/tmp", "/dev/shm", "/dev/mqueue")  # noqa: S108
NOT_WALKED = ("/proc", "/sys")
READ_IN = ("/etc", "/root", "/home", "/run", "/var", "/mnt", "/media", "/srv", "/host", "/opt", "/code",
           "/tmp", "/dev/shm", "/dev/mqueue")  # noqa: S108  # fmt: skip
READ_MOST = 256 * 1024
SECRETS = ("/run/secrets", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/root/.ssh",
           "/root/.docker", "/etc/shadow", "/.dockerenv.d", "/proc/1/environ")  # fmt: skip


def walk(folder: str = "/") -> Iterator[os.DirEntry[str]]:
    """Everything that this user may see."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False) and entry.path not in NOT_WALKED:
                    yield from walk(entry.path)
    except OSError:
        return


def touch(folder: str) -> None:
    """A file there, for a moment."""
    path = Path(folder, "codeforge-audit-was-here")
    path.touch()
    path.unlink()


def run_file(folder: str) -> None:
    """A file of ours, executed."""
    path = Path(folder, "program")
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    subprocess.run([str(path)], check=True)


def remount(path: str) -> None:
    """Read-only no more."""
    syscall("mount", b"none", path.encode(), None, 0x20, None)


def tokens(text: bytes) -> set[str]:
    """The canaries in it."""
    return {match.decode() for match in CANARY.findall(text)}


def process_tokens() -> set[str]:
    """Canaries in what the kernel tells of processes and mounts."""
    found = tokens("\0".join(f"{key}={value}" for key, value in os.environ.items()).encode())
    for process in Path("/proc").iterdir():
        for name in ("environ", "cmdline", "mountinfo", "comm", "cgroup"):
            try:
                found |= tokens((process / name).read_bytes())
            except OSError:
                continue
    return found


def file_tokens(entry: os.DirEntry[str]) -> set[str]:
    """Canaries in a file's name or content."""
    found = tokens(os.fsencode(entry.path))
    if entry.path.startswith(READ_IN) and entry.is_file(follow_symlinks=False):
        try:
            with open(entry.path, "rb") as file:  # noqa: PTH123 (it may not be a regular file by now)
                found |= tokens(file.read(READ_MOST))
        except OSError:
            pass
    return found


def counts(path: str) -> bool:
    """Whether the kernel heeds a set-user-id bit there: not on a mount with nosuid."""
    return not os.statvfs(path).f_flag & os.ST_NOSUID


def main() -> None:
    """One walk over everything."""
    written, privileged, strange = [], [], []
    found = process_tokens()
    if attempt(touch, "/") == "allowed":
        written.append("/")
    for entry in walk():
        found |= file_tokens(entry)
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode) and attempt(touch, entry.path) == "allowed":
            written.append(entry.path)
        elif stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID) and counts(entry.path):
            privileged.append(entry.path)
        elif stat.S_ISBLK(mode):
            strange.append(entry.path)
    elsewhere = [path for path in written if not path.startswith(WRITABLE)]
    ran = [folder for folder in WRITABLE[:3] if attempt(run_file, folder) == "allowed"]
    own = [folder for folder in WRITABLE if os.path.isdir(folder) and left_behind(folder)]  # noqa: PTH112
    there = [path for path in SECRETS if attempt(list_or_read, path) == "allowed"]
    report(
        {
            "writable": ", ".join(elsewhere[:20]) or "none else",
            "remount /": attempt(remount, "/"),
            "remount /proc": attempt(remount, "/proc"),
            "executed": ", ".join(ran) or "none",
            "setuid files": ", ".join(privileged[:20]) or "none",
            "block devices": ", ".join(strange) or "none",
            "secrets": ", ".join(there) or "none",
            "left behind": ", ".join(own) or "nothing",
            "canaries": ", ".join(sorted(found)) or "none",
            "environment": ", ".join(sorted(os.environ)),
        }
    )


def left_behind(folder: str) -> bool:
    """Whether there is anything that this run did not bring."""
    brought = {"main.py", "codeforge", "program", "__pycache__"}
    return bool({name for name in os.listdir(folder)} - brought)  # noqa: C416, PTH208


def list_or_read(path: str) -> None:
    """Fails unless it tells something."""
    if os.path.isdir(path):  # noqa: PTH112
        os.listdir(path)  # noqa: PTH208
    else:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


main()
