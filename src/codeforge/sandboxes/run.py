"""Drives one run: sends the request, consumes init's events, builds the result.

Theory of operation: the sandbox reads the channel and passes each event to ``RunDriver.handle``. Beside
that, a task sends stdin within init's window, and two timers bound the run. At the deadline the driver
sends KILL, and init reports how far the program got. If init does not answer, the driver ends the
container after a grace period.
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
from codeforge.sandboxes.output_buffer import OutputBuffer
from codeforge.sandboxes.verdict import OOM_EVENT_WAIT_S, decide_run, explain_run

KILL_GRACE_S = 3.0
"""How long init may take to end a run and report, before its container is ended."""

COLLECT_GRACE_S = 30.0
"""How long init may take to send files after the run ended; init gives up after that time too."""


class RunDriver:
    """One run in progress, as the host sees it."""

    def __init__(self, channel: Channel, posture: Mapping[str, str], run: Run) -> None:
        self._channel = channel
        self._posture = posture
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._window = protocol.STDIN_WINDOW
        self._window_grew = asyncio.Event()
        self._output = OutputBuffer(run.limits.output_bytes, run.limits.flood_bytes)
        self._files: dict[str, bytes] = {}
        self._skipped: dict[str, str] = {}
        self._stdin_error: BaseException | None = None
        self._killed: KillReason | None = None
        self._exited: protocol.Exited | None = None
        self._over = False
        self._started_s = 0.0
        self._ended_s = 0.0

    async def start(self, *, token: bytes, keep: bool) -> None:
        """Send the request, and GO with ``token``; ``keep``: the sandbox takes another run afterwards."""
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
        stdin: bytes | AsyncIterable[bytes] | None = run.stdin
        if isinstance(stdin, bytes) and len(stdin) <= protocol.STDIN_WINDOW:
            frames += [protocol.stdin(data) for data in dict.fromkeys((stdin, b""))]
            stdin = None
        self._started_s = time.perf_counter()
        self._timers.append(self._loop.call_later(limits.timeout_s, self._kill, KillReason.DEADLINE))
        await self._channel.write(b"".join(frames))
        if stdin is not None:
            self._spawn(self._send_stdin(stdin)).add_done_callback(self._stdin_sent)

    def stop(self) -> None:
        """Cancel every timer and task of this run."""
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

    # --- Stdin

    async def _send_stdin(self, stdin: bytes | AsyncIterable[bytes]) -> None:
        source = _one_piece(stdin) if isinstance(stdin, bytes) else stdin
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

    def _stdin_sent(self, sending: asyncio.Task[None]) -> None:
        """End the run if the caller's source of stdin failed: the program would wait for the rest forever."""
        if not sending.cancelled() and sending.exception() is not None:
            self._stdin_error = sending.exception()
            self._spawn(self._channel.destroy())

    # --- Events

    def handle(self, event: protocol.Event) -> tuple[StreamName, bytes] | None:
        """Handle one event; return the part of its output that is kept, if it is output.

        Raises:
            SandboxLost: init failed.
            ProtocolViolation: init cannot send this event during a run.
        """
        match event:
            case protocol.Wrote(stream, data):
                kept = self._output.add(stream, data)
                self._kill_if_flooded()
                return stream, kept
            case protocol.Dropped(stream, size):
                self._output.add_dropped(stream, size)
                self._kill_if_flooded()
            case protocol.Acknowledged(size):
                self._window = min(self._window + size, protocol.STDIN_WINDOW)
                self._window_grew.set()
            case protocol.Exited():
                self._ended_s = time.perf_counter()
                self._exited = event
                self._timers.append(self._loop.call_later(COLLECT_GRACE_S, self._end_container))
            case protocol.FileOut():
                self._keep_file(event)
            case protocol.Skipped(path, reason):
                self._skipped[path.decode("utf-8", "backslashreplace")] = reason.name.lower()
            case protocol.Done() | protocol.Clean():
                self._over = True
            case protocol.Failed(message):
                raise SandboxLost(f"the sandbox's init failed: {message}")
            case _:
                raise ProtocolViolation(f"{event} during a run")
        return None

    def _kill_if_flooded(self) -> None:
        if self._output.flooded:
            self._kill(KillReason.FLOOD)

    def _keep_file(self, file: protocol.FileOut) -> None:
        try:
            path = file.path.decode()
            check_path(path)
        except (UnicodeDecodeError, InvalidRequest):
            self._skipped[file.path.decode("utf-8", "backslashreplace")] = "unusable_name"
            return
        if self._run.language.scaffold.get(path) != file.data:
            self._files[path] = file.data

    # --- Result

    async def result(self) -> ExecutionResult:
        """Return the result, once there are no more events.

        Raises:
            SandboxLost: the sandbox ended, and the host did not end it.
            BaseException: whatever the caller's source of stdin raised.
        """
        if self._stdin_error is not None:
            raise self._stdin_error
        evidence = await self._evidence()
        if not self._over and evidence.killed is None and not evidence.oom_event:
            raise SandboxLost("the sandbox ended unexpectedly during a run; was the engine stopped?")
        status = decide_run(evidence)
        exited = self._exited
        return ExecutionResult(
            status=status,
            exit_code=exited.exit_code if exited else None,
            signal=exited.signal if exited else None,
            error=explain_run(status, evidence, self._run.limits, self._output.text("stderr")),
            stdout_bytes=self._output.kept("stdout"),
            stderr_bytes=self._output.kept("stderr"),
            truncated=self._output.truncated,
            files=MappingProxyType(dict(sorted(self._files.items()))),
            files_skipped=MappingProxyType(self._skipped),
            execution_time=(self._ended_s or time.perf_counter()) - self._started_s,
            cpu_time=exited.cpu_s if exited else 0.0,
            memory_used=exited.memory_peak_bytes if exited else 0,
            container_id=self._channel.id,
            evidence=evidence,
            posture=self._posture,
        )

    async def _evidence(self) -> Evidence:
        # If the kernel counted no kill in this run, an event can only be from before GO.
        may_be_oom = not self._over or (self._exited is not None and self._exited.oom_kills > 0)
        return Evidence(
            exited=self._exited,
            killed=self._killed,
            oom_event=may_be_oom and await self._channel.oom_event(OOM_EVENT_WAIT_S),
            stdout_bytes=self._output.written("stdout"),
            stderr_bytes=self._output.written("stderr"),
        )


async def _one_piece(data: bytes) -> AsyncIterator[bytes]:
    yield data
