"""A private Podman service: it shares nothing with the machine's Podman and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.support import eventually

START_S = 30.0
REMOVAL_S = 30.0


@dataclass(frozen=True, slots=True)
class PodmanService:
    """A running service.

    Attributes:
        address: the value for an executor's ``docker_host``.
        command: the command line that uses the service's storage.
    """

    address: str
    command: tuple[str, ...]

    def podman(self, *arguments: str) -> str:
        """Return the output of ``podman ARGUMENTS``."""
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def load(self, images: Iterable[str]) -> None:
        """Copy images from this machine's Docker."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            subprocess.run([*self.command, "load"], stdin=save.stdout, capture_output=True, check=True)
        assert save.returncode == 0


@contextlib.contextmanager
def podman_service(*, user: int | None = None) -> Iterator[PodmanService]:
    """Start a service with empty storage.

    Args:
        user: the user id to run it as; default: the current user. Only root can choose another.
    """
    folder = Path(tempfile.mkdtemp(prefix="codeforge-podman-"))
    try:
        if user is not None:
            os.chown(folder, user, user)
        command = (*_as_user(user, folder), *_podman(folder))
        address = f"unix://{folder}/podman.sock"
        with (folder / "log").open("wb") as log:
            service = subprocess.Popen(
                [*command, "system", "service", "--time=0", address], stdout=log, stderr=log, cwd=folder
            )
        try:
            started = eventually((folder / "podman.sock").is_socket, START_S)
            assert started, f"no service: {(folder / 'log').read_text()}"
            yield PodmanService(address, command)
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                PodmanService(address, command).podman("rm", "--all", "--force", "--time=0")
            service.send_signal(signal.SIGTERM)
            service.wait()
    finally:
        removed = eventually(lambda: _remove(folder), REMOVAL_S)
        assert removed, f"{folder} cannot be removed: {_mounted_in(folder)}"


def _as_user(user: int | None, folder: Path) -> tuple[str, ...]:
    if user is None:
        return ()
    home = (f"HOME={folder}", f"XDG_RUNTIME_DIR={folder}", f"PATH={os.environ['PATH']}")
    ids = (f"--reuid={user}", f"--regid={user}", "--clear-groups")
    return ("setpriv", *ids, "env", "--ignore-environment", *home)


def _podman(folder: Path) -> tuple[str, ...]:
    options = [f"--root={folder}/storage", f"--runroot={folder}/run", f"--tmpdir={folder}/tmp"]
    if not Path("/run/systemd/system").exists():
        options.append("--cgroup-manager=cgroupfs")
    if Path("/sys/fs/cgroup/unified").exists():  # crun refuses hybrid control groups
        options.append("--runtime=runc")
    # With CONTAINER_HOST set, podman would act as the client of that service.
    return ("env", "--unset=CONTAINER_HOST", "podman", *options)


def _mounted_in(folder: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{folder}/")]


def _kill_leftovers(folder: Path) -> None:
    """Kill each process whose command line or environment names the folder: rootless Podman leaves some."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if os.fsencode(folder) in known and process.name != str(os.getpid()):
                os.kill(int(process.name), signal.SIGKILL)


def _remove(folder: Path) -> bool:
    """Remove the folder; return whether it is gone: Podman's cleanup of a container mounts storage again."""
    _kill_leftovers(folder)
    for place in reversed(_mounted_in(folder)):
        subprocess.run(["umount", "--lazy", place], check=False)
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
