"""Kernel checks: what the host's kernel enforces on a waiting sandbox, thread by thread.

It is read from the host's ``/proc`` and ``/sys``; nothing inside the sandbox is asked. A mount, descriptor,
process or device that no check here knows is a failure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from codeforge.audit.container_checks import MASKED, MIN_OOM_SCORE, READ_ONLY, ULIMITS
from codeforge.audit.model import Check, Rule, Severity, Verdict
from codeforge.audit.proc_facts import Facts, Mount, Process
from codeforge.engines import GVISOR
from codeforge.model import SandboxLimits
from codeforge.policy import SYSTEM, USER_IDS

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
LIMIT_NAMES = {
    "core": "core file size",
    "nofile": "open files",
    "msgqueue": "msgqueue size",
    "sigpending": "pending signals",
    "memlock": "locked memory",
}
OWN_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
MIN_FILTERS = 2

# Where a sandbox may have something mounted, the kinds it may be, and the options it must have.
_CLOSED = frozenset({"nosuid", "nodev", "noexec"})
_MOUNTS: dict[str, tuple[set[str], frozenset[str]]] = {
    "/": (set(), frozenset({"ro"})),
    "/proc": ({"proc"}, _CLOSED),
    "/dev": ({"tmpfs"}, frozenset({"nosuid"})),
    "/dev/pts": ({"devpts"}, frozenset({"nosuid", "noexec"})),
    "/dev/mqueue": ({"mqueue"}, _CLOSED),
    "/dev/shm": ({"tmpfs"}, _CLOSED),  # noqa: S108 - in a sandbox
    "/sys": ({"sysfs"}, _CLOSED | {"ro"}),
    "/sys/fs/cgroup": ({"tmpfs", "cgroup2"}, _CLOSED),
    "/code": ({"tmpfs"}, _CLOSED),
    "/tmp": ({"tmpfs"}, _CLOSED),  # noqa: S108 - in a sandbox
}
_OURS = {point: _MOUNTS[point] for point in ("/code", "/tmp", "/dev/shm")}  # noqa: S108 - in a sandbox
_READABLE = (*SYSTEM, "/usr", "/etc", "/opt/codeforge", "/node_modules", "/package.json", "/sys/fs/cgroup")
"""What bubblewrap may mount read-only."""

_DEVICE_NODES = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "console")}
_ENGINE_FILES = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}
_NODE_ONLY = {"anon_inode:[eventpoll]", "anon_inode:[eventfd]", "anon_inode:[timerfd]", "/dev/null"}
_OWN_PIPE = re.compile(r"pipe:\[\d+\]")
# What runc writes into the device cgroup of every container: nodes may be made, few may be opened.
_DEVICES = {
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 10:200 rwm",
}

Faults: TypeAlias = list[str]


def _each_thread(facts: Facts, key: str, accepts: Callable[[str], bool]) -> Faults:
    return [
        f"{process.command[:40]!r} has {key} {thread.get(key)}"
        for process in facts.processes
        for thread in process.threads
        if not accepts(thread.get(key, "?"))
    ]


def _capabilities(facts: Facts) -> Faults:
    return [fault for name in CAPABILITY_SETS for fault in _each_thread(facts, name, _is_zero)]


def _is_zero(bits: str) -> bool:
    return bits.strip("0") == ""


def _filters(facts: Facts) -> Faults:
    """Every process has the engine's filter, and all but init also the one that init adds."""
    faults = _each_thread(facts, "Seccomp", lambda mode: mode == "2")
    for process in facts.processes:
        least = 1 if process.inner == 1 else MIN_FILTERS
        count = process.threads[0].get("Seccomp_filters", "0")
        if int(count) < least:
            faults.append(f"{process.command[:40]!r} has {count} filters")
    return faults


def _users(facts: Facts) -> Faults:
    def ours(ids: str) -> bool:
        first, *rest = ids.split()
        return first.isdigit() and int(first) in USER_IDS and set(rest) == {first}

    faults = _each_thread(facts, "Uid", ours)
    faults += _each_thread(facts, "Groups", lambda groups: set(groups.split()) <= {"10001"})
    own = {thread["Uid"].split()[0] for process in facts.processes for thread in process.threads}
    shared = own & facts.peer_uids
    return faults + [f"user {uid} is another sandbox's, too" for uid in sorted(shared)]


def _dumpable(facts: Facts) -> Faults:
    return [] if facts.init.files_owner == 0 else ["init's files under /proc are the run's own"]


def _limits(facts: Facts) -> Faults:
    faults = []
    for process in facts.processes:
        for name, value in ULIMITS.items():
            found = process.limits.get(LIMIT_NAMES[name])
            if found != (str(value), str(value)):
                faults.append(f"{process.command[:40]!r}: {name} is {found}")
        if process.limits.get("file size", ("", "unlimited"))[1] == "unlimited":
            faults.append(f"{process.command[:40]!r}: fsize is unlimited")
    return faults


def _namespaces(facts: Facts) -> Faults:
    shared = {
        name
        for process in facts.processes
        for name in OWN_NAMESPACES
        if process.namespaces[name] == facts.host_namespaces[name]
    }
    return [f"{name} is the host's" for name in sorted(shared)]


