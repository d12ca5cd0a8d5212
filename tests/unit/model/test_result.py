"""Results: values that any JSON writer and any terminal accepts."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from codeforge.model.result import Evidence, ExecutionResult, KillReason, Output, Status, TestOutcome

NOT_UTF8 = [b"\xff", b"\xc3", b"ok\x80", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xc0\xaf"]
UTF8 = [b"", b"plain\n", "žluťoučký 日本 😀".encode(), b"\0\x01\x1b[2J\r\n", "\ufeff\ufffd\u202e".encode()]


def result(status: Status = Status.OK, *, stdout: bytes = b"", stderr: bytes = b"") -> ExecutionResult:
    return ExecutionResult(status=status, exit_code=0, stdout_bytes=stdout, stderr_bytes=stderr)


@pytest.mark.parametrize("status", Status)
def test_only_status_ok_is_success(status: Status) -> None:
    assert result(status).success is (status is Status.OK)


@pytest.mark.parametrize("status", Status)
def test_timed_out_and_oom_killed_follow_the_status(status: Status) -> None:
    assert result(status).timed_out is (status is Status.TIMEOUT)
    assert result(status).oom_killed is (status is Status.OUT_OF_MEMORY)


def test_a_status_is_its_own_name_in_lower_case() -> None:
    assert [str(status) for status in Status] == [status.name.lower() for status in Status]


def test_output_is_stdout() -> None:
    both = result(stdout=b"out", stderr=b"err")
    assert (both.output, both.stdout, both.stderr) == ("out", "out", "err")


@given(st.binary())
def test_any_output_can_be_read_as_text(data: bytes) -> None:
    both = result(stdout=data, stderr=data)
    assert both.stdout == both.stderr == data.decode("utf-8", "replace")


def test_a_result_is_read_only() -> None:
    value: Any = result()
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.status = Status.ERROR


def test_the_default_mappings_of_a_result_are_read_only() -> None:
    value: Any = result()
    with pytest.raises(TypeError):
        value.files["x"] = b""


@given(
    stdout=st.binary(),
    stderr=st.binary(),
    files=st.dictionaries(st.text(st.characters(codec="utf-8")), st.binary()),
    error=st.none() | st.text(st.characters(codec="utf-8")),
)
def test_to_dict_is_valid_json_whatever_the_program_wrote(
    stdout: bytes, stderr: bytes, files: dict[str, bytes], error: str | None
) -> None:
    plain = ExecutionResult(
        status=Status.ERROR, exit_code=1, error=error, stdout_bytes=stdout, stderr_bytes=stderr, files=files
    ).to_dict()
    text = json.dumps(plain, allow_nan=False, ensure_ascii=False).encode("utf-8")
    back = json.loads(text)
    assert back == plain
    assert {name: base64.b64decode(data) for name, data in back["files"].items()} == files
    for name, data in (("stdout", stdout), ("stderr", stderr)):
        exact = back.get(f"{name}_base64")
        assert (base64.b64decode(exact) if exact is not None else back[name].encode()) == data


@pytest.mark.parametrize("data", NOT_UTF8)
def test_output_that_is_not_utf8_is_in_base64_too(data: bytes) -> None:
    plain = result(stdout=data, stderr=b"fine").to_dict()
    assert base64.b64decode(plain["stdout_base64"]) == data
    assert "\ufffd" in plain["stdout"]
    assert "stderr_base64" not in plain


@pytest.mark.parametrize("data", UTF8)
def test_output_that_is_utf8_is_not_in_base64(data: bytes) -> None:
    plain = result(stdout=data, stderr=data).to_dict()
    assert plain["stdout"] == plain["stderr"] == plain["output"] == data.decode()
    assert not [key for key in plain if key.endswith("_base64")]


def test_to_dict_has_every_field_and_property_under_its_documented_name() -> None:
    plain = ExecutionResult(
        status=Status.KILLED,
        exit_code=None,
        signal=9,
        error="killed by SIGKILL",
        stdout_bytes=b"out",
        stderr_bytes=b"err",
        truncated=True,
        files={"a.bin": b"\0\xff"},
        files_skipped={"link": "not_regular"},
        execution_time=1.5,
        cpu_time=0.25,
        memory_used=4096,
        container_id="c0ffee",
        evidence=Evidence(
            exited=None, killed=KillReason.DEADLINE, oom_event=True, stdout_bytes=3, stderr_bytes=4
        ),
        posture={"pid": "1"},
        tests=(TestOutcome("test_it", "failed", 0.5, "assert 1 == 2"),),
    ).to_dict()
    assert plain == {
        "success": False,
        "status": "killed",
        "exit_code": None,
        "signal": 9,
        "error": "killed by SIGKILL",
        "output": "out",
        "stdout": "out",
        "stderr": "err",
        "truncated": True,
        "timed_out": False,
        "oom_killed": False,
        "execution_time": 1.5,
        "cpu_time": 0.25,
        "memory_used": 4096,
        "container_id": "c0ffee",
        "evidence": {
            "exit_reported": False,
            "killed_by_host": "deadline",
            "oom_event": True,
            "oom_kills": 0,
            "pids_refused": 0,
            "stdout_bytes": 3,
            "stderr_bytes": 4,
        },
        "posture": {"pid": "1"},
        "files": {"a.bin": "AP8="},
        "files_skipped": {"link": "not_regular"},
        "tests": [{"name": "test_it", "outcome": "failed", "duration": 0.5, "message": "assert 1 == 2"}],
    }
    assert type(plain["status"]) is str


def test_a_piece_of_output_names_its_stream() -> None:
    piece = Output("stderr", "\ufffd", b"\xff")
    assert (piece.stream, piece.text, piece.data) == ("stderr", "\ufffd", b"\xff")
