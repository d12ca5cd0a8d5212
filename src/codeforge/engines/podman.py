"""Sandboxes as containers of Podman, through its Docker-compatible service.

Theory of operation: everything is as with Docker, except for three things. A container is created by
Podman's own call, because the compatible one leaves out masked paths, adds writable mounts and refuses
options of tmpfs; ``libpod_spec`` translates the description. Podman has no out-of-memory event, so the
kernel is watched (oom_watch.py), which requires a service on this machine. And without root, on version 1
of control groups, Podman can limit nothing, so it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiodocker

from codeforge.engines.base import Channel
from codeforge.engines.docker import DockerEngine, is_podman
from codeforge.engines.docker_client import Dialect
from codeforge.engines.sockets import podman_address
from codeforge.errors import EngineError, EngineUnavailable

PODMAN = Dialect(
    name="Podman",
    not_available=(
        "Podman is not available: its service does not answer.\n"
        "Start it: systemctl --user start podman.socket (as root: systemctl start podman.socket); "
        "without systemd: podman system service --time=0"
    ),
    permission_denied=(
        "permission denied while trying to connect to Podman's socket\n"
        "Use a service of your own: systemctl --user start podman.socket, "
        "and CONTAINER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock"
    ),
    no_image="image not known",
    gone="remove",
    left=("created", "initialized", "exited"),
)

_LIBPOD_API = "v4.0.0/libpod"
"""The oldest version with everything that is needed; newer services answer to it, too."""

_NPROC = 4096
"""Far above the limit of processes, and counted per user id, of which each sandbox has its own. Podman's
default is more than a service without all of root's capabilities may set."""


class PodmanEngine(DockerEngine):
    """Launches sandboxes as containers of Podman."""

    name = "podman"
    dialect = PODMAN

    def __init__(self, docker_host: str | None, owner: str) -> None:
        super().__init__(docker_host or podman_address(), owner)

    async def check(self, client: aiodocker.Docker) -> None:
        """See ``DockerEngine.check``."""
        version, info = await client.version(), await client.system.info()
        self.kernel = info["KernelVersion"]
        if not is_podman(version):
            raise EngineUnavailable(f"not Podman, but another engine answers on {self._docker_host}")
        if int(version["Version"].partition(".")[0]) < 4:
            raise EngineUnavailable(f"Podman {version['Version']} is too old; 4.0 or newer is needed")
        if info.get("Rootless") and info.get("CgroupVersion") != "2":
            raise EngineUnavailable(
                "Podman without root cannot limit memory, CPU and processes on this machine: "
                "it has cgroup version 1\nUse Podman as root, or bubblewrap"
            )

    def creation(self, client: aiodocker.Docker, spec: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """See ``DockerEngine.creation``."""
        return f"{_LIBPOD_API}/containers/create", libpod_spec(spec)

    async def observe(self, channel: Channel) -> Mapping[str, str]:
        """See ``Engine.observe``."""
        sandbox = self._channels[channel.id]
        sandbox.watch((await sandbox.inspect())["State"]["Pid"])
        return await super().observe(channel)


def libpod_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a container's description from Docker's API to Podman's.

    Raises:
        EngineError: it has something that is not translated here, and would be left out.
    """
    own, host = dict(spec), dict(spec["HostConfig"])
    unknown = {*own} - _OWN | {*host} - _HOST
    if unknown:
        raise EngineError(f"no translation for Podman of {', '.join(sorted(unknown))}")
    changed = {key: own[key] for key in _FIXED if own[key] != _FIXED[key]}
    changed |= {key: host[key] for key in _FIXED_HOST if host[key] != _FIXED_HOST[key]}
    if changed:
        raise EngineError(f"no translation for Podman of {changed}")
    offline = host["NetworkMode"] == "none"
    return {
        "image": own["Image"],
        "entrypoint": own["Entrypoint"],
        "command": own["Cmd"],
        "user": own["User"],
        "work_dir": own["WorkingDir"],
        "env": dict(each.split("=", 1) for each in own["Env"]),
        "unsetenv": ["TERM", "container"],
        "hostname": own["Hostname"],
        "labels": own["Labels"],
        "stdin": True,
        "stop_signal": 9,
        "remove": True,
        "read_only_filesystem": True,
        "mounts": [
            {"type": "tmpfs", "source": "tmpfs", "destination": place, "options": _tmpfs(options)}
            for place, options in host["Tmpfs"].items()
        ],
        "shm_size": host["ShmSize"],
        "image_volume_mode": "ignore",
        # Otherwise /etc/hosts would have the host's entries.
        "use_image_hosts": True,
        **({"netns": {"nsmode": "none"}} if offline else {}),
        "ipcns": {"nsmode": "private"},
        "cgroupns": {"nsmode": "private"},
        "resource_limits": {
            "memory": {"limit": host["Memory"], "swap": host["MemorySwap"]},
            "cpu": {"period": host["CpuPeriod"], "quota": host["CpuQuota"], "shares": host["CpuShares"]},
            "pids": {"limit": host["PidsLimit"]},
        },
        "r_limits": [
            {"type": each["Name"], "soft": each["Soft"], "hard": each["Hard"]}
            for each in [*host["Ulimits"], {"Name": "nproc", "Soft": _NPROC, "Hard": _NPROC}]
        ],
        "oom_score_adj": host["OomScoreAdj"],
        "cap_drop": host["CapDrop"],
        "no_new_privileges": True,
        # Without a network, Podman leaves the image's /etc/resolv.conf, which may name a server.
        "mask": [*host["MaskedPaths"], *(["/etc/resolv.conf"] if offline else [])],
        "log_configuration": {"driver": "none"},
        # Switches off what Podman does by default for init systems, proxies and health checks.
        "systemd": "false",
        "sdnotifyMode": "ignore",
        "httpproxy": False,
        "healthconfig": own["Healthcheck"],
    }


def _tmpfs(options: str) -> list[str]:
    """Podman knows few options by name, but passes what follows a comma in one of them to the kernel."""
    words = options.split(",")
    flags = [word for word in words if "=" not in word]
    return [*flags, "notmpcopyup", ",".join(word for word in words if "=" in word)]


_FIXED = {
    "AttachStdin": True,
    "AttachStdout": True,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": True,
    "StdinOnce": True,  # conmon ends stdin when its last client has gone
    "StopSignal": "SIGKILL",
}
_FIXED_HOST = {
    "AutoRemove": True,
    "RestartPolicy": {"Name": "no"},
    "ReadonlyRootfs": True,
    "SecurityOpt": ["no-new-privileges"],
    "IpcMode": "private",
    "CgroupnsMode": "private",
    "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    "LogConfig": {"Type": "none"},
}
"""Values that the translation takes for granted; Podman's default read-only paths are these and one more."""

_OWN = {
    *_FIXED,
    *("Image", "Entrypoint", "Cmd", "User", "WorkingDir", "Env", "Hostname", "Labels"),
    *("NetworkDisabled", "Healthcheck", "HostConfig"),
}
_HOST = {
    *_FIXED_HOST,
    *("Tmpfs", "ShmSize", "NetworkMode", "Dns", "Memory", "MemorySwap", "CpuPeriod", "CpuQuota", "CpuShares"),
    *("PidsLimit", "OomScoreAdj", "CapDrop", "MaskedPaths", "Ulimits"),
}
"""The keys that are translated."""
