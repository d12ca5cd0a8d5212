"""A session whose init lies, hangs or ends.

Whatever it does, every caller that waits gets an answer in (virtual) time, and no sandbox is left.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import pytest

from codeforge.errors import (
    CodeForgeError,
    FileError,
    HostFailure,
    InvalidRequest,
    ProtocolViolation,
    SandboxLost,
    SessionEnded,
)
from scripted_engine import frame
from scripted_sessions import BRANCH, ScriptedInit, value, world
from virtual_time import run, settle

# --- An init that lies


LIES: dict[str, Callable[[ScriptedInit], object]] = {
    "an answer without a request": lambda init: init.channel.say(frame("Q", BRANCH.pack(0)) * 2),
    "a frame of runs": lambda init: init.channel.say(frame("O", b"text")),
    "an unknown frame": lambda init: init.channel.say(frame("?", b"")),
    "a frame that is too large": lambda init: init.channel.say(struct.pack("<IB", 1 << 20, ord("T"))),
    "an unknown stream": lambda init: init.init("T", 0, b"\x07text"),
    "a frame without a branch": lambda init: init.channel.say(frame("M", b"")),
    "READY again": lambda init: init.channel.say(frame("R", b"")),
    "FAIL": lambda init: init.channel.say(frame("!", b"out of memory")),
    "the end": lambda init: init.channel.break_off(),
}


@pytest.mark.parametrize("lie", LIES)
def test_every_waiting_caller_gets_an_error_when_init_lies(lie: str) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            (one,) = await session.fork()
            init = it.init
            init.mute.update({"complete", "fork"})
            init.silent = "q"
            waiting: list[Awaitable[object]] = [
                session.run("wait"),
                session.run("wait"),
                one.complete("x"),
                session.files.read("f"),
                one.files.list(),
                one.fork(),
                one.run("x"),
            ]
            tasks = [asyncio.ensure_future(each) for each in waiting]
            await settle()
            LIES[lie](init)
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, CodeForgeError | bytes) for each in done), done
            assert any(isinstance(each, HostFailure) for each in done), done
            for late in (session.run("x"), one.fork(), session.restart(), session.files.read("f")):
                with pytest.raises(CodeForgeError):
                    await late
            assert not session.alive
            await it.until_no_sandbox()
            await session.close()
            await one.close()

    run(scenario())


def test_frames_of_unknown_branches_are_ignored() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            for kind, rest in (("T", b"\1text"), ("M", b"garbage"), ("K", b""), ("B", bytes(10))):
                it.init.init(kind, 40, rest)
                it.init.init(kind, (1 << 32) - 1, rest)
            result = await session.run("x")
            assert (result.value, result.stdout) == ("x", "")

    run(scenario())


def test_a_second_end_of_a_branch_is_ignored() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.end(0, number=1)
            it.init.end(0, number=2)
            await settle()
            with pytest.raises(SessionEnded):
                await session.run("x")
            await session.restart()
            assert await value(session) == "x"

    run(scenario())


# --- An init that hangs


def test_a_session_that_never_gets_ready_is_given_up() -> None:
    async def scenario() -> None:
        async with world() as it:
            it.prepare = lambda init: setattr(init, "silent", "s")
            with pytest.raises(SandboxLost, match="not ready"):
                await it.session().start()
            await it.until_no_sandbox()

    run(scenario())


@pytest.mark.parametrize("kind", ["q", "n", "b"])
def test_the_sandbox_is_lost_if_init_does_not_answer(kind: str) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.silent = kind
            acts: dict[str, Callable[[], Awaitable[object]]] = {
                "q": lambda: session.files.read("f"),
                "n": session.restart,
                "b": session.fork,
            }
            act = acts[kind]
            with pytest.raises(CodeForgeError):
                await act()
            with pytest.raises(SessionEnded):
                await session.run("x")
            await it.until_no_sandbox()

    run(scenario())


def test_the_sandbox_is_lost_in_time_if_init_does_not_kill() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.silent = "n"
            with pytest.raises(SandboxLost, match="did not answer"):
                await session.run("wait", timeout=5)
            await it.until_no_sandbox()

    run(scenario())


@pytest.mark.parametrize("number", [2, 13, 28, 40, 5])
def test_a_file_error_has_its_number_and_its_path(number: int) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.answers["q"] = frame("Q", BRANCH.pack(number))
            with pytest.raises(FileError) as caught:
                await session.files.read("name")
            assert (caught.value.errno, caught.value.filename) == (number, "name")
            assert isinstance(caught.value, OSError)
            assert isinstance(caught.value, InvalidRequest)
            assert "name" in str(caught.value)

    run(scenario())


@pytest.mark.parametrize("listing", [b"short", struct.pack("<Q", 1)], ids=["short", "without an end"])
def test_a_malformed_listing_is_a_violation(listing: bytes) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.answers["q"] = frame("Q", BRANCH.pack(0) + listing)
            with pytest.raises(ProtocolViolation):
                await session.files.list()

    run(scenario())
