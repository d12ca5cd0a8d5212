"""What the host's ``/proc`` and control groups show of a sandbox's processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeforge.engines import GVISOR

HOST_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount: a line of ``mountinfo``."""

    point: str
    root: str
    options: frozenset[str]
    kind: str
    propagation: str

    @classmethod
    def parse(cls, line: str) -> Mount:
        """Parse a line of ``mountinfo``."""
        left, _, right = line.partition(" - ")
        _, _, _, root, point, options, *optional = left.split(" ")
        return cls(point, root, frozenset(options.split(",")), right.split(" ")[0], " ".join(optional))


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process in a sandbox, as the host sees it.

    Attributes:
        pid: its id on the host.
        inner: its id in the sandbox.
        command: its command line.
        threads: the fields of each thread's ``status``.
        limits: soft and hard limits, by the kernel's names.
        namespaces: kind to inode.
        descriptors: number to what it refers to, such as ``pipe:[123]``.
        oom_score_adj: how readily the kernel kills it when memory runs out.
        files_owner: the user who owns its files under /proc: root if the process is not dumpable.
    """

    pid: int
    inner: int
    command: str
    threads: tuple[dict[str, str], ...]
    limits: dict[str, tuple[str, str]]
    namespaces: dict[str, str]
    descriptors: dict[int, str]
    oom_score_adj: int
    files_owner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one sandbox looks like from outside.

    Attributes:
        engine: its name; sandboxes differ by engine.
        inspect: the engine's description of the container.
        image_id: the image that the language's reference names; empty where there is none.
        peer_uids: user ids of other sandboxes that ran at the same time.
        processes: empty if the host's kernel could not be asked.
        mounts: the mounts that process 1 sees.
        host_namespaces: the host's, kind to inode.
        cgroup: the files of its control groups, name to content.
        blind: why the kernel could not be asked; empty if it could.
    """

    engine: str = "docker"
    inspect: dict[str, Any]
    image_id: str
    peer_uids: frozenset[str] = frozenset()
    processes: tuple[Process, ...] = ()
    mounts: tuple[Mount, ...] = ()
    host_namespaces: dict[str, str] = field(default_factory=dict)
    cgroup: dict[str, str] = field(default_factory=dict)
    blind: str = ""

    @property
    def init(self) -> Process:
        """Process 1."""
        return next(process for process in self.processes if process.inner == 1)


def gather(
    inspect: dict[str, Any],
    image_id: str,
    peer_uids: frozenset[str],
    proc: Path = Path("/proc"),
    *,
    engine: str = "docker",
) -> Facts:
    """Collect the facts about the sandbox that ``inspect`` describes. Blocks."""
    pid = inspect["State"]["Pid"]
    blind = _why_blind(proc / str(pid), inspect["Id"])
    asked = Facts(engine=engine, inspect=inspect, image_id=image_id, peer_uids=peer_uids, blind=blind)
    if blind:
        return asked
    if engine == GVISOR:
        blind = "the program's processes are gVisor's; the host's kernel has none of them"
        return dataclasses.replace(asked, blind=blind, cgroup=_cgroup(proc / str(pid)))
    return dataclasses.replace(
        asked,
        processes=tuple(_processes(proc, inspect["Id"])),
        mounts=tuple(map(Mount.parse, (proc / str(pid) / "mountinfo").read_text().splitlines())),
        host_namespaces=_namespaces(proc / "self"),
        cgroup=_cgroup(proc / str(pid)),
    )


def _why_blind(process: Path, container: str) -> str:
    if os.geteuid() != 0:
        return "only root may look at a sandbox's processes; run: sudo codeforge audit"
    try:
        if container in (process / "cgroup").read_text():
            return ""
    except OSError:
        pass
    return "the engine's processes are not on this machine: it is remote, or in a virtual machine"


def _processes(proc: Path, container: str) -> Iterator[Process]:
    """Yield every process in the container's control group, whatever its namespaces."""
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        # A process that ends during this is left out.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if container in (folder / "cgroup").read_text():
                yield _process(folder)


def _process(folder: Path) -> Process:
    status = _status(folder)
    return Process(
        pid=int(folder.name),
        inner=int(status.get("NSpid", folder.name).split()[-1]),
        command=(folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip(),
        threads=tuple(_status(thread) for thread in sorted((folder / "task").iterdir())),
        limits=_limits((folder / "limits").read_text()),
        namespaces=_namespaces(folder),
        descriptors=dict(_descriptors(folder / "fd")),
        oom_score_adj=int((folder / "oom_score_adj").read_text()),
        files_owner=(folder / "environ").stat().st_uid,
    )


def _descriptors(folder: Path) -> Iterator[tuple[int, str]]:
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield int(entry.name), str(entry.readlink())


def _status(folder: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in (folder / "status").read_text().splitlines())
    return {key: " ".join(value.split()) for key, _, value in lines}


def _limits(text: str) -> dict[str, tuple[str, str]]:
    found = re.findall(r"^Max ([a-z ]+?) {2,}(\S+) +(\S+)", text, re.MULTILINE)
    return {name: (soft, hard) for name, soft, hard in found}


def _namespaces(folder: Path) -> dict[str, str]:
    return {name: str((folder / "ns" / name).readlink()) for name in HOST_NAMESPACES}


_CGROUP_FILES = {
    "memory": ("memory.max", "memory.swap.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "pids": ("pids.max",),
    "cpu": ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "devices": ("devices.list",),
}


def _cgroup(process: Path, root: Path = Path("/sys/fs/cgroup")) -> dict[str, str]:
    """Return the limits of the process, by the file names of cgroup v2 or v1."""
    values = {}
    for line in (process / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",") if controllers else list(_CGROUP_FILES)
        folder = root / controllers if controllers else root
        for file in (file for name in names for file in _CGROUP_FILES.get(name, ())):
            with contextlib.suppress(OSError):
                values[file] = (folder / path.lstrip("/") / file).read_text().strip()
    return values
