"""Probes: which programs are sent into a sandbox, and what they must come back with. A table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codeforge.audit.model import Rule, Severity

REFUSED = "EPERM"
_NOT_HERE = "no such call here"
_UNTOLD = "not told"
"""By gVisor's kernel; Linux tells."""

_UNMAPPED = "EINVAL"
"""To become a user that a user namespace has not got."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A rule, the program that finds out, and by what names it answers with what."""

    rule: Rule
    payload: str
    answers: Mapping[str, frozenset[str]]


def _probe(
    name: str, expected: str, reference: str, payload: str, names: str, *accepted: str,
    severity: Severity = Severity.HIGH,
) -> Probe:  # fmt: skip
    """One that answers with one of the same words under each of the names."""
    allowed = frozenset(accepted or (expected,))
    answers = dict.fromkeys(names.split("; "), allowed)
    return Probe(Rule(f"inside.{name}", expected, reference, severity), payload, answers)


_KERNEL = (
    _probe("mount-calls", "EPERM", "P03", "kernel.py",
           "mount; umount2; pivot_root; chroot; fsopen; fsconfig; fsmount; fspick; open_tree; move_mount; "
           "mount_setattr", REFUSED),
    _probe("namespace-calls", "EPERM, ENOSYS for clone3", "P04", "kernel.py",
           "unshare; setns; clone(NEWUSER); clone3", REFUSED, "ENOSYS"),
    _probe("process-calls", "EPERM", "P05, P06", "kernel.py",
           "ptrace; process_vm_readv; process_vm_writev; kcmp; pidfd_getfd; process_madvise; "
           "process_mrelease", REFUSED),
    _probe("raw-sockets", "refused", "P13", "kernel.py", "AF_PACKET; AF_XDP; raw IPv4; raw IPv6",
           REFUSED, "EAFNOSUPPORT", "EPROTONOSUPPORT", "EACCES"),
    _probe("bpf-calls", "EPERM", "P14", "kernel.py",
           "bpf; perf_event_open; userfaultfd; fanotify_init", REFUSED),
    _probe("io-uring", "ENOSYS", "P15", "kernel.py", "io_uring_setup; io_uring_enter; io_uring_register",
           "ENOSYS"),
    _probe("vsock", "EAFNOSUPPORT", "P16", "kernel.py", "AF_VSOCK"),
    _probe("crypto-sockets", "EAFNOSUPPORT", "P17", "kernel.py", "AF_ALG; AF_TIPC", "EAFNOSUPPORT"),
    _probe("splice-calls", "ENOSYS", "P17, P25", "kernel.py", "splice; tee; vmsplice; memfd_secret",
           "ENOSYS"),
    _probe("key-rings", "EPERM", "P18", "kernel.py", "add_key; request_key; keyctl", REFUSED),
    _probe("foreign-abi", "SIGSYS", "P19", "kernel.py", "int80; x32", "SIGSYS", _NOT_HERE),
    _probe("admin-calls", "EPERM", "P20", "kernel.py",
           "init_module; finit_module; delete_module; kexec_load; reboot; swapon; swapoff; acct; "
           "settimeofday; clock_settime; clock_adjtime; adjtimex; syslog; quotactl; quotactl_fd; "
           "sethostname; setdomainname; iopl; ioperm", REFUSED, _NOT_HERE),
    _probe("file-handles", "EPERM", "P21", "kernel.py", "name_to_handle_at; open_by_handle_at", REFUSED),
    _probe("personality", "EPERM", "P22", "kernel.py", "personality; modify_ldt", REFUSED, _NOT_HERE),
    _probe("sync", "EPERM", "R28", "kernel.py", "sync; syncfs", REFUSED, severity=Severity.MEDIUM),
    _probe("system-v-ipc", "EPERM", "R23, R08", "kernel.py", "shmget; semget; msgget; mq_open", REFUSED),
    _probe("terminal-typing", "EPERM", "O03", "kernel.py", "TIOCSTI; TIOCLINUX", REFUSED),
    _probe("netlink", "EAFNOSUPPORT", "N07", "kernel.py", "AF_NETLINK"),
)  # fmt: skip

