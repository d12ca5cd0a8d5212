"""No caller gets a used sandbox, and no sandbox outlives its caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from codeforge import BlockingCodeExecutor, CodeExecutor, ExecutionResult, Finished, Output, Status
from contract.support import SHARED, eventually
from hostile.heartbeat import left_of
from observer import OBSERVER, UNDER_TEST

CANCELLED_WITHIN_S = 1.0
GONE_WITHIN_S = 10.0

WRITE_LATE = """
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        os.write(1, b"late\\n")
        os.write(2, b"late\\n")
        open("/code/late", "a").write("late")
time.sleep(0.3)
os.write(1, b"last\\n")
"""


def share(executor: CodeExecutor) -> None:
    """Tell other tests to ignore this executor's sandboxes."""
    SHARED.append(executor)


async def becomes_true(condition: Callable[[], bool]) -> bool:
    return await asyncio.to_thread(eventually, condition, GONE_WITHIN_S)


@pytest.mark.catalogue("X12")
def test_nothing_comes_after_the_result() -> None:
    async def scenario() -> list[object]:
        async with CodeExecutor(max_warm=0) as mine:
            share(mine)
            return [event async for event in mine.stream(WRITE_LATE)]

    *outputs, last = asyncio.run(scenario())
    assert isinstance(last, Finished)
    assert all(isinstance(output, Output) for output in outputs)
    for name, kept in (("stdout", last.result.stdout_bytes), ("stderr", last.result.stderr_bytes)):
        pieces = [event.data for event in outputs if isinstance(event, Output) and event.stream == name]
        assert b"".join(pieces) == kept
    assert "last\n" in last.result.stdout
    assert last.result.stderr.count("late\n") > 10


@pytest.mark.catalogue("X12")
def test_a_listener_hears_nothing_after_the_result(executor: BlockingCodeExecutor) -> None:
    heard: list[str] = []
    result = executor.execute(WRITE_LATE, on_stdout=heard.append)
    count = len(heard)
    assert eventually(lambda: not left_of(result.container_id), GONE_WITHIN_S)
    assert len(heard) == count
    assert "".join(heard) == result.stdout


@pytest.mark.catalogue("X12")
def test_a_process_that_stays_cannot_write_into_the_next_run(executor: BlockingCodeExecutor) -> None:
    requests = [{"code": WRITE_LATE}, {"code": "import time; time.sleep(0.3); print('mine')"}]
    results = list(executor.execute_many(requests, concurrency=1, max_runs_per_sandbox=2))
    assert len({result.container_id for result in results}) == 1
    assert (results[1].stdout, results[1].stderr, dict(results[1].files)) == ("mine\n", "", {})


@pytest.mark.catalogue("X13", "F11")
def test_many_callers_of_one_slot_get_a_sandbox_each() -> None:
    callers = 200 if UNDER_TEST == "bubblewrap" else 40  # the other engines take longer for each sandbox

    async def scenario() -> tuple[list[ExecutionResult], int]:
        async with CodeExecutor(max_sandboxes=1) as executor:
            share(executor)
            most = 0
            code = "import os, sys; print(sys.argv[1], os.listdir('/tmp')); open('/tmp/mark', 'w')"
            runs = [asyncio.create_task(executor.execute(code, args=[str(i)])) for i in range(callers)]
            while not all(run.done() for run in runs):
                most = max(most, len(await asyncio.to_thread(OBSERVER.of, executor)))
                await asyncio.wait(runs, timeout=1)
            return [run.result() for run in runs], most

    results, most = asyncio.run(scenario())
    assert [result.stdout for result in results] == [f"{i} []\n" for i in range(callers)]
    assert len({result.container_id for result in results}) == callers
    assert most == 1


async def _cancelled(executor: CodeExecutor) -> float:
    """Cancel a running program twice; returns the seconds until its container is gone."""
    started = asyncio.Event()
    code = "import time; print('x', flush=True); time.sleep(60)"
    running = asyncio.create_task(executor.execute(code, on_stdout=lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 60)
    (container,) = await asyncio.to_thread(OBSERVER.of, executor)
    began = time.monotonic()
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await becomes_true(lambda: not left_of(container))
    return time.monotonic() - began


@pytest.mark.catalogue("X14")
def test_a_cancelled_run_removes_its_sandbox_and_frees_its_slot_once() -> None:
    async def scenario() -> list[float]:
        async with CodeExecutor(max_sandboxes=1, max_warm=0) as executor:
            share(executor)
            seconds = []
            for _ in range(3):
                seconds.append(await _cancelled(executor))
                assert await becomes_true(lambda: executor.get_stats()["sandboxes"] == 0)
            results = await asyncio.gather(*(executor.execute("print(1)") for _ in range(3)))
            assert [result.status for result in results] == [Status.OK] * 3
            assert len({result.container_id for result in results}) == 3
            return seconds

    assert min(asyncio.run(scenario())) < CANCELLED_WITHIN_S  # on a busy machine, not every time


@pytest.mark.catalogue("X14")
def test_cancelled_waiters_leave_nothing_behind() -> None:
    async def scenario() -> None:
        async with CodeExecutor(max_sandboxes=1, max_warm=0) as executor:
            share(executor)
            waiting = [
                asyncio.create_task(executor.execute("import time; time.sleep(30)")) for _ in range(20)
            ]
            await asyncio.wait(waiting, timeout=0.5)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert (await executor.execute("print('well')")).stdout == "well\n"
            counted = ("sandboxes", "leased", "waiting")
            assert await becomes_true(lambda: all(executor.get_stats()[name] == 0 for name in counted))
            assert not OBSERVER.of(executor)

    asyncio.run(scenario())
