"""Nothing outlives a run, even if it is cancelled, floods, or its host process is killed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from codeforge import (
    BlockingCodeExecutor,
    CodeExecutor,
    ExecutionRequest,
    Finished,
    InvalidRequest,
    Output,
    Status,
)
from codeforge.errors import ExecutorClosed
from codeforge.policy import USER_IDS
from contract.support import docker, eventually, sandboxes
from observer import OBSERVER, UNDER_TEST

pytestmark = pytest.mark.engine

SLEEP = "import time; print('started', flush=True); time.sleep(60)"
GONE_WITHIN_S = 5.0


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    before = sandboxes()
    yield
    assert eventually(lambda: sandboxes() <= before, GONE_WITHIN_S), OBSERVER.describe()


def run_script(script: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script]
    process: subprocess.Popen[str] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
    return process


HOST_PROCESS = f"""
from codeforge import BlockingCodeExecutor
executor = BlockingCodeExecutor(max_warm=0)
executor.execute({SLEEP!r}, on_stdout=lambda text: print(text, end="", flush=True))
"""


def test_after_kill_9_of_the_host_process_the_sandbox_is_gone() -> None:
    before = sandboxes()
    with run_script(HOST_PROCESS) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "started\n"
        assert len(sandboxes(all_states=False) - before) == 1
        host.kill()
    assert eventually(lambda: sandboxes(all_states=False) <= before, GONE_WITHIN_S)
    OBSERVER.sweep(sandboxes() - before)


def test_after_kill_9_of_the_host_process_its_warm_sandboxes_are_gone() -> None:
    before = sandboxes()
    script = """
from codeforge import BlockingCodeExecutor
executor = BlockingCodeExecutor(max_warm=2)
executor.warm(["javascript"], count=2)
print("warm", flush=True)
import time; time.sleep(1000)
"""
    with run_script(script) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "warm\n"
        assert len(sandboxes(all_states=False) - before) == 2
        host.kill()
    assert eventually(lambda: sandboxes(all_states=False) <= before, GONE_WITHIN_S)
    OBSERVER.sweep(sandboxes() - before)


def test_ctrl_c_in_the_command_ends_the_run_with_exit_code_130() -> None:
    command = [sys.executable, "-m", "codeforge", "run", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        assert host.stderr is not None
        host.stdin.write(SLEEP)
        host.stdin.close()
        assert host.stdout.readline() == "started\n"
        host.send_signal(signal.SIGINT)
        assert host.wait(timeout=GONE_WITHIN_S) == 130
        assert "Traceback" not in host.stderr.read()


def test_ctrl_c_in_a_blocking_call_ends_the_run() -> None:
    before = sandboxes()
    with run_script(HOST_PROCESS, stderr=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stderr is not None
        assert host.stdout.readline() == "started\n"
        host.send_signal(signal.SIGINT)
        assert host.wait(timeout=GONE_WITHIN_S) != 0
        assert "KeyboardInterrupt" in host.stderr.read()
    assert eventually(lambda: sandboxes(all_states=False) <= before, GONE_WITHIN_S)
    OBSERVER.sweep(sandboxes() - before)


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.1, 0.2, 1.0])
def test_cancelling_at_any_moment_ends_the_sandbox(delay_s: float) -> None:
    async def scenario() -> None:
        async with CodeExecutor(max_warm=0) as executor:
            task = asyncio.create_task(executor.execute(SLEEP))
            await asyncio.sleep(delay_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gone = functools.partial(eventually, lambda: not executor.get_stats()["sandboxes"], GONE_WITHIN_S)
            assert await asyncio.to_thread(gone)

    asyncio.run(scenario())


def test_leaving_a_stream_early_ends_the_run() -> None:
    async def scenario() -> None:
        async with CodeExecutor(max_warm=0) as executor:
            before = await asyncio.to_thread(sandboxes)
            async with contextlib.aclosing(executor.stream(SLEEP)) as events:
                async for event in events:
                    assert isinstance(event, Output)
                    break
            assert await asyncio.to_thread(eventually, lambda: sandboxes() <= before, GONE_WITHIN_S)

    asyncio.run(scenario())


def test_stream_yields_output_and_then_the_result() -> None:
    async def scenario() -> list[object]:
        async with CodeExecutor() as executor:
            return [event async for event in executor.stream("print('é'); import sys; sys.exit(2)")]

    *outputs, last = asyncio.run(scenario())
    assert "".join(event.text for event in outputs if isinstance(event, Output)) == "é\n"
    assert isinstance(last, Finished)
    assert last.result.exit_code == 2


def test_close_ends_running_programs() -> None:
    executor = BlockingCodeExecutor()
    started = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(executor.execute, SLEEP, on_stdout=lambda text: started.set())
        assert started.wait(30)
        executor.close()
        with pytest.raises(Exception, match=r"closed|ended unexpectedly"):
            running.result(timeout=GONE_WITHIN_S)
    with pytest.raises(ExecutorClosed):
        executor.execute("print(1)")
    executor.close()


def test_many_threads_share_one_executor(executor: BlockingCodeExecutor) -> None:
    with ThreadPoolExecutor(12) as threads:
        results = list(threads.map(lambda n: executor.execute(f"print({n})"), range(24)))
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(24)]
    assert len({result.container_id for result in results}) == 24


def test_max_sandboxes_is_kept_and_every_caller_is_served() -> None:
    before = sandboxes(all_states=False)
    seen: list[int] = []
    with BlockingCodeExecutor(max_sandboxes=2) as executor, ThreadPoolExecutor(6) as threads:
        runs = [threads.submit(executor.execute, "import time; time.sleep(0.3)") for _ in range(6)]
        while not all(run.done() for run in runs):
            seen.append(executor.get_stats()["sandboxes"])
        assert all(run.result().success for run in runs)
    assert max(seen) == 2
    assert eventually(lambda: sandboxes(all_states=False) <= before, GONE_WITHIN_S)


def test_execute_many_keeps_the_order_and_takes_requests_one_by_one(executor: BlockingCodeExecutor) -> None:
    taken: list[int] = []

    def endless() -> Iterator[ExecutionRequest | dict[str, object]]:
        n = 0
        while True:
            taken.append(n)
            code = f"import time; time.sleep({0.3 if n == 0 else 0}); print({n})"
            yield {"code": code, "timeout": 20} if n % 2 else ExecutionRequest(code=code)
            n += 1

    results = executor.execute_many(endless(), concurrency=3)
    first = [next(results).stdout for _ in range(5)]
    results.close()
    assert first == ["0\n", "1\n", "2\n", "3\n", "4\n"]
    assert len(taken) <= 5 + 3


def test_execute_many_refuses_what_is_not_a_request(executor: BlockingCodeExecutor) -> None:
    with pytest.raises(InvalidRequest, match="mapping with 'code'"):
        list(executor.execute_many([{"kode": "print(1)"}]))


FLOOD_PROCESS = """
import json, resource
from codeforge import BlockingCodeExecutor
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
with BlockingCodeExecutor(max_output_bytes=8 << 20, default_cpu_quota=200000) as executor:
    executor.execute("print('hello')")
    before = peak()
    result = executor.execute("import os\\nblock = b'x' * 65536\\nwhile True: os.write(1, block)", timeout=20)
    print(json.dumps([result.status, result.truncated, len(result.stdout_bytes), peak() - before]))
