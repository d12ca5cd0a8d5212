"""A Podman service of its own: nothing of it is shared with the machine's Podman, and nothing stays."""

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
    """A service that runs.

    Attributes:
        address: as executors take it.
        command: the command line that works on its storage.
    """

    address: str
    command: tuple[str, ...]

    def podman(self, *arguments: str) -> str:
        """What ``podman ARGUMENTS`` prints."""
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def load(self, images: Iterable[str]) -> None:
        """Take images from Docker on this machine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            subprocess.run([*self.command, "load"], stdin=save.stdout, capture_output=True, check=True)
        assert save.returncode == 0


@contextlib.contextmanager
def podman_service(*, user: int | None = None) -> Iterator[PodmanService]:
    """A service with an empty storage.

    Args:
        user: as whom; default: who we are. Others can only be had by root.
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
    if Path("/sys/fs/cgroup/unified").exists():  # both versions at once, which crun refuses
        options.append("--runtime=runc")
    # Not the client of whatever service CONTAINER_HOST names.
    return ("env", "--unset=CONTAINER_HOST", "podman", *options)


def _mounted_in(folder: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{folder}/")]


def _end_who_knows(folder: Path) -> None:
    """End each process that has it among its words or variables; without root, Podman leaves some."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if os.fsencode(folder) in known and process.name != str(os.getpid()):
                os.kill(int(process.name), signal.SIGKILL)


def _remove(folder: Path) -> bool:
    """Whether it is gone: Podman's own cleaning up, after each container, mounts its storage once more."""
    _end_who_knows(folder)
    for place in reversed(_mounted_in(folder)):
        subprocess.run(["umount", "--lazy", place], check=False)
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
