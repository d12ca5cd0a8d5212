"""Policy: what a sandbox is allowed. The file that a security reviewer reads first.

Pure: values in, values out. ``container_spec`` is the one place where a container is described, and
``bubblewrap_plan`` where a sandbox of bubblewrap's is; callers choose a language and limits, and nothing
else of it. ``posture_faults`` compares what the kernel inside a started sandbox says with what was
asked for: one fault, and no code is run in it.

The documented restrictions (read-only root, no network, memory and CPU limits, no-new-privileges,
no capabilities, /tmp noexec,nosuid, non-root user) are here with the rest of the hardening; the
reason for each value stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from codeforge.model import CODE_DIR, CPU_PERIOD_US, GUEST_DIR, KiB, Language, MiB, SandboxLimits, tmpfs_bytes
from codeforge.protocol import PROTOCOL

RUNNER_GID = 10001
"""``runner`` in every image; above what distributions give to anybody."""

USER_IDS = range(20_000, 20_000 + 32 * 64)
"""Each sandbox has one of its own. Distributions assign lower ones. Images call all ``runner``."""

LABEL = "ai-codeforge.sandbox"
"""On every sandbox; its value is the executor that made it."""

HOSTNAME = "sandbox"

OOM_SCORE_ADJ = 900
"""If the machine itself runs out of memory, sandboxes go first."""

CPU_SHARES = 128
"""An eighth of a process on the host: runs yield to everything else."""

SHM_BYTES = 16 * MiB
"""For multiprocessing's semaphores and small shared arrays."""

_MASKED_PATHS = (
    # Docker's own list; sending one replaces it.
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
    "/sys/firmware", "/sys/devices/virtual/powercap",
    # What else tells about the host and is of no use to a program.
    "/proc/interrupts", "/proc/kallsyms", "/proc/config.gz", "/proc/cmdline", "/proc/partitions",
    "/proc/diskstats", "/proc/key-users", "/proc/locks",
    "/sys/kernel/slab", "/sys/fs/bpf", "/sys/class/dmi",
)  # fmt: skip

