"""Output is bytes: all of them, unchanged, and never interpreted."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from codeforge import BlockingCodeExecutor, ExecutionRequest, ExecutionResult, KillReason, Status
from codeforge.audit.probe_runner import program
from hostile.heartbeat import Arena

MIB = 1 << 20


@pytest.fixture(scope="module")
def arena(executor: BlockingCodeExecutor) -> Iterator[Arena]:
    with Arena(executor) as arena:
        yield arena


ALL_BYTES = {
    "javascript": """
        const all = Buffer.from(Array.from({ length: 256 * 9 }, (_, i) => i % 256))
        for (const stream of [1, 2]) require('fs').writeSync(stream, all)
    """,
    "typescript": """
        import { writeSync } from 'fs'
        const all = Buffer.from(Array.from({ length: 256 * 9 }, (_, i) => i % 256))
        for (const stream of [1, 2]) writeSync(stream, all)
    """,
}


@pytest.mark.catalogue("O01", "O02")
@pytest.mark.parametrize("language", ["python", *ALL_BYTES])
def test_every_byte_is_returned_unchanged_and_the_result_is_json(
    executor: BlockingCodeExecutor, language: str
) -> None:
    if language == "python":
        result = executor.execute(**program("endings.py", "all_bytes"))
    else:
        result = executor.execute(ALL_BYTES[language], language, timeout=60)
    assert result.stdout_bytes == result.stderr_bytes == bytes(range(256)) * 9
    text = json.dumps(result.to_dict())
    assert text.isascii()
    assert json.loads(text)["stdout"] == result.stdout


SPLIT = """
import os, time
for byte in "aé€😀\\u202eह".encode():
    os.write(1, bytes([byte]))
    time.sleep(0.02)
"""


@pytest.mark.catalogue("O01")
def test_a_character_that_arrives_in_pieces_is_decoded_correctly(executor: BlockingCodeExecutor) -> None:
    heard: list[str] = []
    result = executor.execute(SPLIT, on_stdout=heard.append)
    assert len(heard) > 3
    assert "".join(heard) == result.stdout == "aé€😀\u202eह"


@pytest.mark.catalogue("O01")
def test_a_character_cut_by_the_limit_or_the_end_becomes_a_replacement_character(
    executor: BlockingCodeExecutor,
) -> None:
    heard: list[str] = []
    result = executor.execute("import os; os.write(1, '€'.encode()[:2])", on_stdout=heard.append)
    assert (result.stdout_bytes, "".join(heard)) == (b"\xe2\x82", "\ufffd")
    with BlockingCodeExecutor(max_output_bytes=4) as small:
        cut = small.execute("print('€€')")
    assert (cut.stdout_bytes, cut.truncated, cut.evidence.stdout_bytes) == ("€".encode() + b"\xe2", True, 7)


C1 = range(0x80, 0xA0)
CONTROLS = bytes([*range(32), 0x7F, *C1]) + "".join(map(chr, C1)).encode()


@pytest.mark.catalogue("O02")
def test_control_characters_are_kept_and_escaped_in_json(executor: BlockingCodeExecutor) -> None:
    result = executor.execute(f"import os; os.write(1, {CONTROLS!r})")
    assert result.stdout_bytes == CONTROLS
    text = json.dumps(result.to_dict())
    assert not set(text) & set(map(chr, [*range(32), 0x7F, *C1]))


@pytest.mark.catalogue("O05")
def test_a_line_of_a_gigabyte_is_truncated_and_counted(arena: Arena) -> None:
    code = "import os\nfor _ in range(1000): os.write(1, b'x' * 1_000_000)"
    result = arena.attack(code, timeout=30)
    assert (result.status, result.evidence.killed) == (Status.OUTPUT_LIMIT, KillReason.FLOOD)
    assert result.stdout_bytes == b"x" * MIB
    assert 64 * MIB < result.evidence.stdout_bytes < 1_000_000_000


@pytest.mark.catalogue("O05")
def test_a_million_lines_are_truncated_and_counted(arena: Arena) -> None:
    result = arena.attack("for i in range(1_000_000): print(i)", timeout=30)
    whole = "".join(f"{i}\n" for i in range(1_000_000)).encode()
    assert (result.status, result.truncated) == (Status.OK, True)
    assert result.stdout_bytes == whole[:MIB]
    assert result.evidence.stdout_bytes == len(whole)


def in_turn(executor: BlockingCodeExecutor, codes: list[str], timeout: float) -> list[ExecutionResult]:
    requests = [ExecutionRequest(code=code, timeout=timeout) for code in codes]
    return list(executor.execute_many(requests, concurrency=2, max_runs_per_sandbox=64))


@pytest.mark.catalogue("O06")
def test_every_exit_code_is_reported(executor: BlockingCodeExecutor) -> None:
    codes = [*range(256), 256, 300, -1, -9]
    results = in_turn(executor, [f"import os; os._exit({code})" for code in codes], 30)
    assert [result.exit_code for result in results] == [code & 0xFF for code in codes]
    assert {result.status for result in results} == {Status.OK, Status.ERROR}
    assert all((result.status is Status.OK) == (result.exit_code == 0) for result in results)
    assert {result.signal for result in results} == {None}


HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
# Stop signals of a terminal are ignored in a session without one; SIGSTOP is not.
STOP = signal.SIGSTOP
TERMINAL = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


@pytest.mark.catalogue("O06")
def test_every_signal_is_reported_by_its_number(executor: BlockingCodeExecutor) -> None:
    numbers = range(1, 65)
    code = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
number = {number}
libc.signal(number, None)  # SIG_DFL; python ignores some
os.kill(os.getpid(), number)
"""
    results = in_turn(executor, [code.format(number=number) for number in numbers], 3)
    expected: dict[int, tuple[Status, int | None, int | None]] = {}
    for number in numbers:
        if number in HARMLESS | TERMINAL:
            expected[number] = (Status.OK, 0, None)
        elif number == STOP:
            expected[number] = (Status.TIMEOUT, None, 9)
        else:
            expected[number] = (Status.KILLED, None, number)
    reported = {n: (r.status, r.exit_code, r.signal) for n, r in zip(numbers, results, strict=True)}
    assert reported == expected
