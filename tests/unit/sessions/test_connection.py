"""A session's link, with an init that is played: it lies, it breaks off, it says nothing at all.

Whatever it does, everybody who waits is told something, in virtual time, and nothing of a session is left.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from codeforge.errors import (
    Busy,
    CannotFork,
    CodeForgeError,
    ExecutorClosed,
    FileError,
    HostFailure,
    InvalidRequest,
    ProtocolViolation,
    SandboxLost,
    SessionEnded,
)
from codeforge.model.cell_result import CellResult, MimeBundle
from codeforge.model.languages import PYTHON, LanguageTable
from codeforge.model.limits import GiB, Limits
from codeforge.model.request import ExecutionRequest, resolve_session
from codeforge.sandboxes.pool import Pool
from codeforge.sessions.registry import SessionGroup, SessionRegistry
from codeforge.sessions.session import Session
from scripted_engine import ScriptedChannel, ScriptedEngine, frame
from virtual_time import run, settle

BRANCH = struct.Struct("<I")


class Played:
    """The init of a session's sandbox, and its interpreters: polite, unless a test says otherwise.

    Attributes:
        heard: the frames that the host sent since START.
        silent: kinds of frames that init gives no answer to.
        mute: what interpreters are told to do, and do not answer.
        answers: kinds of frames to what init says to them instead.
    """

    def __init__(self, channel: ScriptedChannel) -> None:
        self.channel = channel
        self.heard: list[tuple[str, bytes]] = []
        self.silent = ""
        self.mute: set[str] = set()
        self.answers: dict[str, bytes] = {}
        self._parts: dict[int, bytes] = {}
        self.cell: dict[int, int] = {}
        self.there: set[int] = set()
        obey = channel._obey

        def listen(kind: str, payload: bytes) -> None:
            if kind in "smbnxq":
                self.heard.append((kind, payload))
                self._obey(kind, payload)
            elif kind != "w":
                obey(kind, payload)

        channel._obey = listen  # type: ignore[method-assign]

    def _obey(self, kind: str, payload: bytes) -> None:
        (branch,) = BRANCH.unpack_from(payload)
        if kind in self.answers:
            self.channel.say(self.answers[kind])
        elif kind in self.silent:
            return
        elif kind == "s" and branch in self.there:
            self.channel.say(frame("E", b"protocol: that branch is there"))
        elif kind == "s":
            self.there.add(branch)
            asyncio.get_running_loop().call_later(1, self.say, branch, {"is": "ready"})
        elif kind == "x":
            self.there.discard(branch)
        elif kind == "m":
            self._parts[branch] = self._parts.get(branch, b"") + payload[5:]
            self.init("K", branch)
            if payload[4:5] == b"J":
                self._do(branch, json.loads(self._parts.pop(branch)))
        elif kind == "b":
            self.init("K", branch)
            self.channel.say(frame("Q", BRANCH.pack(0)))
            if "fork" not in self.mute:
                self.say(branch, {"is": "forked"})
                (copy,) = BRANCH.unpack(payload[4:])
                self.there.add(copy)
                self.say(copy, {"is": "ready"})
        elif kind == "q":
            self.channel.say(frame("Q", BRANCH.pack(0)))
        elif kind == "n" and payload[4] == 9 and branch in self.there:
            self.end(branch, by_signal=True, number=9)
        elif kind == "n" and branch in self.cell:
            self.done(branch, error={"name": "KeyboardInterrupt", "value": "", "traceback": []})

    def _do(self, branch: int, message: dict[str, Any]) -> None:
        if message["do"] in self.mute:
            return
        if message["do"] == "run":
            self.cell[branch] = message["cell"]
            self.say(branch, {"is": "begun", "cell": message["cell"]})
            if message["code"] != "wait":
                self.done(branch, value={"data": {"text/plain": message["code"]}, "metadata": {}})
        elif message["do"] == "complete":
            self.say(branch, {"request": message["request"], "start": 0, "end": 1, "matches": ["ab"]})

    def done(self, branch: int, value: object = None, error: object = None) -> None:
        self.say(branch, {"is": "done", "cell": self.cell.pop(branch), "value": value, "error": error})

    def init(self, kind: str, branch: int, rest: bytes = b"") -> None:
        self.channel.say(frame(kind, BRANCH.pack(branch) + rest))

    def say(self, branch: int, message: object) -> None:
        data = frame("J", json.dumps(message).encode())
        for at in range(0, len(data), 60_000):
            self.init("M", branch, data[at : at + 60_000])

    def end(self, branch: int, *, by_signal: bool = False, number: int = 0) -> None:
        self.there.discard(branch)
        self.init("B", branch, struct.pack("<BBII", by_signal, number, 0, 0))


class World:
    """A pool on a played engine."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine()
        self.pool = Pool(self.engine, max_warm=0, max_sandboxes=4)
        self.sessions = SessionRegistry(self.pool, 100 * GiB)
        self.inits: list[Played] = []
        self.prepare: Callable[[Played], object] = lambda played: None
        launch = self.engine.launch

        async def launch_played(*arguments: Any, **options: Any) -> ScriptedChannel:
            channel = await launch(*arguments, **options)
            self.inits.append(Played(channel))
            self.prepare(self.inits[-1])
            return channel

        self.engine.launch = launch_played  # type: ignore[method-assign]

    @property
    def init(self) -> Played:
        return self.inits[-1]

    def session(self, **options: Any) -> Session:
        request = ExecutionRequest(code="", language="python", **options)
        return Session(
            SessionGroup(self.sessions, resolve_session(request, LanguageTable([PYTHON]), Limits()), None)
        )

    async def until_gone(self) -> None:
        async with asyncio.timeout(200):
            while self.engine.there:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(1)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.sessions.close()
    await made.pool.close()
    assert made.engine.there == 0


