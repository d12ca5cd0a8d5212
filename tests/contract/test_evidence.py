"""Every status comes with its evidence, from the source that knows, and no program can fake it."""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from codeforge import LANGUAGES, BlockingCodeExecutor, Evidence, ExecutionRequest, ExecutionResult, Status
from codeforge.engines.docker import DockerChannel
from codeforge.errors import SandboxLost
from contract.support import SHARED
from observer import OBSERVER

pytestmark = pytest.mark.engine

MIB = 1 << 20
BOTH = ("python", "javascript")
PIDS = {row.name: row.pids for row in LANGUAGES}


@pytest.fixture(params=BOTH)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def execute(
    executor: BlockingCodeExecutor, code: str, language: str = "python", **options: Any
) -> ExecutionResult:
    return executor.execute(textwrap.dedent(code), language, **options)


def told(result: ExecutionResult) -> dict[str, Any]:
    """Return the evidence as in JSON, after checking that it matches the result."""
    plain: dict[str, Any] = result.to_dict()["evidence"]
    evidence = result.evidence
    assert isinstance(evidence, Evidence)
    assert plain == {
        "exit_reported": evidence.exited is not None,
        "killed_by_host": evidence.killed,
        "oom_event": evidence.oom_event,
        "oom_kills": evidence.oom_kills,
        "pids_refused": evidence.pids_refused,
        "stdout_bytes": evidence.stdout_bytes,
        "stderr_bytes": evidence.stderr_bytes,
    }
    return plain


NOTHING = {
    "exit_reported": True,
    "killed_by_host": None,
    "oom_event": False,
    "oom_kills": 0,
    "pids_refused": 0,
    "stdout_bytes": 0,
    "stderr_bytes": 0,
}

WRITE = {
    "python": "import os; os.write(1, b'12345'); os.write(2, b'123'); os._exit(CODE)",
    "javascript": """
        const { writeSync } = require('fs')
        writeSync(1, '12345')
        writeSync(2, '123')
        process.exit(CODE)
    """,
}


@pytest.mark.parametrize(("code", "status"), [(0, Status.OK), (3, Status.ERROR)])
def test_a_normal_end_is_proved_by_the_exit_code(
    executor: BlockingCodeExecutor, language: str, code: int, status: Status
) -> None:
    result = execute(executor, WRITE[language].replace("CODE", str(code)), language)
    assert (result.status, result.exit_code, result.signal) == (status, code, None)
    assert told(result) == {**NOTHING, "stdout_bytes": 5, "stderr_bytes": 3}
    exited = result.evidence.exited
    assert exited is not None
    assert (exited.exit_code, exited.signal) == (code, None)
    assert result.execution_time > 0
    assert (exited.cpu_s, exited.memory_peak_bytes) == (result.cpu_time, result.memory_used)


WAIT = {"python": "import time; time.sleep(60)", "javascript": "setTimeout(() => {}, 60000)"}


def test_a_timeout_is_proved_by_the_hosts_clock(executor: BlockingCodeExecutor, language: str) -> None:
    result = execute(executor, WAIT[language], language, timeout=1)
    assert (result.status, result.exit_code, result.signal) == (Status.TIMEOUT, None, signal.SIGKILL)
    assert told(result) == {**NOTHING, "killed_by_host": "deadline"}
    assert result.execution_time >= 1


EAT = {
    "python": "blocks = []\nwhile True: blocks.append(bytearray(4 << 20))",
    "javascript": "const blocks = []; for (;;) blocks.push(Buffer.alloc(4 << 20, 1))",
}


def test_out_of_memory_is_proved_by_the_engines_event(executor: BlockingCodeExecutor, language: str) -> None:
    result = execute(executor, EAT[language], language, memory_limit="128m")
    assert (result.status, result.signal) == (Status.OUT_OF_MEMORY, signal.SIGKILL)
    assert told(result) == {**NOTHING, "oom_event": True, "oom_kills": 1}


EAT_IN_CHILD = {
    "python": f"""
        import os
        if os.fork() == 0: exec({EAT["python"]!r})
        print(os.waitstatus_to_exitcode(os.wait()[1]))
    """,
    "javascript": f"""
        const {{ spawnSync }} = require('child_process')
        console.log(spawnSync(process.execPath, ['-e', {EAT["javascript"]!r}]).signal)
    """,
}


