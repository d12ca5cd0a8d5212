"""Interpreters that are controlled by their program: whatever they say, only that program is harmed."""

from __future__ import annotations

import ast
import asyncio
import json
import struct
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from codeforge.errors import CannotFork, SandboxLost, SessionEnded
from codeforge.model.cell_result import CellResult
from codeforge.protocol.session_frames import Answer, Ended, MessageData, MessageTaken, Text
from codeforge.sessions import interpreter as interpreter_module
from codeforge.sessions.interpreter import UNREAD_BYTES, Interpreter
from scripted_engine import frame
from scripted_sessions import BRANCH, value, world
from virtual_time import run, settle

T = TypeVar("T")

# --- On its own


class FakeTransport:
    """A transport that records what is sent, and takes each piece of a message at once."""

    def __init__(self) -> None:
        self.lost: Exception | None = None
        self.sent: list[bytes] = []
        self.interpreter = Interpreter(self, 5)

    def send(self, frames: bytes) -> None:
        self.sent.append(frames)
        self.interpreter.handle(MessageTaken(5))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return asyncio.get_running_loop().create_task(work)

    async def request(self, frame: bytes) -> Answer:
        self.sent.append(frame)
        return Answer(28, b"")

    async def within_answer_timeout(self, awaitable: Awaitable[T]) -> T:
        return await awaitable

    def say(self, **message: object) -> None:
        self.interpreter.handle(MessageData(5, frame("J", json.dumps(message).encode())))


