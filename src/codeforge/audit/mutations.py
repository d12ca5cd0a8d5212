"""Mutations: a table of sandboxes that lack one control each, and of the checks that must notice.

A check that cannot fail proves nothing. If the posture check covers the control, it must refuse the sandbox.
Without the posture check, each of the audit's checks for the control must fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codeforge.audit.executor import Weaken
from codeforge.model import GiB

_DOCKER_MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
SHARED_UID = 20_000
_SHARED_USER = f"{SHARED_UID}:10001"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A sandbox without one control.

    Attributes:
        name: what is missing or different.
        weaken: removes the control.
        caught_by: ids of the checks that must fail.
        posture: whether the posture check must refuse such a sandbox.
        runs: whether a program can run in it. If new privileges are allowed, init cannot install its filter,
            and exits.
    """

    name: str
    weaken: Weaken
    caught_by: tuple[str, ...]
    posture: bool = False
    runs: bool = True


def _host(*without: str, **settings: object) -> Weaken:
    """Change settings in ``HostConfig``, and remove ``without`` from the container's own settings."""

    def weaken(spec: dict[str, Any]) -> None:
        spec["HostConfig"].update(settings)
        for name in without:
            del spec[name]

    return weaken


def _own(**settings: object) -> Weaken:
    """Change the container's own settings."""

    def weaken(spec: dict[str, Any]) -> None:
        spec.update(settings)

    return weaken


def _user(user: str, **settings: object) -> Weaken:
    """Run as another user, who owns the writable directories."""
    uid = user.partition(":")[0]

    def weaken(spec: dict[str, Any]) -> None:
        spec["User"] = user
        host = spec["HostConfig"]
        host.update(settings)
        for place, options in host["Tmpfs"].items():
            kept = [option for option in options.split(",") if not option.startswith("uid=")]
            host["Tmpfs"][place] = ",".join([*kept, f"uid={uid}"])

    return weaken


def _tmpfs(old: str, new: str) -> Weaken:
    """Change a mount option of the writable directories."""

    def weaken(spec: dict[str, Any]) -> None:
        places = spec["HostConfig"]["Tmpfs"]
        for place, options in places.items():
            changed = [new if option.startswith(old) else option for option in options.split(",")]
            places[place] = ",".join(filter(None, changed))

    return weaken


def _network(spec: dict[str, Any]) -> None:
    spec["NetworkDisabled"] = False
    spec["HostConfig"].update(NetworkMode="bridge", Dns=[])


def _secret(spec: dict[str, Any]) -> None:
    spec["Env"] = [*spec["Env"], "AWS_SECRET_ACCESS_KEY=codeforge-" + "canary-0123456789abcdef"]


def _caught(*names: str) -> tuple[str, ...]:
    """Return ids of checks, from names that may lack the layer ``outside``."""
    return tuple(name if name.startswith("inside.") else f"outside.{name}" for name in names)


