"""What a program is, what it may become, and what it can do to the machine."""

from __future__ import annotations

import ctypes
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from codeforge.audit.payloads.observe import (
    PLACES,
    attempt,
    distinct,
    in_child,
    open_to_read,
    open_to_write,
    reach,
    report,
    syscall,
)

KNOBS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/profiling",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
)
DEVICES = [
    "mem",
    "kmem",
    "port",
    "kmsg",
    "kvm",
    "fuse",
    "sda",
    "vda",
    "nvme0n1",
    "vsock",
    "vhost-vsock",
    "vhost-net",
    "net/tun",
    "loop-control",
    "loop0",
    "userfaultfd",
    "dri/card0",
    "mapper/control",
    "rtc0",
    "console",
    "uinput",
]
HARMLESS_DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"}
KNOWN_IN_DEV = HARMLESS_DEVICES | {"core", "fd", "mqueue", "pts", "shm", "stdin", "stdout", "stderr"}
TELL_OF_THE_HOST = [
    "interrupts",
    "kallsyms",
    "config.gz",
    "cmdline",
    "partitions",
    "diskstats",
    "key-users",
    "locks",
    "keys",
    "timer_list",
    "kcore",
    "sched_debug",
]
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_KNOBS = ("release_agent", "cgroup.procs", "notify_on_release")
UNWRITABLE = {"EACCES", "EROFS", "ENOENT", "EPERM"}

PR_GET_NO_NEW_PRIVS = 39
MIN_USER_ID = 20000
SCHED_FIFO, SCHED_RR, SCHED_DEADLINE = 1, 2, 6
WHO_PROCESS, HIGHEST_PRIORITY = 0, -20
IOPRIO_PROCESS, IOPRIO_REAL_TIME = 1, 1 << 13
MLOCK_ALL = 3
MEGABYTE = 1 << 20


def filters(count: str | None) -> str:
    """Describe the number of filters, which gVisor does not report."""
    if count is None:
        return "not reported"
    return "2 or more" if int(count) >= 2 else "fewer than 2"


def status() -> dict[str, str]:
    """Return what the kernel reports about this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    # gVisor has no ambient set, and does not report the fields that are read with get().
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    kept = [f"{name}={fields[name]}" for name in sets if int(fields.get(name, "0"), 16)]
    no_new_privs = ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
    one_user = len(set(fields["Uid"].split())) == 1 and os.getuid() >= MIN_USER_ID
    return {
        "capabilities": " ".join(kept) or "none",
        "no_new_privs": fields.get("NoNewPrivs", str(no_new_privs)),
        "seccomp": fields["Seccomp"],
        "filters": filters(fields.get("Seccomp_filters")),
        "uid": "one of many" if one_user else fields["Uid"],
        "groups": "one" if set(fields["Groups"].split()) <= {str(os.getgid())} else fields["Groups"],
        "pid 1": Path("/proc/1/comm").read_text().strip(),
    }


def ids() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the real, effective and saved ids of user and group."""
    return os.getresuid(), os.getresgid()


def becoming_another() -> dict[str, str]:
    """Try to become another user or group."""
    before = ids()
    no_group = (ctypes.c_int * 1)(0)
    observed = {
        "setuid": in_child(syscall, "setuid", 0),
        "setresuid": in_child(syscall, "setresuid", 0, 0, 0),
        "setgid": in_child(syscall, "setgid", 0),
        "setresgid": in_child(syscall, "setresgid", 0, 0, 0),
        "setgroups": in_child(syscall, "setgroups", 1, no_group),
        "setuid to a neighbour": in_child(syscall, "setuid", os.getuid() + 1),
    }
    same = ids() == before and 0 not in (*before[0], *before[1])
    return observed | {"ids afterwards": "unchanged" if same else "changed"}


