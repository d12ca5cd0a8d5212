"""Sandboxes made by bubblewrap, without a daemon or images: for machines without Docker and for fast starts.

Theory of operation: ``bwrap`` makes the namespaces and the read-only mounts, then runs ``enter``, which
does the rest and becomes init (guest/enter/). Before bwrap's child runs anything, it waits until the host
has moved it into the sandbox's control group. The channel is a socket that is both stdin and stdout of
init. When this process ends, in whatever way, init reads the end of it and ends the sandbox.

If this process is root, each sandbox has its own user id on the machine, too. Otherwise they all run
as the user who started them, without that user's privileges; see docs/engines.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from codeforge.engines.base import Channel, EngineInfo
from codeforge.engines.cgroups import Cgroup, CgroupTree, find_tree
from codeforge.environments import Environment, EnvironmentStore
from codeforge.errors import EngineError, EngineUnavailable, EnvironmentNotFound, InvalidRequest, Unsupported
from codeforge.model import Language, SandboxLimits
from codeforge.policy import SYSTEM, BubblewrapPlan, bubblewrap_plan, posture_faults

if TYPE_CHECKING:
    from codeforge.environments import EnvironmentMaker
    from codeforge.images import ImageStore

READ_BYTES = 256 * 1024

CHILD_TIMEOUT_S = 10.0
"""From the start of bwrap to its child, which takes milliseconds."""

BWRAP_END_S = 1.0
"""From the end of that child to the end of bwrap, which writes its error message in between."""

REMOVAL_RETRY_S = 0.005
REMOVAL_RETRIES = 2000
"""A control group can be removed only when the kernel has finished with its last process."""

UNENFORCED = ("memory_max", "memsw_max", "swap_max", "cpu_quota_us", "cpu_period_us", "pids_max")
"""The parts of a posture that only a control group can enforce."""

_INSTALL = "bubblewrap is not installed. Install it: apt-get install bubblewrap (as root)"
_NO_NAMESPACES = {
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "AppArmor lets no unprivileged program make user namespaces on this system (as Ubuntu's does).\n"
        "Give bwrap a profile that may (docs/engines.md has it), or, for the whole machine: "
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (as root)",
    ),
    "/proc/sys/kernel/unprivileged_userns_clone": (
        "0",
        "This system lets no unprivileged user make user namespaces.\n"
        "Allow it: sysctl -w kernel.unprivileged_userns_clone=1 (as root)",
    ),
    "/proc/sys/user/max_user_namespaces": (
        "0",
        "This system allows no user namespaces.\n"
        "Allow them: sysctl -w user.max_user_namespaces=10000 (as root)",
    ),
}
"""Settings that forbid user namespaces: file to the value that does, and the error text."""
_REFUSED = ("namespace", "uid map", "loopback")
"""Words in bwrap's errors if they are forbidden. AppArmor lets it make namespaces, but not set them up."""