def test_an_interpreter_knows_its_transport_and_no_connection() -> None:
    tree = ast.parse(Path(interpreter_module.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(module and "connection" in module for module in imported)


def test_an_interpreter_answers_questions_over_any_transport() -> None:
    async def scenario() -> None:
        transport = FakeTransport()
        interpreter = transport.interpreter
        transport.say(**{"is": "ready"})
        await interpreter.wait_until_ready()
        asking = asyncio.create_task(interpreter.ask({"do": "is_complete", "code": "x" * 100_000}))
        await settle()
        assert len(transport.sent) == 2
        transport.say(request=0, status="complete")
        assert (await asking)["status"] == "complete"
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        await interpreter.ask_to_fork(6, answer)
        assert "No space left" in answer.result()["why"]

    run(scenario())


@pytest.mark.parametrize("lost", [None, SandboxLost("gone")])
def test_callers_get_an_error_when_the_interpreter_or_its_transport_ends(lost: Exception | None) -> None:
    async def scenario() -> None:
        transport = FakeTransport()
        asking = asyncio.create_task(transport.interpreter.ask({"do": "complete"}))
        await settle()
        transport.lost = lost
        transport.interpreter.handle_end(None if lost else Ended(5, 1, None, 0, 0))
        with pytest.raises(SandboxLost if lost else SessionEnded):
            await asking
        assert not transport.interpreter.alive
        await transport.interpreter.end()

    run(scenario())


def test_output_without_a_cell_is_kept_for_the_next_cell_up_to_its_limit() -> None:
    async def scenario() -> None:
        interpreter = FakeTransport().interpreter
        for _ in range(3):
            interpreter.handle(Text(5, "stderr", bytes(UNREAD_BYTES // 2)))
        unread = interpreter.take_unread()
        assert (len(unread.kept("stderr")), unread.truncated) == (UNREAD_BYTES, True)
        assert interpreter.take_unread().streams == ()

    run(scenario())


# --- Messages


GARBAGE = [
    b"garbage and more of it",
    frame("J", b"{"),
    frame("J", b"[]"),
    frame("J", b"[" * 60_000),
    frame("J", b"\xff"),
    struct.pack("<IB", 1 << 31, ord("J")),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_an_interpreter_that_sends_no_messages_is_killed(garbage: bytes) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            (one,) = await session.fork()
            running = asyncio.create_task(session.run("wait"))
            await settle()
            it.init.init("M", 0, garbage)
            it.init.init("M", 0, garbage)
            assert (await running).status == "ended"
            assert await value(one) == "x"
            await session.restart()
            assert await value(session) == "x"

    run(scenario())


FORGED: list[Any] = [
    {},
    {"is": "done"},
    {"is": "done", "cell": 99},
    {"is": "done", "cell": [1]},
    {"is": ["done"]},
    {"is": None},
    {"is": "ready"},
    {"is": "forked"},
    {"is": "not_forked", "why": [[]]},
    {"request": 0},
    {"request": True},
    {"request": 10**30},
    {"is": "begun"},
    {"is": "display", "cell": 1, "data": 5},
    {"is": "begun", "cell": 1},
    {"is": "display", "cell": 1, "data": {"text/plain": [[[]]]}},
    {"cell": 1},
    {"is": "completions"},
]


@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_a_forged_message_harms_only_its_own_program(forged: object) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.say(0, forged)
            running = asyncio.create_task(session.run("wait"))
            await settle()
            it.init.say(0, forged)
            await settle()
            if not running.done():
                it.init.done(0)
            assert isinstance(await running, CellResult)
            assert await value(session) == "x"
            (one,) = await session.fork()
            assert await value(one) == "x"

    run(scenario())


@pytest.mark.parametrize(
    "said", [{"start": [], "end": {}, "matches": 5}, {}, {"start": 0, "end": 0, "matches": [1, [], None]}]
)
def test_completions_are_well_formed_whatever_the_interpreter_answers(said: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.mute.add("complete")
            asking = asyncio.create_task(session.complete("abc"))
            await settle()
            it.init.say(0, {**said, "request": 0})
            found = await asking
            assert all(isinstance(match, str) for match in found.matches)

    run(scenario())


def test_an_interpreter_that_does_not_answer_is_killed_in_time() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.mute.add("complete")
            with pytest.raises(SessionEnded, match="did not answer"):
                await session.complete("x")
            await session.restart()
            assert await value(session) == "x"

    run(scenario())


def test_a_fork_without_an_answer_fails_and_the_next_one_works() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.mute.add("fork")
            with pytest.raises(CannotFork, match="did not answer"):
                await session.fork()
            it.init.mute.clear()
            it.init.say(0, {"is": "forked"})  # late
            (one,) = await session.fork()
            assert await value(one) == "x"

    run(scenario())


def test_a_late_answer_to_a_cancelled_fork_is_not_taken_for_the_next_one() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.mute.add("fork")
            forking = asyncio.create_task(session.fork())
            await settle()
            forking.cancel()
            with suppress(asyncio.CancelledError):
                await forking
            again = asyncio.create_task(session.fork())
            await settle()
            it.init.say(0, {"is": "not_forked", "why": "the first"})
            await settle()
            assert not again.done()
            it.init.say(0, {"is": "not_forked", "why": "the second"})
            with pytest.raises(CannotFork, match="the second"):
                await again

    run(scenario())


def test_a_copy_that_never_gets_ready_is_forgotten() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.mute.add("fork")
            forking = asyncio.create_task(session.fork())
            await settle()
            it.init.say(0, {"is": "forked"})
            with pytest.raises(CannotFork):
                await forking
            assert await value(session) == "x"
            assert ("x", BRANCH.pack(1)) in it.init.received

    run(scenario())


@pytest.mark.parametrize("error", [28, 17, 3, 9999])
def test_a_fork_fails_if_its_files_cannot_be_copied(error: int) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.answers["b"] = frame("Q", BRANCH.pack(error))
            with pytest.raises(CannotFork, match="could not be copied"):
                await session.fork(3)
            it.init.answers.clear()
            assert len(await session.fork(3)) == 3

    run(scenario())


def test_an_answer_to_a_fork_that_init_refused_makes_no_copy() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            lie = frame("J", json.dumps({"is": "forked"}).encode())
            it.init.answers["b"] = frame("M", BRANCH.pack(0) + lie) + frame("Q", BRANCH.pack(28))
            with pytest.raises(CannotFork, match="not ready"):
                await session.fork()
            it.init.answers.clear()
            assert len(await session.fork()) == 1
            assert await value(session) == "x"

    run(scenario())


def test_an_interpreter_that_never_reads_is_killed_at_the_deadline() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.silent = "m"
            result = await session.run("x" * 500_000)
            assert (result.status, result.alive) == ("timeout", False)

    run(scenario())


def test_output_between_cells_is_bounded_and_a_flood_stops_the_cell() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            for _ in range(1000):
                it.init.init("T", 0, b"\1" + bytes(60_000))
            await asyncio.sleep(1)
            result = await session.run("x")
            assert (len(result.stdout), result.truncated) == (65536, True)
            it.init.init("T", 0, b"\1" + bytes(60_000))
            result = await session.run("x")
            assert (len(result.stdout), result.truncated) == (60_000, False)
            running = asyncio.create_task(session.run("wait"))
            await settle()
            for _ in range(3000):
                it.init.init("T", 0, b"\1" + bytes(60_000))
            assert (await running).status == "output_limit"

    run(scenario())
