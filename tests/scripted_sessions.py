"""Sessions on a scripted engine: an init and interpreters that behave as a test tells them to."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from codeforge.model.languages import PYTHON, LanguageTable
from codeforge.model.limits import GiB, Limits
from codeforge.model.request import ExecutionRequest, resolve_session
from codeforge.sandboxes.pool import Pool
from codeforge.sessions.registry import SessionGroup, SessionRegistry
from codeforge.sessions.session import Session
from scripted_engine import ScriptedChannel, ScriptedEngine, frame

BRANCH = struct.Struct("<I")


class ScriptedInit:
    """The init of a session's sandbox, with its interpreters: correct, unless a test says otherwise.

    Attributes:
        received: the frames that the host sent since START.
        silent: kinds of frames that init does not answer.
        mute: kinds of messages that interpreters do not answer.
        answers: what init sends instead of its usual answer, by kind of frame.
        cell: the number of the cell that runs, by branch.
    """

    def __init__(self, channel: ScriptedChannel) -> None:
        self.channel = channel
        self.received: list[tuple[str, bytes]] = []
        self.silent = ""
        self.mute: set[str] = set()
        self.answers: dict[str, bytes] = {}
        self._parts: dict[int, bytes] = {}
        self.cell: dict[int, int] = {}
        self.branches: set[int] = set()
        obey = channel._obey

        def listen(kind: str, payload: bytes) -> None:
            if kind in "smbnxq":
                self.received.append((kind, payload))
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
        elif kind == "s" and branch in self.branches:
            self.channel.say(frame("E", b"protocol: that branch is there"))
        elif kind == "s":
            self.branches.add(branch)
            asyncio.get_running_loop().call_later(1, self.say, branch, {"is": "ready"})
        elif kind == "x":
            self.branches.discard(branch)
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
                self.branches.add(copy)
                self.say(copy, {"is": "ready"})
        elif kind == "q":
            self.channel.say(frame("Q", BRANCH.pack(0)))
        elif kind == "n" and payload[4] == 9 and branch in self.branches:
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
        self.branches.discard(branch)
        self.init("B", branch, struct.pack("<BBII", by_signal, number, 0, 0))


class World:
    """A session registry and a pool on a scripted engine.

    Attributes:
        inits: the init of each sandbox, in the order of their launch.
        prepare: called with each init before its sandbox is used.
    """

    def __init__(self) -> None:
        self.engine = ScriptedEngine()
        self.pool = Pool(self.engine, max_warm=0, max_sandboxes=4)
        self.sessions = SessionRegistry(self.pool, 100 * GiB)
        self.inits: list[ScriptedInit] = []
        self.prepare: Callable[[ScriptedInit], object] = lambda init: None
        launch = self.engine.launch

        async def launch_scripted(*arguments: Any, **options: Any) -> ScriptedChannel:
            channel = await launch(*arguments, **options)
            self.inits.append(ScriptedInit(channel))
            self.prepare(self.inits[-1])
            return channel

        self.engine.launch = launch_scripted  # type: ignore[method-assign]

    @property
    def init(self) -> ScriptedInit:
        return self.inits[-1]

    def session(self, **options: Any) -> Session:
        request = ExecutionRequest(code="", language="python", **options)
        return Session(
            SessionGroup(self.sessions, resolve_session(request, LanguageTable([PYTHON]), Limits()), None)
        )

    async def until_no_sandbox(self) -> None:
        async with asyncio.timeout(200):
            while self.engine.there:  # noqa: ASYNC110 - there is no event to wait for
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
