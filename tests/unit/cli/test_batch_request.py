"""Lines of a batch: which are accepted, and how the others are refused."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from codeforge.cli.batch_journal import Line, read_lines
from codeforge.cli.batch_request import read_id, read_object, read_request
from codeforge.errors import InvalidRequest
from codeforge.model.request import ExecutionRequest


def line(data: bytes, number: int = 2) -> Line:
    (found,) = read_lines(io.BytesIO(data))
    return found._replace(number=number)


def request(text: str, **defaults: Any) -> ExecutionRequest:
    return read_request(read_object(line(text.encode())), defaults)


def test_a_line_may_have_every_field_of_a_request() -> None:
    fields: dict[str, Any] = {
        "code": "1",
        "language": "js",
        "timeout": 2.5,
        "memory_limit": "1g",
        "network_enabled": True,
        "env_vars": {"A": "b"},
        "stdin": "in",
        "args": ["x"],
        "files": {"a/b": "é"},
        "cpu_quota": 9000,
        "type_check": False,
    }
    assert set(fields) == {*ExecutionRequest.__dataclass_fields__}
    assert request(json.dumps({"id": 1, **fields})) == ExecutionRequest(**fields)


def test_bytes_are_encoded_as_in_a_result() -> None:
    found = request(
        '{"code": "", "stdin_base64": "/w==", "files": {"t": "x"}, "files_base64": {"b": "AAE="}}'
    )
    assert found.stdin == b"\xff"
    assert found.files == {"t": "x", "b": b"\0\1"}


def test_a_missing_field_or_null_gets_the_default() -> None:
    found = request('{"code": "1", "timeout": null, "memory_limit": "1g"}', timeout=9, language="ts")
    assert (found.timeout, found.memory_limit, found.language) == (9, "1g", "ts")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"nonsense", "not JSON: Expecting value at column 1"),
        (b'{"code": "1"', "not JSON: Expecting ',' delimiter at column 13"),
        (b'{"timeout": NaN}', "not JSON: NaN is not a value in JSON"),
        (b'{"timeout": %s}' % (b"9" * 5000), "not JSON: Exceeds the limit"),
        (b'{"code": "\xff"}', "not UTF-8"),
        ('{"code": "1"}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1, 2]", r"must be a JSON object, not \[1, 2\]"),
        (b"null", "must be a JSON object, not None"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_a_json_object_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_object(line(data))


def test_a_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at most 64m fit on a line, not 99 bytes"):
        read_object(Line(1, None, "", 99, True))


def test_a_byte_order_mark_may_begin_the_first_line_alone() -> None:
    marked = b'\xef\xbb\xbf{"code": "1"}'
    assert read_object(line(marked, number=1)) == {"code": "1"}
    with pytest.raises(InvalidRequest, match="BOM"):
        read_object(line(marked, number=2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"code": "1", "langauge": "js"}', r"unknown field 'langauge'; known: id, code, .*mean 'language'"),
        ('{"code": "1", "zzz": 1}', r"unknown field 'zzz'; known: .*files_base64$"),
        ('{"id": 1}', "code is missing"),
        ('{"code": null}', "code is missing"),
        ('{"code": "", "stdin": "a", "stdin_base64": ""}', "stdin and stdin_base64: give one"),
        ('{"code": "", "stdin_base64": "?"}', "stdin_base64 is not base64"),
        ('{"code": "", "stdin_base64": "\\u00e9"}', "stdin_base64 is not base64"),
        ('{"code": "", "stdin_base64": 1}', "stdin_base64 must be a string of base64, not 1"),
        ('{"code": "", "files_base64": []}', r"files_base64 must be an object of paths, not \[\]"),
        ('{"code": "", "files": "x", "files_base64": {}}', "files must be an object of paths, not 'x'"),
        ('{"code": "", "files_base64": {"a": "x"}}', r"files_base64\['a'\] is not base64"),
        ('{"code": "", "files": {"a": ""}, "files_base64": {"a": ""}}', "both have 'a'"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        request(text)


@pytest.mark.parametrize("value", ["a", 1, 10**30, 1.5, True, False, None, "\ud800"])
def test_an_id_is_any_scalar(value: object) -> None:
    assert read_id(json.loads(json.dumps({"id": value}))) == value


@pytest.mark.parametrize("text", ["[]", "{}", "1e999", json.dumps("x" * 1001)])
def test_an_id_that_json_cannot_represent_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="id "):
        read_id(read_object(line(b'{"id": %s}' % text.encode())))


@given(st.binary(max_size=60) | st.dictionaries(st.text(), st.text()).map(lambda d: json.dumps(d).encode()))
def test_every_line_is_a_request_or_refused(data: bytes) -> None:
    for found in read_lines(io.BytesIO(data)):
        with contextlib.suppress(InvalidRequest):
            fields = read_object(found)
            read_id(fields)
            read_request(fields, {})
