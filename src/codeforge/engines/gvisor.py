"""gVisor: Docker containers with their own kernel, a process on the host called the Sentry.

A program's system calls end in the Sentry, and the host's kernel enforces limits and a seccomp filter on
the Sentry. So this module reads those on the host, and also that the process is a Sentry: what init reads
inside comes from the kernel that is being verified.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codeforge.engines.base import GVISOR, Channel
from codeforge.engines.cgroups import groups_of
from codeforge.engines.docker import DockerChannel, DockerEngine
from codeforge.errors import EngineError, PostureMismatch, Unsupported
from codeforge.model import Language, SandboxLimits
from codeforge.policy import GVISOR_UNREPORTED, posture_faults

SENTRY_TASKS = 960
"""Added to the limit of processes, because the host counts the Sentry's tasks: it has 45 to 70 threads, and
two or more for each process of a program. At the limit the Sentry dies, and the sandbox with it."""

NO_NETWORK = "--network=none"
"""The argument with which scripts/gvisor.sh registers runsc where this kernel allows it no network."""

_BOOT_NAME = f"{GVISOR}-sandbox"
"""The first word of a Sentry's command line."""

_V1_FILES = {
    "memory_max": ("memory", "memory.limit_in_bytes"),
    "memsw_max": ("memory", "memory.memsw.limit_in_bytes"),
    "pids_max": ("pids", "pids.max"),
    "cpu_quota_us": ("cpu", "cpu.cfs_quota_us"),
    "cpu_period_us": ("cpu", "cpu.cfs_period_us"),
}
_V2_FILES = {"memory_max": "memory.max", "swap_max": "memory.swap.max", "pids_max": "pids.max"}


class GvisorEngine(DockerEngine):
    """Docker, with gVisor's runtime. Belongs to one event loop."""

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> DockerChannel:
        """See ``Engine.launch``."""
        await self.start()
        if limits.network and NO_NETWORK in self.runtime_arguments:
            raise Unsupported(
                f"this gVisor gives a sandbox no network: it is registered with {NO_NETWORK}; "
                "use Docker's own runtime, or another runsc: docs/engines.md"
            )
        return await super().launch(language, limits, uid=uid)

    def spec(self, language: Language, limits: SandboxLimits, *, uid: int) -> dict[str, Any]:
        """See ``DockerEngine.spec``."""
        return super().spec(language, with_sentry(limits), uid=uid)

    async def observe(self, channel: Channel) -> Mapping[str, str]:
        """See ``Engine.observe``."""
        sandbox = self._channels[channel.id]
        pid = int((await sandbox.inspect())["State"]["Pid"])
        seen = await asyncio.to_thread(_look, pid, channel.id)
        # When memory runs out the Sentry is killed, and Docker may report its end before the reason.
        sandbox.watch(pid)
        return seen

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], limits: SandboxLimits, *, uid: int
    ) -> list[str]:
        """See ``Engine.faults``."""
        return posture_faults(posture, with_sentry(limits), uid=uid, ignore=GVISOR_UNREPORTED)


def with_sentry(limits: SandboxLimits) -> SandboxLimits:
    """The same limits with room for the Sentry's own tasks, which the host counts too."""
    return dataclasses.replace(limits, pids=limits.pids + SENTRY_TASKS)


def _look(pid: int, container: str) -> dict[str, str]:
    """The limits and the filter in force on a container's process, and which kernel it is.

    Raises:
        PostureMismatch: it is not the Sentry of that container.
        EngineError: this process may not look at it.
    """
    process = Path(f"/proc/{pid}")
    try:
        words = (process / "cmdline").read_text().rstrip("\0").split("\0")
        status = (process / "status").read_text()
        program, groups = _program(process), groups_of(pid)
        limits = _limits(groups)
    except OSError as error:
        raise EngineError(
            f"cannot verify which kernel runs the sandbox: {error}\n"
            "Docker has to be on this machine, and its processes and control groups visible to this user"
        ) from error
    # If Docker were on another machine, the number could be that of any process here.
    if container not in str(groups.get("pids", groups.get(""))):
        raise PostureMismatch(f"process {pid}, which Docker names, is not in the sandbox's control group")
    is_sentry = words[0] == _BOOT_NAME and "boot" in words and words[-1] == container
    if not is_sentry or not program.startswith(GVISOR):
        raise PostureMismatch(f"asked for gVisor, and the sandbox's process is {program} ({words[0]})")
    filtered = re.search(r"^Seccomp:\t(\d+)$", status, re.MULTILINE)
    return {"kernel": f"gVisor ({program})", "seccomp": filtered[1] if filtered else "not known", **limits}


def _program(process: Path) -> str:
    """The name of the process's executable, according to the host's kernel; only root may read it."""
    try:
        return (process / "exe").readlink().name
    except PermissionError:
        return GVISOR


def _limits(groups: Mapping[str, Path]) -> dict[str, str]:
    if "memory" in groups:
        files = {key: groups.get(controller, Path()) / name for key, (controller, name) in _V1_FILES.items()}
        return {key: file.read_text().strip() for key, file in files.items()}
    folder = groups.get("", Path())
    quota, period = (folder / "cpu.max").read_text().split()
    limits = {key: (folder / name).read_text().strip() for key, name in _V2_FILES.items()}
    return {**limits, "cpu_quota_us": quota, "cpu_period_us": period}
