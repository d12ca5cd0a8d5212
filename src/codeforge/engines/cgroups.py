"""Control groups, for sandboxes that no daemon makes: a sandbox's own, and where such are made.

Theory of operation: the kernel counts and limits memory, CPU and processes by control group. Version 2
has one tree of them, version 1 one for each controller. A sandbox's group lies below one called
``ai-codeforge``, whose name is all that executors of this machine share. A group that nobody is in and
that is older than a launch takes is swept by whoever starts next: that is how a killed process leaves
nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from codeforge.errors import EngineError
from codeforge.limits import CPU_PERIOD_US, Limits
from codeforge.policy import CPU_SHARES

FOLDER = "ai-codeforge"

STALE_S = 120.0
"""A group that was made and nobody entered for so long is nobody's."""

_CONTROLLERS = ("memory", "cpu", "pids")
_MOUNT = "/sys/fs/cgroup"

_CPU_WEIGHT = 1 + (CPU_SHARES - 2) * 9999 // 262142
"""The same in version 2's measure; as runc converts it."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One sandbox's control group.

    Attributes:
        folders: of each tree that it is in.
        mounts: folders here, and where init looks for them.
        oom_file: where the kernel counts whom it killed for want of memory.
    """

    folders: tuple[Path, ...]
    mounts: tuple[tuple[str, str], ...]
    oom_file: Path

    def add(self, pid: int) -> None:
        """Put a process of one thread into it.

        Raises:
            EngineError: it is gone, or may not be moved.
        """
        for folder in self.folders:
            _write(folder / "cgroup.procs", pid)

    def oom_kills(self) -> int:
        """Processes killed in it for want of memory; 0 once it is gone."""
        try:
            lines = self.oom_file.read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def remove(self) -> bool:
        """Whether it is gone now; not, as long as somebody is in it."""
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """Where groups of sandboxes are made.

    Attributes:
        version: 1 or 2.
        roots: our folder, of each tree; controller to path.
    """

    version: int
    roots: Mapping[str, Path]

    def make(self, name: str, limits: Limits, pids: int) -> Cgroup:
        """A new group with those limits.

        Raises:
            EngineError: the kernel takes one of them not.
        """
        if self.version == 2:
            folder = self.roots["memory"] / name
            group = Cgroup((folder,), ((str(folder), _MOUNT),), folder / "memory.events")
        else:
            folders = {controller: root / name for controller, root in self.roots.items()}
            mounts = tuple((str(path), f"{_MOUNT}/{controller}") for controller, path in folders.items())
            group = Cgroup(
                tuple(dict.fromkeys(folders.values())), mounts, folders["memory"] / "memory.oom_control"
            )
        try:
            for folder in group.folders:
                folder.mkdir()
            for path, value in self._settings(name, limits, pids):
                _write(path, value)
        except (OSError, EngineError) as error:
            group.remove()
            if isinstance(error, EngineError):
                raise
            raise EngineError(f"cannot make a control group: {error}") from error
        return group

    def _settings(self, name: str, limits: Limits, pids: int) -> Iterator[tuple[Path, object]]:
        memory, cpu, processes = (self.roots[controller] / name for controller in _CONTROLLERS)
        if self.version == 2:
            yield memory / "memory.max", limits.memory_bytes
            yield memory / "memory.swap.max", 0
            yield cpu / "cpu.max", f"{limits.cpu_quota_us} {CPU_PERIOD_US}"
            yield cpu / "cpu.weight", _CPU_WEIGHT
        else:
            yield memory / "memory.limit_in_bytes", limits.memory_bytes
            yield memory / "memory.memsw.limit_in_bytes", limits.memory_bytes  # together: no swap
            yield cpu / "cpu.cfs_period_us", CPU_PERIOD_US
            yield cpu / "cpu.cfs_quota_us", limits.cpu_quota_us
            yield cpu / "cpu.shares", CPU_SHARES
        yield processes / "pids.max", pids

    def sweep(self) -> None:
        """Remove what nobody is in, and nobody is about to enter."""
        for root in set(self.roots.values()):
            for folder in root.iterdir():
                with contextlib.suppress(OSError):
                    if time.time() - folder.stat().st_mtime > STALE_S:
                        folder.rmdir()


def find_tree() -> CgroupTree | str:
    """Where this process may make groups that limit everything; or why nowhere."""
    trees = _trees()
    if all(controller in trees for controller in _CONTROLLERS):
        version, parents = 1, {controller: trees[controller] for controller in _CONTROLLERS}
    elif "" in trees:
        version, parents = 2, dict.fromkeys(_CONTROLLERS, trees[""])
    else:
        return "no control groups are mounted on /sys/fs/cgroup"
    roots = {controller: parent / FOLDER for controller, parent in parents.items()}
    try:
        for root in dict.fromkeys(roots.values()):
            if version == 2:
                _delegate(root.parent)
            root.mkdir(exist_ok=True)
            if version == 2:
                _delegate(root)
    except (OSError, EngineError) as error:
        return f"this user may not make control groups: {error}"
    return CgroupTree(version, roots)


def _delegate(folder: Path) -> None:
    """Have the controllers in what is below that folder."""
    wanted = set(_CONTROLLERS) - set((folder / "cgroup.subtree_control").read_text().split())
    if wanted:
        _write(folder / "cgroup.subtree_control", " ".join(f"+{controller}" for controller in sorted(wanted)))


def _trees() -> dict[str, Path]:
    """The groups that this process is in: controller to folder; version 2's is called ``""``."""
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, mounted = before.split(" ")[3:5]
        names = [""] if kind == "cgroup2" else options.split(",") if kind == "cgroup" else []
        for name in names:
            if name in own:
                found[name] = Path(mounted) / os.path.relpath(own[name], root)
    return found


def _write(path: Path, value: object) -> None:
    try:
        with path.open("w") as file:
            file.write(str(value))
    except OSError as error:
        raise EngineError(f"cannot write {value} to {path}: {error.strerror}") from error
