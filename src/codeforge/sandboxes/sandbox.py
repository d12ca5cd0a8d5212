"""One sandbox's life: launch, preload while it waits, run, gone.

A sandbox takes one run, or, if it was launched for a batch, several; between two of them init removes
and verifies everything, and says so.
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
"""For what a worker preloads at once: half a second, on half a core."""


class _NeverThere(SandboxLost):
    """The sandbox ended before its init said anything."""


def new_token() -> bytes:
    """By which one run's end is known; see ``wire.go``."""
    return os.urandom(protocol.TOKEN_BYTES)


class Sandbox:
    """A launched sandbox.

    Attributes:
        uid: its user id, which no other sandbox has.
        posture: what init said of it; see docs/protocol.md.
        runs: how many it was given.
        stepping: whether its worker is in the middle of a step, which a run would have to wait for.
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
        """Launch, wait for init, and check that everything asked for is in force.

        One that ends before its init has said anything is launched once more: no code was run in it, and
        engines now and then lose a container while it starts (seen with Podman 4.3).

        Raises:
            HostFailure: the engine could not, or the sandbox came up weaker than asked for.
        """
        try:
            return await cls._launch(engine, kind, uid)
        except _NeverThere:
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
        """The engine's name for it."""
        return self._channel.id

    @property
    def usable(self) -> bool:
        """Whether it may take a run: it has had none, or it is clean and may take more."""
        return self._clean and self.runs < self.kind.max_runs

    @property
    def steps_left(self) -> int:
        """How much its worker could still preload."""
        return len(self._steps)

    @property
    def named_left(self) -> int:
        """How much of that is for programs that name it: all of it, once the rest is done."""
        return min(len(self._steps), len(self.kind.language.preload_named))

    async def destroy(self) -> None:
        """End it, whatever it does, and wait until it is gone."""
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
            lost = _NeverThere if first is None else SandboxLost
            why = first.message if isinstance(first, protocol.Failed) else "no init answered"
            raise lost(f"the sandbox did not start: {why} (is {row.image} ours?)")
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
        """What comes next from init; ``None`` when there is nothing more. One at a time may wait for it.

        Raises:
            ProtocolViolation: what came is not init's.
        """
        while not self._pending:
            data = b"" if self._decoder.over else await self._channel.read()
            if not data:
                return None
            self._pending.extend(self._decoder.feed(data))
        return self._pending.popleft()

    async def watch(self) -> None:
        """Listen while it waits; returns when it has broken off. May be cancelled at any time."""
        with contextlib.suppress(HostFailure):
            while isinstance(await self.next_event(), protocol.Preloaded):
                self._take_step()

    async def preload(self) -> None:
        """Have the worker do its next step, and wait until it has; somebody must ``watch`` meanwhile."""
        self.stepping = True
        self._stepped.clear()
        await self._channel.write(protocol.preload(self._steps.popleft()))
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await self._stepped.wait()
        except TimeoutError:  # init does not tell when a worker dies; who watches will see this
            await self.destroy()

    def _take_step(self) -> None:
        self.stepping = False
        self._stepped.set()

    async def begin_session(self, frames: bytes) -> None:
        """Send what begins a session, instead of a run; from then on it is the caller's who says what."""
        if not self.usable:
            raise RuntimeError("this sandbox was used before")
        self._clean = False
        self._stepped.set()
        if not self._decoder.over:  # else init gave up; what it said comes next
            self._decoder.expect_session()
        await self._channel.write(frames)

    async def write(self, frames: bytes) -> None:
        """Send frames of a session; lost once the sandbox is gone."""
        await self._channel.write(frames)

    async def oom_event(self, wait_s: float) -> bool:
        """Whether the kernel killed for want of memory in it; waits for the news so long."""
        return await self._channel.oom_event(wait_s)

    async def run(self, run: Run) -> AsyncGenerator[tuple[StreamName, bytes] | ExecutionResult, None]:
        """Run a program: pieces of output as they come, then the result.

        Raises:
            SandboxLost: the sandbox broke off and the host does not know why.
            ProtocolViolation: what came out is not init's.
        """
        if not self.usable:
            raise RuntimeError("this sandbox was used before")
        self.runs += 1
        self._clean = False
        self._stepped.set()  # a run need not leave the worker its step
        driver = RunDriver(self._channel, self.posture, run)
        token = new_token()
        if not self._decoder.over:  # else init gave up right behind its READY; what it said comes below
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
