"""Probes: a table of the programs that the audit runs in a sandbox, and of what they must observe there.

The hostile tests run the same programs and expect the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codeforge.audit.model import Rule, Severity

REFUSED = "EPERM"
CLOSED = ("EACCES", "EPERM")
_NO_CALL = "no such call here"
_NOT_REPORTED = "not reported"
"""gVisor's kernel does not say; Linux does."""

_UNMAPPED = "EINVAL"
"""The error of ``setuid`` to a user whom the sandbox's user namespace does not have."""

_OWN_PLACES = "/code, /dev/shm, /tmp"
"""Where a program may write, as the payloads list it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A question that a program in a sandbox answers.

    Attributes:
        rule: the question, as the audit prints it.
        payload: the file name of the program, in ``payloads/``.
        answers: what the program must report, name to accepted answers.
    """

    rule: Rule
    payload: str
    answers: Mapping[str, frozenset[str]]


def _probe(
    name: str,
    expected: str,
    reference: str,
    payload: str,
    names: str,
    *accepted: str,
    severity: Severity = Severity.HIGH,
    also: Mapping[str, str] | None = None,
) -> Probe:
    """Make a probe that accepts the same answers for each name; ``also`` maps more names to one answer."""
    answers = dict.fromkeys(names.split("; "), frozenset(accepted or (expected,)))
    answers |= {each: frozenset({answer}) for each, answer in (also or {}).items()}
    return Probe(Rule(f"inside.{name}", expected, reference, severity), payload, answers)


# The tables below have a few lines for each probe; the formatter would take ten.
# fmt: off
_KERNEL = (
    _probe("mount-calls", "EPERM", "P03", "kernel.py",
           "mount; umount2; pivot_root; chroot; fsopen; fsconfig; fsmount; fspick; open_tree; move_mount; "
           "mount_setattr", REFUSED),
    _probe("namespace-calls", "EPERM, ENOSYS for clone3", "P04", "kernel.py",
           "unshare; setns; setns to init's; clone", REFUSED, "ENOSYS", also={"clone3": "ENOSYS"}),
    _probe("raw-sockets", "refused", "P13", "kernel.py",
           "AF_PACKET; AF_XDP; raw IPv4; raw IPv6; packets of IPv4",
           REFUSED, "EAFNOSUPPORT", "EPROTONOSUPPORT", "EACCES", "EPERM, EPROTONOSUPPORT"),
    _probe("bpf-calls", "EPERM", "P14", "kernel.py",
           "bpf; perf_event_open; userfaultfd; fanotify_init", REFUSED),
    _probe("io-uring", "ENOSYS", "P15", "kernel.py", "io_uring_setup; io_uring_enter; io_uring_register",
           "ENOSYS"),
    _probe("vsock", "EAFNOSUPPORT", "P16", "kernel.py", "AF_VSOCK"),
    _probe("crypto-sockets", "EAFNOSUPPORT", "P13, P16, P17, N07", "kernel.py",
           "AF_ALG; AF_TIPC; every other family; pairs of every other family", "EAFNOSUPPORT",
           also={"unix": "allowed", "internet": "allowed"}),
    _probe("splice-calls", "ENOSYS", "P17, P25", "kernel.py", "splice; tee; vmsplice; memfd_secret",
           "ENOSYS"),
    _probe("key-rings", "EPERM", "P18", "kernel.py", "add_key; request_key; keyctl", REFUSED),
    _probe("foreign-abi", "SIGSYS", "P19", "kernel.py", "int80; x32", "SIGSYS", _NO_CALL),
    _probe("admin-calls", "EPERM", "P20", "kernel.py",
           "init_module; finit_module; delete_module; kexec_load; kexec_file_load; reboot; swapon; swapoff; "
           "acct; settimeofday; clock_settime; clock_adjtime; adjtimex; syslog; quotactl; quotactl_fd; "
           "sethostname; setdomainname; iopl; ioperm", REFUSED, _NO_CALL),
    _probe("file-handles", "EPERM", "P21", "kernel.py", "name_to_handle_at; open_by_handle_at", REFUSED),
    _probe("personality", "EPERM", "P22", "kernel.py", "personality; modify_ldt", REFUSED, _NO_CALL),
    _probe("sync", "EPERM", "P20, R28", "kernel.py", "sync; syncfs", REFUSED, severity=Severity.MEDIUM),
    _probe("system-v-ipc", "EPERM", "P20, R23, R08, F11", "kernel.py", "shmget; semget; msgget; mq_open",
           REFUSED),
    _probe("terminal-typing", "EPERM", "P20, O03", "kernel.py", "TIOCSTI; TIOCLINUX", REFUSED),
    _probe("netlink", "EAFNOSUPPORT", "N07", "kernel.py", "AF_NETLINK"),
)

