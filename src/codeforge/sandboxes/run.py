"""One run as the host sees it: what to send, what came, what it all comes to.

Theory of operation: whoever reads the channel passes each event to ``take``, and nobody else decides
anything. Beside it are a feeder, which sends stdin within init's window, and two timers: the deadline,
at which KILL is sent and init reports how far the program got, and after a grace the end of the
container itself, should init not answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from codeforge import protocol
from codeforge.engines import Channel
from codeforge.errors import InvalidRequest, ProtocolViolation, SandboxLost
from codeforge.model import Evidence, ExecutionResult, KillReason, Run, StreamName, check_path
from codeforge.sandboxes.verdict import decide, explain

KILL_GRACE_S = 3.0
"""How long init may take to end a run and report before its container is ended."""

COLLECT_GRACE_S = 30.0
"""How long files may take to come out after the end; init gives up too, should nobody listen any more."""

OOM_EVENT_WAIT_S = 2.0
"""The kernel's counter is read at once; the engine's event of the same kill comes a little later."""


class Conduct:
    """What the host knows of one run while it goes on."""

    def __init__(self, channel: Channel, posture: Mapping[str, str], run: Run) -> None:
        self._channel = channel
        self._posture = posture
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._window = protocol.STDIN_WINDOW
        self._window_grew = asyncio.Event()
        self._kept: dict[StreamName, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._dropped: dict[StreamName, int] = {"stdout": 0, "stderr": 0}
        self._files: dict[str, bytes] = {}
        self._skipped: dict[str, str] = {}
        self._feed_error: BaseException | None = None
        self._killed: KillReason | None = None
        self._exited: protocol.Exited | None = None
        self._over = False
        self._started_s = 0.0
        self._ended_s = 0.0

    async def start(self, *, token: bytes, keep: bool) -> None:
        """Send everything, and GO with ``token``; ``keep``: the sandbox is for other runs, too."""
        run, limits = self._run, self._run.limits
        frames = [
            protocol.limits(
                output_bytes=limits.output_bytes,
                files_bytes=limits.files_bytes,
                max_age_s=limits.timeout_s + KILL_GRACE_S + COLLECT_GRACE_S,
            ),
            protocol.command(run.argv, run.env, run.cwd),
            *(protocol.file(path, data) for path, data in run.files.items()),
            protocol.go(token=token, fresh=run.fresh, keep=keep),
        ]
        rest: bytes | AsyncIterable[bytes] | None = run.stdin
        if isinstance(rest, bytes) and len(rest) <= protocol.STDIN_WINDOW:
            frames += [protocol.stdin(data) for data in dict.fromkeys((rest, b""))]
            rest = None
        self._started_s = time.perf_counter()
        self._timers.append(self._loop.call_later(limits.timeout_s, self._kill, KillReason.DEADLINE))
        await self._channel.write(b"".join(frames))
        if rest is not None:
            self._spawn(self._feed(rest)).add_done_callback(self._fed)

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
            self._spawn(self._channel.write(protocol.kill()))
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
                await self._channel.write(protocol.stdin(bytes(piece)))
        await self._channel.write(protocol.stdin(b""))

    def take(self, event: protocol.Event) -> tuple[StreamName, bytes] | None:
        """Account for one event; output is returned to be passed on."""
        match event:
            case protocol.Wrote(stream, data):
                return self._keep(stream, data)
            case protocol.Dropped(stream, size):
                self._dropped[stream] += size
                if self._dropped[stream] > self._run.limits.flood_bytes:
                    self._kill(KillReason.FLOOD)
            case protocol.Acknowledged(size):
                self._window = min(self._window + size, protocol.STDIN_WINDOW)
                self._window_grew.set()
            case protocol.Exited():
                self._ended_s = time.perf_counter()
                self._exited = event
                self._timers.append(self._loop.call_later(COLLECT_GRACE_S, self._end_container))
            case protocol.FileOut():
                self._bring_out(event)
            case protocol.Skipped(path, reason):
                self._skipped[path.decode("utf-8", "backslashreplace")] = reason.name.lower()
            case protocol.Done() | protocol.Clean():
                self._over = True
            case protocol.Failed(message):
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

    def _bring_out(self, out: protocol.FileOut) -> None:
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
            # Without the hint it would be an event of the time before GO.
            oom_event=oom_hint and await self._channel.oom_event(OOM_EVENT_WAIT_S),
            stdout_bytes=len(self._kept["stdout"]) + self._dropped["stdout"],
            stderr_bytes=len(self._kept["stderr"]) + self._dropped["stderr"],
        )
        if lost and evidence.killed is None and not evidence.oom_event:
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
            evidence=evidence,
            posture=self._posture,
        )


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data
