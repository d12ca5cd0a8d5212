"""Events of runs and cells: how they reach the caller's callbacks, and how to wait for the result.

A run has ``Output`` events, then one ``Finished``. A cell has ``CellOutput`` and ``MimeBundle`` events, then
its ``CellResult``.
"""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from codeforge.errors import ExecutorClosed
from codeforge.model.result import Event, ExecutionResult, Finished, Output, StreamName

if TYPE_CHECKING:
    from codeforge.model.cell_result import CellEvent, CellResult, MimeBundle

OnText: TypeAlias = Callable[[str], object]
"""Called with a piece of text that a program wrote."""

OnDisplay: TypeAlias = "Callable[[MimeBundle], object]"
"""Called with what a cell displayed."""


class OutputDecoder:
    """Decodes what a program writes, piece by piece; a character is never split between two events."""

    def __init__(self) -> None:
        new = codecs.getincrementaldecoder("utf-8")
        self._decoders: dict[StreamName, codecs.IncrementalDecoder] = {
            "stdout": new("replace"),
            "stderr": new("replace"),
        }

    def decode(self, stream: StreamName, data: bytes) -> Output:
        """Return the event for a piece; its text lags behind the data if that ends within a character."""
        return Output(stream, self._decoders[stream].decode(data), data)

    def finish(self) -> Iterator[Output]:
        """Yield events for the characters that a program began and never finished."""
        for stream, decoder in self._decoders.items():
            rest = decoder.decode(b"", final=True)
            if rest:
                yield Output(stream, rest, b"")


def call_listener(
    event: Output | CellEvent,
    on_stdout: OnText | None,
    on_stderr: OnText | None,
    on_display: OnDisplay | None = None,
) -> None:
    """Call the listener that an event is for, if there is one."""
    if not isinstance(event, Output):
        from codeforge.model.cell_result import MimeBundle  # a run's process never needs that module

        if isinstance(event, MimeBundle):
            if on_display is not None:
                on_display(event)
            return
    listener = on_stdout if event.stream == "stdout" else on_stderr
    if listener is not None and event.text:
        listener(event.text)


@overload
async def result_of(
    events: AsyncGenerator[Event, None], on_event: Callable[[Output], object] | None = None
) -> ExecutionResult: ...


@overload
async def result_of(
    events: AsyncGenerator[CellEvent | CellResult, None],
    on_event: Callable[[CellEvent], object] | None = None,
) -> CellResult: ...


async def result_of(
    events: AsyncGenerator[Any, None], on_event: Callable[[Any], object] | None = None
) -> ExecutionResult | CellResult:
    """Wait for the result of a run or of a cell, and call ``on_event`` with each event before it.

    Raises:
        ExecutorClosed: the executor was closed before there was a result.
    """
    async with contextlib.aclosing(events):
        async for event in events:
            result = _result_in(event)
            if result is not None:
                return result
            if on_event is not None:
                on_event(event)
    raise ExecutorClosed


@overload
def wait_for_result(
    events: Generator[Event, None, None], on_event: Callable[[Output], object]
) -> ExecutionResult: ...


@overload
def wait_for_result(
    events: Generator[CellEvent | CellResult, None, None], on_event: Callable[[CellEvent], object]
) -> CellResult: ...


def wait_for_result(
    events: Generator[Any, None, None], on_event: Callable[[Any], object]
) -> ExecutionResult | CellResult:
    """Wait for the result as ``result_of`` does, without asyncio."""
    with contextlib.closing(events):
        for event in events:
            result = _result_in(event)
            if result is not None:
                return result
            on_event(event)
    raise ExecutorClosed


def _result_in(event: Event | CellEvent | CellResult) -> ExecutionResult | CellResult | None:
    if isinstance(event, Finished):
        return event.result
    if isinstance(event, Output):
        return None
    from codeforge.model.cell_result import CellResult

    return event if isinstance(event, CellResult) else None
