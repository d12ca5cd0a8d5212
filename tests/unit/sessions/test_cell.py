"""A cell as the host sees it, in virtual time: what stops it and when, what is kept, and its result."""

from __future__ import annotations

import asyncio
import copy
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, strategies as st

from codeforge.model.cell_result import CellOutput, CellResult, CellStatus, MimeBundle
from codeforge.model.limits import KiB, Limits, MiB
from codeforge.protocol.session_frames import Ended
from codeforge.sandboxes.output_buffer import OutputBuffer
from codeforge.sessions import cell as cell_module
from codeforge.sessions.cell import INTERRUPT_GRACE_S, RESULTS_BYTES, Cell
from virtual_time import run, settle

LIMITS = Limits(timeout_s=10.0, output_bytes=100)


@dataclass
class CellUnderTest:
    """A cell, and what it did to its interpreter and when."""

    cell: Cell
    done: list[tuple[str, float]] = field(default_factory=list)

    def handle(self, **message: Any) -> None:
        self.cell.handle_message(message)

    def finish(self, value: object = None, error: object = None) -> None:
        self.handle(**{"is": "done"}, value=value, error=error)


@asynccontextmanager
async def running_cell(
    limits: Limits = LIMITS, unread: OutputBuffer | None = None
) -> AsyncIterator[CellUnderTest]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    done: list[tuple[str, float]] = []

    def note(what: str) -> Callable[[], object]:
        return lambda: done.append((what, loop.time() - began))

    unread = unread or OutputBuffer(KiB)
    cell = Cell(7, limits, unread, oom_kills=2, interrupt=note("interrupt"), kill=note("kill"))
    yield CellUnderTest(cell, done)


def plain(text: str) -> dict[str, object]:
    return {"data": {"text/plain": text}, "metadata": {}}


def test_a_cell_runs_to_its_end() -> None:
    async def scenario() -> CellResult:
        async with running_cell() as it:
            it.handle(**{"is": "begun"})
            it.cell.take_output("stdout", b"out")
            it.cell.take_output("stderr", b"err")
            it.handle(**{"is": "display"}, **plain("shown"))
            it.finish(plain("value"))
            await asyncio.sleep(100)
            assert it.done == []
            return it.cell.result(oom=False)

    result = run(scenario())
    assert (result.status, result.stdout, result.stderr) == (CellStatus.OK, "out", "err")
    assert (result.value, [bundle.text for bundle in result.results]) == ("value", ["shown", "value"])
    assert result.success
    assert result.alive
    assert result.error is None


@pytest.mark.parametrize("gives_in", [True, False])
def test_a_deadline_interrupts_the_cell_and_then_kills_the_interpreter(gives_in: bool) -> None:
    async def scenario() -> tuple[CellResult, list[tuple[str, float]]]:
        async with running_cell() as it:
            it.handle(**{"is": "begun"})
            await asyncio.sleep(LIMITS.timeout_s + 1)
            assert it.done == [("interrupt", 10.0)]
            if gives_in:
                it.finish(error={"name": "KeyboardInterrupt", "value": "", "traceback": ["line"]})
            await asyncio.sleep(INTERRUPT_GRACE_S)
            if not gives_in:
                it.cell.interpreter_ended(Ended(0, None, 9, 0, 0))
            await asyncio.sleep(100)
            return it.cell.result(oom=False), it.done

    result, done = run(scenario())
    assert result.status is CellStatus.TIMEOUT
    assert result.alive is gives_in
    assert result.error is not None
    assert result.error.name == "TimeoutError"
    assert result.error.traceback == (("line",) if gives_in else ())
    assert ("restart()" in result.error.value) is not gives_in
    assert done == [("interrupt", 10.0)] + ([] if gives_in else [("kill", 10.0 + INTERRUPT_GRACE_S)])


def test_a_cell_that_has_not_begun_is_interrupted_once_it_begins() -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            it.cell.interrupt(then_kill=False)
            await asyncio.sleep(1)
            assert it.done == []
            it.handle(**{"is": "begun"})
            assert it.done == [("interrupt", 1.0)]
            it.finish(error={"name": "KeyboardInterrupt", "value": "", "traceback": []})
            assert it.cell.result(oom=False).status is CellStatus.INTERRUPTED

    run(scenario())


def test_a_cell_that_never_begins_is_killed() -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            await asyncio.sleep(100)
            assert it.done == [("kill", 10.0 + INTERRUPT_GRACE_S)]

    run(scenario())


