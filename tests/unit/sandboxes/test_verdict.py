"""Verdicts: who decides how a run ended, and what a person is told of it."""

from __future__ import annotations

import itertools
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeforge.model.limits import (
    MAX_MEMORY_BYTES,
    MAX_TIMEOUT_S,
    MIN_MEMORY_BYTES,
    GiB,
    Limits,
    MiB,
    parse_memory,
)
from codeforge.model.result import Evidence, KillReason, Status
from codeforge.protocol.frames import Exited
from codeforge.sandboxes.verdict import ERROR_TAIL_CHARS, decide_run, explain_run

LIMITS = Limits()


def exited(code: int | None = None, signal: int | None = None, *, oom_kills: int = 0) -> Exited:
    return Exited(code, signal, cpu_s=0.5, memory_peak_bytes=4096, oom_kills=oom_kills, pids_refused=0)


def evidence(end: Exited | None, killed: KillReason | None = None, *, oom_event: bool = False) -> Evidence:
    return Evidence(exited=end, killed=killed, oom_event=oom_event)


ENDS = {
    "no report": None,
    "exit 0": exited(0),
    "exit 1": exited(1),
    "exit 137": exited(137),
    "SIGKILL": exited(signal=9),
    "SIGSEGV": exited(signal=11),
}
BY_ITSELF = {
    "no report": Status.KILLED,
    "exit 0": Status.OK,
    "exit 1": Status.ERROR,
    "exit 137": Status.ERROR,
    "SIGKILL": Status.KILLED,
    "SIGSEGV": Status.KILLED,
}
BY_HOST = {KillReason.DEADLINE: Status.TIMEOUT, KillReason.FLOOD: Status.OUTPUT_LIMIT}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("killed", [None, *KillReason])
@pytest.mark.parametrize("oom_event", [False, True])
def test_the_engine_decides_then_the_host_then_the_program(
    end: str, killed: KillReason | None, oom_event: bool
) -> None:
    expected = BY_ITSELF[end] if killed is None else BY_HOST[killed]
    if oom_event:
        expected = Status.OUT_OF_MEMORY
    assert decide_run(evidence(ENDS[end], killed, oom_event=oom_event)) is expected


@pytest.mark.parametrize("code", range(256))
def test_no_exit_code_looks_like_a_kill(code: int) -> None:
    assert decide_run(evidence(exited(code))) is (Status.OK if code == 0 else Status.ERROR)


def test_the_counter_inside_the_sandbox_alone_makes_no_out_of_memory() -> None:
    assert decide_run(evidence(exited(0, oom_kills=5))) is Status.OK
    assert decide_run(evidence(exited(signal=9, oom_kills=5))) is Status.KILLED


def test_success_needs_no_explanation() -> None:
    assert explain_run(Status.OK, evidence(exited(0)), LIMITS, "warnings") is None


def test_out_of_memory_is_told_in_the_documented_words_with_twice_the_memory() -> None:
    text = explain_run(Status.OUT_OF_MEMORY, evidence(exited(signal=9), oom_event=True), LIMITS, "stderr")
    assert text == "container killed (OOMKilled)\nThe memory limit was 512m; increase it: memory_limit='1g'"


