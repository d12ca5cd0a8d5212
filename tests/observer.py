"""Observes sandboxes from outside, without asking our own code, on the engine under test.

``CODEFORGE_ENGINE`` names the engine and ``CODEFORGE_RUNTIME`` Docker's runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from codeforge.blocking.executor import BlockingCodeExecutor
from codeforge.engines.bubblewrap import BubblewrapEngine
from codeforge.engines.cgroups import CgroupTree, find_tree
from codeforge.engines.sockets import podman_address
from codeforge.executor import CodeExecutor
from codeforge.policy import LABEL

ENGINE = os.environ.setdefault("CODEFORGE_ENGINE", "docker")
RUNTIME = os.environ.get("CODEFORGE_RUNTIME", "")

UNDER_TEST = "gvisor" if RUNTIME == "runsc" else ENGINE
"""The engine under test, as ``engine(...)`` markers name it: docker, podman, bubblewrap or gvisor."""

UNIT_TEST_GROUP = "unit-test-"
"""The prefix of control groups that unit tests make; they are not sandboxes."""

DISTRIBUTION = ("/usr/lib", "/usr/share", "/usr/src", "/usr/include") if ENGINE == "bubblewrap" else ()
"""Folders of the host that bubblewrap mounts: too large to search, and they hold only packages."""

Executor = BlockingCodeExecutor | CodeExecutor


class Observer(Protocol):
    """What an engine's sandboxes look like from outside."""

    def all(self, *, running: bool = False) -> set[str]:
        """Return the ids of all sandboxes on this machine."""

    def of(self, executor: Executor, *, running: bool = False) -> set[str]:
        """Return the ids of one executor's sandboxes."""

    def init(self, sandbox: str) -> int:
        """Return the process id, on this machine, of the sandbox's init."""

    def kill(self, sandbox: str) -> None:
        """Kill the sandbox from outside."""

    def sweep(self, sandboxes: set[str]) -> None:
        """Remove what a killed executor leaves behind until another one starts."""

    def inspect(self, sandbox: str) -> dict[str, Any]:
        """Return what the engine says about the sandbox; empty for engines without a daemon."""

    def describe(self) -> str:
        """Describe all sandboxes, for the message of a failed test."""


class ContainerObserver:
    """Docker, or Podman, which has the same API."""

    def ask(self, *arguments: str) -> str:
        """Return the output of ``docker ARGUMENTS``."""
        host = ("--host", podman_address()) if ENGINE == "podman" else ()
        command = ["docker", *host, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def all(self, *, running: bool = False) -> set[str]:
        """See ``Observer.all``."""
        return self._listed(LABEL, running)

    def of(self, executor: Executor, *, running: bool = False) -> set[str]:
        """See ``Observer.of``."""
        return self._listed(f"{LABEL}={_inner(executor).owner}", running)

    def _listed(self, label: str, running: bool) -> set[str]:
        flags = () if running else ("--all",)
        found = self.ask("ps", "--quiet", "--no-trunc", *flags, "--filter", f"label={label}").split()
        return set(found if ENGINE == "podman" else self._of_this_runtime(found))

    def _of_this_runtime(self, found: list[str]) -> Iterator[str]:
        """Select the sandboxes of this runtime: tests of the other one may run at the same time."""
        command = ["docker", "inspect", "--format", "{{.Id}} {{.HostConfig.Runtime}}", *found]
        if found:  # the command fails if one of them is gone by now
            listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            for sandbox, runtime in map(str.split, filter(None, listed.splitlines())):
                if (runtime == "runsc") == (RUNTIME == "runsc"):
                    yield sandbox

    def init(self, sandbox: str) -> int:
        """See ``Observer.init``."""
        return int(self.ask("inspect", "--format", "{{.State.Pid}}", sandbox))

    def kill(self, sandbox: str) -> None:
        """See ``Observer.kill``."""
        self.ask("kill", sandbox)

    def sweep(self, sandboxes: set[str]) -> None:
        """See ``Observer.sweep``. The daemon needs no help."""

    def inspect(self, sandbox: str) -> dict[str, Any]:
        """See ``Observer.inspect``."""
        (said,) = json.loads(self.ask("inspect", sandbox))
        assert isinstance(said, dict)
        return said

    def describe(self) -> str:
        """See ``Observer.describe``."""
        return self.ask("ps", "--all")


class CgroupObserver:
    """bubblewrap, which has no daemon to ask: finds sandboxes by their control groups."""

    def all(self, *, running: bool = False) -> set[str]:
        """See ``Observer.all``."""
        folders = {
            path.name
            for root in set(_tree().roots.values())
            for path in root.iterdir()
            if path.is_dir() and not path.name.startswith(UNIT_TEST_GROUP)
        }
        return {name for name in folders if _processes(name)} if running else folders

    def of(self, executor: Executor, *, running: bool = False) -> set[str]:
        """See ``Observer.of``. Only the executor knows which sandboxes are its own."""
        engine = _inner(executor)._engine
        assert isinstance(engine, BubblewrapEngine)
        mine = {channel.id for channel in list(engine._channels)}
        return {name for name in mine if _processes(name)} if running else mine

    def init(self, sandbox: str) -> int:
        """See ``Observer.init``."""
        return min(_processes(sandbox), key=_started)

    def kill(self, sandbox: str) -> None:
        """See ``Observer.kill``."""
        os.kill(self.init(sandbox), 9)

    def sweep(self, sandboxes: set[str]) -> None:
        """See ``Observer.sweep``: removes empty control groups."""
        for root in set(_tree().roots.values()):
            for name in sandboxes:
                with contextlib.suppress(OSError):
                    (root / name).rmdir()

    def inspect(self, sandbox: str) -> dict[str, Any]:
        """See ``Observer.inspect``."""
        return {}

    def describe(self) -> str:
        """See ``Observer.describe``."""
        return "\n".join(f"{name}: processes {_processes(name)}" for name in self.all())


def _inner(executor: Executor) -> CodeExecutor:
    return executor._executor if isinstance(executor, BlockingCodeExecutor) else executor


def _tree() -> CgroupTree:
    tree = find_tree()
    assert isinstance(tree, CgroupTree), tree
    return tree


def _processes(name: str) -> list[int]:
    try:
        return [int(pid) for pid in (_tree().roots["pids"] / name / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _started(pid: int) -> tuple[int, int]:
    """Sort key: process ids wrap around, start times do not."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]), pid


def processes_of(init: int) -> list[int]:
    """Return the processes in init's process namespace, oldest first."""
    namespace = Path(f"/proc/{init}/ns/pid").readlink()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns/pid").readlink() == namespace:
                found.append(int(entry.name))
    return sorted(found, key=_started)


def is_below(pid: int, ancestor: int) -> bool:
    """Return whether a process descends from another."""
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return False


def groups_of(sandbox: str) -> list[str]:
    """Return a sandbox's control groups that still exist. While one does, processes may live in it."""
    groups = os.walk("/sys/fs/cgroup")  # os.walk ignores folders that vanish
    return [folder for folder, _, _ in groups if sandbox in folder]


def _observer() -> Observer:
    if ENGINE == "bubblewrap":
        return CgroupObserver()
    return ContainerObserver()


OBSERVER = _observer()
