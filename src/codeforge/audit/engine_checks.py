"""Engine checks: what the engine reports about itself, and its socket and files on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from codeforge.audit.model import Check, Rule, Severity
from codeforge.engines import CgroupTree, find_tree
from codeforge.environments import Environment, EnvironmentFailed, EnvironmentStore
from codeforge.model import LANGUAGES, LanguageTable

DOCKER_FLOOR = (29, 5, 1)
RUNC_FLOORS = {(1, 2): (1, 2, 8), (1, 3): (1, 3, 3)}
RUNC_NEW = (1, 4)
_LISTENS = "0A"
_DISTRIBUTION = re.compile(r"dfsg|\+ds|deb\d|ubuntu|\.el\d|~|-\d")

_ENGINE = Rule(
    "daemon.version",
    "29.5.1 or newer",
    "CIS 1.1.2; NIST 800-190 4.4.1; P26, P17",
    Severity.HIGH,
    "update Docker, or use a distribution that still maintains its version",
)
_RUNC = Rule(
    "daemon.runc",
    "1.2.8, 1.3.3, 1.4 or newer (CVE-2025-31133, -52565, -52881)",
    "NIST 800-190 4.4.1; P26",
    Severity.HIGH,
    "update runc, or containerd.io where that package contains it",
)
_SECCOMP = Rule(
    "daemon.seccomp",
    "on, with the engine's default profile",
    "CIS 5.22",
    Severity.HIGH,
    "run dockerd without --seccomp-profile=unconfined, on a kernel with CONFIG_SECCOMP_FILTER",
)
_CGROUP = Rule(
    "daemon.cgroup",
    "version 2",
    "R04, R18",
    Severity.LOW,
    "boot with systemd.unified_cgroup_hierarchy=1: only version 2 has cgroup.kill and memory.events",
)
_LIMITS = Rule(
    "daemon.limits",
    "memory, swap, pids and cpu quota enforced",
    "CIS 5.11, 5.12, 5.29",
    Severity.HIGH,
    "boot with cgroup_enable=memory swapaccount=1",
)
_RUNTIME = Rule("daemon.runtime", "one that the engine knows", "H11; NIST 800-190 4.5.2", Severity.INFO)
_SOCKET = Rule(
    "daemon.socket",
    "owned by root or this user, closed to others",
    "CIS 3.15, 3.16; H10",
    Severity.HIGH,
    "chown root:docker /var/run/docker.sock; chmod 660 /var/run/docker.sock",
)
_TCP = Rule(
    "daemon.tcp",
    "no listener",
    "CIS 2.7; H10; NIST 800-190 4.3.1",
    Severity.HIGH,
    "remove -H tcp:// and hosts from dockerd's command line and /etc/docker/daemon.json",
)
_REGISTRIES = Rule(
    "daemon.insecure-registries",
    "none, except on this machine",
    "CIS 2.5; NIST 800-190 4.2.1",
    Severity.MEDIUM,
    "remove insecure-registries from /etc/docker/daemon.json",
)
_BWRAP = Rule(
    "daemon.bwrap",
    "owned by root, writable by root alone, no set-user-id bit",
    "P02; H11",
    Severity.HIGH,
    "chmod u-s,go-w $(command -v bwrap)",
)
_EXPERIMENTAL = Rule(
    "daemon.experimental", "off", "CIS 2.17", Severity.LOW, "remove experimental from daemon.json"
)


def look(version: Mapping[str, Any], socket: str | None, proc: Path = Path("/proc")) -> Iterator[Check]:
    """Yield every check of Docker.

    Args:
        version: what ``docker version`` reports, and under ``Info`` what ``docker info`` reports.
        socket: the path of its socket; ``None`` if it is on another machine.
        proc: where to look for processes.
    """
    info = version["Info"]
    runc = next((each["Version"] for each in version.get("Components", ()) if each["Name"] == "runc"), "")
    options = " ".join(info.get("SecurityOptions") or ())
    yield _floor(_ENGINE, version["Version"], _engine_is_new(version["Version"]))
    yield _floor(_RUNC, runc, _runc_is_new(runc))
    seccomp = "name=seccomp" in options and "unconfined" not in options
    yield _SECCOMP.holds_if(seccomp, options or "off")
    yield _CGROUP.holds_if(info.get("CgroupVersion") == "2", f"version {info.get('CgroupVersion', '1')}")
    able = {name: bool(info.get(name)) for name in ("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota")}
    cpu = able.pop("CpuCfsQuota") or bool(info.get("CPUCfsQuota"))
    lacking = [name for name, there in {**able, "CPU quota": cpu}.items() if not there]
    yield _LIMITS.holds_if(not lacking, f"not {', '.join(lacking)}" if lacking else "all")
    yield _RUNTIME.holds_if(
        info.get("DefaultRuntime") in (info.get("Runtimes") or {}), info.get("DefaultRuntime")
    )
    yield _socket(socket)
    yield _listeners(proc) if socket else _TCP.not_available("the engine is on another machine")
    insecure = (info.get("RegistryConfig") or {}).get("InsecureRegistryCIDRs") or []
    others = [cidr for cidr in insecure if cidr not in ("127.0.0.0/8", "::1/128")]
    yield _REGISTRIES.holds_if(not others, ", ".join(others) or "none")
    yield _EXPERIMENTAL.holds_if(not info.get("ExperimentalBuild"), info.get("ExperimentalBuild", False))


def images(configs: Mapping[str, Mapping[str, Any]], languages: list[str]) -> Iterator[Check]:
    """Check that each language has its image, and that the image runs as an unprivileged user."""
    for name in languages:
        build = f"codeforge images build {name}"
        there = Rule(f"daemon.image-{name}", "on this machine", "H12", Severity.MEDIUM, build)
        runner = Rule(f"daemon.image-user-{name}", "runner", "CIS 4.1; NIST 800-190 4.1.2", fix=build)
        if name not in configs:
            yield there.holds_if(False, "missing")
            yield runner.not_available("no image")
            continue
        user = str(configs[name].get("Config", {}).get("User") or "root")
        yield there.holds_if(True, str(configs[name]["Id"])[:19])
        yield runner.holds_if(user.partition(":")[0] in ("runner", "10001"), user)


def look_at_bubblewrap() -> Iterator[Check]:
    """Yield every check of bubblewrap: its program, and the control groups that it can use."""
    path = shutil.which("bwrap")
    if path is None:
        yield _BWRAP.holds_if(False, "bwrap is not on the PATH")
        return
    found = Path(path).stat()
    mode = stat.S_IMODE(found.st_mode)
    holds = found.st_uid == 0 and not mode & (stat.S_ISUID | stat.S_IWGRP | stat.S_IWOTH)
    yield _BWRAP.holds_if(holds, f"{path}, user {found.st_uid}, mode {mode:04o}")
    tree = find_tree()
    version = f"version {tree.version}" if isinstance(tree, CgroupTree) else tree
    yield _CGROUP.holds_if(version == "version 2", version)
    yield _LIMITS.holds_if(isinstance(tree, CgroupTree), version)
    if isinstance(tree, CgroupTree):
        tree.close()


def environments(languages: Iterable[str]) -> dict[str, Check]:
    """Return, by language name, the check that its environment exists and no other user may change it."""
    store, found = EnvironmentStore(), {}
    for name in languages:
        build = f"codeforge environments build {name}"
        rule = Rule(
            f"daemon.environment-{name}",
            "on this machine, owned by this user or root",
            "H12",
            Severity.HIGH,
            build,
        )
        try:
            environment = store.find(LanguageTable(LANGUAGES).find(name))
        except EnvironmentFailed as error:
            found[name] = rule.holds_if(False, error)
        else:
            found[name] = rule.holds_if(environment is not None, _name(environment))
    return found


def _name(environment: Environment | None) -> str:
    return "missing" if environment is None else environment.path.name


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def _engine_is_new(version: str) -> bool:
    return _numbers(version) >= DOCKER_FLOOR


def _runc_is_new(version: str) -> bool:
    numbers = _numbers(version)
    floor = RUNC_FLOORS.get((numbers[0], numbers[1])) if numbers else None
    return numbers >= floor if floor else numbers[:2] >= RUNC_NEW


def _floor(rule: Rule, version: str, new: bool) -> Check:
    if not _numbers(version):
        return rule.unknown(version or "not reported")
    if not new and _DISTRIBUTION.search(version):
        return rule.unknown(f"{version}: a distribution's; its changelog says whether it has the fixes")
    return rule.holds_if(new, version)


def _socket(path: str | None) -> Check:
    if path is None:
        return _SOCKET.not_available("the engine is not at a socket of this machine")
    try:
        found = Path(path).stat()
    except OSError as error:
        return _SOCKET.unknown(f"{path}: {error.strerror}")
    mode = stat.S_IMODE(found.st_mode)
    ours = found.st_uid in (0, os.geteuid())
    return _SOCKET.holds_if(ours and not mode & 0o007, f"{path}, user {found.st_uid}, mode {mode:04o}")


def _listeners(proc: Path) -> Check:
    """Whether a process called dockerd listens on TCP."""
    found: list[str] = []
    engines = 0
    for process in proc.glob("[0-9]*"):
        # The process may end during this.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (process / "comm").read_text().strip() != "dockerd":
                continue
            engines += 1
            try:
                found += _listens_on(process)
            except PermissionError:
                return _TCP.not_available("only root may look at its sockets; run: sudo codeforge audit")
    if not engines:
        return _TCP.unknown("no process on this machine is called dockerd")
    return _TCP.holds_if(not found, ", ".join(found) or "none")


def _listens_on(process: Path) -> list[str]:
    sockets = {str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()}
    tables = [(process / "net" / name).read_text() for name in ("tcp", "tcp6")]
    fields = [line.split() for table in tables for line in table.splitlines()[1:]]
    return [each[1] for each in fields if each[3] == _LISTENS and f"socket:[{each[9]}]" in sockets]
