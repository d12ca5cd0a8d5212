"""One cell as the host sees it: what came of it, who stopped it, and what it all comes to.

What its interpreter says (value, error, displays) is the program's word. How it ended is not: that is
the host's clock, the host's own record of what it stopped, and what the kernel and the engine count.
"""

from __future__ import annotations

import asyncio
import codecs
import collections
import enum
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from codeforge.model import (
    CellError,
    CellEvent,
    CellOutput,
    CellResult,
    CellStatus,
    Limits,
    MiB,
    MimeBundle,
    StreamName,
    bundle_bytes,
    bundle_of,
    error_of,
    format_memory,
)
from codeforge.protocol import Ended

RESULTS_BYTES = 32 * MiB
"""What a cell may display, in all."""

INTERRUPT_GRACE_S = 2.0
"""How long a cell may take to end once it is interrupted."""


class StopReason(enum.Enum):
    """Why the host stopped a cell."""

    INTERRUPT = enum.auto()
    DEADLINE = enum.auto()
    FLOOD = enum.auto()


class Cell:
    """What the host knows of one cell.

    Args:
        number: as its interpreter is told.
        limits: its own.
        before: what was written since the cell before it, and whether there was more.
        oom_kills: how many processes the kernel had killed for want of memory when it began.
        interrupt: has its interpreter raise KeyboardInterrupt.
        kill: ends its interpreter.

    Attributes:
        number: as its interpreter is told.
        stopped: why the host stopped it, if it did.
        ended: how its interpreter ended, if it did meanwhile.
        lost: the whole sandbox ended meanwhile.
    """

    def __init__(
        self, number: int, limits: Limits, before: tuple[Mapping[str, bytes], bool],
        *, oom_kills: int, interrupt: Callable[[], object], kill: Callable[[], object],
    ) -> None:  # fmt: skip
        self.number = number
        self.limits = limits
        self.stopped: StopReason | None = None
        self.ended: Ended | None = None
        self.lost = False
        self._oom_kills = oom_kills
        self._interrupt = interrupt
        self._kill = kill
        self._loop = asyncio.get_running_loop()
        self._timers = [self._loop.call_later(limits.timeout_s, self.stop, StopReason.DEADLINE)]
        self._begun = False
        self._over = asyncio.Event()
        self._news = asyncio.Event()
        self._events: collections.deque[CellEvent] = collections.deque()
        self._decoders = {s: codecs.getincrementaldecoder("utf-8")("replace") for s in ("stdout", "stderr")}
        self._kept: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._bytes = {"stdout": 0, "stderr": 0}
        written, self._truncated = before
        self._floods = False
        self._results: list[MimeBundle] = []
        self._results_bytes = 0
        self._value: MimeBundle | None = None
        self._error: CellError | None = None
        self._started_s = time.perf_counter()
        self._ended_s = 0.0
        for stream, data in written.items():
            self.take_text(stream, data)

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self._over.is_set()

    @property
    def may_be_out_of_memory(self) -> bool:
        """Whether its interpreter was killed, and the kernel killed for want of memory since it began."""
        ended = self.ended
        return ended is not None and ended.signal == signal.SIGKILL and ended.oom_kills > self._oom_kills

    async def until_over(self) -> None:
        """Wait until it has come to an end, whichever."""
        await self._over.wait()

    async def events(self) -> AsyncIterator[CellEvent]:
        """What comes of it, as it comes, until it is over. For one listener."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self.is_over:
                return
            self._news.clear()
            await self._news.wait()

    def stop(self, reason: StopReason, *, insist: bool = True) -> None:
        """Interrupt it, as soon as it has begun; and, if one insists, kill what does not yield."""
        if self.is_over:
            return
        if self.stopped is None or self.stopped is StopReason.INTERRUPT:
            self.stopped = reason
        if self._begun:
            self._interrupt()
        if insist:
            self._timers.append(self._loop.call_later(INTERRUPT_GRACE_S, self._kill))

    # --- What comes of it

    def take_text(self, stream: str, data: bytes) -> None:
        """It wrote something."""
        room = self.limits.output_bytes - self._bytes[stream]
        self._bytes[stream] += len(data)
        self._truncated = self._truncated or len(data) > room
        text = self._decoders[stream].decode(data[: max(0, room)])
        if text:
            self._kept[stream].append(text)
            self._tell(CellOutput(_STREAMS[stream], text))
        if self._bytes[stream] > self.limits.flood_bytes and not self._floods:
            self._floods = True
            self.stop(StopReason.FLOOD)

    def hear(self, message: Mapping[str, Any]) -> None:
        """Its interpreter said something about it."""
        match message.get("is"):
            case "begun":
                self._begun = True
                if self.stopped is not None:
                    self._interrupt()
            case "display":
                self._keep(bundle_of(message))
            case "done" if not self.is_over:
                self._value = self._keep(bundle_of(message.get("value")))
                self._error = error_of(message.get("error"))
                self._finish()

    def take_end(self, ended: Ended | None) -> None:
        """Its interpreter ended, or, for ``None``, the whole sandbox."""
        if not self.is_over:
            self.ended, self.lost = ended, ended is None
            self._finish()

    def _keep(self, bundle: MimeBundle | None) -> MimeBundle | None:
        if bundle is None or self.is_over:
            return None
        self._results_bytes += bundle_bytes(bundle)
        if self._results_bytes > RESULTS_BYTES:
            self._truncated = True
            return None
        self._results.append(bundle)
        self._tell(bundle)
        return bundle

    def _tell(self, event: CellEvent) -> None:
        self._events.append(event)
        self._news.set()

    def _finish(self) -> None:
        self._ended_s = time.perf_counter()
        for timer in self._timers:
            timer.cancel()
        for stream, decoder in self._decoders.items():
            rest = decoder.decode(b"", final=True)
            if rest:
                self._kept[stream].append(rest)
                self._tell(CellOutput(_STREAMS[stream], rest))
        self._over.set()
        self._news.set()

    # --- What it comes to

    def result(self, *, oom: bool) -> CellResult:
        """Once it is over; ``oom``: the kernel killed its interpreter for want of memory."""
        status = self._status(oom)
        return CellResult(
            status=status,
            stdout="".join(self._kept["stdout"]),
            stderr="".join(self._kept["stderr"]),
            truncated=self._truncated,
            value=None if self._value is None else self._value.text,
            results=tuple(self._results),
            error=self._explain(status),
            execution_time=self._ended_s - self._started_s,
            alive=self.ended is None and not self.lost,
        )

    def _status(self, oom: bool) -> CellStatus:
        if oom:
            return CellStatus.OUT_OF_MEMORY
        if self.stopped in (StopReason.DEADLINE, StopReason.FLOOD):
            return CellStatus.TIMEOUT if self.stopped is StopReason.DEADLINE else CellStatus.OUTPUT_LIMIT
        if self.ended is not None:
            return CellStatus.ENDED
        if self._error is None:
            return CellStatus.OK
        return CellStatus.INTERRUPTED if self.stopped is StopReason.INTERRUPT else CellStatus.ERROR

    def _explain(self, status: CellStatus) -> CellError | None:
        alive = self.ended is None and not self.lost
        lost = "" if alive else "; the session's variables are lost: restart() gives it a new interpreter"
        said = self._error.traceback if self._error is not None else ()
        match status:
            case CellStatus.OK:
                return None
            case CellStatus.TIMEOUT:
                return CellError("TimeoutError", f"timed out after {self.limits.timeout_s:g} s{lost}", said)
            case CellStatus.OUTPUT_LIMIT:
                most = format_memory(self.limits.flood_bytes)
                return CellError("OutputLimit", f"wrote more than {most} to one stream{lost}", said)
            case CellStatus.OUT_OF_MEMORY:
                most = format_memory(self.limits.memory_bytes)
                return CellError("MemoryError", f"out of memory at {most}; raise memory_limit{lost}")
            case CellStatus.ENDED:
                return CellError("InterpreterEnded", f"{_how(self.ended)}{lost}")
        return self._error


def _how(ended: Ended | None) -> str:
    if ended is None:
        return "the interpreter is gone"
    if ended.signal is not None:
        return f"signal {ended.signal} ended the interpreter"
    return f"the interpreter ended with exit code {ended.exit_code}"


_STREAMS: Mapping[str, StreamName] = {"stdout": "stdout", "stderr": "stderr"}