def test_a_cell_that_ignores_an_interrupt_runs_to_its_deadline() -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            it.handle(**{"is": "begun"})
            it.cell.interrupt(then_kill=False)
            await asyncio.sleep(9)
            assert it.done == [("interrupt", 0.0)]
            await asyncio.sleep(9)
            assert it.done[1:] == [("interrupt", 10.0), ("kill", 12.0)]
            it.cell.interpreter_ended(Ended(0, None, 9, 0, 0))
            assert it.cell.result(oom=False).status is CellStatus.TIMEOUT

    run(scenario())


def test_a_cell_that_handles_an_interrupt_ends_ok() -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            it.handle(**{"is": "begun"})
            it.cell.interrupt(then_kill=False)
            it.finish(plain("5"))
            it.cell.interrupt(then_kill=True)
            await asyncio.sleep(100)
            assert it.done == [("interrupt", 0.0)]
            assert it.cell.result(oom=False).status is CellStatus.OK

    run(scenario())


def test_a_flood_stops_the_cell_once() -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            it.handle(**{"is": "begun"})
            piece = bytes(MiB)
            for _ in range(LIMITS.flood_bytes // MiB + 20):
                it.cell.take_output("stdout", piece)
            assert [what for what, _ in it.done] == ["interrupt"]
            await asyncio.sleep(INTERRUPT_GRACE_S)
            assert [what for what, _ in it.done] == ["interrupt", "kill"]
            it.cell.interpreter_ended(Ended(0, None, 9, 0, 0))
            result = it.cell.result(oom=False)
            assert (result.status, len(result.stdout), result.truncated) == (
                CellStatus.OUTPUT_LIMIT,
                100,
                True,
            )

    run(scenario())


def test_a_flood_after_the_deadline_interrupts_at_most_once_more() -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            it.handle(**{"is": "begun"})
            await asyncio.sleep(10.5)
            for _ in range(LIMITS.flood_bytes // MiB + 20):
                it.cell.take_output("stdout", bytes(MiB))
            assert [what for what, _ in it.done].count("interrupt") <= 2
            it.cell.interpreter_ended(Ended(0, None, 9, 0, 0))
            assert it.cell.result(oom=False).status is CellStatus.TIMEOUT

    run(scenario())


@pytest.mark.parametrize(
    ("ended", "oom", "status", "word"),
    [
        (Ended(0, 3, None, 0, 0), False, CellStatus.ENDED, "exit code 3"),
        (Ended(0, None, 11, 0, 0), False, CellStatus.ENDED, "signal 11"),
        (Ended(0, None, 9, 1, 0), True, CellStatus.OUT_OF_MEMORY, "memory_limit"),
        (None, True, CellStatus.OUT_OF_MEMORY, "memory_limit"),
    ],
)
def test_the_interpreter_ends_during_the_cell(
    ended: Ended | None, oom: bool, status: CellStatus, word: str
) -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            it.cell.take_output("stdout", b"last")
            it.cell.interpreter_ended(ended)
            await it.cell.wait_until_over()
            it.finish(plain("late"))
            it.cell.interpreter_ended(Ended(0, 0, None, 0, 0))
            result = it.cell.result(oom=oom)
            assert (result.status, result.alive, result.stdout, result.value) == (status, False, "last", None)
            assert result.error is not None
            assert word in result.error.value
            assert "restart()" in result.error.value
            await asyncio.sleep(100)
            assert it.done == []

    run(scenario())


def test_unread_output_belongs_to_the_next_cell() -> None:
    async def scenario() -> None:
        for cut in (False, True):
            unread = OutputBuffer(7)
            unread.add("stdout", b"before\n" + b"dropped" * cut)
            unread.add("stderr", b"too")
            async with running_cell(unread=unread) as it:
                it.cell.take_output("stdout", b"now")
                it.finish()
                result = it.cell.result(oom=False)
                assert (result.stdout, result.stderr) == ("before\nnow", "too")
                assert result.truncated is cut

    run(scenario())


def test_characters_that_come_in_pieces_are_put_together() -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            for byte in "é€😀".encode():
                it.cell.take_output("stdout", bytes([byte]))
            it.cell.take_output("stderr", b"\xf0\x9f")
            it.finish()
            result = it.cell.result(oom=False)
            assert (result.stdout, result.stderr) == ("é€😀", "\ufffd")
            events = [event async for event in it.cell.events()]
            assert (
                "".join(e.text for e in events if isinstance(e, CellOutput) and e.stream == "stdout")
                == "é€😀"
            )

    run(scenario())


def test_displays_are_kept_up_to_their_limit() -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            for _ in range(40):
                it.handle(**{"is": "display"}, **plain("x" * MiB))
            it.finish(plain("value"))
            result = it.cell.result(oom=False)
            assert 30 <= len(result.results) <= 32
            assert sum(len(bundle.text or "") for bundle in result.results) <= RESULTS_BYTES
            assert result.truncated

    run(scenario())


SMALL: dict[str, dict[str, object]] = {
    "nothing": {},
    "empty lists": {"application/json": [[]] * 1000},
    "an empty text": {"": ""},
}


@pytest.mark.parametrize("data", SMALL.values(), ids=SMALL)
def test_bundles_with_little_content_count_for_the_memory_they_take(
    data: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 512 * KiB
    monkeypatch.setattr(cell_module, "RESULTS_BYTES", bound)

    async def scenario() -> None:
        async with running_cell() as it:
            taken = 0
            tracemalloc.start()
            while not it.cell._truncated and taken < 4 * bound:
                it.handle(**{"is": "display"}, data=copy.deepcopy(data))
                taken, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            it.finish()
            assert taken < 4 * bound
            assert it.cell.result(oom=False).truncated

    run(scenario())


def test_json_that_is_nested_too_deep_is_dropped() -> None:
    def nested(depth: int) -> object:
        inner: object = 1
        for n in range(depth):
            inner = [inner] if n % 2 else {"x": inner}
        return inner

    async def scenario() -> None:
        async with running_cell() as it:
            for depth in (64, 65, 900):
                it.handle(**{"is": "display"}, data={"application/json": nested(depth), "text/plain": "x"})
            it.finish()
            result = it.cell.result(oom=False)
            assert [bundle.data["application/json"] is None for bundle in result.results] == [
                False,
                True,
                True,
            ]
            assert json.loads(json.dumps(result.to_dict()))

    run(scenario())


@pytest.mark.parametrize(
    ("ended", "may_be"),
    [
        (Ended(0, None, 9, 3, 0), True),
        (Ended(0, None, 9, 2, 0), False),  # SIGKILL, but no out-of-memory kill since the cell began
        (Ended(0, 3, None, 3, 0), False),  # the kernel killed a child process
        (Ended(0, None, 11, 3, 0), False),
    ],
)
def test_out_of_memory_needs_a_sigkill_and_a_new_out_of_memory_kill(ended: Ended, may_be: bool) -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            assert not it.cell.may_be_out_of_memory
            it.cell.interpreter_ended(ended)
            assert it.cell.may_be_out_of_memory is may_be

    run(scenario())


def test_events_come_as_they_happen_until_the_cell_ends() -> None:
    async def scenario() -> None:
        async with running_cell() as it:
            events: list[object] = []

            async def listen() -> None:
                async for event in it.cell.events():
                    events.append(event)

            listener = asyncio.create_task(listen())
            it.cell.take_output("stdout", b"a")
            await settle()
            assert events == [CellOutput("stdout", "a")]
            it.handle(**{"is": "display"}, **plain("shown"))
            await settle()
            assert isinstance(events[1], MimeBundle)
            it.cell.interpreter_ended(None)
            await listener

    run(scenario())


ERROR_KEYS = st.sampled_from(["name", "value", "traceback"])
ODD = st.none() | st.integers() | st.text(max_size=5)
MESSAGES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "is": st.sampled_from(["begun", "display", "done", "ready", 5, None, []]),
        "value": st.none() | st.integers() | st.builds(plain, st.text(max_size=5)) | st.just({"data": 5}),
        "error": st.none() | st.integers() | st.dictionaries(ERROR_KEYS, ODD | st.lists(ODD, max_size=2)),
        "data": st.none() | st.dictionaries(st.text(max_size=5), ODD, max_size=3),
        "metadata": st.none() | st.integers(),
    },
)


@given(messages=st.lists(MESSAGES, max_size=20), ends=st.booleans())
def test_the_result_is_well_formed_whatever_the_interpreter_says(
    messages: list[dict[str, Any]], ends: bool
) -> None:
    async def scenario() -> CellResult:
        async with running_cell() as it:
            for message in messages:
                it.cell.handle_message(message)
            if ends or not it.cell.is_over:
                it.cell.interpreter_ended(Ended(0, 0, None, 0, 0))
            return it.cell.result(oom=False)

    result = run(scenario())
    json.dumps(result.to_dict(), allow_nan=False)
    assert isinstance(result.status, CellStatus)
    assert result.value is None or isinstance(result.value, str)
    assert result.error is None or isinstance(str(result.error), str)
