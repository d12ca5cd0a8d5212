"""One sandbox's life: launch, preload while it waits, run, gone.

A sandbox takes one run, or, if it was launched for a batch, several; between two of them init removes
and verifies everything, and says so.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass

from codeforge import wire
from codeforge.conduct import Conduct
from codeforge.engines import Channel, Engine
from codeforge.errors import EngineError, HostFailure, PostureMismatch, SandboxLost
from codeforge.languages import CODE_DIR, Language
from codeforge.limits import Limits
from codeforge.request import Run
from codeforge.result import ExecutionResult, StreamName

START_TIMEOUT_S = 60.0
"""From launch to READY: 0.1 s on an idle machine, seconds under a burst."""

PRELOAD_FACTOR = 3
"""With a memory limit of less than so many times what preloading takes, nothing is preloaded."""

STEP_TIMEOUT_S = 60.0
"""For what a worker preloads at once: half a second, on half a core."""


_IMPORT = re.compile(rb"^[ \t]*(?:import|from)\b.{,1000}", re.MULTILINE)
_WORD = re.compile(rb"\w{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxKind:
    """What makes two sandboxes interchangeable.

    Attributes:
        language: the row.
        limits: those that the sandbox itself has; the others are each run's.
        max_runs: how many runs it may take, one after another.
        steps: what its worker preloads before its first run.
        batch: whose runs it may take, if more than one.
        session: its worker is a session's interpreter, and no run comes into it.
    """

    language: Language
    limits: Limits
    max_runs: int = 1
    steps: tuple[str, ...] = ()
    batch: int | None = None
    session: bool = False

    @classmethod
    def of(cls, run: Run, *, batch: int | None = None, max_runs: int = 1) -> SandboxKind:
        """What such a run needs; with ``max_runs`` above 1, for more runs like it of the same batch."""
        row, limits = run.language, run.limits.of_sandbox()
        if max_runs == 1:
            return cls(language=row, limits=limits)
        steps = _preload(row, limits) if row.forks else ()
        # An interpreter takes the longer to fork the more it has loaded; and each step is on top of those
        # before it, so that a batch needs few kinds.
        last = max((steps.index(step) + 1 for step in named_steps(run, steps)), default=0)
        steps = steps[:last]
        return cls(language=row, limits=limits, max_runs=max_runs, steps=steps, batch=batch)

    @property
    def command(self) -> tuple[str, ...]:
        """Argv of its worker."""
        row = self.language
        return row.session if self.session else (*row.command, f"{CODE_DIR}/{row.file}")

    @property
    def template(self) -> bool:
        """Whether its worker forks the runs, or there is a new one for each."""
        return self.max_runs > 1 and self.language.forks


def _preload(row: Language, limits: Limits) -> tuple[str, ...]:
    """What a worker of that language does beforehand, if it takes nothing that its run may need."""
    enough = limits.memory_bytes >= PRELOAD_FACTOR * row.idle_bytes
    return (*row.preload, *row.preload_named) if enough else ()


def named_steps(run: Run, steps: Iterable[str]) -> tuple[str, ...]:
    """Those of the steps of which a word occurs where the program, or a file beside it, imports something."""
    lines = itertools.chain.from_iterable(_IMPORT.findall(text) for text in run.files.values())
    words = {word.decode(errors="replace") for line in lines for word in _WORD.findall(line)}
    return tuple(step for step in steps if not words.isdisjoint(step.split()))


class _NeverThere(SandboxLost):
    """The sandbox ended before its init said anything."""


def new_token() -> bytes:
    """By which one run's end is known; see ``wire.go``."""
    return os.urandom(wire.TOKEN_BYTES)


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
        self._decoder = wire.Decoder()
        self._pending: collections.deque[wire.Event] = collections.deque()
        self._steps = collections.deque(_preload(kind.language, kind.limits) if kind.max_runs == 1 else ())
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
        if not isinstance(first, wire.Ready):
            lost = _NeverThere if first is None else SandboxLost
            why = first.message if isinstance(first, wire.Failed) else "no init answered"
            raise lost(f"the sandbox did not start: {why} (is {row.image} ours?)")
        self.posture = {**first.posture, **await engine.observe(self._channel)}
        faults = await engine.faults(self._channel, self.posture, row, self.kind.limits, uid=self.uid)
        if faults:
            raise PostureMismatch(f"the sandbox is weaker than asked for: {'; '.join(faults)}")

    async def _start_worker(self) -> None:
        row = self.kind.language
        if row.worker:
            frames = [
                wire.command(self.kind.command, {}, row.start_dir),
                wire.worker(template=self.kind.template),
                *map(wire.preload, self.kind.steps),
            ]
            await self._channel.write(b"".join(frames))

    async def next_event(self) -> wire.Event | None:
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
            while isinstance(await self.next_event(), wire.Preloaded):
                self._take_step()

    async def preload(self) -> None:
        """Have the worker do its next step, and wait until it has; somebody must ``watch`` meanwhile."""
        self.stepping = True
        self._stepped.clear()
        await self._channel.write(wire.preload(self._steps.popleft()))
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
        conduct = Conduct(self._channel, self.posture, run)
        token = new_token()
        if not self._decoder.over:  # else init gave up right behind its READY; what it said comes below
            self._decoder.expect_run(files_bytes=run.limits.files_bytes, token=token)
        try:
            await conduct.start(token=token, keep=self.runs < self.kind.max_runs)
            while not self._clean and (event := await self.next_event()) is not None:
                if isinstance(event, wire.Preloaded):
                    self._take_step()
                    continue
                piece = conduct.take(event)
                if piece is not None:
                    yield piece
                self._clean = isinstance(event, wire.Clean)
            self._init_ended = self._decoder.over
            if self._clean and (run.fresh or not self.kind.template):
                await self._start_worker()
            yield await conduct.result()
        finally:
            conduct.stop()
