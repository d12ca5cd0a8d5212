"""What a program can do to process 1, or to its parent where the argument is ``parent``.

In a sandbox that serves several runs, the parent is the interpreter that forks each of them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

from codeforge.audit.payloads.observe import (
    attempt,
    distinct,
    in_child,
    open_to_read,
    open_to_write,
    put,
    reach,
    report,
    syscall,
)

TARGET = os.getppid() if sys.argv[1:] == ["parent"] else 1
FOLDER = f"/proc/{TARGET}"
CLOSED = {"EACCES", "EPERM"}

READ_FILES = ("mem", "maps", "smaps", "environ", "auxv", "stack", "syscall", "pagemap", "io", "personality")
LISTED = ("fd", "fdinfo", "map_files", f"task/{TARGET}/fd")
LINKS = ("cwd", "root", "exe", "ns/pid", "ns/net")

PTRACE_TRACEME, PTRACE_PEEKDATA, PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SEIZE = 0, 2, 16, 17, 0x4206
WALL = 0x40000000  # of waitpid: also wait for a process that is no child
RLIMIT_NOFILE, RLIMITS = 7, 16
SCHED_BATCH = 3
WHO_PROCESS, WHO_GROUP, WHO_USER = 0, 1, 2
IOPRIO_PROCESS, IOPRIO_USER, IOPRIO_IDLE = 1, 3, 3 << 13


def answer(call: str, *arguments: object) -> str:
    """Make a system call in a child process, and return its answer."""
    return in_child(syscall, call, *arguments)


def proc_files() -> dict[str, str]:
    """Its files under /proc: memory, environment, descriptors, and the way to the files that it sees."""
    missing_is_fine = CLOSED | {"ENOENT"}  # some kernels have no such file
    descriptors = [f"{FOLDER}/fd/{number}" for number in range(16)]
    return {
        "memory": attempt(open_to_read, f"{FOLDER}/mem"),
        "environment": attempt(open_to_read, f"{FOLDER}/environ"),
        "files": reach((f"{FOLDER}/{name}" for name in READ_FILES), open_to_read, missing_is_fine),
        "memory, writing": reach(
            (f"{FOLDER}/mem", f"{FOLDER}/task/{TARGET}/mem", f"{FOLDER}/clear_refs"), open_to_write, CLOSED
        ),
        "lists": reach((f"{FOLDER}/{name}" for name in LISTED), os.listdir, missing_is_fine),
        "links": reach((f"{FOLDER}/{name}" for name in LINKS), os.readlink, CLOSED),
        "descriptors": reach(descriptors, open_to_write, CLOSED),
        "through its root": attempt(open_to_read, f"{FOLDER}/root/etc/passwd"),
    }


def attach(pid: int) -> None:
    """Stop a process as a debugger does, and let it continue."""
    syscall("ptrace", PTRACE_ATTACH, pid, 0, 0)
    os.waitpid(pid, WALL)
    syscall("ptrace", PTRACE_DETACH, pid, 0, 0)


def tracing() -> dict[str, str]:
    """``ptrace``: of the target, of a child, and by the parent."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        return {
            "attach": in_child(attach, TARGET),
            "seize": answer("ptrace", PTRACE_SEIZE, TARGET, 0, 0),
            "peek": answer("ptrace", PTRACE_PEEKDATA, TARGET, 0, 0),
            "seize a child": answer("ptrace", PTRACE_SEIZE, child, 0, 0),
            "be traced by the parent": answer("ptrace", PTRACE_TRACEME, 0, 0, 0),
        }
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def process_descriptor() -> int:
    """Return a descriptor of the target; -1 if the kernel gives none."""
    try:
        return syscall("pidfd_open", TARGET, 0)
    except OSError:
        return -1


def memory_calls() -> dict[str, str]:
    """System calls that reach into another process's memory and descriptors."""
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_size_t * 2)(0x400000, 8)
    pidfd = process_descriptor()
    return {
        "process_vm_readv": answer("process_vm_readv", TARGET, local, 1, remote, 1, 0),
        "process_vm_writev": answer("process_vm_writev", TARGET, local, 1, remote, 1, 0),
        "pidfd_getfd": distinct(answer("pidfd_getfd", pidfd, number, 0) for number in range(4)),
        "kcmp": answer("kcmp", TARGET, os.getpid(), 0, 0, 0),
        "process_madvise": answer("process_madvise", pidfd, remote, 1, 4, 0),
        "process_mrelease": answer("process_mrelease", pidfd, 0),
    }