_PRIVILEGES = (
    _probe("setuid", "EPERM", "P01", "privileges.py",
           "setuid; setresuid; setgid; setresgid; setgroups; setuid to a neighbour; file to root",
           REFUSED, _UNMAPPED, also={"ids afterwards": "unchanged", "set-id files": REFUSED}),
    _probe("no-new-privileges", "1", "CIS 5.26; P01", "privileges.py", "no_new_privs"),
    _probe("capabilities", "none", "CIS 5.4; P02", "privileges.py", "capabilities"),
    _probe("seccomp", "2", "CIS 5.22", "privileges.py", "seccomp"),
    _probe("filters", "2 or more", "P15, P19", "privileges.py", "filters", "2 or more", _NOT_REPORTED),
    _probe("user", "one of many", "R27", "privileges.py", "uid"),
    _probe("groups", "one", "P02", "privileges.py", "groups"),
    _probe("process-1", "init", "X04", "privileges.py", "pid 1"),
    _probe("kernel-knobs", "refused", "P10", "privileges.py", "kernel's knobs", "refused"),
    _probe("cgroup", "refused", "P11", "privileges.py", "cgroup's knobs; new cgroup", "refused"),
    _probe("device-nodes", "EPERM", "P12", "privileges.py", "device nodes", REFUSED),
    _probe("devices", "none but the harmless", "P12, P16", "privileges.py", "devices; unknown devices",
           "refused", "none"),
    _probe("scheduler", "refused", "P23", "privileges.py",
           "first in, first out; round robin; deadline; io in real time", REFUSED,
           also={"nice": "EACCES", "lock all memory": "ENOMEM", "lock a megabyte": "ENOMEM"}),
    _probe("hard-limits", "refused", "R25, R26, R11", "privileges.py", "core limit; file limit",
           REFUSED, "ValueError"),
    _probe("host-information", "masked", "P27", "privileges.py", "masked files", "refused",
           severity=Severity.MEDIUM),
    _probe("terminal", "ENXIO", "O03", "privileges.py", "terminal", "ENXIO", "ENOENT", severity=Severity.LOW),
)

_OTHER_PROCESS = (
    _probe("init-memory", "refused", "P06, F10", "other_process.py",
           "memory; environment; files; memory, writing; lists; links; descriptors; through its root",
           "refused", *CLOSED),
    _probe("init-ptrace", "EPERM", "P05", "other_process.py",
           "attach; seize; peek; seize a child; be traced by the parent", REFUSED),
    _probe("process-calls", "EPERM", "P05, P06", "other_process.py",
           "process_vm_readv; process_vm_writev; kcmp; pidfd_getfd; process_madvise; process_mrelease",
           REFUSED),
    _probe("init-limits", "EPERM", "P07", "other_process.py",
           "limits; limits, by a wide number; affinity; scheduler; scheduling parameter; "
           "scheduling attributes; priority; priority of its group; priority of users; io priority; "
           "io priority of users", REFUSED, also={"afterwards": "unchanged"}),
    _probe("init-signals", "EPERM", "P08, X04", "other_process.py",
           "kill; tkill; tgkill; rt_sigqueueinfo; rt_tgsigqueueinfo", REFUSED),
    _probe("oom-score", "EACCES", "P09", "other_process.py",
           "oom score; old oom score; timer slack; name; lower oom score of its own", *CLOSED,
           also={"higher oom score of its own": "allowed"}),
)