def _descriptors(facts: Facts) -> Faults:
    """A run has its three pipes. Node also has the descriptors of its event loop."""
    faults, channel = [], {what for what in facts.init.descriptors.values() if "socket" in what}
    for process in facts.processes:
        for number, what in sorted(process.descriptors.items()):
            known = _known_descriptor(facts.engine, process, number, what)
            if not known or (process.inner != 1 and what in channel):
                faults.append(f"{process.command[:40]!r}: {number} is {what}")
    return faults


def _known_descriptor(engine: str, process: Process, number: int, what: str) -> bool:
    pipe = _OWN_PIPE.fullmatch(what) is not None
    if process.inner == 1:
        if engine == "bubblewrap" and number == 2 and what == "/memfd:bwrap (deleted)":
            return True  # bwrap's error messages
        return pipe or what in ("/dev/null", "anon_inode:[signalfd]") or what.startswith("socket:[")
    if number <= 2:
        return pipe
    return process.command.startswith("node") and (pipe or what in _NODE_ONLY)


def _mounts(facts: Facts) -> Faults:
    fault_of = {"bubblewrap": _bubblewrap_fault, "podman": _podman_fault}.get(facts.engine, _mount_fault)
    faults = [fault for mount in facts.mounts if (fault := fault_of(mount))]
    missing = _MOUNTS.keys() - {mount.point for mount in facts.mounts}
    if facts.engine == "bubblewrap":
        missing &= _OURS.keys() | {"/", "/proc"}
    return faults + [f"nothing is mounted on {point}" for point in sorted(missing)]


def _podman_fault(mount: Mount) -> str:
    """Podman masks two more paths, and mounts an empty file."""
    if mount.point == "/run/.containerenv":
        return "" if mount.options >= {"ro", "nosuid", "nodev", "noexec"} else f"{mount.point} can be written"
    if mount.point in ("/etc/resolv.conf", "/sys/dev/block"):
        masked = mount.root == "/null" or (mount.kind == "tmpfs" and "ro" in mount.options)
        return "" if masked else f"{mount.point} is not masked"
    return _mount_fault(mount)


def _bubblewrap_fault(mount: Mount) -> str:
    """Without an image, bubblewrap mounts the machine's programs and libraries one by one."""
    point, options = mount.point, mount.options
    if "shared" in mount.propagation:
        return f"{point} is shared with the host"
    if point in _OURS or point == "/proc" or point in MASKED or point in READ_ONLY:
        if point in MASKED and mount.root == "/full-of-nothing":
            return ""
        return _mount_fault(mount)
    if point.startswith("/dev/") and mount.kind in ("devtmpfs", "tmpfs") and point in _DEVICE_NODES:
        return ""
    if point == "/dev/pts":
        return "" if mount.kind == "devpts" else f"{point} is {mount.kind}"
    known = point in ("/", "/dev") or point.startswith(_READABLE)
    missing = frozenset({"ro", "nosuid"}) - options
    if not known:
        return f"{point} is unknown: {mount.kind} from {mount.root}"
    return f"{point} is {mount.kind}, without {sorted(missing)}" if missing else ""


def _mount_fault(mount: Mount) -> str:
    if "shared" in mount.propagation:
        return f"{mount.point} is shared with the host"
    if mount.point in _MOUNTS:
        kinds, options = _MOUNTS[mount.point]
        missing = options - mount.options
        wrong_kind = kinds and mount.kind not in kinds
        if mount.point == "/" and mount.kind in ("proc", "sysfs", "tmpfs"):
            wrong_kind = {"the image's"}
        return f"{mount.point} is {mount.kind}, without {sorted(missing)}" if missing or wrong_kind else ""
    if mount.point in _ENGINE_FILES:
        return "" if "ro" in mount.options else f"{mount.point} can be written"
    if mount.point.startswith("/sys/fs/cgroup/"):
        read_only = "ro" in mount.options and mount.kind == "cgroup"
        return "" if read_only else f"{mount.point} can be written"
    if mount.point in READ_ONLY:
        return "" if "ro" in mount.options else f"{mount.point} can be written"
    if mount.point in MASKED or mount.point in ("/proc/timer_stats",):
        empty = mount.root == "/null" or (mount.kind == "tmpfs" and "ro" in mount.options)
        return "" if empty else f"{mount.point} is not masked"
    return f"{mount.point} is unknown: {mount.kind} from {mount.root}"


def _oom_score(facts: Facts) -> Faults:
    return [
        f"{process.command[:40]!r} has {process.oom_score_adj}"
        for process in facts.processes
        if process.oom_score_adj < MIN_OOM_SCORE
    ]


def _processes(facts: Facts) -> Faults:
    names = [process.command for process in facts.processes]
    faults = [] if facts.init.command == "/opt/codeforge/init" else [f"process 1 is {facts.init.command!r}"]
    return faults if len(names) == 2 else [*faults, f"{len(names)} processes: {', '.join(names)}"]


