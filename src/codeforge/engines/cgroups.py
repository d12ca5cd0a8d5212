"""Control groups for sandboxes that no daemon makes.

Theory of operation: the kernel counts and limits memory, CPU and processes by control group. Version 2
has one tree of them, version 1 has one for each controller. Root's sandboxes have theirs below a group
called ``ai-codeforge``, which all executors of this machine share. When an executor starts, it removes the
empty groups there that are older than a launch takes, so the groups of a killed process do not stay.

Other users may make groups only in a scope of their own systemd user manager. Each executor starts a scope
around a process that does nothing and ends with the executor. Users may not move processes into a scope
themselves, so the manager does. The scope ends with its last process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from codeforge.errors import EngineError
from codeforge.model import CPU_PERIOD_US, SandboxLimits
from codeforge.policy import CPU_SHARES

FOLDER = "ai-codeforge"

STALE_S = 120.0
"""A group that has been empty for this long belongs to no running executor."""

SCOPE_TIMEOUT_S = 30.0
"""systemd starts a scope within tens of milliseconds, unless the machine is busy."""

_CONTROLLERS = ("memory", "cpu", "pids")
_MOUNT = "/sys/fs/cgroup"

_CPU_WEIGHT = 1 + (CPU_SHARES - 2) * 9999 // 262142
"""The same on version 2's scale, as runc converts it."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The control group of one sandbox.

    Attributes:
        folders: its folder in each tree.
        mounts: pairs of a folder here and its path in the sandbox, where init reads it.
        oom_file: the file in which the kernel counts out-of-memory kills.
        cpu_setting: the file with the CPU quota, and the value that lifts it.
        scope: the systemd scope that it is in, if it is in one.
    """

    folders: tuple[Path, ...]
    mounts: tuple[tuple[str, str], ...]
    oom_file: Path
    cpu_setting: tuple[Path, str]
    scope: str | None = None

    def add(self, pid: int) -> None:
        """Move a process with a single thread into it. Blocks for 10 ms or more.

        Raises:
            EngineError: the process is gone, or may not be moved.
        """
        if self.scope is not None:
            _manager("AttachProcessesToUnit", "ssau", self.scope, f"/{self.folders[0].name}", "1", str(pid))
            return
        for folder in self.folders:
            _write(folder / "cgroup.procs", pid)

    def lift_cpu_quota(self) -> None:
        """Remove the CPU quota: ending takes CPU time, and a group that has used up its quota has to wait."""
        path, value = self.cpu_setting
        with contextlib.suppress(EngineError):
            _write(path, value)

    def oom_kills(self) -> int:
        """How many processes in it were killed because memory ran out; 0 once it is removed."""
        try:
            return oom_kills(self.oom_file.read_text())
        except OSError:
            return 0

    def remove(self) -> bool:
        """Remove it; returns whether it is gone, which takes until the last process has left it."""
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
    """The place where sandboxes' groups are made.

    Attributes:
        version: 1 or 2.
        roots: controller to the folder in which groups are made.
        keeper: the process that keeps the user's scope alive, if they are in one.
        scope: that scope's name.
    """

    version: int
    roots: Mapping[str, Path]
    keeper: subprocess.Popen[bytes] | None = None
    scope: str | None = None

    def make(self, name: str, limits: SandboxLimits) -> Cgroup:
        """Make a group with those limits.

        Raises:
            EngineError: the kernel refuses one of them.
        """
        if self.version == 2:
            folder = self.roots["memory"] / name
            mounts: tuple[tuple[str, str], ...] = ((str(folder), _MOUNT),)
            unlimited = folder / "cpu.max", "max"
            group = Cgroup((folder,), mounts, folder / "memory.events", unlimited, self.scope)
        else:
            folders = {controller: root / name for controller, root in self.roots.items()}
            mounts = tuple((str(path), f"{_MOUNT}/{controller}") for controller, path in folders.items())
            unlimited = folders["cpu"] / "cpu.cfs_quota_us", "-1"
            group = Cgroup(
                tuple(dict.fromkeys(folders.values())),
                mounts,
                folders["memory"] / "memory.oom_control",
                unlimited,
            )
        try:
            for folder in group.folders:
                folder.mkdir()
            for path, value in self._settings(name, limits):
                _write(path, value)
        except (OSError, EngineError) as error:
            group.remove()
            if isinstance(error, EngineError):
                raise
            raise EngineError(f"cannot make a control group: {error}") from error
        return group

    def _settings(self, name: str, limits: SandboxLimits) -> Iterator[tuple[Path, object]]:
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
        yield processes / "pids.max", limits.pids

    def close(self) -> None:
        """End the user's scope, if there is one."""
        if self.keeper is not None and self.keeper.stdin is not None:
            self.keeper.stdin.close()
            self.keeper.wait()

    def sweep(self) -> None:
        """Remove groups that are empty and too old to be in the middle of a launch."""
        for root in set(self.roots.values()):
            for folder in root.iterdir():
                with contextlib.suppress(OSError):
                    if time.time() - folder.stat().st_mtime > STALE_S:
                        folder.rmdir()


