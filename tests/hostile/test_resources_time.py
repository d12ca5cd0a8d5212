"""A program that does not end is ended in time, with everything that it started."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from codeforge import BlockingCodeExecutor, KillReason, Status
from codeforge.audit.probe_runner import program
from hostile.heartbeat import Arena, until

PROMPT_S = 2.0
"""How long a busy machine may take for a few milliseconds' work."""


@pytest.fixture(scope="module")
def arena(executor: BlockingCodeExecutor) -> Iterator[Arena]:
    with Arena(executor) as arena:
        yield arena


SPIN = {
    "python": "import os\n[os.fork() for _ in range(4)]\nwhile True: pass",
    "javascript": """
        const { Worker } = require('worker_threads')
        for (let i = 0; i < 3; i++) new Worker('for (;;) {}', { eval: true })
        for (;;) {}
    """,
}


@pytest.mark.catalogue("R16")
@pytest.mark.parametrize("language", SPIN)
def test_many_busy_processes_share_half_a_core(arena: Arena, language: str) -> None:
    result = arena.attack(SPIN[language], language, timeout=2, memory="192m")
    assert (result.status, result.evidence.killed) == (Status.TIMEOUT, KillReason.DEADLINE)
    assert 2 <= result.execution_time < 2 + PROMPT_S
    assert 0 < result.cpu_time <= 0.5 * result.execution_time + 0.2


WAIT = {
    "python": ("import time; print('before', flush=True); time.sleep(1e9)", "python"),
    "python input": ("print('before', flush=True); input()", "python"),
    "javascript": ("console.log('before'); setInterval(() => {}, 1e9)", "javascript"),
    "javascript input": ("console.log('before'); process.stdin.on('data', () => {})", "javascript"),
}


@pytest.mark.catalogue("R17")
@pytest.mark.parametrize("way", WAIT)
def test_waiting_forever_times_out_and_keeps_the_output(arena: Arena, way: str) -> None:
    code, language = WAIT[way]
    stop = threading.Event()
    try:
        result = arena.attack(code, language, timeout=1, stdin=until(stop))
    finally:
        stop.set()
    assert (result.status, result.stdout) == (Status.TIMEOUT, "before\n")
    assert 1 <= result.execution_time < 1 + PROMPT_S


NODE_HOLDERS = """
    for (let i = 0; i < 5; i++) {
      require('child_process').spawn('sleep', ['999'], { stdio: 'inherit', detached: true }).unref()
    }
    require('fs').writeSync(1, String(Number(process.hrtime.bigint()) / 1e9))
    process.exit()
"""
HOLDERS: dict[str, Mapping[str, Any]] = {
    "python": program("endings.py", "keep_the_pipe"),
    "javascript": {"code": NODE_HOLDERS, "language": "javascript"},
}


@pytest.mark.catalogue("R20")
@pytest.mark.parametrize("language", HOLDERS)
def test_children_that_hold_the_pipe_do_not_delay_the_result(
    executor: BlockingCodeExecutor, language: str
) -> None:
    """The sandbox shares this machine's monotonic clock."""
    result = executor.execute(**HOLDERS[language], timeout=30)
    assert result.status is Status.OK
    assert time.monotonic() - float(result.stdout) < PROMPT_S


@pytest.mark.catalogue("R22")
@pytest.mark.parametrize("target", ["0", "-1"], ids=["its group", "everybody"])
def test_stopping_all_processes_does_not_stop_the_clock(arena: Arena, target: str) -> None:
    result = arena.attack(**program("endings.py", "stop_everybody", target), timeout=1)
    assert (result.status, result.evidence.killed) == (Status.TIMEOUT, KillReason.DEADLINE)
    assert result.execution_time < 1 + PROMPT_S
