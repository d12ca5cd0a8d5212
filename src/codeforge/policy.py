"""Policy: what a sandbox is allowed. A security review starts with this file.

All functions are pure. ``container_spec`` is the only description of a container, and ``bubblewrap_plan``
the only one of a bubblewrap sandbox; callers choose the language and the limits, and nothing else.
``posture_faults`` compares what the kernel reports inside a started sandbox with what was asked for; if
there is a single fault, no code is run in it.

The documented restrictions (read-only root, no network, memory and CPU limits, no-new-privileges,
no capabilities, /tmp noexec,nosuid, non-root user) are here with the rest of the hardening, each with its
reason.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codeforge.model import CODE_DIR, CPU_PERIOD_US, GUEST_DIR, KiB, Language, MiB, SandboxLimits, tmpfs_bytes
from codeforge.protocol import PROTOCOL

RUNNER_GID = 10001
"""The group ``runner`` of every image; distributions assign lower ids."""

USER_IDS = range(20_000, 20_000 + 32 * 64)
"""Each sandbox has its own. Distributions assign lower ids. Images call all of them ``runner``."""

LABEL = "ai-codeforge.sandbox"
"""The label of every container; its value is the owner, the id of the executor that launched it."""

HOSTNAME = "sandbox"

OOM_SCORE_ADJ = 900
"""If the machine itself runs out of memory, the kernel kills sandboxes first."""

CPU_SHARES = 128
"""An eighth of the default: under load, everything else on the host runs first."""

SHM_BYTES = 16 * MiB
"""For multiprocessing's semaphores and small shared arrays."""

_MASKED_PATHS = (
    # Docker's own list, which this one replaces.
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi"),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
    # More files that describe the host and that no program needs.
    *("/proc/interrupts", "/proc/kallsyms", "/proc/config.gz", "/proc/cmdline", "/proc/partitions"),
    *("/proc/diskstats", "/proc/key-users", "/proc/locks"),
    *("/sys/kernel/slab", "/sys/fs/bpf", "/sys/class/dmi"),
)

_TMP, _SHM = "/tmp", "/dev/shm"  # noqa: S108 - paths inside a sandbox, where no other user can write

_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def container_spec(language: Language, limits: SandboxLimits, *, owner: str, uid: int) -> dict[str, Any]:
    """The body of the engine's create call for one sandbox.

    Args:
        language: decides the image and the environment variables.
        limits: what bounds the sandbox.
        owner: the value of the label, by which an executor's sandboxes can be found.
        uid: a user id that no other sandbox has; see user_ids.py.
    """
    heap_mib = limits.memory_bytes * 3 // 4 // MiB
    return {
        "Image": language.image,
        "Entrypoint": [f"{GUEST_DIR}/init"],
        "Cmd": [],
        "User": f"{uid}:{RUNNER_GID}",
        "WorkingDir": CODE_DIR,
        "Env": [f"{key}={value.replace('{heap_mib}', str(heap_mib))}" for key, value in language.env.items()],
        "Hostname": HOSTNAME,
        "Labels": {LABEL: owner},
        # Saves the engine 90 ms of network setup; there is a loopback interface nevertheless.
        "NetworkDisabled": not limits.network,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": False,
        "Tty": False,
        # The sandbox's channel is its stdin, so it ends with the host process.
        "OpenStdin": True,
        "StdinOnce": True,
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(limits, uid),
    }


def _host_config(limits: SandboxLimits, uid: int) -> dict[str, Any]:
    tmpfs = tmpfs_bytes(limits)
    writable = (
        f"rw,noexec,nosuid,nodev,size={tmpfs},nr_inodes={limits.tmp_inodes},"
        f"mode=0700,uid={uid},gid={RUNNER_GID}"
    )
    return {
        "AutoRemove": True,
        "RestartPolicy": {"Name": "no"},
        "ReadonlyRootfs": True,
        # No writable mount allows execution, so a program cannot execute a file that it has written.
        "Tmpfs": {CODE_DIR: writable, _TMP: writable},
        "ShmSize": SHM_BYTES,
        "NetworkMode": "bridge" if limits.network else "none",
        # Otherwise /etc/resolv.conf would show the host's name servers.
        "Dns": [] if limits.network else ["127.0.0.1"],
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # the same: no swap
        "CpuPeriod": CPU_PERIOD_US,
        "CpuQuota": limits.cpu_quota_us,
        "CpuShares": CPU_SHARES,
        "PidsLimit": limits.pids,
        "OomScoreAdj": OOM_SCORE_ADJ,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "MaskedPaths": list(_MASKED_PATHS),
        "ReadonlyPaths": list(_READONLY_PATHS),
        "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in _ulimits(limits).items()],
        # The default driver would write all output to disk; it is read from the attach stream.
        "LogConfig": {"Type": "none"},
    }


