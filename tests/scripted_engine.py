"""An engine whose sandboxes are simulated in memory: they answer as init would, when a test wants it.

A program "prints" its own source, so that results show what ran where.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from codeforge.engines.base import Channel, EngineInfo, Provisions
from codeforge.errors import EngineUnavailable
from codeforge.images import ImageStore
from codeforge.model.languages import Language
from codeforge.model.limits import CPU_PERIOD_US, SandboxLimits
from codeforge.policy import RUNNER_GID, container_spec, posture_faults
from codeforge.protocol.frames import PROTOCOL

_HEADER = struct.Struct("<IB")
_EXIT = struct.Struct("<BBQQQII")
KNOWN_TOKEN = b"known to a test."
"""The token of GO in modules that use the fixture ``known_token``."""
_FLAG_KEEP = 2
SIGKILL = 9


def frame(kind: str, payload: bytes = b"") -> bytes:
    """Return a frame as init writes it."""
    return _HEADER.pack(len(payload), ord(kind)) + payload


def exit_frame(by_signal: int = 0, number: int = 0, *counts: int, token: bytes = KNOWN_TOKEN) -> bytes:
    """Return EXIT, with ``counts`` in the order of docs/protocol.md."""
    return frame("W", _EXIT.pack(by_signal, number, *(counts or (1000, 1000, 4096, 0, 0))) + token)


def frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the frames that the host wrote; it always writes whole ones."""
    at = 0
    while at < len(data):
        size, kind = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        yield chr(kind), data[at : at + size]
        at += size


def posture(spec: dict[str, Any]) -> bytes:
    """Return what init reports where every restriction is in force."""
    host = spec["HostConfig"]
    size = next(part.partition("=")[2] for part in host["Tmpfs"]["/tmp"].split(",") if "size=" in part)
    known = {
        "protocol": PROTOCOL,
        "pid": 1,
        "uid": spec["User"].partition(":")[0],
        "gid": RUNNER_GID,
        "groups": "",
        "dumpable": 0,
        "no_new_privs": 1,
        "seccomp": 2,
        "cpu_quota_us": host["CpuQuota"],
        "cpu_period_us": CPU_PERIOD_US,
        "pids_max": host["PidsLimit"],
        "memory_max": host["Memory"] // 4096 * 4096,
        "swap_max": 0,
        "interfaces": "lo",
        "root": "ro",
        "code_bytes": size,
        "tmp_bytes": size,
        "shm_bytes": host["ShmSize"],
        "code_inodes": 4096,
        "tmp_inodes": 4096,
        **{f"{each['Name']}_max": each["Hard"] for each in host["Ulimits"]},
        **dict.fromkeys(("code", "tmp", "shm"), "nosuid,nodev,noexec"),
        **{f"cap_{name}": "0" * 16 for name in ("inh", "prm", "eff", "bnd", "amb")},
    }
    return "".join(f"{key}={value}\n" for key, value in known.items()).encode()


class ScriptedEngine:
    """Launches simulated sandboxes.

    Attributes:
        launch_s, run_s, step_s, destroy_s: how long each takes, on the event loop's clock.
        gate: launches wait until it is set.
        failures: errors of the next launches, one each.
        broken: the error of every other launch.
        clean: whether a kept sandbox is clean after a run.
        answers: whether init sends anything after GO.
        more_than_ready: bytes that init sends together with READY.
        steps: whether workers do their preload steps.
        sandboxes: every sandbox that was launched.
        launches: when each launch began.
        there: how many sandboxes exist, from before their launch until they are destroyed.
        most: the highest value of ``there``.
        closed: how often it was closed.
    """

    name = owner = "scripted"

    def __init__(
        self, *, launch_s: float = 0.0, run_s: float = 0.0, step_s: float = 0.0, destroy_s: float = 0.0
    ) -> None:
        self.launch_s, self.run_s, self.step_s, self.destroy_s = launch_s, run_s, step_s, destroy_s
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: deque[BaseException] = deque()
        self.broken: BaseException | None = None
        self.clean = self.answers = self.steps = True
        self.more_than_ready = b""
        self.sandboxes: list[ScriptedChannel] = []
        self.launches: list[float] = []
        self.there = self.most = 0
        self.closed = 0
        self._ids = itertools.count()

    @property
    def images(self) -> ImageStore:
        """See ``Engine.images``."""
        raise NotImplementedError

    async def provisions(self) -> Provisions:
        """See ``Engine.provisions``."""
        raise NotImplementedError

    async def start(self) -> None:
        """See ``Engine.start``."""

    async def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        raise NotImplementedError

    async def observe(self, channel: Channel) -> Mapping[str, str]:
        """See ``Engine.observe``."""
        return {}

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], limits: SandboxLimits, *, uid: int
    ) -> list[str]:
        """See ``Engine.faults``."""
        return posture_faults(posture, limits, uid=uid)

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> ScriptedChannel:
        """See ``Engine.launch``."""
        spec = container_spec(language, limits, owner="scripted", uid=uid)
        self.there += 1
        self.most = max(self.most, self.there)
        self.launches.append(asyncio.get_running_loop().time())
        try:
            error = self.failures.popleft() if self.failures else self.broken
            await asyncio.sleep(self.launch_s)
            await self.gate.wait()
            if error is not None:
                raise error
        except BaseException:
            self.there -= 1
            raise
        channel = ScriptedChannel(self, spec, f"sandbox-{next(self._ids)}")
        self.sandboxes.append(channel)
        return channel

    async def close(self) -> None:
        """See ``Engine.close``."""
        self.closed += 1
        await asyncio.gather(*(channel.destroy() for channel in self.sandboxes))

    @property
    def idle(self) -> list[ScriptedChannel]:
        """The sandboxes that exist and got no program."""
        return [channel for channel in self.sandboxes if not channel.gone and not channel.programs]

    def stop(self) -> None:
        """Break off every sandbox, and launch no more, as a stopped daemon does."""
        self.broken = EngineUnavailable("the daemon was stopped")
        for channel in self.sandboxes:
            channel.break_off()


