"""A second Docker daemon, for tests that kill, stop and starve it.

It runs in its own PID and mount namespaces: when their first process ends, everything in them is gone:
processes, sandboxes and mounts. A keeper outside ends that process when the tests' process has ended, even
if it was killed, and removes the folder and the cgroups. The daemon's data are in memory, so that the room
for them can be changed at any time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path

from codeforge.policy import LABEL
from contract.support import eventually

UP_WITHIN_S = 60.0
ROOM = "4g"

_KEEPER = """
root=$1 room=$2; shift 2
# A process that ignores SIGCHLD need not wait for the children that it inherits.
unshare --net --pid --mount --mount-proc --propagation private --fork --kill-child sh -ec "
    mount -t tmpfs -o size=$room tmpfs $root/data
    mkdir -p /run/containerd
    mount -t tmpfs tmpfs /run/containerd
    touch $root/first
    exec env --ignore-signal=CHLD sleep infinity" &
read -r _  # until the tests end, or are killed
kill -9 $!
wait
rm -rf "$root"
for controller; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do  # its last process may not be quite gone
        [ ! -d "$controller/${root##*/}" ] || find "$controller/${root##*/}" -depth -type d -delete && break
        sleep 0.2
    done
done
"""
"""Arguments: the daemon's folder, the room for its data, and each cgroup hierarchy."""


