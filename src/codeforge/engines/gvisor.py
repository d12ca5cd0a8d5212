"""gVisor: containers of Docker that run on a kernel of their own, a process of the host called the Sentry.

What a program does ends there; what the host's kernel enforces, it enforces on that process. So the limits
and the filter of such a sandbox are read on the host, and so is which kernel answered: what a program
sees, another program may have made.
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
from codeforge.policy import GVISOR_UNTOLD, posture_faults

SENTRY_TASKS = 960
"""What the host counts beyond a run's own: the Sentry has 45 to 70 threads, and a program's process is two
tasks or more. At this limit the Sentry dies, and the whole sandbox with it."""

NO_NETWORK = "--network=none"
"""What scripts/gvisor.sh registers a runsc with that cannot have one on this kernel."""

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
        # When memory runs out the Sentry dies, and Docker may hear of that before it hears of the reason.
        sandbox.watch(pid)
        return seen

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], limits: SandboxLimits, *, uid: int
    ) -> list[str]:
        """See ``Engine.faults``."""
        return posture_faults(posture, with_sentry(limits), uid=uid, ignore=GVISOR_UNTOLD)


def with_sentry(limits: SandboxLimits) -> SandboxLimits:
    """The same limits with room for the Sentry's own tasks, which the host counts too."""
    return dataclasses.replace(limits, pids=limits.pids + SENTRY_TASKS)


def _look(pid: int, container: str) -> dict[str, str]:
    """The limits and the filter that are in force on a container's process, and which kernel it is.

    Raises:
        PostureMismatch: it is no Sentry of that container.
        EngineError: it is not to be seen from here.
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
            "That takes Docker on this machine, and who asks must see its processes and control groups"
        ) from error
    # A number alone could be another machine's process.
    if container not in str(groups.get("pids", groups.get(""))):
        raise PostureMismatch(f"process {pid}, which Docker names, is not in the sandbox's control group")
    is_sentry = words[0] == _BOOT_NAME and "boot" in words and words[-1] == container
    if not is_sentry or not program.startswith(GVISOR):
        raise PostureMismatch(f"asked for gVisor, and the sandbox's process is {program} ({words[0]})")
    filtered = re.search(r"^Seccomp:\t(\d+)$", status, re.MULTILINE)
    return {"kernel": f"gVisor ({program})", "seccomp": filtered[1] if filtered else "not known", **limits}


def _program(process: Path) -> str:
    """What the process executes, as the host's kernel has it; root alone may ask."""
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
