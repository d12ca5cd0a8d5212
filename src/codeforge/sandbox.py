"""One sandbox's life: launch, run once, gone.

Theory of operation: the reader (``Sandbox.run``) is the only one that decides anything. Beside it
are a feeder, which sends stdin within init's window, and two timers: the deadline, at which KILL is
sent and init reports how far the program got, and after a grace the end of the container itself,
should init not answer. Whatever happens, also a cancellation, the sandbox is destroyed.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine
from types import MappingProxyType
from typing import Any

from codeforge import wire
from codeforge.engines import Channel, Engine
from codeforge.errors import EngineError, InvalidRequest, PostureMismatch, ProtocolViolation, SandboxLost
from codeforge.languages import CODE_DIR, Language
from codeforge.limits import Limits
from codeforge.policy import container_spec, posture_faults
from codeforge.request import Run, check_path
from codeforge.result import ExecutionResult, StreamName
from codeforge.verdict import Evidence, KillReason, decide, explain

START_TIMEOUT_S = 60.0
"""From launch to READY: 0.1 s on an idle machine, seconds under a burst."""

KILL_GRACE_S = 3.0
"""How long init may take to end a run and report before its container is ended."""

COLLECT_GRACE_S = 30.0
"""How long files may take to come out after the end; init gives up too, should nobody listen any more."""

OOM_EVENT_WAIT_S = 2.0
"""The kernel's counter is read at once; the engine's event of the same kill comes a little later."""


class Sandbox:
    """A launched sandbox, which runs one program."""

    def __init__(self, channel: Channel, language: Language, limits: Limits) -> None:
        self._channel = channel
        self._language = language
        self._limits = limits
        self._decoder = wire.Decoder(files_bytes=limits.files_bytes)
        self._pending: collections.deque[wire.Event] = collections.deque()
        self.posture: dict[str, str] = {}

    @classmethod
    async def launch(cls, engine: Engine, language: Language, limits: Limits, owner: str) -> Sandbox:
        """Launch, wait for init, and check that everything asked for is in force.

        Raises:
            HostFailure: the engine could not, or the sandbox came up weaker than asked for.
        """
        channel = await engine.launch(container_spec(language, limits, owner=owner))
        sandbox = cls(channel, language, limits)
        try:
            await sandbox._get_ready()
        except BaseException:
            await channel.destroy()
            raise
        return sandbox

    @property
    def id(self) -> str:
        """The engine's name for it."""
        return self._channel.id

    async def destroy(self) -> None:
        """End it, whatever it does."""
        await self._channel.destroy()

    async def _get_ready(self) -> None:
        row = self._language
        if row.worker:
            program = f"{CODE_DIR}/{row.file}"
            await self._channel.write(
                wire.command((*row.command, program), {}, row.start_dir) + wire.worker()
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                first = await anext(self._events(), None)
        except TimeoutError:
            raise EngineError(f"the sandbox was not ready within {START_TIMEOUT_S:g} s") from None
        if not isinstance(first, wire.Ready):
            why = first.message if isinstance(first, wire.Failed) else "no init answered"
            raise SandboxLost(f"the sandbox did not start: {why} (is {self._language.image} ours?)")
        self.posture = dict(first.posture)
        faults = posture_faults(first.posture, self._language, self._limits)
        if faults:
            raise PostureMismatch(f"the sandbox is weaker than asked for: {'; '.join(faults)}")

    async def _events(self) -> AsyncIterator[wire.Event]:
        while True:
            while self._pending:
                yield self._pending.popleft()
            if self._decoder.over:
                return
            data = await self._channel.read()
            if not data:
                return
            self._pending.extend(self._decoder.feed(data))

    async def run(self, run: Run) -> AsyncGenerator[tuple[StreamName, bytes] | ExecutionResult, None]:
        """Run a program: pieces of output as they come, then the result.

        Raises:
            SandboxLost: the sandbox broke off and the host does not know why.
            ProtocolViolation: what came out is not init's.
        """
        conduct = _Conduct(self._channel, run)
        try:
            await conduct.start()
            async for event in self._events():
                piece = conduct.take(event)
                if piece is not None:
                    yield piece
            yield await conduct.result()
        finally:
            conduct.stop()
            await self._channel.destroy()


class _Conduct:
    """What the host knows of one run while it goes on."""

    def __init__(self, channel: Channel, run: Run) -> None:
        self._channel = channel
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._window = wire.STDIN_WINDOW
        self._window_grew = asyncio.Event()
        self._kept: dict[StreamName, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._dropped: dict[StreamName, int] = {"stdout": 0, "stderr": 0}
        self._files: dict[str, bytes] = {}
        self._skipped: dict[str, str] = {}
        self._feed_error: BaseException | None = None
        self._killed: KillReason | None = None
        self._exited: wire.Exited | None = None
        self._over = False
        self._started_s = 0.0
        self._ended_s = 0.0

    async def start(self) -> None:
        """Send everything, and GO."""
        run, limits = self._run, self._run.limits
        frames = [
            wire.limits(
                output_bytes=limits.output_bytes,
                files_bytes=limits.files_bytes,
                max_age_s=limits.timeout_s + KILL_GRACE_S + COLLECT_GRACE_S,
            ),
            wire.command(run.argv, run.env, run.cwd),
            *(wire.file(path, data) for path, data in run.files.items()),
            wire.go(fresh=run.fresh),
        ]
        self._started_s = time.perf_counter()
        self._timers.append(self._loop.call_later(limits.timeout_s, self._kill, KillReason.DEADLINE))
        await self._channel.write(b"".join(frames))
        self._spawn(self._feed(run.stdin)).add_done_callback(self._fed)

    def stop(self) -> None:
        """Nothing of this run goes on."""
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _kill(self, reason: KillReason) -> None:
        if self._killed is None and self._exited is None:
            self._killed = reason
            self._spawn(self._channel.write(wire.kill()))
            self._timers.append(self._loop.call_later(KILL_GRACE_S, self._end_container))

    def _end_container(self) -> None:
        if not self._over:
            self._spawn(self._channel.destroy())

    def _fed(self, feeding: asyncio.Task[None]) -> None:
        """A source of stdin that fails ends the run: the program would wait for the rest in vain."""
        if not feeding.cancelled() and feeding.exception() is not None:
            self._feed_error = feeding.exception()
            self._spawn(self._channel.destroy())

    async def _feed(self, stdin: bytes | AsyncIterable[bytes]) -> None:
        source = _pieces(stdin) if isinstance(stdin, bytes) else stdin
        async for data in source:
            if not isinstance(data, bytes):
                raise InvalidRequest(f"stdin must yield bytes, not {type(data).__name__}")
            rest = memoryview(data)
            while rest:
                while self._window == 0:
                    self._window_grew.clear()
                    await self._window_grew.wait()
                piece, rest = rest[: self._window], rest[self._window :]
                self._window -= len(piece)
                await self._channel.write(wire.stdin(bytes(piece)))
        await self._channel.write(wire.stdin(b""))

    def take(self, event: wire.Event) -> tuple[StreamName, bytes] | None:
        """Account for one event; output is returned to be passed on."""
        match event:
            case wire.Wrote(stream, data):
                return self._keep(stream, data)
            case wire.Dropped(stream, size):
                self._dropped[stream] += size
                if self._dropped[stream] > self._run.limits.flood_bytes:
                    self._kill(KillReason.FLOOD)
            case wire.Acknowledged(size):
                self._window = min(self._window + size, wire.STDIN_WINDOW)
                self._window_grew.set()
            case wire.Exited():
                self._ended_s = time.perf_counter()
                self._exited = event
                self._timers.append(self._loop.call_later(COLLECT_GRACE_S, self._end_container))
            case wire.FileOut():
                self._bring_out(event)
            case wire.Skipped(path, reason):
                self._skipped[path.decode("utf-8", "backslashreplace")] = reason.name.lower()
            case wire.Done():
                self._over = True
            case wire.Failed(message):
                raise SandboxLost(f"the sandbox gave up: {message}")
            case _:
                raise ProtocolViolation(f"{event} in the middle of a run")
        return None

    def _keep(self, stream: StreamName, data: bytes) -> tuple[StreamName, bytes]:
        # init cuts at the limit; cutting again here is what makes it not matter whether it did.
        room = self._run.limits.output_bytes - len(self._kept[stream])
        self._dropped[stream] += max(0, len(data) - room)
        self._kept[stream] += data[:room]
        return stream, data[:room]

    def _bring_out(self, out: wire.FileOut) -> None:
        try:
            path = out.path.decode()
            check_path(path)
        except (UnicodeDecodeError, InvalidRequest):
            self._skipped[out.path.decode("utf-8", "backslashreplace")] = "unusable_name"
            return
        if self._run.language.scaffold.get(path) != out.data:
            self._files[path] = out.data

    async def result(self) -> ExecutionResult:
        """What it all came to, once the events are over.

        Raises:
            SandboxLost: the sandbox broke off, and not by the host's doing.
            BaseException: whatever the caller's own source of stdin raised.
        """
        if self._feed_error is not None:
            raise self._feed_error
        lost = not self._over
        oom_hint = lost or (self._exited is not None and self._exited.oom_kills > 0)
        evidence = Evidence(
            exited=self._exited,
            killed=self._killed,
            oom_event=await self._channel.oom_event(OOM_EVENT_WAIT_S if oom_hint else 0.0),
        )
        if lost and self._killed is None and not evidence.oom_event:
            raise SandboxLost("the sandbox broke off in the middle of a run; was the engine stopped?")
        status = decide(evidence)
        exited = self._exited
        stderr = bytes(self._kept["stderr"])
        return ExecutionResult(
            status=status,
            exit_code=exited.exit_code if exited else None,
            signal=exited.signal if exited else None,
            error=explain(status, evidence, self._run.limits, stderr.decode("utf-8", "replace")),
            stdout_bytes=bytes(self._kept["stdout"]),
            stderr_bytes=stderr,
            truncated=any(self._dropped.values()),
            files=MappingProxyType(dict(sorted(self._files.items()))),
            files_skipped=MappingProxyType(self._skipped),
            execution_time=(self._ended_s or time.perf_counter()) - self._started_s,
            cpu_time=exited.cpu_s if exited else 0.0,
            memory_used=exited.memory_peak_bytes if exited else 0,
            container_id=self._channel.id,
        )


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data
