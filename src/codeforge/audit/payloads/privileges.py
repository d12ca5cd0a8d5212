"""What a run is, and what it can do to init, its limits and the machine."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from codeforge.audit.payloads.observe import attempt, in_child, report, syscall

KNOBS = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
    "/proc/sysrq-trigger", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/hostname",
    "/sys/kernel/uevent_helper", "/sys/kernel/profiling", "/sys/power/state",
)  # fmt: skip
DEVICES = ("mem", "kmem", "port", "kmsg", "kvm", "fuse", "sda", "vda", "nvme0n1", "vsock", "net/tun",
           "mapper/control", "loop-control", "loop0", "vhost-net", "vhost-vsock", "uinput")  # fmt: skip
HARMLESS_DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
HOST_TELLTALES = ("interrupts", "kallsyms", "config.gz", "cmdline", "partitions", "diskstats", "key-users",
                  "locks", "keys", "timer_list", "kcore", "sched_debug")  # fmt: skip
CGROUP_KNOBS = {"release_agent", "notify_on_release", "cgroup.procs", "memory.max", "memory.limit_in_bytes"}
PR_GET_NO_NEW_PRIVS = 39
ALL_SIGNALS = [number for number in range(1, 65) if number not in (32, 33)]


def filters(count: str | None) -> str:
    """Linux counts them; gVisor does not tell."""
    if count is None:
        return "not told"
    return "2 or more" if int(count) >= 2 else "fewer than 2"


def status() -> dict[str, str]:
    """What the kernel says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    said = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    # gVisor has no ambient set, and does not tell the rest of what is asked for here by get().
    kept = [f"{name}={said[name]}" for name in names if int(said.get(name, "0"), 16)]
    no_new_privs = ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
    return {
        "capabilities": " ".join(kept) or "none",
        "no_new_privs": said.get("NoNewPrivs", str(no_new_privs)),
        "seccomp": said["Seccomp"],
        "filters": filters(said.get("Seccomp_filters")),
        "uid": "one of many" if len(set(said["Uid"].split())) == 1 and os.getuid() >= 20000 else said["Uid"],
        "groups": "one" if set(said["Groups"].split()) <= {str(os.getgid())} else said["Groups"],
        "pid 1": Path("/proc/1/comm").read_text().strip(),
    }


def reach(paths: list[str], action: Callable[[str], object]) -> str:
    """``refused``, or where the action was allowed."""
    allowed = [path for path in paths if attempt(action, path) == "allowed"]
    return ", ".join(allowed) or "refused"


def open_to_read(path: str) -> None:
    """And nothing else."""
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def open_to_write(path: str) -> None:
    """And nothing else."""
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def read_some(path: str) -> None:
    """Fails unless something can be read; a masked file has nothing in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not os.read(descriptor, 16):
            raise FileNotFoundError(path)
    finally:
        os.close(descriptor)


def put(path: str, what: bytes) -> None:
    """Write over a file that is there."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, what)
    finally:
        os.close(descriptor)


def make_and_remove(path: str) -> None:
    """A directory, for a moment."""
    Path(path).mkdir()
    Path(path).rmdir()


def put_back(path: str) -> None:
    """Write what is there already: the right to change it without changing it."""
    put(path, Path(path).read_bytes())


def of_init() -> dict[str, str]:
    """Each way to reach process 1."""
    files = [f"/proc/1/{name}" for name in ("mem", "maps", "environ", "auxv", "stack", "syscall")]
    links = [f"/proc/1/{name}" for name in ("fd/0", "fd/1", "cwd", "root", "exe")]
    low = struct.pack("<QQ", 9, 9)
    attr = struct.pack("<IIQiIQQQ", 48, 0, 0, 5, 0, 0, 0, 0)
    return {
        "init's files": reach(files, open_to_read),
        "init's links": reach(links, os.readlink),
        "init's memory, writing": reach(["/proc/1/mem"], open_to_write),
        "ptrace init": in_child(syscall, "ptrace", 0x4206, 1, 0, 0),
        "prlimit init": in_child(syscall, "prlimit64", 1, resource.RLIMIT_NOFILE, low, None),
        "affinity of init": in_child(os.sched_setaffinity, 1, {0}),
        "scheduler of init": in_child(os.sched_setscheduler, 1, os.SCHED_BATCH, os.sched_param(0)),
        "sched_setattr of init": in_child(syscall, "sched_setattr", 1, attr, 0),
        "priority of init": in_child(os.setpriority, os.PRIO_PROCESS, 1, 19),
        "ioprio of init": in_child(syscall, "ioprio_set", 1, 1, 3 << 13),
        "signals to init": in_child(all_signals, os.kill, 1),
        "tgkill init": in_child(all_signals, syscall, "tgkill", 1, 1),
        "tkill init": in_child(all_signals, syscall, "tkill", 1),
        "sigqueue init": in_child(syscall, "rt_sigqueueinfo", 1, signal.SIGINT, bytes(128)),
        "oom score of init": attempt(put, "/proc/1/oom_score_adj", b"1000"),
    }


def all_signals(send: Callable[..., object], *to: object) -> None:
    """Every signal; the first refusal is the answer."""
    for number in ALL_SIGNALS:
        send(*to, number)


def of_itself() -> dict[str, str]:
    """Rights that it may not give itself."""
    return {
        "setuid": in_child(syscall, "setuid", 0),
        "setgid": in_child(syscall, "setgid", 0),
        "lower oom score": in_child(put, "/proc/self/oom_score_adj", b"-500"),
        "core limit": in_child(resource.setrlimit, resource.RLIMIT_CORE, (1, 1)),
        "file limit": in_child(resource.setrlimit, resource.RLIMIT_NOFILE, (4096, 4096)),
        "nice": in_child(os.setpriority, os.PRIO_PROCESS, 0, -20),
        "real time": in_child(os.sched_setscheduler, 0, os.SCHED_RR, os.sched_param(1)),
    }


def is_strange(path: Path) -> bool:
    """A device that a sandbox has no use for."""
    try:
        mode = path.stat().st_mode
    except OSError:  # a link to what is not there, or is out of reach
        return False
    return stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and path.name not in HARMLESS_DEVICES)


def of_the_machine() -> dict[str, str]:
    """Knobs, devices and the host's particulars."""
    cgroup = [str(path) for path in Path("/sys/fs/cgroup").rglob("*") if path.name in CGROUP_KNOBS]
    device = os.makedev(1, 1)
    known = [f"/dev/{name}" for name in DEVICES]
    unknown = [path.name for path in Path("/dev").iterdir() if is_strange(path)]
    masked = [f"/proc/{name}" for name in HOST_TELLTALES]
    masked += ["/sys/firmware/dmi/tables/DMI", "/sys/class/dmi/id/sys_vendor"]
    return {
        "kernel's knobs": reach(list(KNOBS), put_back),
        "cgroup's knobs": reach(cgroup, put_back),
        "new cgroup": reach(["/sys/fs/cgroup/x", "/sys/fs/cgroup/memory/x"], make_and_remove),
        "device nodes": attempt(os.mknod, "/tmp/mem", stat.S_IFCHR | 0o600, device),  # noqa: S108
        "devices": reach(known, open_to_read),
        "unknown devices": ", ".join(sorted(unknown)) or "none",
        "masked files": reach(masked, read_some),
        "terminal": attempt(open_to_write, "/dev/tty"),
    }


report({**status(), **of_init(), **of_itself(), **of_the_machine()})