class SecondDaemon:
    """The daemon, and ways to list what it has: processes, containers, cgroups, layers, mounts."""

    def __init__(self) -> None:
        # A socket's path holds 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="cf-faults-", dir="/tmp"))
        self.host = f"unix://{self.root}/docker.sock"
        self._name = self.root.name
        self._keeper = self._start_keeper()
        self._entered: subprocess.Popen[bytes] | None = None

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        for name in ("data", "exec"):
            (self.root / name).mkdir()
        (self.root / "daemon.json").write_text("{}")  # not the machine's own
        keeper = subprocess.Popen(
            ["sh", "-c", _KEEPER, "keeper", self.root, ROOM, *_controllers()],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        if not eventually((self.root / "first").exists, 10):
            _let_end(keeper)
            raise OSError("namespaces and mounts are not allowed here")
        return keeper

    @property
    def _first(self) -> int:
        """The first process of the namespaces."""
        (unshare,) = _children(self._keeper.pid)
        return _children(unshare)[0]

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        with (self.root / "log").open("ab") as log:
            self._entered = subprocess.Popen(
                [
                    # --net: a daemon without a bridge removes docker0, which is the first daemon's.
                    *("nsenter", "--target", str(self._first), "--pid", "--mount", "--net"),
                    "dockerd",
                    f"--config-file={self.root}/daemon.json",
                    f"--host={self.host}",
                    f"--data-root={self.root}/data",
                    f"--exec-root={self.root}/exec",
                    f"--pidfile={self.root}/docker.pid",
                    f"--cgroup-parent=/{self._name}",
                    "--exec-opt=native.cgroupdriver=cgroupfs",
                    "--storage-driver=overlay2",
                    "--bridge=none",
                    "--iptables=false",
                    "--ip6tables=false",
                    "--log-level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if not eventually(lambda: self.answers or self._entered_ended, UP_WITHIN_S) or self._entered_ended:
            raise OSError(f"the second daemon did not start:\n{self.log[-4000:]}")

    @property
    def _entered_ended(self) -> bool:
        return self._entered is None or self._entered.poll() is not None

    @property
    def answers(self) -> bool:
        """Whether it answers a call."""
        return subprocess.run(self._docker("version"), capture_output=True).returncode == 0

    def runs(self, image: str) -> bool:
        """Whether it can start a container: it answers calls before it can."""
        command = self._docker("run", "--rm", "--network=none", "--entrypoint=true", image)
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0

    @property
    def log(self) -> str:
        """What it logged."""
        return (self.root / "log").read_text(errors="replace")

    def restore(self) -> None:
        """Make it run again, whatever a test did to it."""
        if self._entered_ended:
            self.start()
        else:
            self.resume()
        self.set_room(ROOM)

    def end(self) -> None:
        """End it with everything in it, and remove what it left."""
        _let_end(self._keeper)
        if self._entered is not None:
            self._entered.wait()

    # --- Faults ---------------------------------------------------------------------------------------

    def signal(self, command: str, number: signal.Signals) -> int:
        """Send a signal to each of its processes of that name; returns to how many."""
        pids = self.processes(command)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return len(pids)

    def kill(self) -> None:
        """``kill -9`` of the daemon."""
        assert self._entered is not None
        self.signal("dockerd", signal.SIGKILL)
        self._entered.wait()

    def stop(self) -> None:
        """Stop it with a signal, so that it answers nothing, as on an overloaded machine."""
        self.signal("dockerd", signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue; ``nsenter`` stops together with its child."""
        assert self._entered is not None
        self.signal("dockerd", signal.SIGCONT)
        self._entered.send_signal(signal.SIGCONT)

    def set_room(self, size: str) -> None:
        """Set the room for its data: ``4g``, or with ``0`` only what is used already."""
        if size == "0":
            stat = os.statvfs(self._inside(self.root / "data"))
            size = str((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
        command = ["mount", "-o", f"remount,size={size}", str(self.root / "data")]
        subprocess.run(["nsenter", "--target", str(self._first), "--mount", *command], check=True)

    # --- Looking --------------------------------------------------------------------------------------

    def docker(self, *arguments: str) -> str:
        """What ``docker ARGUMENTS`` prints."""
        return subprocess.run(
            self._docker(*arguments), capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def _docker(self, *arguments: str) -> list[str]:
        return ["docker", "--host", self.host, *arguments]

    def load(self, image: str) -> None:
        """Copy an image from the engine that the other tests use."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
            subprocess.run(self._docker("load"), stdin=saving.stdout, check=True, capture_output=True)
        if saving.returncode:
            raise OSError(f"{image} could not be saved")

    def processes(self, command: str) -> list[int]:
        """Its processes of that name: ``dockerd``, ``containerd`` or ``containerd-shim``."""
        namespace = _pid_namespace(self._first)
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit()
            and _pid_namespace(int(entry.name)) == namespace
            and _command(int(entry.name)).startswith(command)
            and (command != "containerd" or _command(int(entry.name)) == command)
        ]

    def sandboxes(self, state: str = "") -> set[str]:
        """Ids of all sandboxes, or of the sandboxes in that state.

        Without those that the daemon was removing when it was killed: it calls them dead, lists them from
        then on, and answers that there is no such container.
        """
        found = self._listed(f"--filter=status={state}" if state else "--all")
        return found - self._listed("--filter=status=dead")

    def _listed(self, option: str) -> set[str]:
        label = f"--filter=label={LABEL}"
        return set(self.docker("ps", "--all", "--quiet", "--no-trunc", label, option).split())

    def cgroups(self) -> set[str]:
        """Names of the cgroups that it made for containers."""
        parents = [controller / self._name for controller in _controllers()]
        return {
            child.name
            for parent in parents
            if parent.is_dir()
            for child in parent.iterdir()
            if child.is_dir()
        }

    def holdings(self) -> dict[str, int]:
        """How many of each thing that might accumulate it has."""
        (daemon,) = self.processes("dockerd")
        data = self._inside(self.root / "data")
        mounts = Path(f"/proc/{self._first}/mounts").read_text()
        return {
            "containers": len(self.docker("ps", "--all", "--quiet").split()),
            "descriptors": len(list(Path(f"/proc/{daemon}/fd").iterdir())),
            "container folders": _entries(data / "containers"),
            "layers": _entries(data / "overlay2"),
            "layer records": _entries(data / "image/overlay2/layerdb/mounts"),
            "mounts": len(mounts.splitlines()),
            "network namespaces": mounts.count("/netns/"),
            "shims": len(self.processes("containerd-shim")),
            "cgroups": len(self.cgroups()),
        }

    def memory_mib(self) -> int:
        """The resident memory of the daemon, in MiB."""
        (daemon,) = self.processes("dockerd")
        pages = int(Path(f"/proc/{daemon}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20

    def _inside(self, path: Path) -> Path:
        return Path(f"/proc/{self._first}/root") / path.relative_to("/")


def grown(before: dict[str, int], daemon: SecondDaemon, *, spare: int = 8) -> dict[str, int]:
    """What it holds more of than before, apart from ``spare`` descriptors."""
    now = daemon.holdings()
    return {name: now[name] for name in now if now[name] > before[name] + spare * (name == "descriptors")}


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _pid_namespace(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None


def _command(pid: int) -> str:
    """The name of the program, which ``comm`` cuts at 15 characters."""
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()).name
    except OSError:
        return ""


def _controllers() -> list[Path]:
    top = Path("/sys/fs/cgroup")
    return [top] if (top / "cgroup.controllers").exists() else list(top.iterdir())


def _let_end(keeper: subprocess.Popen[bytes]) -> None:
    assert keeper.stdin is not None
    keeper.stdin.close()
    keeper.wait()
