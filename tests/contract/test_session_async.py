"""Sessions under asyncio: cancelled and concurrent callers, many sessions, and their memory."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from codeforge import CellResult, CodeExecutor, Session, SessionEnded
from codeforge.errors import Busy, CodeForgeError, ExecutorClosed
from observer import OBSERVER, UNDER_TEST, processes_of

pytestmark = pytest.mark.engine

WITHIN_S = 60.0
MiB = 1 << 20


def run(scenario: Coroutine[Any, Any, None], within_s: float = WITHIN_S) -> None:
    """Run it in a new event loop, with a time limit."""

    async def bounded() -> None:
        async with asyncio.timeout(within_s):
            await scenario

    asyncio.run(bounded())


@asynccontextmanager
async def executor(**options: Any) -> AsyncIterator[CodeExecutor]:
    """An executor; afterwards all its sandboxes and tasks must be gone."""
    made = CodeExecutor(max_warm=0, **options)
    async with made:
        yield made
    assert OBSERVER.of(made) == set()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    _, hanging = await asyncio.wait(others, timeout=5) if others else (set(), set())
    assert not hanging


async def until_no_sandbox(made: CodeExecutor) -> None:
    async with asyncio.timeout(15):
        while OBSERVER.of(made):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)


def test_callers_of_one_session_take_turns() -> None:
    async def scenario() -> None:
        async with executor() as made, made.session() as session:
            await session.run("import time; order = []")
            cells = [f"order.append({n}); time.sleep(0.02); order.append({n})" for n in range(8)]
            results = await asyncio.gather(*map(session.run, cells))
            assert all(result.success for result in results)
            said = (await session.run("order")).value
            assert said == str([n for n in range(8) for _ in range(2)])

    run(scenario())


def test_concurrent_first_calls_start_the_session_once() -> None:
    async def scenario() -> None:
        async with executor() as made:
            session = made.session()
            results = await asyncio.gather(
                session.run("x = 1"), session.files.write("f", "f"), session.run("2"), session.start()
            )
            assert isinstance(results[2], CellResult)
            assert results[2].value == "2"
            assert len(OBSERVER.of(made)) == 1
            await session.close()
            await until_no_sandbox(made)

    run(scenario())


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1, 0.3, 0.6])
def test_a_cancelled_start_leaves_nothing_and_can_be_repeated(after_s: float) -> None:
    async def scenario() -> None:
        async with executor() as made:
            session = made.session(env_vars={"PYTHONHASHSEED": "0"} if after_s > 0.2 else None)
            starting = asyncio.create_task(session.start())
            await asyncio.sleep(after_s)
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting
            if starting.cancelled():
                await until_no_sandbox(made)
            assert (await session.run("1 + 1")).value == "2"
            assert len(OBSERVER.of(made)) == 1
            await session.close()
            await until_no_sandbox(made)

    run(scenario())


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.4])
def test_a_session_that_is_closed_while_it_starts_leaves_nothing(after_s: float) -> None:
    async def scenario() -> None:
        async with executor() as made:
            session = made.session()
            starting = asyncio.create_task(session.start())
            await asyncio.sleep(after_s)
            await session.close()
            with suppress(SessionEnded):
                await starting
            await until_no_sandbox(made)

    run(scenario())


def test_a_cancelled_cell_is_interrupted_and_the_next_one_runs() -> None:
    async def scenario() -> None:
        async with executor() as made, made.session() as session:
            await session.run("import time; x = 5; seen = []")
            for pause in (0.0, 0.01, 0.2):
                running = asyncio.create_task(
                    session.run(
                        "try: time.sleep(60)\nexcept KeyboardInterrupt: seen.append(1); raise", timeout=60
                    )
                )
                await asyncio.sleep(pause)
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
                began = time.monotonic()
                assert (await session.run("x")).value == "5"
                assert time.monotonic() - began < 5

    run(scenario())


def test_leaving_the_loop_early_interrupts_the_cell() -> None:
    async def scenario() -> None:
        async with executor() as made, made.session() as session:
            cell = "import time; x = 5; print('begun', flush=True); time.sleep(60)"
            async for _ in session.stream(cell, timeout=60):
                break
            assert (await session.run("x")).value == "5"

    run(scenario())


Act = Callable[[Session], Awaitable[object]]

ACTS: dict[str, Act] = {
    "run": lambda session: session.run("sum(range(200_000))"),
    "fork": lambda session: session.fork(3),
    "restart": lambda session: session.restart(),
    "complete": lambda session: session.complete("imp"),
    "write": lambda session: session.files.write("f", bytes(2 * MiB)),
    "read": lambda session: session.files.read("large"),
    "list": lambda session: session.files.list(recursive=True),
}


@pytest.mark.parametrize("name", ACTS)
def test_the_session_stays_usable_whatever_call_is_cancelled(name: str) -> None:
    async def scenario() -> None:
        async with executor() as made, made.session() as session:
            await session.run("open('large', 'wb').write(bytes(1 << 20))")
            for pause in (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3):
                task: asyncio.Future[object] = asyncio.ensure_future(ACTS[name](session))
                await asyncio.sleep(pause)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    done = await task
                    for copy in done if isinstance(done, list) and name == "fork" else ():
                        await copy.close()
                if name == "restart":  # the interpreter may be about to end
                    await session.restart()
                assert (await session.run("1 + 1")).value == "2", pause
                assert await session.files.read("large") == bytes(MiB)
            if name == "fork":  # the copies of cancelled calls are gone
                (copy,) = await session.fork()
                assert (await copy.run("import os; len(os.listdir('/tmp/.branches'))")).value == "1"
                await copy.close()
            assert len(OBSERVER.of(made)) == 1

    run(scenario())


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.1])
def test_a_cancelled_close_still_closes(after_s: float) -> None:
    async def scenario() -> None:
        async with executor() as made:
            session = made.session()
            await session.run("x = 1")
            closing = asyncio.create_task(session.close())
            await asyncio.sleep(after_s)
            closing.cancel()
            with suppress(asyncio.CancelledError):
                await closing
            await until_no_sandbox(made) if closing.cancelled() or after_s else None
            await session.close()
            await until_no_sandbox(made)

    run(scenario())


def test_a_fork_in_progress_leaves_nothing_if_its_session_is_closed() -> None:
    async def scenario() -> None:
        async with executor() as made:
            for pause in (0.0, 0.005, 0.02, 0.1):
                session = made.session()
                await session.run("x = 1")
                forking = asyncio.create_task(session.fork(2))
                await asyncio.sleep(pause)
                await session.close()
                with suppress(CodeForgeError):
                    for copy in await forking:
                        await copy.close()
                await until_no_sandbox(made)

    run(scenario())


def test_closing_the_executor_ends_running_cells() -> None:
    async def scenario() -> None:
        async with executor() as made:
            sessions = [made.session() for _ in range(3)]
            await asyncio.gather(*(session.start() for session in sessions))
            cells = [asyncio.create_task(s.run("import time; time.sleep(60)", timeout=60)) for s in sessions]
            await asyncio.sleep(0.3)
            await made.close()
            done = await asyncio.gather(*cells, return_exceptions=True)
            assert all(isinstance(each, SessionEnded | ExecutorClosed) for each in done), done
            with pytest.raises((ExecutorClosed, SessionEnded)):
                await made.session().run("1")

    run(scenario())


def test_concurrent_branches_each_get_their_own_output() -> None:
    async def scenario() -> None:
        async with executor() as made, made.session() as session:
            await session.run("import time")
            branches = await session.fork(6)
            received: list[list[str]] = [[] for _ in branches]
            results = await asyncio.gather(
                *(
                    branch.run(
                        f"for _ in range(20): print({n}); time.sleep(0.005)", on_stdout=received[n].append
                    )
                    for n, branch in enumerate(branches)
                )
            )
            for n, result in enumerate(results):
                assert result.stdout == f"{n}\n" * 20 == "".join(received[n])

    run(scenario())


def test_a_session_too_many_is_busy_until_another_one_is_closed() -> None:
    async def scenario() -> None:
        async with executor(session_memory="600m") as made:
            first, second, third = (made.session(memory_limit="256m") for _ in range(3))
            await asyncio.gather(first.start(), second.start())
            with pytest.raises(Busy, match="session_memory"):
                await third.run("1")
            await first.close()
            assert (await third.run("1")).value == "1"
            await second.close()
            await third.close()
        async with executor(max_sandboxes=1) as made, made.session() as session:
            await session.start()
            with pytest.raises(Busy):
                await made.session().run("1")

    run(scenario())


@pytest.mark.engine("bubblewrap")
def test_fifty_concurrent_sessions_take_little_memory() -> None:
    """By proportional set size, which counts shared pages once."""

    async def scenario() -> None:
        async with executor(session_memory="50g", max_sandboxes=60) as made:
            sessions = [made.session(memory_limit="256m", idle_timeout=None) for _ in range(50)]
            values = await asyncio.gather(
                *(s.run(f"import json; x = {n}; x") for n, s in enumerate(sessions))
            )
            assert [result.value for result in values] == [str(n) for n in range(50)]
            pids = [pid for sandbox in OBSERVER.of(made) for pid in processes_of(OBSERVER.init(sandbox))]
            pss = sum(_pss(pid) for pid in pids)
            print(f"\n50 sessions: {pss / MiB:.0f} MiB, {pss / MiB / 50:.1f} each")
            assert pss / 50 < 48 * MiB
            again = await asyncio.gather(*(session.run("x") for session in sessions))
            assert [result.value for result in again] == [str(n) for n in range(50)]
            await asyncio.gather(*(session.close() for session in sessions))
            await until_no_sandbox(made)

    run(scenario(), 120)


def _pss(pid: int) -> int:
    try:
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) * 1024 if found else 0


def test_every_call_fails_once_the_sandbox_was_killed_from_outside() -> None:
    async def scenario() -> None:
        async with executor() as made:
            session = made.session()
            await session.run("x = 1")
            running = asyncio.create_task(session.run("import time; time.sleep(60)", timeout=60))
            await asyncio.sleep(0.3)
            OBSERVER.kill(session.container_id)
            with pytest.raises(CodeForgeError):
                await running
            for act in (session.run("x"), session.restart(), session.files.read("f"), session.fork()):
                with pytest.raises(CodeForgeError):
                    await act
            await session.close()

    run(scenario(), 90 if UNDER_TEST == "gvisor" else WITHIN_S)