def test_out_of_memory_in_a_child_is_proved_by_the_engines_event(
    executor: BlockingCodeExecutor, language: str
) -> None:
    result = execute(executor, EAT_IN_CHILD[language], language, memory_limit="128m")
    assert (result.status, result.exit_code) == (Status.OUT_OF_MEMORY, 0)
    seen = {"python": "-9\n", "javascript": "SIGKILL\n"}[language]
    assert result.stdout == seen
    assert told(result) == {**NOTHING, "oom_event": True, "oom_kills": 1, "stdout_bytes": len(seen)}


@pytest.mark.engine("docker")
def test_a_sandbox_stays_until_the_engine_has_reported_the_kill(
    executor: BlockingCodeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine reports no kill in a control group that is gone, however late it looks."""
    wait, running = DockerChannel.oom_event, []

    async def look(channel: DockerChannel, wait_s: float) -> bool:
        await asyncio.sleep(0.5)
        running.append((await channel.inspect())["State"]["Running"])
        return await wait(channel, wait_s)

    monkeypatch.setattr(DockerChannel, "oom_event", look)
    result = execute(executor, "b = []\nwhile True: b.append(bytearray(1 << 20))", memory_limit="64m")
    assert (result.status, running) == (Status.OUT_OF_MEMORY, [True])


FAKES = {
    ("python", "signal"): ("import os; print('Killed'); os.kill(os.getpid(), 9)", Status.KILLED),
    ("python", "code"): ("import os; print('Killed', flush=True); os._exit(137)", Status.ERROR),
    ("python", "words"): ("import sys; sys.exit('container killed (OOMKilled)')", Status.ERROR),
    ("python", "error"): ("raise MemoryError", Status.ERROR),
    ("python", "child"): ("import os\nif os.fork() == 0: os.kill(os.getpid(), 9)\nos.wait()", Status.OK),
    ("python", "timeout"): ("import os; os._exit(124)", Status.ERROR),
    ("javascript", "signal"): ("process.kill(process.pid, 'SIGKILL')", Status.KILLED),
    ("javascript", "code"): ("console.log('Killed'); process.exitCode = 137", Status.ERROR),
    ("javascript", "words"): ("throw new RangeError('JavaScript heap out of memory')", Status.ERROR),
}


@pytest.mark.parametrize(("language", "kind"), FAKES)
def test_no_program_can_fake_a_verdict_of_the_host(
    executor: BlockingCodeExecutor, language: str, kind: str
) -> None:
    code, status = FAKES[language, kind]
    result = execute(executor, code, language)
    assert result.status is status
    evidence = told(result)
    assert (evidence["killed_by_host"], evidence["oom_event"], evidence["oom_kills"]) == (None, False, 0)


FLOOD = {
    "python": "import os\nwhile True: os.write(STREAM, b'x' * 100_000)",
    "javascript": "const x = Buffer.alloc(1e5, 'x'); for (;;) require('fs').writeSync(STREAM, x)",
}


@pytest.mark.parametrize("stream", [1, 2])
def test_a_flood_is_proved_by_the_hosts_count(
    executor: BlockingCodeExecutor, language: str, stream: int
) -> None:
    result = execute(executor, FLOOD[language].replace("STREAM", str(stream)), language)
    assert (result.status, result.signal) == (Status.OUTPUT_LIMIT, signal.SIGKILL)
    evidence = told(result)
    written = [evidence.pop("stdout_bytes"), evidence.pop("stderr_bytes")]
    assert written[stream - 1] > 64 * MIB
    assert written[2 - stream] == 0
    assert evidence == {
        **{name: NOTHING[name] for name in ("exit_reported", "oom_event", "oom_kills", "pids_refused")},
        "killed_by_host": "flood",
    }


EXIT = {"python": "import os; os._exit({})", "javascript": "process.exit({})"}


@pytest.mark.parametrize(("code", "kept"), [(300, 44), (-1, 255), (256, 0), (137, 137), (255, 255)])
def test_an_exit_code_is_cut_to_a_byte_by_the_kernel(
    executor: BlockingCodeExecutor, language: str, code: int, kept: int
) -> None:
    result = execute(executor, EXIT[language].format(code), language)
    assert (result.exit_code, result.signal) == (kept, None)
    assert result.status is (Status.OK if kept == 0 else Status.ERROR)
    assert told(result) == NOTHING


def test_signals_of_node_are_distinct_from_exit_codes(executor: BlockingCodeExecutor) -> None:
    # Without those that node handles or ignores (SIGPIPE, SIGUSR1, SIGXFSZ) or that do not end a process.
    numbers = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14, 15, 16, 24, 26, 27, 29, 30, 31]
    codes = [*(f"process.kill(process.pid, {number}); setInterval(() => {{}}, 1000)" for number in numbers)]
    codes += [f"process.exit({128 + number})" for number in numbers]
    requests = [ExecutionRequest(code=code, language="javascript", timeout=10) for code in codes]
    results = list(executor.execute_many(requests, concurrency=2, max_runs_per_sandbox=50))
    ends = [(result.status, result.exit_code, result.signal) for result in results]
    assert ends[: len(numbers)] == [(Status.KILLED, None, number) for number in numbers]
    assert ends[len(numbers) :] == [(Status.ERROR, 128 + number, None) for number in numbers]
    assert {result.evidence.killed for result in results} == {None}


BOMB = """
    import os, signal
    refused = 0
    while refused < 5:
        try:
            if os.fork() == 0: signal.pause()
        except BlockingIOError:
            refused += 1
    print(refused)
"""


def test_refused_processes_are_counted_by_the_kernel(executor: BlockingCodeExecutor) -> None:
    result = execute(executor, BOMB)
    assert (result.status, result.stdout) == (Status.OK, "5\n")
    assert told(result) == {**NOTHING, "pids_refused": 5, "stdout_bytes": 2}


def test_refused_processes_of_node_are_counted_by_the_kernel(executor: BlockingCodeExecutor) -> None:
    code = """
        const { spawn } = require('child_process')
        let refused = 0
        for (let i = 0; i < 80; i++) spawn('sleep', ['60']).on('error', ({ code }) => {
          refused += code === 'EAGAIN'
        })
        setTimeout(() => { console.log(refused); process.exit() }, 1000)
    """
    result = execute(executor, code, "javascript", memory_limit="1g")
    assert result.status is Status.OK
    assert int(result.stdout) == result.evidence.pids_refused > 80 - PIDS["javascript"]


def test_counts_of_one_run_do_not_appear_in_the_next_one(executor: BlockingCodeExecutor) -> None:
    requests = [{"code": textwrap.dedent(BOMB)}, {"code": "print('x' * 10)"}, {"code": "pass"}]
    results = list(executor.execute_many(requests, concurrency=1, max_runs_per_sandbox=3))
    assert [result.evidence.pids_refused for result in results] == [5, 0, 0]
    assert [result.evidence.stdout_bytes for result in results] == [2, 11, 0]
    assert len({result.container_id for result in results}) == 1


def test_output_that_was_not_kept_is_counted(executor: BlockingCodeExecutor) -> None:
    result = execute(executor, "import os; os.write(1, b'x' * 3_000_000); os.write(2, b'y' * 1_048_576)")
    assert (result.status, result.truncated) == (Status.OK, True)
    assert told(result) == {**NOTHING, "stdout_bytes": 3_000_000, "stderr_bytes": 1_048_576}


def test_the_posture_is_that_of_the_runs_own_sandbox(executor: BlockingCodeExecutor, language: str) -> None:
    ask = {"python": "import os; print(os.getuid())", "javascript": "console.log(process.getuid())"}
    result = execute(executor, ask[language], language, memory_limit="256m")
    posture = result.posture
    assert (posture["uid"], posture["pid"]) == (result.stdout.strip(), "1")
    assert (posture["memory_max"], posture["pids_max"]) == (str(256 * MIB), str(PIDS[language]))
    assert posture["cap_eff"] == "0" * 16
    assert result.to_dict()["posture"] == dict(posture)


def with_init(language: str, act: Callable[[int], object], timeout: float) -> ExecutionResult:
    """Run a program that waits, and call ``act`` with the pid of its init once it has begun."""
    begin = {"python": "print('x', flush=True)\n", "javascript": "console.log('x')\n"}
    with BlockingCodeExecutor(max_warm=1) as executor:
        SHARED.append(executor)
        executor.warm([language], count=1)
        # Before it begins, as asking the engine on a busy machine may take longer than the run.
        (sandbox,) = OBSERVER.of(executor, running=True)
        init = OBSERVER.init(sandbox)
        result = executor.execute(
            begin[language] + WAIT[language], language, timeout, on_stdout=lambda _: act(init)
        )
        assert result.container_id == sandbox
        return result


def test_there_is_no_result_if_init_is_killed_from_outside(language: str) -> None:
    with pytest.raises(SandboxLost):
        with_init(language, lambda pid: os.kill(pid, signal.SIGKILL), 30)


def test_the_hosts_clock_is_the_proof_if_init_does_not_answer(language: str) -> None:
    result = with_init(language, lambda pid: os.kill(pid, signal.SIGSTOP), 2)
    assert (result.status, result.exit_code, result.signal) == (Status.TIMEOUT, None, None)
    evidence = told(result)
    assert evidence == {**NOTHING, "exit_reported": False, "killed_by_host": "deadline", "stdout_bytes": 2}