class BubblewrapEngine:
    """Launches sandboxes with bubblewrap. Belongs to one event loop.

    Args:
        owner: an id; bubblewrap has no labels, so sandboxes do not show it.
        allow_unenforced_limits: whether sandboxes may run without limits of memory, CPU and processes where
            this user cannot make control groups.
    """

    name = "bubblewrap"

    def __init__(self, owner: str = "", *, allow_unenforced_limits: bool = False) -> None:
        self.owner = owner
        self._allow_unenforced = allow_unenforced_limits
        self._environments = EnvironmentStore()
        self._channels: set[BubblewrapChannel] = set()
        self._found: dict[str, Environment] = {}
        self._system: dict[str, str | None] = {}
        self._tree: CgroupTree | None = None
        self._started = False
        self._starting = asyncio.Lock()

    @property
    def images(self) -> ImageStore:
        """See ``Engine.images``."""
        raise InvalidRequest(
            f"only Docker and Podman have images; the engine is {self.name}: see codeforge environments"
        )

    async def provisions(self) -> EnvironmentMaker:
        """See ``Engine.provisions``."""
        from codeforge.environments import EnvironmentMaker  # a run needs none of it

        await self.start()
        return EnvironmentMaker()

    async def start(self) -> None:
        """See ``Engine.start``."""
        async with self._starting:
            if not self._started:
                await self._start()
                self._started = True

    async def _start(self) -> None:
        if shutil.which("bwrap") is None:
            raise EngineUnavailable(_INSTALL)
        tree = await asyncio.to_thread(find_tree)
        if isinstance(tree, CgroupTree):
            self._tree = tree
            tree.sweep()
        elif not self._allow_unenforced:
            raise EngineUnavailable(
                f"memory, CPU and processes cannot be limited here: {tree}\n"
                "See docs/engines.md; or let programs run without: allow_unenforced_limits=True"
            )
        self._system = _system()

    async def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        await self.start()
        process = await asyncio.create_subprocess_exec("bwrap", "--version", stdout=subprocess.PIPE)
        output, _ = await process.communicate()
        return EngineInfo(
            name="bubblewrap",
            version=output.decode().split()[-1],
            kernel=os.uname().release,
            cgroup_version=str(self._tree.version) if self._tree else "none",
            cpus=os.cpu_count() or 1,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            swap_limit=self._tree is not None,
            security_options=("seccomp",),
        )

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> BubblewrapChannel:
        """See ``Engine.launch``."""
        if limits.network:
            raise Unsupported("bubblewrap gives a sandbox no network; use engine='docker' or 'podman'")
        await self.start()
        environment = self._environment(language)
        name = uuid.uuid4().hex
        cgroup = self._tree.make(name, limits) if self._tree else None
        channel = BubblewrapChannel(self, name, cgroup)
        self._channels.add(channel)
        try:
            plan = bubblewrap_plan(
                language,
                limits,
                uid=uid,
                as_root=os.geteuid() == 0,
                env=environment.env,
                mounts=[(str(here), there) for here, there in environment.mounts],
                system=self._system,
                cgroups=cgroup.mounts if cgroup else (),
            )
            await channel.open(plan)
        except BaseException:
            await channel.destroy()
            raise
        return channel

    def _environment(self, language: Language) -> Environment:
        found = self._found.get(language.name) or self._environments.find(language)
        if found is None:
            raise EnvironmentNotFound(
                f"the environment of {language.name} is not on this machine\n"
                f"Have it ready first: codeforge environments build {language.name}"
            )
        self._found[language.name] = found
        return found

    async def observe(self, channel: Channel) -> Mapping[str, str]:
        """See ``Engine.observe``."""
        return {"kernel": f"Linux {os.uname().release}"}

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], limits: SandboxLimits, *, uid: int
    ) -> list[str]:
        """See ``Engine.faults``."""
        # Without privileges, supplementary groups cannot be dropped; the kernel shows them as unmapped.
        known = dict(posture)
        if os.geteuid() != 0:
            known["groups"] = " ".join(g for g in known.get("groups", "?").split() if g != str(_OVERFLOW_GID))
        return posture_faults(known, limits, uid=uid, ignore=() if self._tree else UNENFORCED)

    def sandboxes(self) -> dict[str, int | None]:
        """The sandboxes that exist: id to the pid of init on this machine."""
        return {channel.id: channel.pid for channel in self._channels}

    def forget(self, channel: BubblewrapChannel) -> None:
        """Drop a channel whose sandbox is gone."""
        self._channels.discard(channel)

    async def close(self) -> None:
        """See ``Engine.close``."""
        await asyncio.gather(*(channel.destroy() for channel in list(self._channels)))
        if self._tree is not None:
            await asyncio.to_thread(self._tree.close)


_OVERFLOW_GID = 65534
"""How the kernel shows a group that is not mapped in the user namespace."""


