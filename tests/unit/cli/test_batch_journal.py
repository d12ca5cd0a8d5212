"""The journal: whole records, one owner, and resuming however the batch ended."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from codeforge.cli.batch_journal import Journal, Line, count_lines, read_lines
from codeforge.errors import HostFailure, InvalidRequest

INPUT = b'{"code": "1"}\n\n{"code": "2"}\n{"code": "3"}'
OK = {"status": "ok"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def lines(data: bytes = INPUT) -> Iterator[Line]:
    return read_lines(io.BytesIO(data))


def record(out: Path, numbers: list[int], data: bytes = INPUT) -> None:
    """Write the records of these lines, in this order."""
    by_number = {line.number: line for line in lines(data)}
    with Journal(out) as journal:
        for number in numbers:
            journal.append(by_number[number], None, OK)


def done(out: Path, data: bytes = INPUT) -> list[int]:
    """Return the lines that are done, as a batch that resumes finds out."""
    with Journal(out) as journal:
        journal.recover(lines(data))
        return [line.number for line in lines(data) if line in journal]


def test_lines_have_no_line_breaks_and_know_whether_they_are_blank() -> None:
    found = [(line.number, line.data, line.blank, line.ended) for line in lines(b"a\r\n \t\n\nb")]
    assert found == [
        (1, b"a", False, True),
        (2, b" \t", True, True),
        (3, b"", True, True),
        (4, b"b", False, False),
    ]


def test_a_digest_does_not_depend_on_the_line_break() -> None:
    assert len({line.digest for line in lines(b"same\r\nsame\nsame")}) == 1
    assert len({line.digest for line in lines(b"one\ntwo\n")}) == 2


def test_a_line_that_is_too_long_is_skipped_and_never_in_memory() -> None:
    long = b"x" * 8_000_000
    file = io.BytesIO(b"12345678\n123456789\n" + long + b"\nlast\n" + long)
    tracemalloc.start()
    found = [(line.data, line.size) for line in read_lines(file, longest=8)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [(b"12345678", 9), (None, 10), (None, 8_000_001), (b"last", 5), (None, 8_000_000)]
    assert peak < 4_000_000


@given(st.lists(st.sampled_from([b"", b"a", b"\n", b"\r\n", b"long" * 9])).map(b"".join))
def test_counting_lines_and_reading_them_agree_and_sizes_add_up(data: bytes) -> None:
    found = list(read_lines(io.BytesIO(data), longest=20))
    assert len(found) == count_lines(io.BytesIO(data))
    assert sum(line.size for line in found) == len(data)


def test_a_record_has_its_line_its_id_a_digest_and_the_outcome(out: Path) -> None:
    with Journal(out) as journal:
        journal.append(next(lines()), "é\ud800", {"status": "timeout", "stdout": "\u2028\0"})
        assert journal.fates == {"timeout": 1}
    (text,) = out.read_text(encoding="ascii").splitlines()
    digest = next(lines()).digest
    assert json.loads(text) == {
        "line": 1, "id": "é\ud800", "digest": digest, "status": "timeout", "stdout": "\u2028\0"
    }  # fmt: skip


@pytest.mark.parametrize("numbers", [[], [1], [4, 1], [3, 4, 1]])
def test_recorded_lines_are_done_in_any_order(out: Path, numbers: list[int]) -> None:
    record(out, numbers)
    assert done(out) == sorted(numbers)


def test_after_a_crash_whole_records_are_kept_and_a_torn_one_is_cut_off(out: Path) -> None:
    record(out, [3, 1, 4])
    whole = out.read_bytes()
    for cut in range(len(whole) + 1):
        out.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert done(out) == sorted([3, 1, 4][:kept])
        assert out.read_bytes() == whole[: whole[:cut].rfind(b"\n") + 1]


def test_resuming_counts_the_fates_of_earlier_lines_too(out: Path) -> None:
    first, _, third, _ = lines()
    with Journal(out) as journal:
        journal.append(first, None, {"error": {"type": "InvalidRequest", "message": "no"}})
    with Journal(out) as journal:
        assert not journal.empty
        journal.recover(lines())
        journal.append(third, None, OK)
        assert journal.fates == {"invalid": 1, "ok": 1}
    assert done(out) == [1, 3]


def test_lines_may_be_added_to_the_input(out: Path) -> None:
    record(out, [1, 4])
    assert done(out, INPUT + b'\n{"code": "5"}\n') == [1, 4]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (lambda whole: whole.replace(b'"line": 4', b'"line": 3'), "line 2: this is not the result of line 3"),
        (lambda whole: whole.replace(b'"line": 4', b'"line": 900'), "not the result of line 900"),
        (lambda whole: whole.replace(b'"line": 4', b'"line": 2'), "not the result of line 2"),
        (lambda whole: whole.replace(b'"line": 4', b'"line": 0'), "not the result of line 0"),
        (lambda whole: whole + whole.splitlines(keepends=True)[0], "line 3: this is not the result"),
        (lambda whole: b"\0" * 10 + b"\n" + whole, "line 1: this is not a record"),
        (lambda whole: INPUT + b"\n", "line 1: this is not a record"),
        (lambda whole: whole.replace(b'"ok"', b'"good"'), "line 1: this is not a record"),
        (lambda whole: whole.replace(b'"ok"', b"[]"), "line 1: this is not a record"),
        (lambda whole: whole + b"[" * 100_000 + b"\n", "line 3: this is not a record"),
        (lambda whole: whole + b'{"line": null, "digest": ""}\n{"line"', "line 3: this is not a record"),
        (lambda whole: whole + b"\xff\n", "line 3: this is not a record"),
    ],
    ids=[
        "swapped", "beyond", "blank", "zero", "twice", "zeros",
        "input", "status", "kind", "deep", "null", "bytes",
    ],
)  # fmt: skip
def test_records_of_another_input_are_refused_and_not_changed(out: Path, written: object, said: str) -> None:
    record(out, [1, 4])
    assert callable(written)
    out.write_bytes(written(out.read_bytes()))
    before = out.read_bytes()
    with pytest.raises(InvalidRequest, match=said):
        done(out)
    assert out.read_bytes() == before


def test_a_changed_line_of_the_input_is_named(out: Path) -> None:
    record(out, [4, 1])
    with pytest.raises(InvalidRequest, match="not the result of line 4 of the input"):
        done(out, INPUT.replace(b"3", b"4"))
    assert done(out, INPUT.replace(b"2", b"5")) == [1, 4]  # line 3 was not done


def test_a_second_journal_on_one_file_is_refused(out: Path) -> None:
    with Journal(out) as journal:
        with pytest.raises(InvalidRequest, match="being written by another process"):
            Journal(out)
        journal.append(next(lines()), None, OK)
    assert done(out) == [1]


@pytest.mark.parametrize("path", ["/dev/null", "/", "/nonexistent/out"])
def test_a_path_that_cannot_be_a_journal_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match=path):
        Journal(Path(path))


FULL = """
import resource, signal, sys
from pathlib import Path
from codeforge.errors import HostFailure
from codeforge.cli.batch_journal import Journal, Line
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with Journal(Path(sys.argv[1])) as journal:
        for number in range(1, 99):
            journal.append(Line(number, None, "x", 0, True), None, {"status": "ok", "stdout": "x" * 150})
except HostFailure as error:
    print(number, error)
"""


def test_a_full_disk_is_an_error_that_loses_only_the_record_that_did_not_fit(out: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(out)], capture_output=True, text=True, check=True)
    number, said = done.stdout.split(" ", 1)
    assert said == f"cannot write {out}: No space left on device\n"
    assert out.read_bytes().count(b"\n") == int(number) - 1
    assert not out.read_bytes().endswith(b"\n")
    assert HostFailure.exit_code == 70


def test_memory_does_not_grow_with_the_number_of_lines(out: Path) -> None:
    data = b"".join(b'{"code": "%d"}\n' % number for number in range(20_000))
    with Journal(out) as journal:
        for line in lines(data):
            if line.number != 7:  # runs for long
                journal.append(line, None, OK)
    with Journal(out) as journal:
        source = lines(data)
        tracemalloc.start()
        journal.recover(source)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [line.number for line in lines(data) if line not in journal] == [7]
    assert peak < 500_000  # a list of the line numbers would take as much