# A few lines for each mutation; the formatter would take six.
# fmt: off
MUTATIONS = (
    Mutation("capabilities kept", _host(CapDrop=[]),
             _caught("spec-capabilities", "kernel-capabilities", "inside.capabilities"), posture=True),
    Mutation("a capability added", _host(CapAdd=["NET_RAW"], CapDrop=["ALL"]),
             _caught("spec-capabilities", "kernel-capabilities", "inside.capabilities"), posture=True),
    Mutation("privileged", _host(Privileged=True),
             _caught("spec-privileged", "kernel-capabilities", "kernel-devices", "kernel-mounts",
                     "inside.devices"), posture=True),
    Mutation("the engine's seccomp profile off",
             _host(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]),
             _caught("spec-security-options", "kernel-seccomp", "inside.filters"), posture=True),
    Mutation("new privileges allowed", _host(SecurityOpt=[]), (), posture=True, runs=False),
    Mutation("root file system writable", _host(ReadonlyRootfs=False),
             _caught("spec-read-only", "kernel-mounts"), posture=True),
    Mutation("root", _user("0:0"),
             _caught("spec-user", "kernel-users", "inside.user"), posture=True),
    Mutation("root, and a writable root", _user("0:0", ReadonlyRootfs=False),
             _caught("spec-read-only", "inside.writable"), posture=True),
    Mutation("one user for all", _user(_SHARED_USER), _caught("kernel-users"), posture=True),
    Mutation("another group", _host(GroupAdd=["0"]),
             _caught("spec-user", "kernel-users", "inside.groups"), posture=True),
    Mutation("a network", _network,
             _caught("spec-network", "spec-name-servers", "inside.interfaces", "inside.routes"),
             posture=True),
    Mutation("no limit of processes", _host(PidsLimit=0), _caught("spec-pids", "kernel-pids"), posture=True),
    Mutation("no limit of memory", _host(Memory=0, MemorySwap=0),
             _caught("spec-memory", "spec-swap", "kernel-memory", "kernel-swap"), posture=True),
    Mutation("swap", _host(MemorySwap=2 * GiB), _caught("spec-swap", "kernel-swap"), posture=True),
    Mutation("no CPU quota", _host(CpuQuota=0), _caught("spec-cpu", "kernel-cpu"), posture=True),
    Mutation("programs in /tmp and /code", _tmpfs("noexec", "exec"),
             _caught("spec-tmpfs", "kernel-mounts", "inside.noexec"), posture=True),
    Mutation("devices in /tmp and /code", _tmpfs("nodev", "dev"),
             _caught("spec-tmpfs", "kernel-mounts"), posture=True),
    Mutation("setuid in /tmp and /code", _tmpfs("nosuid", "suid"),
             _caught("spec-tmpfs", "kernel-mounts"), posture=True),
    Mutation("no size of /tmp and /code", _tmpfs("size=", ""), _caught("spec-tmpfs"), posture=True),
    Mutation("no count of files", _tmpfs("nr_inodes=", ""), _caught("spec-tmpfs"), posture=True),
    Mutation("a large /dev/shm", _host(ShmSize=1 * GiB), _caught("spec-shm"), posture=True),
    Mutation("the host's IPC", _host(IpcMode="host"), _caught("spec-ipc", "kernel-namespaces")),
    Mutation("the host's cgroup namespace", _host(CgroupnsMode="host"),
             _caught("spec-cgroup-namespace", "kernel-namespaces")),
    Mutation("the host's name", _host("Hostname", UTSMode="host"),
             _caught("spec-uts", "kernel-namespaces")),
    Mutation("the engine's masked paths only", _host(MaskedPaths=list(_DOCKER_MASKED)),
             _caught("spec-masked-paths", "inside.host-information")),
    Mutation("nothing masked", _host(MaskedPaths=[], ReadonlyPaths=[]),
             _caught("spec-masked-paths", "inside.host-information")),
    Mutation("the engine's ulimits", _host(Ulimits=[]),
             _caught("spec-ulimits", "kernel-limits", "inside.hard-limits"), posture=True),
    Mutation("core dumps", _host(Ulimits=[{"Name": "core", "Soft": 0, "Hard": -1}]),
             _caught("spec-ulimits", "kernel-limits", "inside.hard-limits"), posture=True),
    Mutation("a folder of the host", _host(Binds=["{folder}:/host:ro"]),
             _caught("spec-mounts", "kernel-mounts", "inside.canaries")),
    Mutation("the engine's socket", _host(Binds=["{socket}:/var/run/docker.sock"]),
             _caught("spec-mounts", "kernel-mounts", "inside.socket-files")),
    Mutation("a volume", _own(Volumes={"/data": {}}), _caught("spec-mounts", "kernel-mounts")),
    Mutation("a device", _host(Devices=[
        {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/kvm", "CgroupPermissions": "rwm"}]),
             _caught("spec-devices", "inside.devices")),
    Mutation("a rule for devices", _host(DeviceCgroupRules=["c 10:229 rwm"]),
             _caught("spec-devices", "kernel-devices")),
    Mutation("a secret in the environment", _secret, _caught("spec-environment", "inside.canaries")),
    Mutation("output in the engine's log", _host(LogConfig={"Type": "json-file"}), _caught("spec-log")),
    Mutation("kept when it ends", _host(AutoRemove=False), _caught("spec-life")),
    Mutation("spared when memory is short", _host(OomScoreAdj=0),
             _caught("spec-oom-score", "kernel-oom-score")),
    Mutation("the host's name servers", _host(Dns=[]), _caught("spec-name-servers")),
    Mutation("a health check", _own(Healthcheck={"Test": ["CMD", "/bin/true"]}), _caught("spec-healthcheck")),
    Mutation("stdin that outlives its writer", _own(StdinOnce=False), _caught("spec-stdin")),
    Mutation("a setting that nobody asked for", _host(CpusetCpus="0"), _caught("spec-unknown-settings")),
)
# fmt: on

WITHOUT_INIT = (
    "inside.process-1",
    "inside.filters",
    "inside.init-memory",
    "inside.init-limits",
    "inside.io-uring",
    "inside.vsock",
    "inside.netlink",
    "inside.splice-calls",
    "inside.sync",
    "inside.foreign-abi",
    "inside.system-v-ipc",
    "inside.init-signals",
    "inside.no-new-privileges",
)
"""Checks that must fail if process 1 is not init and new privileges are allowed."""