class BubblewrapChannel:
    """See ``Channel``: a bwrap process and the socket to its init."""

    def __init__(self, engine: BubblewrapEngine, name: str, cgroup: Cgroup | None) -> None:
        self.id = name
        self._engine = engine
        self._cgroup = cgroup
        self._loop = asyncio.get_running_loop()
        self._writing = asyncio.Lock()
        self._socket, self._theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._stderr = os.memfd_create("bwrap")
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self._child: int | None = None
        self._child_fd: int | None = None
        self._oom_kills = 0
        self._heard = False
        self._destroying: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The pid of init on this machine."""
        return self._child

    async def open(self, plan: BubblewrapPlan) -> None:
        """Start bwrap, move its child into the control group, and let the child go on."""
        info, info_theirs = os.pipe()
        go_theirs, go = os.pipe()
        try:
            self._spawn(plan, info_theirs, go_theirs)
            for fd in (info_theirs, go_theirs):
                os.close(fd)
            info_theirs = go_theirs = -1
            self._theirs.close()
            self._child = await self._child_of(info)
            if self._child is not None and await self._admit(self._child):
                with contextlib.suppress(BrokenPipeError):  # bwrap has just failed; read() will say why
                    os.write(go, b"!")
        finally:
            for fd in (info, info_theirs, go_theirs, go):
                if fd >= 0:
                    os.close(fd)

    async def _admit(self, child: int) -> bool:
        """Move the child into its control group; returns false if bwrap has failed, which read() reports."""
        try:
            self._child_fd = os.pidfd_open(child)
            if self._cgroup is not None:
                # The kernel takes 10 ms or more to move it; meanwhile bwrap makes its mounts.
                await asyncio.to_thread(self._cgroup.add, child)
        except (ProcessLookupError, EngineError):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), BWRAP_END_S)
            if not self._ended.is_set():
                raise
            return False
        return True

    def _spawn(self, plan: BubblewrapPlan, info: int, go: int) -> None:
        words = ("--info-fd", str(info), "--block-fd", str(go), *plan.options, "--")
        self._process = subprocess.Popen(
            [*plan.prefix, "bwrap", *words, *plan.program],
            stdin=self._theirs.fileno(),
            stdout=self._theirs.fileno(),
            stderr=self._stderr,
            pass_fds=(info, go),
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath)},
            process_group=0,  # Ctrl-C in a terminal goes to the caller, which ends its sandboxes itself
        )
        self._watch(self._process.pid)

    async def _child_of(self, info: int) -> int | None:
        """The pid of the child that will become init; ``None`` if bwrap failed before it made one."""
        output = b""
        os.set_blocking(info, False)
        try:
            async with asyncio.timeout(CHILD_TIMEOUT_S):
                while not output.rstrip().endswith(b"}"):
                    await _readable(self._loop, info)
                    if not (piece := os.read(info, 4096)):
                        return None
                    output += piece
        except TimeoutError:
            raise EngineError(f"bwrap made no sandbox within {CHILD_TIMEOUT_S:g} s") from None
        return int(json.loads(output)["child-pid"])

    def _watch(self, pid: int) -> None:
        ended = os.pidfd_open(pid)

        def reap() -> None:
            self._loop.remove_reader(ended)
            os.close(ended)
            if self._process is not None:
                self._process.wait()
            self._ended.set()

        self._loop.add_reader(ended, reap)

    async def read(self) -> bytes:
        """See ``Channel.read``."""
        try:
            data = await self._loop.sock_recv(self._socket, READ_BYTES)
        except OSError:  # reset, or closed by destroy()
            data = b""
        if not data and not self._heard and self._destroying is None:
            await self._ended.wait()
            raise self._failure()
        self._heard = True
        return data

    def _failure(self) -> EngineError | EngineUnavailable:
        errors = os.pread(self._stderr, 2000, 0).decode("utf-8", "replace").strip()
        if any(word in errors for word in _REFUSED):
            for path, (value, advice) in _NO_NAMESPACES.items():
                with contextlib.suppress(OSError):
                    if Path(path).read_text().strip() == value:
                        return EngineUnavailable(f"{advice}\n{errors}")
            return EngineUnavailable(f"bubblewrap may make no namespaces here: {errors}")
        return EngineError(f"bubblewrap: {errors or 'the sandbox ended before it was ready'}")

    async def write(self, data: bytes) -> None:
        """See ``Channel.write``."""
        async with self._writing:
            with contextlib.suppress(OSError):
                await self._loop.sock_sendall(self._socket, data)

    async def oom_event(self, wait_s: float) -> bool:
        """See ``Channel.oom_event``."""
        # The kernel counts a kill before it kills, so there is no event to wait for.
        return self._count_oom_kills() > 0

    def _count_oom_kills(self) -> int:
        if self._cgroup is not None:
            self._oom_kills = max(self._oom_kills, self._cgroup.oom_kills())
        return self._oom_kills

    async def destroy(self, *, ended: bool = False) -> None:
        """See ``Channel.destroy``. Once begun it goes on, even if the caller is cancelled."""
        if self._destroying is None:
            self._destroying = self._loop.create_task(self._destroy())
        await asyncio.shield(self._destroying)

    async def _destroy(self) -> None:
        if self._process is not None:
            # Kill init and wait for bwrap: bwrap ends only after init, so then the whole sandbox is gone.
            with contextlib.suppress(ProcessLookupError):
                if self._child_fd is not None:  # by descriptor: the pid may have been reused
                    signal.pidfd_send_signal(self._child_fd, signal.SIGKILL)
                elif not self._ended.is_set():
                    os.kill(self._process.pid, signal.SIGKILL)
            if self._cgroup is not None:
                self._cgroup.lift_cpu_quota()
            await self._ended.wait()
        self._count_oom_kills()
        if self._cgroup is not None:
            for _ in range(REMOVAL_RETRIES):
                if self._cgroup.remove():
                    break
                await asyncio.sleep(REMOVAL_RETRY_S)
        self._socket.close()
        self._theirs.close()
        os.close(self._stderr)
        if self._child_fd is not None:
            os.close(self._child_fd)
        self._engine.forget(self)


def _system() -> dict[str, str | None]:
    """The folders of ``SYSTEM`` that exist, and the targets of those that are links."""
    there = [Path(path) for path in SYSTEM if os.path.lexists(path)]
    return {str(path): str(path.readlink()) if path.is_symlink() else None for path in there}


async def _readable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    ready = loop.create_future()
    loop.add_reader(fd, ready.set_result, None)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