def _devices(facts: Facts) -> Faults:
    rules = facts.cgroup["devices.list"].splitlines()
    return [f"may use {rule!r}" for rule in rules if rule not in _DEVICES]


# Name, what is expected, reference, faults. The formatter would take six lines for each.
# fmt: off
_RULES: tuple[tuple[str, str, str, Callable[[Facts], Faults]], ...] = (
    ("capabilities", "all five sets empty, in every thread", "CIS 5.4; P02", _capabilities),
    ("no-new-privileges", "on for every thread", "CIS 5.26; P01",
     lambda facts: _each_thread(facts, "NoNewPrivs", lambda on: on == "1")),
    ("seccomp", "mode 2 everywhere, two filters on the run", "CIS 5.22; P15, P19", _filters),
    ("users", "one of ours, and no other sandbox's", "CIS 4.1; R27", _users),
    ("init-dumpable", "no", "P05, P06", _dumpable),
    ("limits", "as asked for, soft and hard", "CIS 5.19; R11, R26", _limits),
    ("namespaces", "cgroup, ipc, mnt, net, pid, uts of its own", "CIS 5.10, 5.16, 5.17, 5.21", _namespaces),
    ("descriptors", "the run's three pipes, and no other", "X02, X05", _descriptors),
    ("mounts", "the known ones only, each with its options", "CIS 5.6, 5.13, 5.20; F01", _mounts),
    ("oom-score", f"{MIN_OOM_SCORE} or more", "P09", _oom_score),
    ("processes", "init and the run", "X04", _processes),
)
# fmt: on
_USERNS = Rule(
    "outside.kernel-user-namespace",
    "not the host's",
    "CIS 2.9, 5.31; P04",
    Severity.LOW,
    "set userns-remap in /etc/docker/daemon.json, or use a rootless engine: it maps user ids once more",
)
_DEVICE_RULE = Rule("outside.kernel-devices", "those that runc gives every container", "CIS 5.18; P12")
_CGROUP_RULES = {
    "memory": Rule("outside.kernel-memory", "the limit", "CIS 5.11; R03"),
    "swap": Rule("outside.kernel-swap", "none", "CIS 5.11; R06"),
    "pids": Rule("outside.kernel-pids", "the language's limit", "CIS 5.29; R01"),
    "cpu": Rule("outside.kernel-cpu", "the quota", "CIS 5.12; R16"),
}


def look(facts: Facts, limits: SandboxLimits) -> Iterator[Check]:
    """Yield every check of what the kernel enforces: NOT-AVAILABLE where its files cannot be read."""
    rules = [(Rule(f"outside.kernel-{name}", text, source), find) for name, text, source, find in _RULES]
    if facts.blind:
        every = [*(rule for rule, _ in rules), _DEVICE_RULE, _USERNS]
        yield from (rule.not_available(facts.blind) for rule in every)
        if facts.engine == GVISOR and facts.cgroup:
            yield from _cgroup(facts.cgroup, limits)  # of gVisor's own process, which contains the sandbox
        else:
            yield from (rule.not_available(facts.blind) for rule in _CGROUP_RULES.values())
        return
    for rule, find in rules:
        faults = find(facts)
        yield rule.holds_if(not faults, "; ".join(faults[:8]) or rule.expected)
    yield from _cgroup(facts.cgroup, limits)
    if facts.engine == "bubblewrap":
        yield _DEVICE_RULE.not_available(
            "no control group restricts them: in a user namespace no device can be made"
        )
    elif "devices.list" in facts.cgroup:
        faults = _devices(facts)
        yield _DEVICE_RULE.holds_if(not faults, "; ".join(faults) or "as expected")
    else:
        yield _DEVICE_RULE.not_available(
            "with cgroup v2, a program in the kernel decides, which cannot be read"
        )
    remapped = facts.init.namespaces["user"] != facts.host_namespaces["user"]
    yield _USERNS.says(
        Verdict.HOLDS if remapped else Verdict.NOT_AVAILABLE,
        "its own" if remapped else "this engine uses the host's; each sandbox has a user id of its own",
    )


def _cgroup(found: dict[str, str], limits: SandboxLimits) -> Iterator[Check]:
    """Check the limits, whose files have the names of cgroup v2 or v1."""
    memory = str(limits.memory_bytes // 4096 * 4096)
    cpu = f"{limits.cpu_quota_us} 100000"
    old_cpu = f"{found.get('cpu.cfs_quota_us')} {found.get('cpu.cfs_period_us')}"
    seen = {
        "memory": (found.get("memory.max", found.get("memory.limit_in_bytes")), memory),
        "swap": (found.get("memory.swap.max"), "0")
        if "memory.swap.max" in found
        else (found.get("memory.memsw.limit_in_bytes"), memory),
        "pids": (found.get("pids.max"), str(limits.pids)),
        "cpu": (found.get("cpu.max", old_cpu), cpu),
    }
    for name, (got, wanted) in seen.items():
        rule = _CGROUP_RULES[name]
        yield rule.unknown("not found") if got is None else rule.holds_if(got == wanted, got)