async def value(session: Session) -> str | None:
    return (await session.run("x")).value


# --- A polite one


def test_cells_forks_and_files() -> None:
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


def test_numbers_of_copies_are_never_the_firsts() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            (last,) = await session.fork()
            await session.close()
            for _ in range(150):
                (copy,) = await last.fork()
                await last.close()
                last = copy
            asked = [BRANCH.unpack(payload[4:])[0] for kind, payload in it.init.heard if kind == "b"]
            assert 0 not in asked
            assert set(asked) == set(range(1, 64))
            await last.close()
            await it.until_gone()

    run(scenario())


# --- One that lies

LIES: dict[str, Callable[[Played], object]] = {
    "an answer that nobody asked for": lambda init: init.channel.say(frame("Q", BRANCH.pack(0)) * 2),
    "a frame of runs": lambda init: init.channel.say(frame("O", b"text")),
    "an unknown frame": lambda init: init.channel.say(frame("?", b"")),
    "a frame that is too large": lambda init: init.channel.say(struct.pack("<IB", 1 << 20, ord("T"))),
    "a stream there is not": lambda init: init.init("T", 0, b"\x07text"),
    "a frame without a branch": lambda init: init.channel.say(frame("M", b"")),
    "READY again": lambda init: init.channel.say(frame("R", b"")),
    "FAIL": lambda init: init.channel.say(frame("!", b"that is enough")),
    "the end": lambda init: init.channel.break_off(),
}


@pytest.mark.parametrize("lie", LIES)
def test_who_waits_while_init_lies_is_told(lie: str) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            (one,) = await session.fork()
            init = it.init
            init.mute.update({"complete", "fork"})
            init.silent = "q"
            waiting: list[Awaitable[object]] = [
                session.run("wait"), session.run("wait"), one.complete("x"), session.files.read("f"),
                one.files.list(), one.fork(), one.run("x"),
            ]  # fmt: skip
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
            await it.until_gone()
            await session.close()
            await one.close()

    run(scenario())


def test_frames_of_unknown_branches_are_nothing() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            for kind, rest in (("T", b"\1text"), ("M", b"garbage"), ("K", b""), ("B", bytes(10))):
                it.init.init(kind, 40, rest)
                it.init.init(kind, (1 << 32) - 1, rest)
            result = await session.run("x")
            assert (result.value, result.stdout) == ("x", "")

    run(scenario())


def test_a_branch_that_ended_twice_ended_once() -> None:
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


# --- Interpreters that are their program's