def _ulimits(limits: SandboxLimits) -> dict[str, int]:
    # No nproc: it is counted per user id over the whole host. No address space: V8 reserves much of it.
    return {
        "core": 0,
        "nofile": 1024,
        "fsize": tmpfs_bytes(limits),
        "msgqueue": 0,
        "sigpending": 128,
        "memlock": 64 * KiB,
    }


# --- bubblewrap ---------------------------------------------------------------------------------------

SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Folders with programs and libraries besides /usr; on most systems they are links into it."""

_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives")
"""The only parts of the machine's /etc in a sandbox: the loader and Debian's links need them."""

Mount = tuple[str, str]
"""A folder or file on this machine, and its path in the sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BubblewrapPlan:
    """The command that makes one bubblewrap sandbox, without the descriptors that it is given.

    Attributes:
        prefix: the program that starts bwrap as another user, if this process is root.
        options: bwrap's options.
        program: what bwrap runs: ``enter`` with its options, and init.
    """

    prefix: tuple[str, ...]
    options: tuple[str, ...]
    program: tuple[str, ...]


def bubblewrap_plan(
    language: Language,
    limits: SandboxLimits,
    *,
    uid: int,
    as_root: bool,
    env: Mapping[str, str],
    mounts: Iterable[Mount],
    system: Mapping[str, str | None],
    cgroups: Iterable[Mount],
) -> BubblewrapPlan:
    """The counterpart of ``container_spec`` for bubblewrap.

    Args:
        language: decides the environment variables.
        limits: decide the sizes of files; the control group limits memory, CPU and processes.
        uid: the user id inside the sandbox, and outside as well if ``as_root``.
        as_root: whether this process is root, and can start bwrap as another user.
        env: environment variables of every run; the language's own take precedence.
        mounts: what the sandbox can read besides the system's programs.
        system: the folders of ``SYSTEM`` that exist, each with its target if it is a link.
        cgroups: the sandbox's control group, to be mounted where init reads it.
    """
    heap_mib = limits.memory_bytes * 3 // 4 // MiB
    tmpfs = f"size={tmpfs_bytes(limits)},nr_inodes={limits.tmp_inodes},mode=0700"
    variables = {
        **env,
        "HOSTNAME": HOSTNAME,
        **{key: value.replace("{heap_mib}", str(heap_mib)) for key, value in language.env.items()},
    }
    folders = [(path, path) for path, target in system.items() if target is None]
    readable = [("/usr", "/usr"), *folders, *mounts, *cgroups]
    options = [
        # enter makes the cgroup namespace, after the host has moved it into the sandbox's cgroup.
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--uid", str(uid), "--gid", str(RUNNER_GID), "--hostname", HOSTNAME),
        # init is process 1, without a terminal, and ends with the process that started it.
        *("--as-pid-1", "--new-session", "--die-with-parent"),
        # enter needs these, and drops them.
        *("--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP"),
        "--clearenv",
        *(word for key, value in variables.items() for word in ("--setenv", key, value)),
        *(word for path, target in system.items() if target for word in ("--symlink", target, path)),
        *("--proc", "/proc", "--dev", "/dev", "--dir", CODE_DIR, "--dir", _TMP),
        *(word for here, there in readable for word in ("--ro-bind", here, there)),
        *(word for path in _SYSTEM_FILES for word in ("--ro-bind-try", path, path)),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"),
    ]
    program = [
        f"{GUEST_DIR}/enter",
        *("--tmpfs", CODE_DIR, tmpfs, "--tmpfs", _TMP, tmpfs),
        *("--tmpfs", _SHM, f"size={SHM_BYTES},nr_inodes={limits.tmp_inodes},mode=0700"),
        *(word for path in _MASKED_PATHS for word in ("--mask", path)),
        *(word for path in _READONLY_PATHS for word in ("--readonly", path)),
        *(word for name, value in _ulimits(limits).items() for word in ("--limit", name, str(value))),
        *("--oom-score-adj", str(OOM_SCORE_ADJ), "--", f"{GUEST_DIR}/init"),
    ]
    other_user = ("setpriv", f"--reuid={uid}", f"--regid={RUNNER_GID}", "--clear-groups", "--")
    return BubblewrapPlan(
        prefix=other_user if as_root else (), options=tuple(options), program=tuple(program)
    )


