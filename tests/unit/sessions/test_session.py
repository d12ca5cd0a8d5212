"""Sessions in virtual time: cells, forks, callers at the same time, room for sessions, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from codeforge.errors import (
    Busy,
    CodeForgeError,
    ExecutorClosed,
    InvalidRequest,
    SessionEnded,
)
from codeforge.model.cell_result import CellResult, MimeBundle
from codeforge.sessions.registry import SessionGroup
from scripted_engine import frame
from scripted_sessions import BRANCH, value, world
from virtual_time import run, settle


def test_a_session_runs_cells_forks_and_reads_files() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            assert await value(session) == "x"
            assert (await session.run("y" * 300_000)).value == "y" * 300_000
            assert (await session.complete("a")).matches == ("ab",)
            assert await session.files.read("f") == b""
            one, other = await session.fork(2)
            assert [await value(one), await value(other)] == ["x", "x"]
            await session.close()
            (again,) = await one.fork()
            assert await value(again) == "x"

    run(scenario())


def test_the_number_of_the_first_branch_is_never_used_again() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            (last,) = await session.fork()
            await session.close()
            for _ in range(150):
                (copy,) = await last.fork()
                await last.close()
                last = copy
            asked = [BRANCH.unpack(payload[4:])[0] for kind, payload in it.init.received if kind == "b"]
            assert 0 not in asked
            assert set(asked) == set(range(1, 64))
            await last.close()
            await it.until_no_sandbox()

    run(scenario())


# --- Several callers


@pytest.mark.parametrize("act", ["run", "restart", "fork", "close"])
def test_the_session_can_be_used_inside_the_loop_once_the_result_came(act: str) -> None:
    async def scenario() -> None:
        async with world() as it:
            session = it.session()
            acts: dict[str, Callable[[], Awaitable[object]]] = {
                "run": lambda: session.run("y"),
                "restart": session.restart,
                "fork": session.fork,
                "close": session.close,
            }
            seen = 0
            async for event in session.stream("x"):
                assert isinstance(event, CellResult | MimeBundle)
                if isinstance(event, CellResult):
                    async with asyncio.timeout(20):
                        await acts[act]()
                    seen += 1
            assert seen == 1

    run(scenario())


@pytest.mark.parametrize("pause", [None, 0.0, 0.5])
def test_concurrent_restarts_all_succeed(pause: float | None) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            (copy,) = await session.fork()
            waiting = asyncio.create_task(session.run("wait"))
            await settle()
            restarts = []
            for _ in range(3):
                restarts.append(asyncio.create_task(session.restart()))
                if pause is not None:
                    await asyncio.sleep(pause)
            await asyncio.gather(*restarts)
            assert (await waiting).status == "ended"
            assert (await value(session), await value(copy)) == ("x", "x")

    run(scenario())


@pytest.mark.parametrize("turn", ["had", "waited for"])
def test_a_restart_starts_nothing_if_the_session_is_closed_meanwhile(turn: str) -> None:
    async def scenario() -> None:
        async with world() as it:
            session = it.session()
            (copy,) = await session.fork()
            events = session.stream("wait")
            running = asyncio.ensure_future(anext(events))
            await settle()
            if turn == "waited for":
                bundle = {"data": {"text/plain": "x"}, "metadata": {}}
                it.init.say(0, {"is": "display", "cell": it.init.cell[0], **bundle})
                await running
            restarting = asyncio.create_task(session.restart())
            await settle()
            await session.close()
            await settle()
            await events.aclose()
            with pytest.raises(SessionEnded, match="closed"):
                await restarting
            assert [kind for kind, _ in it.init.received].count("s") == 1 + (turn == "had")
            await copy.close()
            await it.until_no_sandbox()
            assert len(it.sessions) == 0

    run(scenario())


def test_a_caller_that_is_cancelled_twice_loses_no_answer() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            await session.start()
            it.init.silent = "q"
            asking = asyncio.create_task(session.files.read("f"))
            await settle()
            for _ in range(2):
                asking.cancel()
                await settle(1)
            with pytest.raises(asyncio.CancelledError):
                await asking
            it.init.silent = ""
            it.init.channel.say(frame("Q", BRANCH.pack(0) + b"late"))
            assert await session.files.read("f") == b""
            assert await value(session) == "x"

    run(scenario())


@pytest.mark.parametrize("steps", range(6))
def test_a_start_that_is_cancelled_twice_leaves_no_sandbox(steps: int) -> None:
    async def scenario() -> None:
        async with world() as it:
            it.prepare = lambda init: setattr(init, "silent", "s")
            starting = asyncio.create_task(it.session().start())
            await settle()
            starting.cancel()
            await settle(steps)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await it.until_no_sandbox()
            assert it.pool.stats()["leased"] == 0

    run(scenario())


def test_close_does_not_wait_for_a_fork() -> None:
    async def scenario() -> None:
        async with world() as it:
            session = it.session()
            await session.start()
            it.init.silent = "b"
            forking = asyncio.create_task(session.fork())
            await settle()
            began = asyncio.get_running_loop().time()
            await it.sessions.close()
            assert asyncio.get_running_loop().time() - began < 1
            with pytest.raises(SessionEnded):
                await forking

    run(scenario())


@pytest.mark.parametrize("at", [-1, 4, 1.5, "x", True])
def test_a_position_outside_the_code_is_an_invalid_request(at: Any) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            with pytest.raises(InvalidRequest, match="at"):
                await session.complete("abc", at)
            assert (await session.complete("abc", 3)).matches == ("ab",)

    run(scenario())


# --- The end


def test_close_ends_every_call_that_waits() -> None:
    async def scenario() -> None:
        async with world() as it:
            session = it.session()
            await session.start()
            it.init.mute.update({"complete"})
            it.init.silent = "q"
            tasks = [
                asyncio.ensure_future(each)
                for each in (session.run("wait"), session.complete("x"), session.files.read("f"))
            ]
            await settle()
            await session.close()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, CodeForgeError | CellResult) for each in done), done
            await it.until_no_sandbox()

    run(scenario())


def test_a_session_too_many_is_busy_until_another_one_is_closed() -> None:
    async def scenario() -> None:
        async with world() as it:
            sessions = [it.session() for _ in range(4)]
            for session in sessions:
                await session.start()
            with pytest.raises(Busy):
                await it.session().start()
            await sessions[0].close()
            await asyncio.sleep(1)
            last = it.session()
            assert await value(last) == "x"
            await it.sessions.close()
            with pytest.raises((ExecutorClosed, SessionEnded)):
                await it.session().start()

    run(scenario())


def test_sessions_can_be_counted_while_another_thread_opens_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with world() as it, it.session():

            def is_open(group: SessionGroup) -> bool:
                it.sessions._groups.add(SessionGroup(it.sessions, group.run, None))
                return True

            with monkeypatch.context() as patch:
                patch.setattr(SessionGroup, "is_open", property(is_open))
                assert len(it.sessions) == 1

    run(scenario())


def test_frames_are_sent_in_order() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            await asyncio.gather(*(session.run("z" * 100_000) for _ in range(3)), session.fork(2))
            kinds = "".join(kind for kind, _ in it.init.received)
            assert kinds == "s" + "m" * 6 + "bb"

    run(scenario())
