"""If an attacker took over init, the host would refuse what it sends, and only its own run would fail."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import tracemalloc

import pytest

from codeforge.errors import HostFailure, ProtocolViolation, SandboxLost
from codeforge.model.languages import JAVASCRIPT, LanguageTable
from codeforge.model.limits import Limits
from codeforge.model.request import ExecutionRequest, resolve
from codeforge.model.result import ExecutionResult, KillReason, Status
from codeforge.sandboxes.kind import SandboxKind
from codeforge.sandboxes.pool import Pool
from scripted_engine import KNOWN_TOKEN, ScriptedEngine, exit_frame, frame
from virtual_time import run

pytestmark = pytest.mark.usefixtures("known_token")

TIMEOUT_S = 5.0
KIND = SandboxKind(language=JAVASCRIPT, limits=Limits().of_sandbox(JAVASCRIPT))
REQUEST = ExecutionRequest(code="program", language="javascript", timeout=TIMEOUT_S)

EXIT = exit_frame()
DONE = frame("Z")
FILE = frame("F", bytes(4) + b"name")
LARGEST = 2**64 - 1


def header(size: int, kind: str) -> bytes:
    return struct.pack("<IB", size, ord(kind))


def outcome(*said: bytes, every_s: float = 0.0, ended: bool = False) -> ExecutionResult | HostFailure:
    """What a caller gets from an init that sends this after GO; the next run must succeed elsewhere."""

    async def scenario() -> ExecutionResult | HostFailure:
        engine = ScriptedEngine()
        engine.answers = False
        pool = Pool(engine, max_sandboxes=1, max_warm=0)
        try:
            speaking = asyncio.create_task(_speak(engine, said, every_s, ended))
            hostile = await _outcome(pool)
            speaking.cancel()
            engine.answers = True
            after = await _outcome(pool)
        finally:
            await pool.close()
        assert isinstance(after, ExecutionResult)
        assert (after.status, after.stdout) == (Status.OK, "program")
        first, second = engine.sandboxes
        assert first.gone
        assert first.id != second.id
        return hostile

    return run(scenario())


async def _speak(engine: ScriptedEngine, said: tuple[bytes, ...], every_s: float, ended: bool) -> None:
    await asyncio.sleep(0.01)  # of virtual time: after GO
    (channel,) = engine.sandboxes
    assert channel.programs
    for data in said:
        channel.say(data)
        await asyncio.sleep(every_s)
    if ended:
        channel.break_off()


async def _outcome(pool: Pool) -> ExecutionResult | HostFailure:
    program = resolve(REQUEST, LanguageTable(), Limits())
    try:
        async with pool.lease(KIND) as sandbox, contextlib.aclosing(sandbox.run(program)) as pieces:
            async for piece in pieces:
                if isinstance(piece, ExecutionResult):
                    return piece
    except HostFailure as failure:
        return failure
    raise AssertionError("neither a result nor a failure")


LENGTHS = {
    "4 GiB": header(0xFFFFFFFF, "O"),
    "2 GiB": header(0x80000000, "O"),
    "one too many": header(65537, "O"),
    "of an exit": header(0x7FFFFFFF, "W"),
    "of nothing known": header(0x10000000, "?"),
}


@pytest.mark.catalogue("X06")
@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_is_too_large_is_refused_before_memory_is_allocated(length: str) -> None:
    tracemalloc.start()
    try:
        failure = outcome(LENGTHS[length], *[b"x" * 65536] * 10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(failure, ProtocolViolation)
    assert peak < 16 << 20


@pytest.mark.catalogue("X06")
def test_empty_frames_add_no_output() -> None:
    result = outcome(header(0, "O") * 100_000, header(0, "E") * 100_000, EXIT + DONE)
    assert isinstance(result, ExecutionResult)
    assert (result.status, result.stdout_bytes, result.stderr_bytes) == (Status.OK, b"", b"")


@pytest.mark.catalogue("X06")
def test_the_host_truncates_output_that_init_did_not() -> None:
    result = outcome(*[frame("O", b"x" * 65536)] * 100, EXIT + DONE)
    assert isinstance(result, ExecutionResult)
    assert (len(result.stdout_bytes), result.truncated) == (1 << 20, True)
    assert result.evidence.stdout_bytes == 100 * 65536


@pytest.mark.catalogue("X06")
def test_the_largest_count_of_dropped_bytes_is_a_flood() -> None:
    result = outcome(frame("X", struct.pack("<BQ", 1, LARGEST)))
    assert isinstance(result, ExecutionResult)
    assert (result.status, result.evidence.killed) == (Status.OUTPUT_LIMIT, KillReason.FLOOD)
    assert result.evidence.exited is None


@pytest.mark.catalogue("X06")
def test_the_largest_counts_in_an_exit_frame_change_no_verdict() -> None:
    report = exit_frame(0, 0, LARGEST, LARGEST, LARGEST, 2**32 - 1, 2**32 - 1)
    result = outcome(frame("A", struct.pack("<I", 2**32 - 1)), report + DONE)
    assert isinstance(result, ExecutionResult)
    assert (result.status, result.evidence.oom_event) == (Status.OK, False)
    assert result.execution_time < TIMEOUT_S


SILENCES = {
    "nothing": (),
    "a header": (header(1000, "O"),),
    "half a header": (b"\x01\x00",),
    "half a frame": (header(1000, "O") + b"x" * 10,),
}


@pytest.mark.catalogue("X07")
@pytest.mark.parametrize("said", SILENCES)
def test_silence_ends_at_the_deadline(said: str) -> None:
    result = outcome(*SILENCES[said])
    assert isinstance(result, ExecutionResult)
    assert (result.status, result.evidence.killed) == (Status.TIMEOUT, KillReason.DEADLINE)
    assert result.evidence.exited is None


@pytest.mark.catalogue("X07")
def test_one_byte_at_a_time_does_not_postpone_the_deadline() -> None:
    whole = frame("O", b"x" * 1000)
    result = outcome(*(whole[i : i + 1] for i in range(len(whole))), every_s=1.0)
    assert isinstance(result, ExecutionResult)
    assert (result.status, result.stdout) == (Status.TIMEOUT, "")


@pytest.mark.catalogue("X07")
def test_an_exit_frame_without_a_done_frame_is_no_result() -> None:
    assert isinstance(outcome(EXIT), SandboxLost)


OUT_OF_LINE = {
    "ready again": frame("R", b"pid=1\n"),
    "an unknown type": frame("?"),
    "a type that is no letter": header(0, "\0"),
    "a file before the end": FILE,
    "a file without a name": EXIT + frame("F", bytes(4)),
    "data without a file": EXIT + frame("D", b"x"),
    "done before the end": DONE,
    "clean before the end": frame("C"),
    "output after the end": EXIT + frame("O", b"x"),
    "two ends": EXIT + EXIT,
    "a short end": frame("W", bytes(33) + KNOWN_TOKEN),
    "a long end": frame("W", bytes(35) + KNOWN_TOKEN),
    "an end with another token": exit_frame(token=bytes(len(KNOWN_TOKEN))),
    "an end without a token": exit_frame(token=b""),
    "an unknown stream": frame("X", struct.pack("<BQ", 3, 1)),
    "an unknown reason": EXIT + frame("S", b"\x09name"),
    "a frame of the host's": frame("g", b"\0"),
    "what is no frame": b"HTTP/1.1 200 OK\r\n\r\n" * 100,
}


@pytest.mark.catalogue("X09")
@pytest.mark.parametrize("said", OUT_OF_LINE)
def test_an_unexpected_frame_is_a_protocol_violation(said: str) -> None:
    assert isinstance(outcome(OUT_OF_LINE[said] + EXIT + DONE), ProtocolViolation)


@pytest.mark.catalogue("X09")
def test_frames_after_the_end_are_ignored() -> None:
    result = outcome(EXIT + DONE, EXIT, frame("O", b"late"))
    assert isinstance(result, ExecutionResult)
    assert (result.status, result.stdout) == (Status.OK, "")


@pytest.mark.catalogue("X09")
@pytest.mark.parametrize("said", [b"", frame("O", b"x"), EXIT, EXIT + FILE], ids=lambda said: repr(said[:10]))
def test_a_stream_that_ends_before_the_done_frame_is_no_result(said: bytes) -> None:
    assert isinstance(outcome(said, ended=True), SandboxLost)


NAMES = (
    b"../up",
    b"/etc/passwd",
    b"a/../../b",
    b"a\nb",
    b"\xff\xfe",
    b"a" * 4095,
    b".",
    b"a//b",
    b"\x00",
)


@pytest.mark.catalogue("X09", "F07")
@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
def test_a_file_with_an_unusable_name_is_skipped(name: bytes) -> None:
    came = outcome(EXIT + frame("F", bytes(4) + name) + frame("D", b"x") + DONE)
    assert isinstance(came, ExecutionResult)
    assert (dict(came.files), list(came.files_skipped.values())) == ({}, ["unusable_name"])


@pytest.mark.catalogue("X08")
@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[2J\x00", b"x" * 65536], ids=lambda said: repr(said[:10])
)
def test_a_failure_frame_may_hold_any_bytes(text: bytes) -> None:
    failure = outcome(frame("!", text))
    assert isinstance(failure, SandboxLost)
    assert str(failure).encode()
