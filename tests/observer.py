"""Looking at sandboxes from outside, on whichever engine the tests are for.

``CODEFORGE_ENGINE`` names it, and ``CODEFORGE_RUNTIME`` Docker's runtime; nobody chooses for the tests.
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
"""What a test's ``engine(...)`` names: docker, podman, bubblewrap or gvisor."""

UNIT_TEST_GROUP = "unit-test-"
"""How control groups begin that are no sandboxes'."""

DISTRIBUTION = ("/usr/lib", "/usr/share", "/usr/src", "/usr/include") if ENGINE == "bubblewrap" else ()
"""The machine's own in a sandbox: too large to search, and nothing but its packages is there."""

Executor = BlockingCodeExecutor | CodeExecutor


class Observer(Protocol):
    """What can be seen of an engine's sandboxes without asking ours."""

    def all(self, *, running: bool = False) -> set[str]:
        """Ids of every sandbox on this machine."""

    def of(self, executor: Executor, *, running: bool = False) -> set[str]:
        """Ids of an executor's."""

    def init(self, sandbox: str) -> int:
        """The process, on this machine, that is the sandbox's first."""

    def kill(self, sandbox: str) -> None:
        """End it, as somebody else would."""

    def sweep(self, sandboxes: set[str]) -> None:
        """Remove what a killed process may leave of them until somebody else starts."""

    def inspect(self, sandbox: str) -> dict[str, Any]:
        """What the engine says of it; empty where there is nobody to ask."""

    def told(self) -> str:
        """For the message of a test that failed: what there is."""


class ContainerObserver:
    """Docker, or Podman, which speaks its API."""

    def ask(self, *arguments: str) -> str:
        """What ``docker ARGUMENTS`` prints."""
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
        """Tests of Docker's runtimes run beside each other, and are not about each other's sandboxes."""
        command = ["docker", "inspect", "--format", "{{.Id}} {{.HostConfig.Runtime}}", *found]
        if found:  # some may be gone by now, which is an error of the command's
            told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            for sandbox, runtime in map(str.split, filter(None, told.splitlines())):
                if (runtime == "runsc") == (RUNTIME == "runsc"):
                    yield sandbox

    def init(self, sandbox: str) -> int:
        """See ``Observer.init``."""
        return int(self.ask("inspect", "--format", "{{.State.Pid}}", sandbox))

    def kill(self, sandbox: str) -> None:
        """See ``Observer.kill``."""
        self.ask("kill", sandbox)

    def sweep(self, sandboxes: set[str]) -> None:
        """See ``Observer.sweep``. The daemon removes everything by itself."""

    def inspect(self, sandbox: str) -> dict[str, Any]:
        """See ``Observer.inspect``."""
        (said,) = json.loads(self.ask("inspect", sandbox))
        assert isinstance(said, dict)
        return said

    def told(self) -> str:
        """See ``Observer.told``."""
        return self.ask("ps", "--all")


class CgroupObserver:
    """bubblewrap, by the control groups of its sandboxes: nobody else knows of them."""

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
        """See ``Observer.of``. Which are whose only the executor knows."""
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
        """See ``Observer.sweep``: control groups that nobody is in."""
        for root in set(_tree().roots.values()):
            for name in sandboxes:
                with contextlib.suppress(OSError):
                    (root / name).rmdir()

    def inspect(self, sandbox: str) -> dict[str, Any]:
        """See ``Observer.inspect``."""
        return {}

    def told(self) -> str:
        """See ``Observer.told``."""
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
    """Process ids wrap around; times of start do not."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]), pid


def processes_of(init: int) -> list[int]:
    """All processes of a sandbox, its first one first: those of that one's process namespace."""
    namespace = Path(f"/proc/{init}/ns/pid").readlink()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns/pid").readlink() == namespace:
                found.append(int(entry.name))
    return sorted(found, key=_started)


def is_below(pid: int, ancestor: int) -> bool:
    """Whether a process is another one's descendant."""
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return False


def groups_of(sandbox: str) -> list[str]:
    """Control groups that are still there of a sandbox; as long as one is, so may be its processes."""
    groups = os.walk("/sys/fs/cgroup")  # passes over what goes away meanwhile
    return [folder for folder, _, _ in groups if sandbox in folder]


def _observer() -> Observer:
    if ENGINE == "bubblewrap":
        return CgroupObserver()
    return ContainerObserver()


OBSERVER = _observer()