def own_limit(kind: int) -> object:
    """Return this program's limit of that kind. As another process's limit, it would change little."""
    pair = (ctypes.c_uint64 * 2)()
    syscall("prlimit64", 0, kind, None, pair)
    return pair


def state() -> tuple[str, int, list[int]]:
    """Return the target's limits, priority and processors."""
    try:
        with open(f"{FOLDER}/limits") as file:  # noqa: PTH123 - as short as the rest
            limits = file.read()
    except OSError:
        limits = ""
    return limits, os.getpriority(os.PRIO_PROCESS, TARGET), sorted(os.sched_getaffinity(TARGET))


def limits_and_priority() -> dict[str, str]:
    """Try to slow the target down or to starve it."""
    before = state()
    mask, parameter = ctypes.c_uint64(1), ctypes.c_int(0)
    batch = (ctypes.c_uint32 * 12)(48, SCHED_BATCH)
    users = (0, os.getuid())
    observed = {
        "limits": distinct(answer("prlimit64", TARGET, k, own_limit(k), None) for k in range(RLIMITS)),
        "limits, by a wide number": answer(
            "prlimit64", TARGET | 1 << 32, RLIMIT_NOFILE, own_limit(RLIMIT_NOFILE), None
        ),
        "affinity": answer("sched_setaffinity", TARGET, 8, ctypes.byref(mask)),
        "scheduler": answer("sched_setscheduler", TARGET, SCHED_BATCH, ctypes.byref(parameter)),
        "scheduling parameter": answer("sched_setparam", TARGET, ctypes.byref(parameter)),
        "scheduling attributes": answer("sched_setattr", TARGET, batch, 0),
        "priority": answer("setpriority", WHO_PROCESS, TARGET, 19),
        "priority of its group": answer("setpriority", WHO_GROUP, TARGET, 19),
        "priority of users": distinct(answer("setpriority", WHO_USER, user, 19) for user in users),
        "io priority": answer("ioprio_set", IOPRIO_PROCESS, TARGET, IOPRIO_IDLE),
        "io priority of users": distinct(
            answer("ioprio_set", IOPRIO_USER, user, IOPRIO_IDLE) for user in users
        ),
    }
    observed["afterwards"] = "unchanged" if state() == before else "changed"
    return observed


def each_signal(send: Callable[[int], object]) -> str:
    """Send every signal, and return the distinct answers."""
    return distinct(attempt(send, number) for number in range(1, 65))


def queued(call: str, *target: int) -> str:
    """The same for signals that carry a value, in the form that the kernel lets programs send."""
    info = (ctypes.c_uint32 * 32)()

    def send(number: int) -> None:
        info[0], info[2] = number, 0xFFFFFFFF
        syscall(call, *target, number, info)

    return each_signal(send)


def signals() -> dict[str, str]:
    """Send every signal by every call that can."""
    return {
        "kill": each_signal(lambda number: syscall("kill", TARGET, number)),
        "tkill": each_signal(lambda number: syscall("tkill", TARGET, number)),
        "tgkill": each_signal(lambda number: syscall("tgkill", TARGET, TARGET, number)),
        "rt_sigqueueinfo": queued("rt_sigqueueinfo", TARGET),
        "rt_tgsigqueueinfo": queued("rt_tgsigqueueinfo", TARGET, TARGET),
    }


def settings() -> dict[str, str]:
    """Write files that decide who is killed when memory runs out, and others that a neighbour could write."""
    return {
        "oom score": attempt(put, f"{FOLDER}/oom_score_adj", b"1000"),
        "old oom score": attempt(put, f"{FOLDER}/oom_adj", b"15"),
        "timer slack": attempt(put, f"{FOLDER}/timerslack_ns", b"1000000000"),
        "name": attempt(put, f"{FOLDER}/comm", b"x"),
        "lower oom score of its own": in_child(put, "/proc/self/oom_score_adj", b"-500"),
        "higher oom score of its own": in_child(put, "/proc/self/oom_score_adj", b"1000"),
    }


report(
    {
        **proc_files(),
        **memory_calls(),
        **limits_and_priority(),
        **signals(),
        **settings(),
        **tracing(),
    }
)
