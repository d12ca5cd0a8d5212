"""Verdicts: what decides how a run or a cell ended, and what people are text."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

from codeforge.model.cell_result import CellError, CellEvidence, CellStatus
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
from codeforge.protocol.session_frames import Ended
from codeforge.sandboxes.verdict import (
    ERROR_TAIL_CHARS,
    decide_cell,
    decide_run,
    explain_cell,
    explain_run,
)

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
def test_the_engine_decides_first_then_the_host_then_the_program(
    end: str, killed: KillReason | None, oom_event: bool
) -> None:
    expected = BY_ITSELF[end] if killed is None else BY_HOST[killed]
    if oom_event:
        expected = Status.OUT_OF_MEMORY
    assert decide_run(evidence(ENDS[end], killed, oom_event=oom_event)) is expected


@pytest.mark.parametrize("code", range(256))
def test_no_exit_code_is_taken_for_a_kill(code: int) -> None:
    assert decide_run(evidence(exited(code))) is (Status.OK if code == 0 else Status.ERROR)


def test_the_counter_inside_the_sandbox_is_no_proof_of_out_of_memory() -> None:
    assert decide_run(evidence(exited(0, oom_kills=5))) is Status.OK
    assert decide_run(evidence(exited(signal=9, oom_kills=5))) is Status.KILLED


def test_success_has_no_explanation() -> None:
    assert explain_run(Status.OK, evidence(exited(0)), LIMITS, "warnings") is None


def test_out_of_memory_has_the_documented_text_and_suggests_twice_the_memory() -> None:
    text = explain_run(Status.OUT_OF_MEMORY, evidence(exited(signal=9), oom_event=True), LIMITS, "stderr")
    assert text == "container killed (OOMKilled)\nThe memory limit was 512m; increase it: memory_limit='1g'"


@given(st.integers(MIN_MEMORY_BYTES, MAX_MEMORY_BYTES // 2))
def test_the_suggested_memory_is_a_valid_memory_limit_twice_as_large(memory: int) -> None:
    text = explain_run(Status.OUT_OF_MEMORY, evidence(None), Limits(memory_bytes=memory), "")
    assert text is not None
    assert parse_memory(text.rpartition("memory_limit=")[2].strip("'")) == 2 * memory


@pytest.mark.parametrize("memory", [MAX_MEMORY_BYTES // 2 + 1, 768 * GiB, MAX_MEMORY_BYTES])
def test_no_suggested_memory_would_be_refused(memory: int) -> None:
    text = explain_run(Status.OUT_OF_MEMORY, evidence(None), Limits(memory_bytes=memory), "")
    assert text is not None
    assert text.splitlines()[0] == "container killed (OOMKilled)"
    _, advice, more = text.partition("memory_limit=")
    assert not advice or memory <= parse_memory(more.strip("'")) <= MAX_MEMORY_BYTES


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (30.0, "timed out after 30 s\nGive it longer: timeout=60"),
        (1, "timed out after 1 s\nGive it longer: timeout=2"),
        (0.25, "timed out after 0.25 s\nGive it longer: timeout=0.5"),
        (3600, "timed out after 3600 s\nGive it longer: timeout=7200"),
    ],
)
def test_a_timeout_names_its_seconds_and_suggests_twice_as_many(timeout: float, expected: str) -> None:
    text = explain_run(
        Status.TIMEOUT, evidence(exited(signal=9), KillReason.DEADLINE), Limits(timeout_s=timeout), "x"
    )
    assert text == expected


@pytest.mark.parametrize("timeout", [MAX_TIMEOUT_S / 2 + 1, MAX_TIMEOUT_S])
def test_no_suggested_timeout_would_be_refused(timeout: float) -> None:
    text = explain_run(Status.TIMEOUT, evidence(None, KillReason.DEADLINE), Limits(timeout_s=timeout), "")
    assert text is not None
    _, advice, longer = text.partition("timeout=")
    assert not advice or Limits(timeout_s=float(longer))


def test_a_flood_names_the_limit() -> None:
    text = explain_run(
        Status.OUTPUT_LIMIT, evidence(None, KillReason.FLOOD), Limits(output_bytes=MiB), "x" * 100
    )
    assert text == "ended: it wrote more than 64m to one stream"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (6, "SIGABRT"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (15, "SIGTERM"),
        (31, "SIGSYS"),
        (50, "signal 50"),
        (0, "signal 0"),
        (255, "signal 255"),
    ],
)
def test_a_signal_is_named_if_it_has_a_name(number: int, name: str) -> None:
    assert explain_run(Status.KILLED, evidence(exited(signal=number)), LIMITS, "") == f"killed by {name}"


def test_every_signal_has_an_explanation() -> None:
    for number in signal.valid_signals():
        text = explain_run(Status.KILLED, evidence(exited(signal=int(number))), LIMITS, "")
        assert text is not None
        assert text.startswith("killed by ")


def test_an_end_without_a_report_is_an_unknown_signal() -> None:
    assert explain_run(Status.KILLED, evidence(None), LIMITS, "") == "killed by a signal"


@pytest.mark.parametrize(
    ("end", "status", "first"),
    [
        (exited(3), Status.ERROR, "exited with code 3"),
        (exited(signal=11), Status.KILLED, "killed by SIGSEGV"),
    ],
)
def test_the_end_of_stderr_is_quoted(end: Exited, status: Status, first: str) -> None:
    assert explain_run(status, evidence(end), LIMITS, "") == first
    assert explain_run(status, evidence(end), LIMITS, " \n ") == first
    assert explain_run(status, evidence(end), LIMITS, "Traceback\n  ...\nValueError\n") == (
        f"{first}:\nTraceback\n  ...\nValueError"
    )


@given(st.text(), st.integers(0, 3 * ERROR_TAIL_CHARS))
def test_a_long_stderr_is_quoted_from_its_end_only(end: str, padding: int) -> None:
    text = explain_run(Status.ERROR, evidence(exited(1)), LIMITS, "x" * padding + end)
    assert text is not None
    assert len(text) <= len("exited with code 1:\n") + ERROR_TAIL_CHARS
    assert text.endswith(end.strip()[-ERROR_TAIL_CHARS:])


def test_every_failure_has_an_explanation_whatever_the_evidence() -> None:
    for status, end, killed in itertools.product(
        set(Status) - {Status.OK}, ENDS.values(), [None, *KillReason]
    ):
        assert explain_run(status, evidence(end, killed), LIMITS, "stderr")


def test_a_process_without_sessions_loads_no_values_of_cells() -> None:
    code = "import sys, codeforge.sandboxes.sandbox as s; print('codeforge.model.cell_result' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- Cells

RAISED = CellError("ValueError", "no", ("line",))
EXITED = Ended(0, 3, None, 0, 0)
KILLED = Ended(0, None, 9, 1, 0)


@pytest.mark.parametrize("oom", [False, True])
@pytest.mark.parametrize("stopped", [None, *KillReason])
@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("ended", [None, EXITED, KILLED])
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("raised", [None, RAISED])
def test_the_end_of_a_cell_is_decided_in_the_same_order(
    oom: bool,
    stopped: KillReason | None,
    interrupted: bool,
    ended: Ended | None,
    lost: bool,
    raised: CellError | None,
) -> None:
    evidence = CellEvidence(
        oom=oom, stopped=stopped, interrupted=interrupted, ended=ended, lost=lost, raised=raised
    )
    by_host = {KillReason.DEADLINE: CellStatus.TIMEOUT, KillReason.FLOOD: CellStatus.OUTPUT_LIMIT}
    by_itself = CellStatus.INTERRUPTED if interrupted else CellStatus.ERROR
    if ended is not None or lost:
        by_itself = CellStatus.ENDED
    elif raised is None:
        by_itself = CellStatus.OK
    expected = by_itself if stopped is None else by_host[stopped]
    if oom:
        expected = CellStatus.OUT_OF_MEMORY
    status = decide_cell(evidence)
    assert status is expected
    error = explain_cell(status, evidence, LIMITS)
    assert (error is None) is (status is CellStatus.OK)
    if status in (CellStatus.ERROR, CellStatus.INTERRUPTED):
        assert error is RAISED
    elif error is not None:
        assert ("restart()" in error.value) is not evidence.alive


@pytest.mark.parametrize(
    ("evidence", "name", "value"),
    [
        (CellEvidence(stopped=KillReason.DEADLINE), "TimeoutError", "timed out after 30 s"),
        (CellEvidence(stopped=KillReason.FLOOD), "OutputLimit", "wrote more than 64m to one stream"),
        (CellEvidence(oom=True), "MemoryError", "out of memory at 512m; raise memory_limit"),
        (CellEvidence(ended=EXITED), "InterpreterEnded", "the interpreter ended with exit code 3"),
        (CellEvidence(ended=KILLED), "InterpreterEnded", "signal 9 ended the interpreter"),
        (CellEvidence(lost=True), "InterpreterEnded", "the interpreter is gone"),
    ],
)
def test_the_error_of_a_cell_names_what_ended_it(evidence: CellEvidence, name: str, value: str) -> None:
    error = explain_cell(decide_cell(evidence), evidence, LIMITS)
    assert error is not None
    lost = "; the session's variables are lost: restart() starts a new interpreter"
    assert (error.name, error.value) == (name, value + ("" if evidence.alive else lost))


def test_a_cell_that_was_stopped_keeps_the_traceback_of_where_it_was() -> None:
    for reason in KillReason:
        evidence = CellEvidence(stopped=reason, raised=CellError("KeyboardInterrupt", "", ("line",)))
        error = explain_cell(decide_cell(evidence), evidence, LIMITS)
        assert error is not None
        assert error.traceback == ("line",)
