"""A program that will not end is ended in time, and all that it started with it."""

from __future__ import annotations

import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from codeforge import BlockingCodeExecutor, KillReason, Status
from hostile.heartbeat import Arena, until

AT_ONCE_S = 2.0
"""What a loaded machine may take for what takes a few milliseconds."""


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
def test_many_busy_processes_get_half_a_core_together(arena: Arena, language: str) -> None:
    result = arena.attack(SPIN[language], language, timeout=2, memory="192m")
    assert (result.status, result.evidence.killed) == (Status.TIMEOUT, KillReason.DEADLINE)
    assert 2 <= result.execution_time < 2 + AT_ONCE_S
    assert 0 < result.cpu_time <= 0.5 * result.execution_time + 0.2


WAIT = {
    "python": ("import time; print('before', flush=True); time.sleep(1e9)", "python"),
    "python input": ("print('before', flush=True); input()", "python"),
    "javascript": ("console.log('before'); setInterval(() => {}, 1e9)", "javascript"),
    "javascript input": ("console.log('before'); process.stdin.on('data', () => {})", "javascript"),
}


@pytest.mark.catalogue("R17")
@pytest.mark.parametrize("way", WAIT)
def test_waiting_for_ever_ends_with_the_time_and_keeps_what_was_written(arena: Arena, way: str) -> None:
    code, language = WAIT[way]
    stop = threading.Event()
    try:
        result = arena.attack(code, language, timeout=1, stdin=until(stop))
    finally:
        stop.set()
    assert (result.status, result.stdout) == (Status.TIMEOUT, "before\n")
    assert 1 <= result.execution_time < 1 + AT_ONCE_S


@pytest.mark.catalogue("R18")
def test_ignored_and_blocked_signals_keep_nothing_alive(arena: Arena) -> None:
    code = """
        import os, signal
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for _ in range(5):
            os.fork()
        while True: signal.sigtimedwait({signal.SIGTERM}, 100)
    """
    result = arena.attack(code, timeout=1)
    assert (result.status, result.signal) == (Status.TIMEOUT, 9)
    assert result.execution_time < 1 + AT_ONCE_S


DAEMON = """
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 1024)
            while True: open("/tmp/alive", "w").close()
        os._exit(0)
    os.wait()
    while not os.path.exists("/tmp/alive"): time.sleep(0.01)
"""


@pytest.mark.catalogue("R19")
def test_a_daemon_does_not_outlive_its_program(arena: Arena) -> None:
    result = arena.attack(DAEMON, timeout=10)
    assert (result.status, result.execution_time < 5) == (Status.OK, True)


HOLDERS = {
    "python": """
        import subprocess, time
        for _ in range(20):
            subprocess.Popen(["sleep", "999"], start_new_session=True)
        print(time.monotonic(), flush=True)
    """,
    "javascript": """
        for (let i = 0; i < 5; i++) {
          require('child_process').spawn('sleep', ['999'], { stdio: 'inherit', detached: true }).unref()
        }
        require('fs').writeSync(1, String(Number(process.hrtime.bigint()) / 1e9))
        process.exit()
    """,
}


@pytest.mark.catalogue("R20")
@pytest.mark.parametrize("language", HOLDERS)
def test_children_that_hold_the_pipe_do_not_hold_up_the_result(
    executor: BlockingCodeExecutor, language: str
) -> None:
    """The sandbox's monotonic clock is this machine's."""
    result = executor.execute(textwrap.dedent(HOLDERS[language]), language, timeout=30)
    assert result.status is Status.OK
    assert time.monotonic() - float(result.stdout) < AT_ONCE_S


@pytest.mark.catalogue("R22")
@pytest.mark.parametrize("target", [0, -1], ids=["its group", "everybody"])
def test_stopping_everything_does_not_stop_the_clock(arena: Arena, target: int) -> None:
    code = f"""
        import os, signal, time
        os.fork()
        time.sleep(0.2)
        os.kill({target}, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
    """
    result = arena.attack(code, timeout=1)
    assert (result.status, result.evidence.killed) == (Status.TIMEOUT, KillReason.DEADLINE)
    assert result.execution_time < 1 + AT_ONCE_S