# --- Whether it is in force ---------------------------------------------------------------------------

GVISOR_UNREPORTED = frozenset(
    {
        # gVisor has no such set.
        "cap_amb",
        # Nothing can gain privileges by setuid, and there are no devices of the host's.
        *("nosuid", "nodev"),
        # The memory limit bounds files, too.
        *("code_inodes", "tmp_inodes"),
    }
)
"""Parts of the posture that gVisor does not have, or does not report."""

_MOUNT_FLAGS = {
    "root": {"ro"},
    "code": {"nosuid", "nodev", "noexec"},
    "tmp": {"nosuid", "nodev", "noexec"},
    "shm": {"nosuid", "nodev", "noexec"},
}


def posture_faults(
    posture: Mapping[str, str], limits: SandboxLimits, *, uid: int, ignore: Container[str] = ()
) -> list[str]:
    """Every way in which a sandbox is weaker than asked for; empty if all restrictions are in force.

    A restriction that the kernel does not report counts as not in force.

    Args:
        posture: what init and the engine report; see docs/protocol.md.
        limits: what the sandbox was launched with.
        uid: the user id that it was launched with.
        ignore: keys of the posture, and flags of mounts, that are not checked.
    """
    return [
        *_wrong_values(posture, limits, uid, ignore),
        *_wrong_mounts(posture, ignore),
        *_wrong_sizes(posture, limits, ignore),
    ]


def _wrong_values(
    posture: Mapping[str, str], limits: SandboxLimits, uid: int, ignore: Container[str]
) -> Iterator[str]:
    memory = str(limits.memory_bytes // 4096 * 4096)  # the kernel counts pages
    wanted = {
        "protocol": str(PROTOCOL),
        "pid": "1",
        "uid": str(uid),
        "gid": str(RUNNER_GID),
        "dumpable": "0",
        "no_new_privs": "1",
        "seccomp": "2",
        "cpu_quota_us": str(limits.cpu_quota_us),
        "cpu_period_us": str(CPU_PERIOD_US),
        "pids_max": str(limits.pids),
        "memory_max": memory,
        **{f"cap_{name}": "0" * 16 for name in ("inh", "prm", "eff", "bnd", "amb")},
    }
    if not limits.network:
        wanted["interfaces"] = "lo"
    for key, value in wanted.items():
        if posture.get(key) != value and key not in ignore:
            yield f"{key} is {posture.get(key, 'not known')!r}, not {value!r}"
    if set(posture.get("groups", "?").split()) - {str(RUNNER_GID)}:
        yield f"groups are {posture.get('groups', 'not known')!r}"
    # Control groups limit swap by itself in version 2, and memory and swap together in version 1.
    no_swap = posture.get("swap_max") == "0" or posture.get("memsw_max") == memory
    if not no_swap and "swap_max" not in ignore:
        yield "swap is not limited"


def _wrong_mounts(posture: Mapping[str, str], ignore: Container[str]) -> Iterator[str]:
    for mount, flags in _MOUNT_FLAGS.items():
        missing = {flag for flag in flags - set(posture.get(mount, "").split(",")) if flag not in ignore}
        if missing:
            yield f"{mount} is not mounted {', '.join(sorted(missing))}"


def _wrong_sizes(posture: Mapping[str, str], limits: SandboxLimits, ignore: Container[str]) -> Iterator[str]:
    tmpfs = tmpfs_bytes(limits) + 4095  # it counts pages, and rounds up
    ranges = {f"{name}_max": (0, value) for name, value in _ulimits(limits).items()} | {
        "code_bytes": (1, tmpfs),
        "tmp_bytes": (1, tmpfs),
        "shm_bytes": (1, SHM_BYTES),
        "code_inodes": (1, limits.tmp_inodes),
        "tmp_inodes": (1, limits.tmp_inodes),
    }
    for key, (least, most) in ranges.items():
        reported = posture.get(key, "")
        if key in ignore:
            continue
        if not re.fullmatch("[0-9]{1,18}", reported) or not least <= int(reported) <= most:
            yield f"{key} is {posture.get(key, 'not known')!r}, not at most {most}"
