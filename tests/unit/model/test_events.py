"""Events: each reaches the listener it is for, and the last one is the result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from codeforge.errors import ExecutorClosed
from codeforge.model import (
    CellOutput,
    CellResult,
    CellStatus,
    ExecutionResult,
    Finished,
    MimeBundle,
    Output,
    OutputDecoder,
    Status,
    call_listener,
    result_of,
    wait_for_result,
)

RESULT = ExecutionResult(status=Status.OK, exit_code=0)
CELL_RESULT = CellResult(status=CellStatus.OK)
BUNDLE = MimeBundle({"text/plain": "shown"})


def wait_async(events: Sequence[Any], on_event: Callable[[Any], object]) -> Any:
    async def generate() -> AsyncGenerator[Any, None]:
        for event in events:
            yield event

    return asyncio.run(result_of(generate(), on_event))


def wait_blocking(events: Sequence[Any], on_event: Callable[[Any], object]) -> Any:
    return wait_for_result((event for event in events), on_event)


@pytest.fixture(params=[wait_async, wait_blocking], ids=["async", "blocking"])
def wait(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_last_event_of_a_run_carries_its_result(wait: Any) -> None:
    seen: list[object] = []
    pieces = [Output("stdout", "a", b"a"), Output("stderr", "b", b"b")]
    assert wait([*pieces, Finished(RESULT)], seen.append) is RESULT
    assert seen == pieces


def test_the_last_event_of_a_cell_is_its_result(wait: Any) -> None:
    seen: list[object] = []
    pieces = [CellOutput("stdout", "a"), BUNDLE]
    assert wait([*pieces, CELL_RESULT], seen.append) is CELL_RESULT
    assert seen == pieces


def test_events_without_a_result_mean_that_the_executor_was_closed(wait: Any) -> None:
    with pytest.raises(ExecutorClosed, match="the executor was closed during the run"):
        wait([Output("stdout", "a", b"a")], lambda event: None)


def test_what_a_listener_raises_reaches_the_caller_and_closes_the_events() -> None:
    closed: list[bool] = []

    def events() -> Generator[Any, None, None]:
        try:
            yield Output("stdout", "a", b"a")
            yield Finished(RESULT)
        finally:
            closed.append(True)

    def fail(event: object) -> None:
        raise LookupError

    with pytest.raises(LookupError) as caught:
        wait_for_result(events(), fail)
    assert closed == [True]
    assert caught.tb is not None  # the frames in it hold the generator: it was closed, not collected


def heard(event: Any) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    names = ("stdout", "stderr", "display")
    call_listener(event, *(lambda value, name=name: found.append((name, value)) for name in names))
    call_listener(event, None, None, None)
    return found


def test_an_event_reaches_the_listener_it_is_for_and_no_other() -> None:
    assert heard(Output("stdout", "a", b"a")) == [("stdout", "a")]
    assert heard(Output("stderr", "b", b"b")) == [("stderr", "b")]
    assert heard(CellOutput("stdout", "c")) == [("stdout", "c")]
    assert heard(CellOutput("stderr", "d")) == [("stderr", "d")]
    assert heard(BUNDLE) == [("display", BUNDLE)]


def test_a_piece_without_a_whole_character_calls_nobody() -> None:
    assert heard(Output("stdout", "", b"\xc3")) == []


@given(st.text(), st.integers(1, 5))
def test_a_character_is_never_split_between_two_events(text: str, size: int) -> None:
    data = text.encode(errors="replace")
    decoder = OutputDecoder()
    pieces = [decoder.decode("stdout", data[i : i + size]) for i in range(0, len(data), size)]
    assert "".join(piece.text for piece in pieces) == data.decode()
    assert b"".join(piece.data for piece in pieces) == data
    assert list(decoder.finish()) == []


def test_a_character_that_never_ends_is_replaced_at_the_end() -> None:
    decoder = OutputDecoder()
    assert decoder.decode("stderr", b"a\xc3").text == "a"
    assert list(decoder.finish()) == [Output("stderr", "\ufffd", b"")]