class ScriptedChannel:
    """One sandbox.

    Attributes:
        programs: the sources that it was sent.
        kept: whether it was to stay after each of them.
    """

    def __init__(self, engine: ScriptedEngine, spec: dict[str, Any], name: str) -> None:
        self.id = name
        self.image = spec["Image"]
        self.programs: list[bytes] = []
        self.kept: list[bool] = []
        self.steps_asked = 0
        self.gone = self.destroying = self.ended = False
        self.readers = 0
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._out: deque[bytes] = deque([frame("R", posture(spec)) + engine.more_than_ready])
        self._said = asyncio.Event()
        self._said.set()
        self._file = self._token = b""
        self._running = False
        self._destroyed = asyncio.Event()

    def say(self, data: bytes) -> None:
        """Send this as init."""
        self._out.append(data)
        self._said.set()

    def break_off(self) -> None:
        """End the stream without a last event."""
        self.ended = True
        self._said.set()

    def do_step(self) -> None:
        """Do a preload step as the worker."""
        self.say(frame("P"))

    async def read(self) -> bytes:
        """See ``Channel.read``."""
        self.readers += 1
        assert self.readers == 1, "two readers of one channel"
        try:
            while not self._out and not self.ended:
                self._said.clear()
                await self._said.wait()
            return self._out.popleft() if self._out else b""
        finally:
            self.readers -= 1

    async def write(self, data: bytes) -> None:
        """See ``Channel.write``."""
        if self.ended:
            return
        for kind, payload in frames(data):
            self._obey(kind, payload)
        await asyncio.sleep(0)

    def _obey(self, kind: str, payload: bytes) -> None:
        if kind == "p":
            self.steps_asked += 1
            if self._engine.steps:
                self._loop.call_later(self._engine.step_s, self.do_step)
        elif kind == "f":
            self._file = b""
        elif kind == "d":
            self._file += payload
        elif kind == "g":
            self.programs.append(self._file)
            self.kept.append(bool(payload[0] & _FLAG_KEEP))
            self._token = payload[1:]
            self._running = True
            if self._engine.answers:
                last = "C" if self.kept[-1] and self._engine.clean else "Z"
                self._loop.call_later(self._engine.run_s, self._finish, 0, 0, last)
        elif kind == "k" and self._running and self._engine.answers:
            self._finish(1, SIGKILL, "Z")

    def _finish(self, by_signal: int, number: int, last: str) -> None:
        if self._running and not self.ended:
            self._running = False
            self.say(frame("O", self._file))
            self.say(exit_frame(by_signal, number, token=self._token) + frame(last))
            self.ended = self.ended or last == "Z"

    async def oom_event(self, wait_s: float) -> bool:
        """See ``Channel.oom_event``."""
        return False

    async def destroy(self, *, ended: bool = False) -> None:
        """See ``Channel.destroy``. Once begun it goes on, even if its caller is cancelled."""
        if not self.destroying:
            self.destroying = True
            self.break_off()
            self._loop.call_later(self._engine.destroy_s, self._is_gone)
        await self._destroyed.wait()

    def _is_gone(self) -> None:
        self.gone = True
        self._engine.there -= 1
        self._destroyed.set()