_PRIVILEGES = (
    _probe("setuid", "EPERM", "P01", "privileges.py", "setuid; setgid", REFUSED, _UNMAPPED),
    _probe("no-new-privileges", "1", "CIS 5.26; P01", "privileges.py", "no_new_privs"),
    _probe("capabilities", "none", "CIS 5.4; P02", "privileges.py", "capabilities"),
    _probe("seccomp", "2", "CIS 5.22", "privileges.py", "seccomp"),
    _probe("filters", "2 or more", "P15, P19", "privileges.py", "filters", "2 or more", _UNTOLD),
    _probe("user", "one of many", "R27", "privileges.py", "uid"),
    _probe("groups", "one", "P02", "privileges.py", "groups"),
    _probe("process-1", "init", "X04", "privileges.py", "pid 1"),
    _probe("init-memory", "refused", "P06, F10", "privileges.py",
           "init's files; init's links; init's memory, writing", "refused"),
    _probe("init-ptrace", "EPERM", "P05", "privileges.py", "ptrace init", REFUSED),
    _probe("init-limits", "EPERM", "P07", "privileges.py",
           "prlimit init; affinity of init; scheduler of init; sched_setattr of init; priority of init; "
           "ioprio of init", REFUSED),
    _probe("init-signals", "EPERM", "P08, X04", "privileges.py",
           "signals to init; tgkill init; tkill init; sigqueue init", REFUSED),
    _probe("oom-score", "EACCES", "P09", "privileges.py", "oom score of init; lower oom score",
           "EACCES", REFUSED),
    _probe("kernel-knobs", "refused", "P10", "privileges.py", "kernel's knobs", "refused"),
    _probe("cgroup", "refused", "P11", "privileges.py", "cgroup's knobs; new cgroup", "refused"),
    _probe("device-nodes", "EPERM", "P12", "privileges.py", "device nodes", REFUSED),
    _probe("devices", "none but the harmless", "P12", "privileges.py", "devices; unknown devices",
           "refused", "none"),
    _probe("scheduler", "refused", "P23", "privileges.py", "nice; real time", REFUSED, "EACCES"),
    _probe("hard-limits", "refused", "R26, R11", "privileges.py", "core limit; file limit",
           REFUSED, "ValueError"),
    _probe("host-information", "masked", "P27", "privileges.py", "masked files", "refused",
           severity=Severity.MEDIUM),
    _probe("terminal", "ENXIO", "O03", "privileges.py", "terminal", "ENXIO", "ENOENT", severity=Severity.LOW),
)  # fmt: skip

_NETWORK = (
    _probe("interfaces", "lo", "N04", "network.py", "interfaces"),
    _probe("routes", "0", "N01", "network.py", "routes"),
    _probe("metadata", "unreachable", "N01", "network.py", "metadata services"),
    _probe("internet", "unreachable", "N01", "network.py", "internet"),
    _probe("host-services", "unreachable", "N03", "network.py", "host; host's engine",
           "unreachable", "ECONNREFUSED", "ENETUNREACH"),
    _probe("dns", "unresolved, at once", "N02", "network.py", "names; metadata by name", "unresolved"),
    _probe("dns-packets", "ENETUNREACH", "N02", "network.py", "name server over UDP", "ENETUNREACH",
           "EHOSTUNREACH"),
    _probe("name-servers", "none", "N02", "network.py", "name servers", severity=Severity.LOW),
    _probe("abstract-sockets", "none", "N05", "network.py", "abstract sockets"),
    _probe("socket-files", "none", "N06; CIS 5.32", "network.py", "socket files"),
)  # fmt: skip

_FILES = (
    _probe("writable", "none else", "F01; CIS 5.13", "filesystem.py", "writable"),
    _probe("remount", "EPERM", "F02", "filesystem.py", "remount /; remount /proc", REFUSED),
    _probe("noexec", "none", "P24", "filesystem.py", "executed", severity=Severity.MEDIUM),
    _probe("setuid-files", "none", "CIS 4.8; P01", "filesystem.py", "setuid files", severity=Severity.MEDIUM),
    _probe("block-devices", "none", "P12", "filesystem.py", "block devices"),
    _probe("secrets", "none", "F10", "filesystem.py", "secrets"),
    _probe("left-behind", "nothing", "F11", "filesystem.py", "left behind"),
    _probe("canaries", "none", "F10, F11", "filesystem.py", "canaries"),
)  # fmt: skip

_JAVASCRIPT = (
    _probe("javascript-privileges", "none", "P01, P02", "probes.cjs",
           "capabilities; no_new_privs; filters; setuid", "none", "1", "2 or more", REFUSED, _UNMAPPED,
           _UNTOLD),
    _probe("javascript-init", "out of reach", "P05, P07, P08", "probes.cjs",
           "signals to init; init's files; priority of init", REFUSED, "refused"),
    _probe("javascript-noexec", "EACCES", "P24", "probes.cjs", "executed", severity=Severity.MEDIUM),
    _probe("javascript-network", "none", "N01, N02, N03, N04", "probes.cjs",
           "interfaces; metadata services; internet; host; names", "lo", "unreachable", "unresolved"),
    _probe("javascript-files", "none else", "F01, F10; CIS 4.8", "probes.cjs",
           "writable; setuid files; secrets", "none else", "none"),
    _probe("javascript-threads", "allowed", "R29", "probes.cjs", "worker thread", severity=Severity.LOW),
)  # fmt: skip

_TYPESCRIPT = (
    _probe("typescript-privileges", "none", "P02", "probes.ts", "capabilities"),
    _probe("typescript-init", "out of reach", "P06, P08", "probes.ts", "signals to init; init's files",
           REFUSED, "refused"),
    _probe("typescript-files", "EROFS", "F01, X16", "probes.ts", "compiler written; settings written",
           "EROFS", "EACCES"),
    _probe("typescript-network", "none", "N01", "probes.ts", "internet", "unreachable"),
)  # fmt: skip

PROBES = (*_KERNEL, *_PRIVILEGES, *_NETWORK, *_FILES, *_JAVASCRIPT, *_TYPESCRIPT)
PAYLOADS = tuple(dict.fromkeys(probe.payload for probe in PROBES))
LANGUAGE_OF = {".py": "python", ".cjs": "javascript", ".ts": "typescript"}