"""


def test_memory_of_the_host_stays_flat_under_a_flood() -> None:
    with run_script(FLOOD_PROCESS) as host:
        assert host.stdout is not None
        status, truncated, kept, growth_mib = json.loads(host.stdout.read())
    assert (status, truncated, kept) == (Status.OUTPUT_LIMIT, True, 8 << 20)
    assert growth_mib < 48  # half a GiB arrived; 8 MiB are kept, and copied a few times


@pytest.mark.engine("docker")
def test_a_container_left_between_create_and_start_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeforge.engines.docker.STALE_S", -1.0)
    label = "ai-codeforge.sandbox=an-executor-that-died"
    left = docker("create", "--label", label, "ai-codeforge-python:latest", "true").strip()
    with BlockingCodeExecutor() as executor:
        assert executor.is_docker_available()
        assert eventually(lambda: left not in sandboxes(), GONE_WITHIN_S)


@pytest.mark.engine("docker", "podman", "gvisor")
def test_the_engine_sees_the_documented_restrictions() -> None:
    before = sandboxes(all_states=False)
    with run_script(HOST_PROCESS) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "started\n"
        (mine,) = sandboxes(all_states=False) - before
        inspected = OBSERVER.inspect(mine)
        host.kill()
    config = inspected["HostConfig"]
    assert config["ReadonlyRootfs"] is True
    assert config["NetworkMode"] == "none"
    assert config["Memory"] == config["MemorySwap"] == 512 << 20
    assert config["CpuQuota"] == 50_000
    assert config["SecurityOpt"] == ["no-new-privileges"]
    # Podman lists the capabilities that it would grant by default.
    assert config["CapDrop"] == ["ALL"] if UNDER_TEST != "podman" else len(config["CapDrop"]) >= 11
    assert not config["CapAdd"]
    assert not config["Privileged"]
    assert not config["Binds"]
    assert {"noexec", "nosuid"} <= set(config["Tmpfs"]["/tmp"].split(","))
    uid, gid = map(int, inspected["Config"]["User"].split(":"))
    assert uid in USER_IDS
    assert gid == 10001
    assert os.environ.get("HOME", "/root") not in " ".join(inspected["Config"]["Env"])


def test_an_exception_in_the_source_of_stdin_ends_the_run_and_reaches_the_caller() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first\n"
        raise LookupError("the source broke")

    async def scenario() -> None:
        async with CodeExecutor() as executor:
            await executor.execute("import sys; sys.stdin.read()", stdin=broken(), timeout=20)

    start = time.monotonic()
    with pytest.raises(LookupError, match="the source broke"):
        asyncio.run(scenario())
    assert time.monotonic() - start < 10


def test_stdin_may_arrive_while_the_program_runs() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(0.1)
            yield b"%d\n" % number

    async def scenario() -> str:
        async with CodeExecutor() as executor:
            return (await executor.execute("while True: print(int(input()) + 1)", stdin=pieces())).stdout

    assert asyncio.run(scenario()) == "1\n2\n3\n"
