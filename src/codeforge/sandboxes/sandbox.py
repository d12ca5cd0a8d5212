"""One sandbox, from its launch to its end.

A sandbox takes one run, or several if it was launched for a batch. Between two runs init removes
everything that the first one left, verifies that, and reports it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
from collections.abc import AsyncGenerator, Mapping

from codeforge import protocol
from codeforge.engines import Channel, Engine
from codeforge.errors import EngineError, HostFailure, PostureMismatch, SandboxLost
from codeforge.model import ExecutionResult, Run, StreamName
from codeforge.sandboxes.kind import SandboxKind, preload_steps
from codeforge.sandboxes.run import RunDriver

START_TIMEOUT_S = 60.0
"""From launch to READY: 0.1 s on an idle machine, seconds under a burst."""

STEP_TIMEOUT_S = 60.0
"""For one step of preloading, which takes half a second on half a core."""


class _NeverStarted(SandboxLost):
    """The sandbox ended before its init sent anything."""


def new_token() -> bytes:
    """A secret that init repeats at the end of one run, so that the run cannot forge its end."""
    return os.urandom(protocol.TOKEN_BYTES)


class Sandbox:
    """A launched sandbox.

    Attributes:
        kind: the kind that it was launched as.
        uid: its user id, which no other sandbox has.
        posture: the restrictions in force, as init and the engine report them; see docs/protocol.md.
        runs: how many runs it was given.
        stepping: whether its worker is in the middle of a step, for which a run would have to wait.
    """

    def __init__(self, channel: Channel, kind: SandboxKind, uid: int) -> None:
        self.kind = kind
        self.uid = uid
        self.posture: Mapping[str, str] = {}
        self.runs = 0
        self.stepping = False
        self._channel = channel
        self._decoder = protocol.Decoder()
        self._pending: collections.deque[protocol.Event] = collections.deque()
        self._steps = collections.deque(
            preload_steps(kind.language, kind.limits) if kind.max_runs == 1 else ()
        )
        self._stepped = asyncio.Event()
        self._clean = True
        self._init_ended = False

    @classmethod
    async def launch(cls, engine: Engine, kind: SandboxKind, uid: int) -> Sandbox:
        """Launch a sandbox, wait for its init, and check that every restriction is in force.

        If it ends before its init has sent anything, another is launched, once: no code was run in the
        first, and engines sometimes lose a container while it starts (seen with Podman 4.3).

        Raises:
            HostFailure: the engine failed, or the sandbox is weaker than asked for.
        """
        try:
            return await cls._launch(engine, kind, uid)
        except _NeverStarted:
            return await cls._launch(engine, kind, uid)

    @classmethod
    async def _launch(cls, engine: Engine, kind: SandboxKind, uid: int) -> Sandbox:
        sandbox = cls(channel := await engine.launch(kind.language, kind.limits, uid=uid), kind, uid)
        try:
            await sandbox._get_ready(engine)
        except BaseException:
            await channel.destroy()
            raise
        return sandbox

    @property
    def id(self) -> str:
        """The engine's id of it."""
        return self._channel.id

    @property
    def usable(self) -> bool:
        """Whether it may take a run: it is clean, and has not had ``max_runs``."""
        return self._clean and self.runs < self.kind.max_runs

    @property
    def steps_left(self) -> int:
        """How many steps its worker could still preload."""
        return len(self._steps)

    @property
    def named_left(self) -> int:
        """How many of those are named steps, which come last."""
        return min(len(self._steps), len(self.kind.language.preload_named))

    async def destroy(self) -> None:
        """End it in whatever state it is, and wait until it is gone."""
        self._stepped.set()
        await self._channel.destroy(ended=self._init_ended)

    async def _get_ready(self, engine: Engine) -> None:
        await self._start_worker()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                first = await self.next_event()
        except TimeoutError:
            raise EngineError(f"the sandbox was not ready within {START_TIMEOUT_S:g} s") from None
        row = self.kind.language
        if not isinstance(first, protocol.Ready):
            lost = _NeverStarted if first is None else SandboxLost
            why = first.message if isinstance(first, protocol.Failed) else "no init answered"
            raise lost(f"the sandbox did not start: {why} (is {row.image} an AI CodeForge image?)")
        self.posture = {**first.posture, **await engine.observe(self._channel)}
        faults = await engine.faults(self._channel, self.posture, self.kind.limits, uid=self.uid)
        if faults:
            raise PostureMismatch(f"the sandbox is weaker than asked for: {'; '.join(faults)}")

    async def _start_worker(self) -> None:
        row = self.kind.language
        if row.worker:
            frames = [
                protocol.command(self.kind.command, {}, row.start_dir),
                protocol.worker(template=self.kind.template),
                *map(protocol.preload, self.kind.steps),
            ]
            await self._channel.write(b"".join(frames))

    async def next_event(self) -> protocol.Event | None:
        """The next event from init; ``None`` at the end. Only one task may wait for it at a time.

        Raises:
            ProtocolViolation: the bytes cannot be from init.
        """
        while not self._pending:
            data = b"" if self._decoder.over else await self._channel.read()
            if not data:
                return None
            self._pending.extend(self._decoder.feed(data))
        return self._pending.popleft()

    async def watch(self) -> None:
        """Read its events while it is in stock; returns when it is lost. May be cancelled at any time."""
        with contextlib.suppress(HostFailure):
            while isinstance(await self.next_event(), protocol.Preloaded):
                self._take_step()

    async def preload(self) -> None:
        """Make the worker do its next step, and wait for it; another task must be running ``watch``."""
        self.stepping = True
        self._stepped.clear()
        await self._channel.write(protocol.preload(self._steps.popleft()))
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await self._stepped.wait()
        except TimeoutError:  # init does not report that a worker died; the task in watch() sees the end
            await self.destroy()

    def _take_step(self) -> None:
        self.stepping = False
        self._stepped.set()

    async def begin_session(self, frames: bytes) -> None:
        """Begin a session in it, instead of a run; from now on the caller decides what is sent."""
        if not self.usable:
            raise RuntimeError("this sandbox was used before")
        self._clean = False
        self._stepped.set()
        if not self._decoder.over:  # otherwise init has failed, and its message is the next event
            self._decoder.expect_session()
        await self._channel.write(frames)

    async def write(self, frames: bytes) -> None:
        """Send frames of a session; they are dropped if the sandbox is gone."""
        await self._channel.write(frames)

    async def oom_event(self, wait_s: float) -> bool:
        """Whether a process in it was killed because memory ran out; waits ``wait_s`` for the event."""
        return await self._channel.oom_event(wait_s)

    async def run(self, run: Run) -> AsyncGenerator[tuple[StreamName, bytes] | ExecutionResult, None]:
        """Run a program; yields pieces of output as they come, then the result.

        Raises:
            SandboxLost: the sandbox ended and the host does not know why.
            ProtocolViolation: the bytes cannot be from init.
        """
        if not self.usable:
            raise RuntimeError("this sandbox was used before")
        self.runs += 1
        self._clean = False
        self._stepped.set()  # preload() must not wait for this worker any longer
        driver = RunDriver(self._channel, self.posture, run)
        token = new_token()
        if not self._decoder.over:  # otherwise init has failed after READY, and its message comes below
            self._decoder.expect_run(files_bytes=run.limits.files_bytes, token=token)
        try:
            await driver.start(token=token, keep=self.runs < self.kind.max_runs)
            while not self._clean and (event := await self.next_event()) is not None:
                if isinstance(event, protocol.Preloaded):
                    self._take_step()
                    continue
                piece = driver.handle(event)
                if piece is not None:
                    yield piece
                self._clean = isinstance(event, protocol.Clean)
            self._init_ended = self._decoder.over
            if self._clean and (run.fresh or not self.kind.template):
                await self._start_worker()
            yield await driver.result()
        finally:
            driver.stop()
