"""Control groups, for sandboxes that no daemon makes: a sandbox's own, and where such are made.

Theory of operation: the kernel counts and limits memory, CPU and processes by control group. Version 2
has one tree of them, version 1 one for each controller. Root's sandboxes have theirs below one called
``ai-codeforge``, whose name is all that executors of this machine share. A group that nobody is in and
that is older than a launch takes is swept by whoever starts next: that is how a killed process leaves
nothing.

Another user may make groups only where systemd lets him: in a scope of his own user manager. One is
started for each executor, around a process that does nothing and ends with it; processes are brought into
it by the manager, for their user may not move them there himself. With the last process the scope goes.
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
"""A group that was made and nobody entered for so long is nobody's."""

SCOPE_TIMEOUT_S = 30.0
"""For systemd to start a scope: tens of milliseconds, unless the machine is busy."""

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
        cpu_setting: the file that limits CPU, and what lets it go.
        scope: the unit of the user's manager that it is in, if it is in one.
    """

    folders: tuple[Path, ...]
    mounts: tuple[tuple[str, str], ...]
    oom_file: Path
    cpu_setting: tuple[Path, str]
    scope: str | None = None

    def add(self, pid: int) -> None:
        """Put a process of one thread into it. Takes 10 ms and more, and blocks.

        Raises:
            EngineError: it is gone, or may not be moved.
        """
        if self.scope is not None:
            _manager("AttachProcessesToUnit", "ssau", self.scope, f"/{self.folders[0].name}", "1", str(pid))
            return
        for folder in self.folders:
            _write(folder / "cgroup.procs", pid)

    def hurry(self) -> None:
        """Let who is in it have all the CPU there is: ending takes some, and what is owed comes first."""
        path, value = self.cpu_setting
        with contextlib.suppress(EngineError):
            _write(path, value)

    def oom_kills(self) -> int:
        """Processes killed in it for want of memory; 0 once it is gone."""
        try:
            return oom_kills(self.oom_file.read_text())
        except OSError:
            return 0

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
        keeper: the process that keeps the user's scope alive, where it is in one.
        scope: that scope's name.
    """

    version: int
    roots: Mapping[str, Path]
    keeper: subprocess.Popen[bytes] | None = None
    scope: str | None = None

    def make(self, name: str, limits: SandboxLimits) -> Cgroup:
        """A new group with those limits.

        Raises:
            EngineError: the kernel takes one of them not.
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
        """Let go of the user's scope."""
        if self.keeper is not None and self.keeper.stdin is not None:
            self.keeper.stdin.close()
            self.keeper.wait()

    def sweep(self) -> None:
        """Remove what nobody is in, and nobody is about to enter."""
        for root in set(self.roots.values()):
            for folder in root.iterdir():
                with contextlib.suppress(OSError):
                    if time.time() - folder.stat().st_mtime > STALE_S:
                        folder.rmdir()


def find_tree() -> CgroupTree | str:
    """Where this process may make groups that limit everything; or why nowhere. Blocks."""
    own = groups_of()
    try:
        if all(controller in own for controller in _CONTROLLERS):
            # What bounds this process bounds its sandboxes.
            return _tree(1, {controller: own[controller] for controller in _CONTROLLERS})
        if "" not in own:
            return "no control groups are mounted on /sys/fs/cgroup"
        _, mounted = _mounts()[""]
        if os.geteuid() == 0:
            # A group with processes in it can have none below it, so that it is the whole tree's root.
            return _tree(2, dict.fromkeys(_CONTROLLERS, mounted))
        return _scope(mounted)
    except (OSError, EngineError) as error:
        return f"this user may make no control groups: {error}"


def _tree(version: int, parents: Mapping[str, Path]) -> CgroupTree:
    roots = {controller: parent / FOLDER for controller, parent in parents.items()}
    for root in dict.fromkeys(roots.values()):
        if version == 2:
            _delegate(root.parent)
        root.mkdir(exist_ok=True)
        if version == 2:
            _delegate(root)
        if not os.access(root, os.W_OK):
            raise EngineError(f"{root} is somebody else's")
    return CgroupTree(version, roots)


def _scope(mounted: Path) -> CgroupTree:
    """A scope of the user's manager, in which he may make groups."""
    if shutil.which("systemd-run") is None or "XDG_RUNTIME_DIR" not in os.environ:
        raise EngineError("there is no user manager of systemd that could delegate them (log in, or be root)")
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
        inner = root / "keeper"  # a group that hands controllers down has no processes of its own
        inner.mkdir()
        _write(inner / "cgroup.procs", keeper.pid)
        _delegate(root)
    except BaseException:
        tree.close()
        raise
    return dataclasses.replace(tree, roots=dict.fromkeys(_CONTROLLERS, root))


def _own_group(keeper: subprocess.Popen[bytes], scope: str) -> PurePosixPath:
    """The group of the scope that a process has been started in, once it is."""
    deadline = time.monotonic() + SCOPE_TIMEOUT_S
    while keeper.poll() is None and time.monotonic() < deadline:
        path = PurePosixPath(Path(f"/proc/{keeper.pid}/cgroup").read_text().strip().rpartition("::")[2])
        if path.name == scope:
            return path
        time.sleep(0.002)
    keeper.kill()
    said = keeper.stderr.read().decode("utf-8", "replace").strip() if keeper.stderr else ""
    raise EngineError(f"systemd-run --user --scope: {said or f'no scope within {SCOPE_TIMEOUT_S:g} s'}")


def _manager(method: str, *arguments: str) -> None:
    """Call a method of the user's systemd."""
    interface = "org.freedesktop.systemd1"
    done = subprocess.run(
        ["busctl", "--user", "call", interface, "/org/freedesktop/systemd1", f"{interface}.Manager",
         method, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise EngineError(f"systemd's {method}: {done.stderr.strip()}")


def _delegate(folder: Path) -> None:
    """Have the controllers in what is below that folder."""
    wanted = set(_CONTROLLERS) - set((folder / "cgroup.subtree_control").read_text().split())
    if wanted:
        _write(folder / "cgroup.subtree_control", " ".join(f"+{controller}" for controller in sorted(wanted)))


def groups_of(process: int | str = "self") -> dict[str, Path]:
    """The groups that a process is in: controller to folder; version 2's is called ``""``."""
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
    """Each controller's tree: what of it is mounted, and where; version 2's is called ``""``."""
    found: dict[str, tuple[str, Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, mounted = before.split(" ")[3:5]
        names = [""] if kind == "cgroup2" else options.split(",") if kind == "cgroup" else []
        found |= dict.fromkeys(names, (root, Path(mounted)))
    return found


def oom_kills(text: str) -> int:
    """What ``memory.events`` or ``memory.oom_control`` says of processes killed for want of memory."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def _write(path: Path, value: object) -> None:
    try:
        with path.open("w") as file:
            file.write(str(value))
    except OSError as error:
        raise EngineError(f"cannot write {value} to {path}: {error.strerror}") from error
