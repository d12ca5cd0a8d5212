"""A program that writes without end costs the host process little memory and little time."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codeforge import BlockingCodeExecutor, ExecutionRequest, KillReason, Status
from codeforge.audit.probe_runner import program
from hostile.heartbeat import Arena

MIB = 1 << 20
KEPT = 1 * MIB
FLOOD = 64 * MIB
SINGLE_S = 2
ROOM = 24 * MIB
"""How much this process may grow: much less than is written, several times what is kept."""


@pytest.fixture(scope="module")
def arena(executor: BlockingCodeExecutor) -> Iterator[Arena]:
    with Arena(executor) as arena:
        yield arena


class Growth:
    """How much this process grew, at most, during the block."""

    def __enter__(self) -> Growth:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self._before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = _status("VmHWM") - self._before


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


FLOODS = {"stdout": ("1",), "stderr": ("2",), "both": ("1", "2")}


@pytest.mark.catalogue("R12")
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_is_truncated_ended_and_not_held_in_memory(arena: Arena, kind: str) -> None:
    with Growth() as growth:
        result = arena.attack(**program("resources.py", "flood", *FLOODS[kind]), timeout=20)
    assert (result.status, result.evidence.killed) == (Status.OUTPUT_LIMIT, KillReason.FLOOD)
    assert result.truncated
    assert max(len(result.stdout_bytes), len(result.stderr_bytes)) == KEPT
    assert max(result.evidence.stdout_bytes, result.evidence.stderr_bytes) > FLOOD
    assert growth.bytes < ROOM


@pytest.mark.catalogue("R12")
def test_a_node_flood_is_truncated_and_ended(arena: Arena) -> None:
    code = "const line = Buffer.alloc(1e6, 'x'); for (;;) require('fs').writeSync(1, line)"
    with Growth() as growth:
        result = arena.attack(code, "javascript", timeout=20, memory="128m")
    assert (result.status, len(result.stdout)) == (Status.OUTPUT_LIMIT, KEPT)
    assert growth.bytes < ROOM


@pytest.mark.catalogue("R13")
def test_an_endless_line_is_passed_on_as_it_arrives(executor: BlockingCodeExecutor) -> None:
    arrived: list[tuple[float, int]] = []
    with Growth() as growth:
        started = time.monotonic()
        result = executor.execute(
            "import os\nwhile True: os.write(1, b'a')",
            timeout=2,
            on_stdout=lambda text: arrived.append((time.monotonic() - started, len(text))),
        )
    assert result.status is Status.TIMEOUT
    assert set(result.stdout) == {"a"}
    assert sum(size for _, size in arrived) == len(result.stdout) > 10_000
    assert arrived[0][0] < 1.9
    assert growth.bytes < ROOM


@pytest.mark.catalogue("R14")
def test_single_bytes_are_coalesced_and_cost_the_host_little(arena: Arena) -> None:
    """The program writes as fast as it can; the host receives few pieces."""
    code = """
        import os
        while True:
            os.write(1, b"a")
            os.write(2, b"b")
    """
    pieces: list[str] = []
    with ThreadPoolExecutor(1) as thread:
        before_s = time.process_time()
        request = ExecutionRequest(code=textwrap.dedent(code), timeout=SINGLE_S)
        result = thread.submit(arena.executor._run, request, pieces.append, pieces.append).result()
        spent_s = time.process_time() - before_s
    assert result.status is Status.TIMEOUT
    assert sum(map(len, pieces)) > 10 * len(pieces)
    assert len(pieces) < 1100 * 2 * SINGLE_S  # init sends at most one piece per stream and millisecond
    assert spent_s < 0.5 * SINGLE_S


@pytest.mark.catalogue("R15")
@pytest.mark.parametrize(("full", "other"), [(1, 2), (2, 1)])
def test_a_full_stream_does_not_block_the_other(arena: Arena, full: int, other: int) -> None:
    code = f"""
        import os
        for _ in range(100): os.write({full}, b"x" * 99_999)
        os.write({other}, b"done")
    """
    result = arena.attack(code, timeout=10)
    outputs = {1: result.stdout, 2: result.stderr}
    assert (result.status, outputs[other], len(outputs[full])) == (Status.OK, "done", KEPT)