GARBAGE = [
    b"garbage and more of it", frame("J", b"{"), frame("J", b"[]"), frame("J", b"[" * 60_000),
    frame("J", b"\xff"), struct.pack("<IB", 1 << 31, ord("J")),
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_an_interpreter_that_talks_nonsense_is_ended(garbage: bytes) -> None:
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
    {}, {"is": "done"}, {"is": "done", "cell": 99}, {"is": "done", "cell": [1]}, {"is": ["done"]},
    {"is": None},
    {"is": "ready"}, {"is": "forked"}, {"is": "not_forked", "why": [[]]}, {"request": 0}, {"request": True},
    {"request": 10**30}, {"is": "begun"}, {"is": "display", "cell": 1, "data": 5}, {"is": "begun", "cell": 1},
    {"is": "display", "cell": 1, "data": {"text/plain": [[[]]]}}, {"cell": 1}, {"is": "completions"},
]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_what_is_forged_is_the_programs_loss_alone(forged: object) -> None:
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
def test_odd_answers_to_questions_are_well_formed(said: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.mute.add("complete")
            asking = asyncio.create_task(session.complete("abc"))
            await settle()
            it.init.say(0, {**said, "request": 0})
            found = await asking
            assert all(isinstance(match, str) for match in found.matches)

    run(scenario())


def test_one_that_does_not_answer_is_ended_in_time() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.mute.add("complete")
            with pytest.raises(SessionEnded, match="did not answer"):
                await session.complete("x")
            await session.restart()
            assert await value(session) == "x"

    run(scenario())


def test_one_that_does_not_fork_says_no_more() -> None:
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


def test_a_late_answer_to_a_fork_that_was_given_up_is_not_the_next_ones() -> None:
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


def test_a_copy_that_never_is_ready_is_no_copy() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.mute.add("fork")
            forking = asyncio.create_task(session.fork())
            await settle()
            it.init.say(0, {"is": "forked"})
            with pytest.raises(CannotFork):
                await forking
            assert await value(session) == "x"
            assert ("x", BRANCH.pack(1)) in it.init.heard

    run(scenario())


@pytest.mark.parametrize("error", [28, 17, 3, 9999])
def test_a_copy_whose_files_cannot_be_copied_is_none(error: int) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.answers["b"] = frame("Q", BRANCH.pack(error))
            with pytest.raises(CannotFork, match="could not be copied"):
                await session.fork(3)
            it.init.answers.clear()
            assert len(await session.fork(3)) == 3

    run(scenario())


def test_one_that_says_it_forked_when_it_was_not_told_to_gives_no_copy() -> None:
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


def test_one_that_never_reads_is_killed_at_its_deadline() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.silent = "m"
            result = await session.run("x" * 500_000)
            assert (result.status, result.alive) == ("timeout", False)

    run(scenario())


def test_endless_text_is_stopped_and_what_is_between_cells_is_bounded() -> None:
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


# --- Several callers


@pytest.mark.parametrize("act", ["run", "restart", "fork", "close"])
def test_who_has_a_result_may_use_the_session_before_the_loop_ends(act: str) -> None:
    async def scenario() -> None:
        async with world() as it:
            session = it.session()
            acts: dict[str, Callable[[], Awaitable[object]]] = {
                "run": lambda: session.run("y"), "restart": session.restart, "fork": session.fork,
                "close": session.close,
            }  # fmt: skip
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
def test_restarts_beside_each_other_all_end_well(pause: float | None) -> None:
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
def test_a_restart_that_is_overtaken_by_close_makes_nothing(turn: str) -> None:
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
            assert [kind for kind, _ in it.init.heard].count("s") == 1 + (turn == "had")
            await copy.close()
            await it.until_gone()
            assert len(it.sessions) == 0

    run(scenario())


def test_a_caller_that_is_cancelled_twice_loses_nothing() -> None:
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


def test_closing_does_not_wait_for_a_fork_under_way() -> None:
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
def test_a_position_outside_the_code_is_the_callers_mistake(at: Any) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            with pytest.raises(InvalidRequest, match="at"):
                await session.complete("abc", at)
            assert (await session.complete("abc", 3)).matches == ("ab",)

    run(scenario())


# --- One that says nothing


def test_one_that_never_is_ready_is_given_up() -> None:
    async def scenario() -> None:
        async with world() as it:
            it.prepare = lambda init: setattr(init, "silent", "s")
            with pytest.raises(SandboxLost, match="not ready"):
                await it.session().start()
            await it.until_gone()

    run(scenario())


@pytest.mark.parametrize("kind", ["q", "n", "b"])
def test_an_init_that_does_not_answer_is_lost(kind: str) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.silent = kind
            acts: dict[str, Callable[[], Awaitable[object]]] = {
                "q": lambda: session.files.read("f"), "n": session.restart, "b": session.fork,
            }  # fmt: skip
            act = acts[kind]
            with pytest.raises(CodeForgeError):
                await act()
            with pytest.raises(SessionEnded):
                await session.run("x")
            await it.until_gone()

    run(scenario())


def test_a_cell_whose_init_does_not_kill_is_lost_in_time() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.silent = "n"
            with pytest.raises(SandboxLost, match="did not answer"):
                await session.run("wait", timeout=5)
            await it.until_gone()

    run(scenario())


@pytest.mark.parametrize("number", [2, 13, 28, 40, 5])
def test_errors_of_files(number: int) -> None:
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


@pytest.mark.parametrize("listing", [b"short", struct.pack("<Q", 1)], ids=["short", "goes on and on"])
def test_a_listing_that_is_none_is_a_violation(listing: bytes) -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            it.init.answers["q"] = frame("Q", BRANCH.pack(0) + listing)
            with pytest.raises(ProtocolViolation):
                await session.files.list()

    run(scenario())


# --- Ends


def test_close_answers_everybody() -> None:
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
            await it.until_gone()

    run(scenario())


def test_there_is_no_room_and_there_is_again() -> None:
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


def test_frames_go_in_their_order() -> None:
    async def scenario() -> None:
        async with world() as it, it.session() as session:
            await asyncio.gather(*(session.run("z" * 100_000) for _ in range(3)), session.fork(2))
            kinds = "".join(kind for kind, _ in it.init.heard)
            assert kinds == "s" + "m" * 6 + "bb"

    run(scenario())
