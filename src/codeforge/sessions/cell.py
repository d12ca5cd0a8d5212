"""One cell as the host sees it: collects what it writes and displays, stops it in time, builds its result.

What its interpreter says (value, error, displays) is the program's word. How the cell ended is not: the
host's clock, the host's record of what it stopped, the kernel's counters and the engine's events decide.
"""

from __future__ import annotations

import asyncio
import collections
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from codeforge.model import (
    CellError,
    CellEvent,
    CellEvidence,
    CellOutput,
    CellResult,
    KillReason,
    Limits,
    MiB,
    MimeBundle,
    Output,
    OutputDecoder,
    StreamName,
    bundle_bytes,
    bundle_of,
    error_of,
)
from codeforge.protocol import Ended
from codeforge.sandboxes import OutputBuffer, decide_cell, explain_cell

RESULTS_BYTES = 32 * MiB
"""How much of the host's memory the displays of one cell may take, as ``bundle_bytes`` counts."""

INTERRUPT_GRACE_S = 2.0
"""How long an interrupted cell may take to end before its interpreter is killed."""


class Cell:
    """One cell, from the request to run it until its result.

    Args:
        number: the number that its interpreter knows it by.
        limits: the limits of this cell.
        unread: what its branch wrote since the cell before.
        oom_kills: the kernel's count of out-of-memory kills in the sandbox when the cell begins.
        interrupt: raises KeyboardInterrupt in its interpreter.
        kill: ends its interpreter.

    Attributes:
        number: as above.
        limits: as above.
        ended: how its interpreter ended, if it ended before the cell did.
        lost: whether the whole sandbox ended before the cell did.
    """

    def __init__(
        self,
        number: int,
        limits: Limits,
        unread: OutputBuffer,
        *,
        oom_kills: int,
        interrupt: Callable[[], object],
        kill: Callable[[], object],
    ) -> None:
        self.number = number
        self.limits = limits
        self.ended: Ended | None = None
        self.lost = False
        self._oom_kills = oom_kills
        self._interrupt = interrupt
        self._kill = kill
        self._stopped: KillReason | None = None
        self._interrupted = False
        self._loop = asyncio.get_running_loop()
        self._timers = [self._loop.call_later(limits.timeout_s, self._stop, KillReason.DEADLINE)]
        self._begun = False
        self._over = asyncio.Event()
        self._news = asyncio.Event()
        self._events: collections.deque[CellEvent] = collections.deque()
        self._output = OutputBuffer(limits.output_bytes, limits.flood_bytes)
        self._decoder = OutputDecoder()
        self._truncated = unread.truncated
        self._results: list[MimeBundle] = []
        self._results_bytes = 0
        self._value: MimeBundle | None = None
        self._error: CellError | None = None
        self._started_s = time.perf_counter()
        self._ended_s = 0.0
        for stream in unread.streams:
            self.take_output(stream, unread.kept(stream))

    @property
    def is_over(self) -> bool:
        """Whether it has ended: its result is complete."""
        return self._over.is_set()

    @property
    def may_be_out_of_memory(self) -> bool:
        """Whether its interpreter got SIGKILL, and the kernel counted an out-of-memory kill meanwhile."""
        ended = self.ended
        return ended is not None and ended.signal == signal.SIGKILL and ended.oom_kills > self._oom_kills

    async def wait_until_over(self) -> None:
        """Wait until it has ended, in whatever way."""
        await self._over.wait()

    async def events(self) -> AsyncIterator[CellEvent]:
        """Yield its output and displays as they come, until it is over. For one listener."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self.is_over:
                return
            self._news.clear()
            await self._news.wait()

    # --- Stopping it

    def interrupt(self, *, then_kill: bool) -> None:
        """Interrupt it on the caller's behalf; ``then_kill``: kill its interpreter if it does not end."""
        if not self.is_over:
            self._interrupted = True
            self._interrupt_when_begun(then_kill=then_kill)

    def _stop(self, reason: KillReason) -> None:
        if not self.is_over:
            self._stopped = self._stopped or reason
            self._interrupt_when_begun(then_kill=True)

    def _interrupt_when_begun(self, *, then_kill: bool) -> None:
        if self._begun:
            self._interrupt()
        if then_kill:
            self._timers.append(self._loop.call_later(INTERRUPT_GRACE_S, self._kill))

    # --- What happens to it

    def take_output(self, stream: StreamName, data: bytes) -> None:
        """Take what it wrote."""
        flooded_before = self._output.flooded
        kept = self._output.add(stream, data)
        self._tell_text(self._decoder.decode(stream, kept))
        if self._output.flooded and not flooded_before:
            self._stop(KillReason.FLOOD)

    def handle_message(self, message: Mapping[str, Any]) -> None:
        """Handle what its interpreter says about it, which may be anything."""
        match message.get("is"):
            case "begun":
                self._begun = True
                if self._stopped is not None or self._interrupted:
                    self._interrupt()
            case "display":
                self._keep(bundle_of(message))
            case "done" if not self.is_over:
                self._value = self._keep(bundle_of(message.get("value")))
                self._error = error_of(message.get("error"))
                self._finish()

    def interpreter_ended(self, ended: Ended | None) -> None:
        """End it, as its interpreter has ended; ``None``: the whole sandbox has."""
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

    def _tell_text(self, output: Output) -> None:
        if output.text:
            self._tell(CellOutput(output.stream, output.text))

    def _tell(self, event: CellEvent) -> None:
        self._events.append(event)
        self._news.set()

    def _finish(self) -> None:
        self._ended_s = time.perf_counter()
        for timer in self._timers:
            timer.cancel()
        for output in self._decoder.finish():
            self._tell_text(output)
        self._over.set()
        self._news.set()

    def result(self, *, oom: bool) -> CellResult:
        """Return its result, once it is over; ``oom``: its interpreter was killed for lack of memory."""
        evidence = CellEvidence(
            oom=oom,
            stopped=self._stopped,
            interrupted=self._interrupted,
            ended=self.ended,
            lost=self.lost,
            raised=self._error,
        )
        status = decide_cell(evidence)
        return CellResult(
            status=status,
            stdout=self._output.text("stdout"),
            stderr=self._output.text("stderr"),
            truncated=self._truncated or self._output.truncated,
            value=None if self._value is None else self._value.text,
            results=tuple(self._results),
            error=explain_cell(status, evidence, self.limits),
            execution_time=self._ended_s - self._started_s,
            alive=evidence.alive,
        )