_NETWORK = (
    _probe("interfaces", "lo", "N04", "network.py",
           "interfaces; interfaces in /sys; interfaces by ioctl"),
    _probe("routes", "0", "N01, N04", "network.py", "routes"),
    _probe("metadata", "unreachable", "N01", "network.py", "metadata services"),
    _probe("internet", "unreachable", "N01, N02", "network.py", "internet"),
    _probe("host-services", "unreachable", "N03", "network.py", "host; host's engine",
           "unreachable", "ECONNREFUSED", "ENETUNREACH"),
    _probe("dns", "unresolved, at once", "N02", "network.py", "names; metadata by name", "unresolved"),
    _probe("dns-packets", "unreachable", "N02", "network.py",
           "name server over UDP; name servers by address", "ENETUNREACH", "EHOSTUNREACH", "unreachable"),
    _probe("name-servers", "none", "N02", "network.py", "name servers", severity=Severity.LOW),
    _probe("abstract-sockets", "none", "N05", "network.py", "abstract sockets"),
    _probe("socket-files", "none", "N06; CIS 5.32", "network.py", "socket files; agents"),
)

_FILES = (
    _probe("writable", "none else", "F01; CIS 5.13", "filesystem.py", "writable",
           also={"own places": _OWN_PLACES, "opened for writing": "none"}),
    _probe("remount", "EPERM", "F02", "filesystem.py", "remount; remount alone; clear read-only", REFUSED,
           also={"write to / afterwards": "refused"}),
    _probe("noexec", "refused", "P24", "filesystem.py", "script; program", "EACCES", severity=Severity.MEDIUM,
           also={"program by the loader": "CalledProcessError", "code mapped": REFUSED,
                 "library loaded": "ImportError"}),
    _probe("setuid-files", "none", "CIS 4.8; P01", "filesystem.py", "setuid files", severity=Severity.MEDIUM),
    _probe("block-devices", "none", "P12", "filesystem.py", "block devices"),
    _probe("secrets", "none", "F10", "filesystem.py", "secrets"),
    _probe("left-behind", "nothing", "F11", "filesystem.py", "left behind"),
    _probe("canaries", "none", "F10, F11", "filesystem.py", "canaries"),
)

_JAVASCRIPT = (
    _probe("javascript-privileges", "none", "P01, P02", "probes.cjs",
           "capabilities; no_new_privs; filters; setuid", "none", "1", "2 or more", REFUSED, _NOT_REPORTED,
           f"{_UNMAPPED}, {REFUSED}"),
    _probe("javascript-init", "out of reach", "P05, P06, P07, P08, P09, X04", "probes.cjs",
           "signals to init; priority of init", REFUSED,
           also={"init's files": "EACCES", "oom score of init": "EACCES"}),
    _probe("javascript-noexec", "EACCES", "P24", "probes.cjs", "executed", severity=Severity.MEDIUM),
    _probe("javascript-network", "none", "N01, N02, N03, N04, N07", "probes.cjs",
           "interfaces; metadata services; internet; host; names; refusals; interfaces listed",
           "lo", "unreachable", "unresolved", "at once", "ERR_SYSTEM_ERROR"),
    _probe("javascript-files", "none else", "F01, F10, P25; CIS 4.8", "probes.cjs",
           "writable; setuid files; secrets; files of the image", "none else", "none", "EROFS", "EACCES",
           "EACCES, EROFS", also={"own places": _OWN_PLACES}),
    _probe("javascript-threads", "allowed", "R29", "probes.cjs", "worker thread", severity=Severity.LOW),
)

_TYPESCRIPT = (
    _probe("typescript-privileges", "none", "P01, P02", "probes.ts", "capabilities; setuid", "none", REFUSED,
           f"{_UNMAPPED}, {REFUSED}"),
    _probe("typescript-init", "out of reach", "P06, P08", "probes.ts", "signals to init", REFUSED,
           also={"init's files": "EACCES"}),
    _probe("typescript-files", "EROFS", "F01, X16, P25", "probes.ts",
           "compiler written; settings written; files of the image", "EROFS", "EACCES", "EACCES, EROFS",
           also={"writable": "none else", "own places": _OWN_PLACES}),
    _probe("typescript-network", "none", "N01, N02", "probes.ts", "metadata services; internet; names",
           "unreachable", "unresolved"),
)
# fmt: on

PROBES = (
    *_KERNEL,
    *_PRIVILEGES,
    *_OTHER_PROCESS,
    *_NETWORK,
    *_FILES,
    *_JAVASCRIPT,
    *_TYPESCRIPT,
)
PAYLOADS = tuple(dict.fromkeys(probe.payload for probe in PROBES))
LANGUAGE_OF = {".py": "python", ".cjs": "javascript", ".ts": "typescript"}