@given(st.integers(MIN_MEMORY_BYTES, MAX_MEMORY_BYTES // 2))
def test_the_memory_that_is_advised_is_a_memory_limit_and_more(memory: int) -> None:
    text = explain_run(Status.OUT_OF_MEMORY, evidence(None), Limits(memory_bytes=memory), "")
    assert text is not None
    assert parse_memory(text.rpartition("memory_limit=")[2].strip("'")) == 2 * memory


@pytest.mark.parametrize("memory", [MAX_MEMORY_BYTES // 2 + 1, 768 * GiB, MAX_MEMORY_BYTES])
def test_no_memory_is_advised_that_would_be_refused(memory: int) -> None:
    text = explain_run(Status.OUT_OF_MEMORY, evidence(None), Limits(memory_bytes=memory), "")
    assert text is not None
    assert text.splitlines()[0] == "container killed (OOMKilled)"
    _, advice, more = text.partition("memory_limit=")
    assert not advice or memory <= parse_memory(more.strip("'")) <= MAX_MEMORY_BYTES


@pytest.mark.parametrize(
    ("timeout", "text"),
    [
        (30.0, "timed out after 30 s\nGive it longer: timeout=60"),
        (1, "timed out after 1 s\nGive it longer: timeout=2"),
        (0.25, "timed out after 0.25 s\nGive it longer: timeout=0.5"),
        (3600, "timed out after 3600 s\nGive it longer: timeout=7200"),
    ],
)
def test_a_timeout_is_told_with_its_seconds_and_twice_as_many(timeout: float, text: str) -> None:
    told = explain_run(
        Status.TIMEOUT, evidence(exited(signal=9), KillReason.DEADLINE), Limits(timeout_s=timeout), "x"
    )
    assert told == text


@pytest.mark.parametrize("timeout", [MAX_TIMEOUT_S / 2 + 1, MAX_TIMEOUT_S])
def test_no_timeout_is_advised_that_would_be_refused(timeout: float) -> None:
    told = explain_run(Status.TIMEOUT, evidence(None, KillReason.DEADLINE), Limits(timeout_s=timeout), "")
    assert told is not None
    _, advice, longer = told.partition("timeout=")
    assert not advice or Limits(timeout_s=float(longer))


def test_a_flood_is_told_with_how_much_was_too_much() -> None:
    told = explain_run(
        Status.OUTPUT_LIMIT, evidence(None, KillReason.FLOOD), Limits(output_bytes=MiB), "x" * 100
    )
    assert told == "ended: it wrote more than 64m to one stream"


@pytest.mark.parametrize(
    ("number", "name"),
    [(6, "SIGABRT"), (9, "SIGKILL"), (11, "SIGSEGV"), (15, "SIGTERM"), (31, "SIGSYS"), (50, "signal 50"), (0,
     "signal 0"),
     (255, "signal 255")],
)  # fmt: skip
def test_a_signal_is_told_by_its_name_where_it_has_one(number: int, name: str) -> None:
    assert explain_run(Status.KILLED, evidence(exited(signal=number)), LIMITS, "") == f"killed by {name}"


def test_every_signal_has_an_explanation() -> None:
    for number in signal.valid_signals():
        told = explain_run(Status.KILLED, evidence(exited(signal=int(number))), LIMITS, "")
        assert told is not None
        assert told.startswith("killed by ")


def test_an_end_that_nobody_reported_is_a_signal_nobody_knows() -> None:
    assert explain_run(Status.KILLED, evidence(None), LIMITS, "") == "killed by a signal"


@pytest.mark.parametrize(
    ("end", "status", "first"),
    [(exited(3), Status.ERROR, "exited with code 3"), (exited(signal=11), Status.KILLED,
     "killed by SIGSEGV")],
)  # fmt: skip
def test_what_stderr_said_last_is_quoted(end: Exited, status: Status, first: str) -> None:
    assert explain_run(status, evidence(end), LIMITS, "") == first
    assert explain_run(status, evidence(end), LIMITS, " \n ") == first
    assert explain_run(status, evidence(end), LIMITS, "Traceback\n  ...\nValueError\n") == (
        f"{first}:\nTraceback\n  ...\nValueError"
    )


@given(st.text(), st.integers(0, 3 * ERROR_TAIL_CHARS))
def test_of_a_long_stderr_only_the_end_is_quoted(end: str, padding: int) -> None:
    told = explain_run(Status.ERROR, evidence(exited(1)), LIMITS, "x" * padding + end)
    assert told is not None
    assert len(told) <= len("exited with code 1:\n") + ERROR_TAIL_CHARS
    assert told.endswith(end.strip()[-ERROR_TAIL_CHARS:])


def test_every_failure_has_an_explanation_whatever_is_known() -> None:
    for status, end, killed in itertools.product(
        set(Status) - {Status.OK}, ENDS.values(), [None, *KillReason]
    ):
        assert explain_run(status, evidence(end, killed), LIMITS, "stderr")