def scheduling() -> dict[str, str]:
    """Try to get ahead of other processes on the machine, and to lock memory."""
    parameter = ctypes.c_int(1)
    deadline = (ctypes.c_uint32 * 12)(48, SCHED_DEADLINE, 0, 0, 0, 0, 1000000, 0, 2000000, 0, 2000000, 0)
    block = ctypes.create_string_buffer(MEGABYTE)
    return {
        "nice": in_child(syscall, "setpriority", WHO_PROCESS, 0, HIGHEST_PRIORITY),
        "first in, first out": in_child(
            syscall, "sched_setscheduler", 0, SCHED_FIFO, ctypes.byref(parameter)
        ),
        "round robin": in_child(syscall, "sched_setscheduler", 0, SCHED_RR, ctypes.byref(parameter)),
        "deadline": in_child(syscall, "sched_setattr", 0, deadline, 0),
        "io in real time": in_child(syscall, "ioprio_set", IOPRIO_PROCESS, 0, IOPRIO_REAL_TIME),
        "lock all memory": in_child(syscall, "mlockall", MLOCK_ALL),
        "lock a megabyte": in_child(syscall, "mlock", block, MEGABYTE),
    }


def hard_limits() -> dict[str, str]:
    """Try to raise the program's own limits."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    return {
        "core limit": distinct(
            in_child(resource.setrlimit, resource.RLIMIT_CORE, pair) for pair in ((1, 1), unlimited)
        ),
        "file limit": in_child(resource.setrlimit, resource.RLIMIT_NOFILE, (4096, 4096)),
    }


def make_node(path: str, kind: int, major: int, minor: int) -> None:
    """Make a device node."""
    os.mknod(path, kind | 0o600, os.makedev(major, minor))


def device_nodes() -> Iterator[str]:
    """Try to make nodes for memory, a disk and the kernel's log; yield the answers."""
    for place in PLACES:
        yield in_child(make_node, f"{place}/memory", stat.S_IFCHR, 1, 1)
        yield in_child(make_node, f"{place}/disk", stat.S_IFBLK, 8, 0)
        log = f"{place}/log".encode()
        yield in_child(syscall, "mknodat", -100, log, stat.S_IFCHR | 0o600, os.makedev(1, 11))


def is_strange(path: Path) -> bool:
    """Whether it is a device that a sandbox has no use for."""
    try:
        mode = path.stat().st_mode
    except OSError:  # a link to what is missing or out of reach
        return False
    return stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and path.name not in HARMLESS_DEVICES)


def set_id_file(place: str) -> None:
    """Make a file that would run as another user. Fails where the mount ignores the bit."""
    path = Path(place, "set-id")
    path.touch()
    path.chmod(0o6755)
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        raise PermissionError(1, "the mount ignores it")


def read_some(path: str) -> None:
    """Read a few bytes; a masked file has none, and a masked folder nothing in it."""
    if Path(path).is_dir():
        if not os.listdir(path):  # noqa: PTH208 - whether there are names is all that is asked
            raise FileNotFoundError(path)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not os.read(descriptor, 16):
            raise FileNotFoundError(path)
    finally:
        os.close(descriptor)


def make_and_remove(path: str) -> None:
    """Make and remove a directory."""
    Path(path).mkdir()
    Path(path).rmdir()


def the_machine() -> dict[str, str]:
    """Try the kernel's settings, control groups, devices, and files that describe the host."""
    folders = [str(CGROUPS), *(str(path) for path in CGROUPS.rglob("*/"))]
    files = [str(path) for path in CGROUPS.rglob("*") if path.is_file()]
    files += [f"{folder}/{name}" for folder in folders for name in CGROUP_KNOBS]
    unknown = [
        path.name for path in Path("/dev").iterdir() if is_strange(path) or path.name not in KNOWN_IN_DEV
    ]
    masked = [f"/proc/{name}" for name in TELL_OF_THE_HOST]
    masked += ["/sys/firmware/dmi/tables/DMI", "/sys/class/dmi/id/sys_vendor"]
    return {
        "kernel's knobs": reach(KNOBS, open_to_write, UNWRITABLE),
        "cgroup's knobs": reach(files, open_to_write, UNWRITABLE),
        "new cgroup": reach((f"{folder}/new" for folder in folders), make_and_remove, UNWRITABLE),
        "device nodes": distinct(device_nodes()),
        "devices": reach((f"/dev/{name}" for name in DEVICES), open_to_read, {"ENOENT"}),
        "unknown devices": ", ".join(sorted(unknown)) or "none",
        "set-id files": distinct(attempt(set_id_file, place) for place in PLACES),
        "file to root": attempt(os.chown, f"{PLACES[0]}/set-id", 0, 0),
        "masked files": reach(masked, read_some),
        "terminal": attempt(open_to_write, "/dev/tty"),
    }


report({**status(), **becoming_another(), **scheduling(), **hard_limits(), **the_machine()})
