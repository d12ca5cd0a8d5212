"""Policy: what a sandbox is allowed. The file that a security reviewer reads first.

Pure: values in, values out. ``container_spec`` is the one place where a container is described;
callers choose a language and limits, and nothing else of it. ``posture_faults`` compares what the
kernel inside a started sandbox says with what was asked for: one fault, and no code is run in it.

The documented restrictions (read-only root, no network, memory and CPU limits, no-new-privileges,
no capabilities, /tmp noexec,nosuid, non-root user) are here with the rest of the hardening; the
reason for each value stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from codeforge.languages import CODE_DIR, GUEST_DIR, Language
from codeforge.limits import CPU_PERIOD_US, KiB, Limits, MiB
from codeforge.request import tmpfs_bytes
from codeforge.wire import PROTOCOL

RUNNER_GID = 10001
"""``runner`` in every image; above what distributions give to anybody."""

LABEL = "ai-codeforge.sandbox"
"""On every sandbox; its value is the executor that made it."""

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


def container_spec(language: Language, limits: Limits, *, owner: str, uid: int) -> dict[str, Any]:
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
        "Hostname": "sandbox",
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
        "HostConfig": _host_config(language, limits, uid),
    }


def _host_config(language: Language, limits: Limits, uid: int) -> dict[str, Any]:
    tmpfs = tmpfs_bytes(limits)
    writable = (
        f"rw,noexec,nosuid,nodev,size={tmpfs},nr_inodes={language.tmp_inodes},"
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
        "CpuShares": 128,  # an eighth of a process on the host: runs yield to everything else
        "PidsLimit": language.pids,
        "OomScoreAdj": 900,  # if the host itself runs out of memory, sandboxes go first
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


def _ulimits(limits: Limits) -> dict[str, int]:
    # Not nproc: it counts per user id over the whole host. Not address space: V8 reserves much.
    return {
        "core": 0,
        "nofile": 1024,
        "fsize": tmpfs_bytes(limits),
        "msgqueue": 0,
        "sigpending": 128,
        "memlock": 64 * KiB,
    }


def posture_faults(posture: Mapping[str, str], language: Language, limits: Limits, *, uid: int) -> list[str]:
    """What of a sandbox's posture is weaker than asked for; empty when everything is in force.

    A control that the kernel does not report counts as not in force.
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
        "pids_max": str(language.pids),
        # The kernel counts pages.
        "memory_max": str(limits.memory_bytes // 4096 * 4096),
        **no_capability,
        **{f"{name}_max": str(value) for name, value in _ulimits(limits).items()},
    }
    if not limits.network:
        wanted["interfaces"] = "lo"
    faults = [
        f"{key} is {posture.get(key, 'not known')!r}, not {value!r}"
        for key, value in wanted.items()
        if posture.get(key) != value
    ]
    if set(posture.get("groups", "?").split()) - {str(RUNNER_GID)}:
        faults.append(f"groups are {posture.get('groups', 'not known')!r}")
    # cgroup v2 limits swap alone, v1 memory and swap together.
    if posture.get("swap_max") != "0" and posture.get("memsw_max") != wanted["memory_max"]:
        faults.append("swap is not limited")
    for mount, flags in (
        ("root", {"ro"}),
        ("code", {"nosuid", "nodev", "noexec"}),
        ("tmp", {"nosuid", "nodev", "noexec"}),
        ("shm", {"nosuid", "nodev", "noexec"}),
    ):
        missing = flags - set(posture.get(mount, "").split(","))
        if missing:
            faults.append(f"{mount} is not mounted {', '.join(sorted(missing))}")
    # tmpfs counts pages, and rounds up.
    most = {
        "code_bytes": tmpfs_bytes(limits) + 4095,
        "tmp_bytes": tmpfs_bytes(limits) + 4095,
        "shm_bytes": SHM_BYTES,
        "code_inodes": language.tmp_inodes,
        "tmp_inodes": language.tmp_inodes,
    }
    for key, value in most.items():
        said = posture.get(key, "")
        if not re.fullmatch("[0-9]{1,18}", said) or not 0 < int(said) <= value:
            faults.append(f"{key} is {posture.get(key, 'not known')!r}, not at most {value}")
    return faults