_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def container_spec(language: Language, limits: SandboxLimits, *, owner: str, uid: int) -> dict[str, Any]:
    """The body of the engine's create call for one sandbox.

    Args:
        language: says image, environment and process count.
        limits: says memory, CPU and network.
        owner: goes into the label, so that an executor's sandboxes can be found.
        uid: the user id that no other sandbox has; see user_ids.py.
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
        # Saves the engine 90 ms of network setup; loopback is there all the same.
        "NetworkDisabled": not limits.network,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": False,
        "Tty": False,
        # The sandbox's channel is its stdin: when the host process is gone, so is the sandbox.
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
        # Nothing the run writes can be executed as a file: no writable mount allows it.
        "Tmpfs": {CODE_DIR: writable, "/tmp": writable},  # noqa: S108
        "ShmSize": SHM_BYTES,
        "NetworkMode": "bridge" if limits.network else "none",
        # Else /etc/resolv.conf would tell of the host's name servers.
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
        # Output goes through the attach stream alone; the default driver would write it to disk.
        "LogConfig": {"Type": "none"},
    }


def _ulimits(limits: SandboxLimits) -> dict[str, int]:
    # Not nproc: it counts per user id over the whole host. Not address space: V8 reserves much.
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
"""Where programs and libraries are beside /usr; links into it, on most systems."""

_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives")
"""All that is taken of the machine's /etc: how the loader and Debian's links find programs."""

Mount = tuple[str, str]
"""A folder or file here, and where it is in the sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BubblewrapPlan:
    """How bubblewrap is to make one sandbox, but for the descriptors that it is given.

    Attributes:
        prefix: what it is started through, so that it is not root.
        options: its own, up to the program.
        program: what it runs: ``enter``, with options, and init.
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
    """What ``container_spec`` is for Docker.

    Args:
        language: says environment and process count.
        limits: say memory, and what follows from it. CPU, memory and processes are limited by the cgroup.
        uid: the user id inside; outside as well, if ``as_root``.
        as_root: whether who starts it is root, who can be somebody else there.
        env: environment of every run, below the language's own.
        mounts: what is there to be read, beside the system's programs.
        system: those of ``SYSTEM`` that are there, and where to if they are links.
        cgroups: the sandbox's own, as init is to see it.
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
        # The cgroup namespace is made by enter, once the host has put it in its cgroup.
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--uid", str(uid), "--gid", str(RUNNER_GID), "--hostname", HOSTNAME),
        # init is process 1, without a terminal, and ends with the process that started it.
        *("--as-pid-1", "--new-session", "--die-with-parent"),
        # For enter, which gives them up; bubblewrap itself keeps none.
        *("--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP"),
        "--clearenv",
        *(word for key, value in variables.items() for word in ("--setenv", key, value)),
        *(word for path, target in system.items() if target for word in ("--symlink", target, path)),
        *("--proc", "/proc", "--dev", "/dev", "--dir", CODE_DIR, "--dir", "/tmp"),  # noqa: S108
        *(word for here, there in readable for word in ("--ro-bind", here, there)),
        *(word for path in _SYSTEM_FILES for word in ("--ro-bind-try", path, path)),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"),
    ]
    program = [
        f"{GUEST_DIR}/enter",
        *("--tmpfs", CODE_DIR, tmpfs, "--tmpfs", "/tmp", tmpfs),  # noqa: S108
        *("--tmpfs", "/dev/shm", f"size={SHM_BYTES},nr_inodes={limits.tmp_inodes},mode=0700"),  # noqa: S108
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


GVISOR_UNTOLD = frozenset({
    "cap_amb",  # there is no such set
    "nosuid", "nodev",  # no new privileges are to be had, and its devices are its own
    "code_inodes", "tmp_inodes",  # files are limited as the memory that they take
})  # fmt: skip
"""What gVisor has not got, or does not tell."""


def posture_faults(
    posture: Mapping[str, str],
    limits: SandboxLimits,
    *,
    uid: int,
    ignore: Container[str] = (),
) -> list[str]:
    """What of a sandbox's posture is weaker than asked for; empty when everything is in force.

    A control that the kernel does not report counts as not in force. ``but``: keys, and flags of
    mounts, that are not asked for.
    """
    no_capability = {f"cap_{name}": "0" * 16 for name in ("inh", "prm", "eff", "bnd", "amb")}
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
        # The kernel counts pages.
        "memory_max": str(limits.memory_bytes // 4096 * 4096),
        **no_capability,
    }
    if not limits.network:
        wanted["interfaces"] = "lo"
    faults = [
        f"{key} is {posture.get(key, 'not known')!r}, not {value!r}"
        for key, value in wanted.items()
        if posture.get(key) != value and key not in ignore
    ]
    if set(posture.get("groups", "?").split()) - {str(RUNNER_GID)}:
        faults.append(f"groups are {posture.get('groups', 'not known')!r}")
    # cgroup v2 limits swap alone, v1 memory and swap together.
    no_swap = posture.get("swap_max") == "0" or posture.get("memsw_max") == wanted["memory_max"]
    if not no_swap and "swap_max" not in ignore:
        faults.append("swap is not limited")
    for mount, flags in (
        ("root", {"ro"}),
        ("code", {"nosuid", "nodev", "noexec"}),
        ("tmp", {"nosuid", "nodev", "noexec"}),
        ("shm", {"nosuid", "nodev", "noexec"}),
    ):
        missing = {flag for flag in flags - set(posture.get(mount, "").split(",")) if flag not in ignore}
        if missing:
            faults.append(f"{mount} is not mounted {', '.join(sorted(missing))}")
    # tmpfs counts pages, and rounds up.
    most = {f"{name}_max": (0, value) for name, value in _ulimits(limits).items()} | {
        "code_bytes": (1, tmpfs_bytes(limits) + 4095),
        "tmp_bytes": (1, tmpfs_bytes(limits) + 4095),
        "shm_bytes": (1, SHM_BYTES),
        "code_inodes": (1, limits.tmp_inodes),
        "tmp_inodes": (1, limits.tmp_inodes),
    }
    for key, (least, value) in most.items():
        said = posture.get(key, "")
        if key in ignore:
            continue
        if not re.fullmatch("[0-9]{1,18}", said) or not least <= int(said) <= value:
            faults.append(f"{key} is {posture.get(key, 'not known')!r}, not at most {value}")
    return faults
