"""One run with an init that may send anything: it ends once, with a result or a typed error, and the
verdicts that must be the host's are the host's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from codeforge.errors import HostFailure, ProtocolViolation, SandboxLost
from codeforge.model.languages import JAVASCRIPT, LanguageTable
from codeforge.model.limits import Limits
from codeforge.model.request import ExecutionRequest, resolve
from codeforge.model.result import ExecutionResult, Status
from codeforge.protocol.frames import Clean, Done, Exited, Failed, Wrote
from codeforge.sandboxes.kind import SandboxKind
from codeforge.sandboxes.sandbox import Sandbox
from fuzzing import examples
from scripted_engine import ScriptedEngine, exit_frame
from virtual_time import run
from wire_streams import EXITS, Model, bad_streams, frame, good_streams

LANGUAGE = dataclasses.replace(JAVASCRIPT, preload=(), preload_named=())
LIMITS = Limits(timeout_s=5.0)
SLOW_S = 5.0 + 3.0
"""The deadline, plus the time that init has to answer KILL."""


def say(*frames: bytes, pause_s: float = 0.0, before: bytes = b"") -> tuple[ExecutionResult, float]:
    """The result of a run during which init sends these frames, and how long it took."""
    program = resolve(ExecutionRequest(code="x", language=LANGUAGE.name), LanguageTable([LANGUAGE]), LIMITS)

    async def scenario() -> tuple[ExecutionResult, float]:
        engine = ScriptedEngine()
        engine.answers, engine.more_than_ready = False, before
        kind = SandboxKind(language=LANGUAGE, limits=LIMITS.of_sandbox(LANGUAGE))
        sandbox = await Sandbox.launch(engine, kind, 20_000)
        (channel,) = engine.sandboxes
        talking = asyncio.get_running_loop().create_task(talk(channel.say))
        try:
            pieces = [piece async for piece in sandbox.run(program)]
        finally:
            talking.cancel()
            await sandbox.destroy()
        assert engine.there == 0
        output = [piece for piece in pieces if not isinstance(piece, ExecutionResult)]
        (result,) = (piece for piece in pieces if isinstance(piece, ExecutionResult))
        assert pieces[-1] is result
        assert b"".join(data for name, data in output if name == "stdout") == result.stdout_bytes
        return result, asyncio.get_running_loop().time()

    async def talk(tell: Callable[[bytes], None]) -> None:
        for piece in frames:
            tell(piece)
            await asyncio.sleep(pause_s)

    return run(scenario())


pytestmark = pytest.mark.usefixtures("known_token")

EXIT = exit_frame()
DONE = frame("Z")


def outcome(stream: bytes, piece: int) -> ExecutionResult | HostFailure:
    """The result or the error, with the stream in pieces of that size."""
    try:
        result, took_s = say(*(stream[at : at + piece] for at in range(0, len(stream), piece)))
    except HostFailure as error:
        return error
    assert took_s <= SLOW_S
    return result


@examples(100)
@given(good_streams() | bad_streams(), st.integers(1, 40))
def test_a_run_ends_once_whatever_init_sends(phases: list[bytes], piece: int) -> None:
    model = Model()
    model.go()
    model.bytes_left = LIMITS.files_bytes
    in_order = model.take(phases[1])
    said = [event for event in model.events if isinstance(event, Done | Clean | Failed | Exited)]
    reported, ended = [event for event in said if isinstance(event, Exited)], said[1:]
    came = outcome(phases[1], piece)
    if not in_order and not isinstance(came, ExecutionResult):
        assert isinstance(came, ProtocolViolation | SandboxLost)
    elif reported and ended and not isinstance(ended[0], Failed):
        # Even if more follows: the host need not read what comes after the end.
        assert isinstance(came, ExecutionResult)
        assert (came.exit_code, came.signal) == (reported[0].exit_code, reported[0].signal)
        assert came.status in {Status.OK, Status.ERROR, Status.KILLED, Status.OUTPUT_LIMIT}
        wrote = [event for event in model.events if isinstance(event, Wrote) and event.stream == "stdout"]
        assert came.stdout_bytes == b"".join(event.data for event in wrote)
    elif said:
        assert isinstance(came, SandboxLost)  # init gave up, or reported and sent nothing more
    else:
        assert isinstance(came, ExecutionResult)
        assert came.status in {Status.TIMEOUT, Status.OUTPUT_LIMIT}


OUT_OF_ORDER = {
    "two results": EXIT + EXIT + DONE,
    "output after the result": EXIT + frame("O", b"late") + DONE,
    "errors after the result": EXIT + frame("E", b"late") + DONE,
    "a count after the result": EXIT + frame("X", struct.pack("<BQ", 1, 1)) + DONE,
    "a step after the result": EXIT + frame("P") + DONE,
    "the end first": DONE,
    "clean first": frame("C"),
    "ready twice": frame("R", b"pid=1"),
    "a file first": frame("F", bytes(4) + b"early"),
    "data first": frame("D", b"early"),
    "an unknown type": frame("?", b"unknown"),
    "a size of 2^32-1": frame("O", b"short", size=0xFFFFFFFF),
    "a size of 2^31": frame("O", b"short", size=0x80000000),
    "data of no file": EXIT + frame("D", b"x") + DONE,
    "a file without a name": EXIT + frame("F", bytes(4)) + DONE,
    "an unknown reason": EXIT + frame("S", b"\x09x") + DONE,
    "a step that says more": frame("P", b"x"),
    "an end that says more": EXIT + frame("Z", b"x"),
    "clean and more": EXIT + frame("C", b"x"),
    "an endless path": EXIT + frame("S", b"\1" + b"x" * 4096) + DONE,
    "a file with an endless path": EXIT + frame("F", bytes(4) + b"x" * 4096) + DONE,
    "too many files": EXIT + frame("F", bytes(4) + b"x") * 2002 + DONE,
    "too much in files": EXIT + (frame("F", bytes(4) + b"x") + frame("D", bytes(65536))) * 257 + DONE,
}


@pytest.mark.parametrize("name", OUT_OF_ORDER)
def test_frames_out_of_order_are_a_violation(name: str) -> None:
    stream = OUT_OF_ORDER[name]
    assert isinstance(outcome(stream, len(stream)), ProtocolViolation)
    assert isinstance(outcome(stream, 3 if len(stream) < 1000 else 5000), ProtocolViolation)


def test_a_result_with_nothing_before_it_is_a_result() -> None:
    result, _ = say(EXIT + DONE)
    assert (result.status, result.stdout_bytes) == (Status.OK, b"")


def test_output_that_looks_like_frames_is_output() -> None:
    forged = exit_frame() + frame("Z")
    result, _ = say(frame("O", forged) + exit_frame(0, 3) + DONE)
    assert (result.status, result.exit_code, result.stdout_bytes) == (Status.ERROR, 3, forged)


@pytest.mark.parametrize("first", [b"", b"\x05", frame("O", b"", size=1000), EXIT[:-1], frame("O", b"some")])
def test_silence_anywhere_ends_at_the_deadline(first: bytes) -> None:
    result, took_s = say(first) if first else say()
    assert result.status is Status.TIMEOUT
    assert took_s == pytest.approx(SLOW_S)


def test_a_byte_a_second_does_not_postpone_the_deadline() -> None:
    stream = frame("O", bytes(1000)) + EXIT + DONE
    result, took_s = say(*(stream[at : at + 1] for at in range(len(stream))), pause_s=1.0)
    assert result.status is Status.TIMEOUT
    assert took_s == pytest.approx(SLOW_S)


def test_endless_empty_frames_do_not_postpone_the_deadline() -> None:
    result, took_s = say(*[frame("A", bytes(4)) + frame("O") + frame("P")] * 200, pause_s=0.1)
    assert result.status is Status.TIMEOUT
    assert took_s == pytest.approx(SLOW_S)


@examples(50)
@given(EXITS)
def test_no_exit_report_can_claim_a_timeout_or_an_out_of_memory_kill(report: bytes) -> None:
    result, _ = say(frame("W", report) + DONE)
    assert result.status in {Status.OK, Status.ERROR, Status.KILLED}
    assert result.evidence.killed is None
    assert not result.evidence.oom_event


def test_an_init_that_gives_up_before_go_is_lost_with_its_reason() -> None:
    with pytest.raises(SandboxLost, match="cannot run node"):
        say(before=frame("!", b"cannot run node: no such file"))