def find_tree() -> CgroupTree | str:
    """The tree in which this process can make groups with all limits; or why there is none. Blocks."""
    own = groups_of()
    try:
        if all(controller in own for controller in _CONTROLLERS):
            # Below the process's own groups, so that what limits it limits its sandboxes.
            return _tree(1, {controller: own[controller] for controller in _CONTROLLERS})
        if "" not in own:
            return "no control groups are mounted on /sys/fs/cgroup"
        _, mounted = _mounts()[""]
        if os.geteuid() == 0:
            # At the root of the tree: a group that has processes cannot hand its controllers down.
            return _tree(2, dict.fromkeys(_CONTROLLERS, mounted))
        return _scope(mounted)
    except (OSError, EngineError) as error:
        return f"this user cannot make control groups: {error}"


def _tree(version: int, parents: Mapping[str, Path]) -> CgroupTree:
    roots = {controller: parent / FOLDER for controller, parent in parents.items()}
    for root in dict.fromkeys(roots.values()):
        if version == 2:
            _delegate(root.parent)
        root.mkdir(exist_ok=True)
        if version == 2:
            _delegate(root)
        if not os.access(root, os.W_OK):
            raise EngineError(f"{root} belongs to another user")
    return CgroupTree(version, roots)


def _scope(mounted: Path) -> CgroupTree:
    """Start a scope of the user's systemd manager, in which this user may make groups."""
    if shutil.which("systemd-run") is None or "XDG_RUNTIME_DIR" not in os.environ:
        raise EngineError(
            "there is no systemd user manager to delegate them: log in as this user, or be root"
        )
    name = f"{FOLDER}-{uuid.uuid4().hex}.scope"
    command = ("systemd-run", "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes")
    keeper = subprocess.Popen(
        [*command, f"--unit={name}", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    tree = CgroupTree(2, {}, keeper, name)
    try:
        root = mounted / _own_group(keeper, name).relative_to("/")
        inner = root / "keeper"  # a group that hands controllers down may have no processes itself
        inner.mkdir()
        _write(inner / "cgroup.procs", keeper.pid)
        _delegate(root)
    except BaseException:
        tree.close()
        raise
    return dataclasses.replace(tree, roots=dict.fromkeys(_CONTROLLERS, root))


def _own_group(keeper: subprocess.Popen[bytes], scope: str) -> PurePosixPath:
    """The group of a new scope, once systemd has moved the keeper into it."""
    deadline = time.monotonic() + SCOPE_TIMEOUT_S
    while keeper.poll() is None and time.monotonic() < deadline:
        path = PurePosixPath(Path(f"/proc/{keeper.pid}/cgroup").read_text().strip().rpartition("::")[2])
        if path.name == scope:
            return path
        time.sleep(0.002)
    keeper.kill()
    errors = keeper.stderr.read().decode("utf-8", "replace").strip() if keeper.stderr else ""
    raise EngineError(f"systemd-run --user --scope: {errors or f'no scope within {SCOPE_TIMEOUT_S:g} s'}")


def _manager(method: str, *arguments: str) -> None:
    """Call a method of the user's systemd."""
    interface = "org.freedesktop.systemd1"
    manager = (interface, "/org/freedesktop/systemd1", f"{interface}.Manager")
    command = ["busctl", "--user", "call", *manager, method, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"systemd's {method}: {done.stderr.strip()}")


def _delegate(folder: Path) -> None:
    """Hand the controllers down to the groups below that folder."""
    wanted = set(_CONTROLLERS) - set((folder / "cgroup.subtree_control").read_text().split())
    if wanted:
        _write(folder / "cgroup.subtree_control", " ".join(f"+{controller}" for controller in sorted(wanted)))


def groups_of(process: int | str = "self") -> dict[str, Path]:
    """The groups that a process is in: controller to folder, with ``""`` for version 2."""
    own: dict[str, str] = {}
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    return {
        name: mounted / os.path.relpath(own[name], root)
        for name, (root, mounted) in _mounts().items()
        if name in own
    }


def _mounts() -> dict[str, tuple[str, Path]]:
    """Controller to the part of its tree that is mounted and the mount point, with ``""`` for version 2."""
    found: dict[str, tuple[str, Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, mounted = before.split(" ")[3:5]
        names = [""] if kind == "cgroup2" else options.split(",") if kind == "cgroup" else []
        found |= dict.fromkeys(names, (root, Path(mounted)))
    return found


def oom_kills(text: str) -> int:
    """The count of out-of-memory kills in ``memory.events`` or ``memory.oom_control``."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def _write(path: Path, value: object) -> None:
    try:
        with path.open("w") as file:
            file.write(str(value))
    except OSError as error:
        raise EngineError(f"cannot write {value} to {path}: {error.strerror}") from error
