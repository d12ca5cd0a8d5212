"""The channel of one session's sandbox: which branch said what, and who waits for it.

Theory of operation: one task reads, and hands each event to the ``Interpreter`` it is about; nothing in
that waits. What is sent to an interpreter is cut into pieces, and each waits until init has passed on the
one before. Questions about files are answered in their order, one at a time.

When the channel ends, everybody who waits is told so. A branch that says what is no message is killed:
the program did that, and it is the program's loss.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import signal
from collections.abc import Awaitable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from codeforge import protocol
from codeforge.errors import HostFailure, InvalidRequest, ProtocolViolation, SandboxLost, SessionEnded
from codeforge.model import text_of
from codeforge.protocol import session_frames
from codeforge.sandboxes import Pool, Sandbox, SandboxKind
from codeforge.sessions.cell import Cell

T = TypeVar("T")

ANSWER_TIMEOUT_S = 30.0
"""For what init does at once: a piece of a file, a copy of 64 MiB, a signal. It hangs, or the engine does."""

BETWEEN_BYTES = 64 * 1024
"""How much of stdout, and of stderr, is kept of what is written while no cell runs."""

READY_TIMEOUT_S = 60.0
"""From START to an interpreter that takes cells: Python with IPython needs a second, on half a core."""


class Interpreter:
    """One branch's interpreter, as the host knows it.

    Attributes:
        number: the branch's.
        cell: the one that runs, or ran last.
        ended: how it ended, once it has.
    """

    def __init__(self, link: Link, number: int) -> None:
        self.number = number
        self.cell: Cell | None = None
        self.ended: session_frames.Ended | None = None
        self._link = link
        self._decoder = session_frames.MessageDecoder()
        self._ready = asyncio.Event()
        self._taken = asyncio.Event()
        self._over = asyncio.Event()
        self._saying = asyncio.Lock()
        self._questions = itertools.count()
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._forks: collections.deque[asyncio.Future[dict[str, Any]]] = collections.deque()

    @property
    def alive(self) -> bool:
        """Whether it can be talked to."""
        return self.ended is None and self._link.lost is None

    @property
    def ready(self) -> bool:
        """Whether it takes cells, or did."""
        return self._ready.is_set()

    async def say(self, message: dict[str, Any]) -> None:
        """Send it a message; lost if it has ended."""
        async with self._saying:
            for piece in session_frames.message(self.number, message):
                if not self.alive:
                    return
                self._taken.clear()
                self._link.send(piece)
                await self._taken.wait()

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send it a question, and wait for what it says to that.

        Raises:
            SessionEnded: it ended, or was ended, as it did not answer.
        """
        number = next(self._questions)
        future = self._replies[number] = asyncio.get_running_loop().create_future()
        self._link.spawn(self.say({**message, "request": number}))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                said: dict[str, Any] = await self._unless_over(future)
                return said
        except TimeoutError:
            await self.end()
            raise SessionEnded(
                f"the session's interpreter did not answer within {ANSWER_TIMEOUT_S:g} s, and was ended"
            ) from None
        finally:
            del self._replies[number]

    async def until_ready(self) -> None:
        """Wait until it takes cells.

        Raises:
            SandboxLost: it did not get there.
        """
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._unless_over(asyncio.ensure_future(self._ready.wait()))
        except TimeoutError:
            raise SandboxLost(
                f"the session's interpreter was not ready within {READY_TIMEOUT_S:g} s"
            ) from None
        except SessionEnded as error:
            raise SandboxLost(f"the session did not start: {error}") from error

    async def fork(self, number: int) -> Interpreter | str:
        """A copy of it, as the branch of that number; or why there can be none."""
        copy = self._link.add(number)
        told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        telling = self._link.spawn(self._tell_to_fork(number, told))
        is_made = False
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                said = await self._unless_over(told)
            if said.get("is") != "forked":
                return text_of(said.get("why"))
            await copy.until_ready()
            is_made = True
            return copy
        except TimeoutError:
            return f"the interpreter did not answer within {READY_TIMEOUT_S:g} s"
        except SandboxLost as error:
            if self._link.lost is not None:
                raise
            return str(error)
        finally:
            # Who is still being told to, is told to forget it afterwards.
            if not is_made and (telling.done() or not told.cancelled()):
                self._link.abandon(number)

    async def _tell_to_fork(self, number: int, told: asyncio.Future[dict[str, Any]]) -> None:
        """Have its turn among messages; an interpreter answers one after another."""
        try:
            async with self._saying:
                if told.done() or not self.alive:
                    return
                self._forks.append(told)
                self._taken.clear()
                answer = await self._link.request(session_frames.fork(self.number, number))
                if answer.error:
                    with contextlib.suppress(ValueError):  # it said something without having been told to
                        self._forks.remove(told)
                    why = f"the session's files could not be copied: {os.strerror(answer.error)}"
                    _answer(told, {"is": "not_forked", "why": why})
                elif self.alive:
                    await self._taken.wait()
        finally:
            if told.cancelled():
                self._link.abandon(number)

    async def _unless_over(self, waited_for: asyncio.Future[Any]) -> Any:
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({waited_for, over}, return_when=asyncio.FIRST_COMPLETED)
            if not waited_for.done():
                raise self._link.lost or SessionEnded("the session's interpreter ended")
            return waited_for.result()
        finally:
            over.cancel()
            waited_for.cancel()

    async def end(self) -> None:
        """Kill it, and wait until it is gone."""
        if self.alive:
            self.kill()
            await self._link.soon(self._over.wait())

    def interrupt(self) -> None:
        """Have its cell raise KeyboardInterrupt."""
        self._link.send(session_frames.signal(self.number, signal.SIGINT))

    def kill(self) -> None:
        """End it; what comes of that is told as ever, and soon."""
        self._link.send(session_frames.signal(self.number, signal.SIGKILL))
        self._link.spawn(self._until_killed())

    async def _until_killed(self) -> None:
        with contextlib.suppress(SandboxLost):  # told to who waits for it
            await self._link.soon(self._over.wait())

    # --- What comes of it

    def take(self, event: session_frames.Text | session_frames.Said | session_frames.Taken) -> None:
        """Account for one event."""
        match event:
            case session_frames.Text(_, stream, data):
                self._link.take_text(self, stream, data)
            case session_frames.Taken():
                self._taken.set()
            case session_frames.Said(_, data):
                try:
                    for message in self._decoder.feed(data):
                        self._hear(message)
                except session_frames.NotAMessage:
                    self.kill()

    def _hear(self, message: dict[str, Any]) -> None:
        kind, cell, number = message.get("is"), self.cell, message.get("request")
        if kind == "ready":
            self._ready.set()
        elif kind in ("forked", "not_forked"):
            _answer(self._forks.popleft() if self._forks else None, message)
        elif isinstance(number, int):
            _answer(self._replies.get(number), message)
        elif cell is not None and message.get("cell") == cell.number:
            cell.hear(message)

    def take_end(self, ended: session_frames.Ended | None) -> None:
        """It is over, or the whole sandbox is."""
        self.ended = ended
        self._over.set()
        self._taken.set()
        if self.cell is not None:
            self.cell.take_end(ended)


def _answer(waiting: asyncio.Future[dict[str, Any]] | None, message: dict[str, Any]) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(message)


class Link:
    """One session's sandbox, for as long as one of its branches is open.

    Attributes:
        lost: why the sandbox broke off, once it has.
        oom_kills: how many processes the kernel had killed for want of memory when a branch last ended.
        closed: it was let go of.
    """

    def __init__(self, sandbox: Sandbox, lease: AsyncExitStack) -> None:
        self.lost: Exception | None = None
        self.oom_kills = 0
        self._sandbox = sandbox
        self._lease = lease
        self._interpreters: dict[int, Interpreter] = {}
        self._between: dict[int, dict[str, bytearray]] = {}
        # Bounded by what may be under way: one piece to each interpreter, one question about files.
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._last_number = 0
        self._asking = asyncio.Lock()
        self._asked: asyncio.Future[session_frames.Answer] | None = None
        self._asks: set[asyncio.Task[session_frames.Answer]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.closed = False

    @classmethod
    async def open(
        cls, pool: Pool, kind: SandboxKind, frames: list[bytes], anew: list[bytes] | None = None
    ) -> Link:
        """Begin a session in a sandbox of that kind: send these frames, and START.

        ``anew`` start an interpreter in the place of the one that was there already.

        Raises:
            Busy: there is no room for one now.
            HostFailure: it could not be started.
        """
        async with AsyncExitStack() as stack:
            sandbox = await stack.enter_async_context(pool.lease(kind, no_wait=True))
            link = cls(sandbox, stack)
            first = link.add(0)
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await sandbox.begin_session(b"".join([*frames, session_frames.start(0)]))
            except TimeoutError:
                raise SandboxLost(f"the sandbox took no files within {READY_TIMEOUT_S:g} s") from None
            link.spawn(link._read())
            link.spawn(link._write())
            try:
                await first.until_ready()
                if anew is not None:
                    await first.end()
                    await link.restart(0, anew)
            except BaseException:
                await link._stop()
                raise
            link._lease = stack.pop_all()
            return link

    @property
    def id(self) -> str:
        """The engine's name for the sandbox."""
        return self._sandbox.id

    @property
    def posture(self) -> dict[str, str]:
        """What the kernel said about it."""
        return dict(self._sandbox.posture)

    def __getitem__(self, number: int) -> Interpreter:
        return self._interpreters[number]

    def add(self, number: int) -> Interpreter:
        """An interpreter that is about to be."""
        made = self._interpreters[number] = Interpreter(self, number)
        return made

    def free_number(self) -> int:
        """The number of a branch that is not there.

        Raises:
            InvalidRequest: there are as many as may be.
        """
        most = session_frames.MAX_BRANCHES - 1  # 0 is the first one's for ever: its directory is another
        # The one that was given back last comes last: something of it may be on its way still.
        for number in (1 + (self._last_number + step) % most for step in range(most)):
            if number not in self._interpreters:
                self._last_number = number
                return number
        raise InvalidRequest(f"a session has at most {session_frames.MAX_BRANCHES} branches; close some")

    async def restart(self, number: int, frames: list[bytes]) -> Interpreter:
        """Another interpreter in the place of one that is over; ``frames`` start it."""
        made = self.add(number)
        self.send(b"".join([*frames, session_frames.start(number)]))
        await made.until_ready()
        return made

    def forget(self, number: int) -> None:
        """End a branch, and remove its files. The sandbox goes with the last one."""
        interpreter = self._interpreters.pop(number, None)
        self._between.pop(number, None)
        if interpreter is not None:
            interpreter.take_end(session_frames.Ended(number, None, signal.SIGKILL, 0, 0))
            self.send(session_frames.forget(number))

    @property
    def unused(self) -> bool:
        """Whether no branch is left."""
        return not self._interpreters

    def abandon(self, number: int) -> None:
        """Forget a branch that nobody got; the sandbox goes with it, if its own were closed meanwhile."""
        self.forget(number)
        if self.unused:
            self._closing = asyncio.ensure_future(self.close())

    async def close(self) -> None:
        """Let go of the sandbox, which ends. May be called again."""
        if not self.closed:
            self.closed = True
            await self._stop()
            await self._lease.aclose()

    async def _stop(self) -> None:
        self._lose(SessionEnded("the session was closed"))  # or a task waits for what nobody reads any more
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do that beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def send(self, frames: bytes) -> None:
        """Send frames, after all that was sent before; lost once the sandbox is gone."""
        self._outgoing.put_nowait(frames)

    async def _write(self) -> None:
        while True:
            await self._sandbox.write(await self._outgoing.get())

    async def request(self, frame: bytes) -> session_frames.Answer:
        """Send a frame that is answered, and wait for the answer.

        Raises:
            HostFailure: the sandbox broke off.
        """
        # Once asked it goes on, whatever becomes of the caller: an answer to nobody would be the next one's.
        asking = asyncio.get_running_loop().create_task(self._ask(frame))
        self._asks.add(asking)
        asking.add_done_callback(self._answered)
        return await asyncio.shield(asking)

    def _answered(self, asking: asyncio.Task[session_frames.Answer]) -> None:
        self._asks.discard(asking)
        if not asking.cancelled():
            asking.exception()  # the caller may not wait for it any more

    async def _ask(self, frame: bytes) -> session_frames.Answer:
        async with self._asking:
            if self.lost is not None:
                raise self.lost
            self._asked = asyncio.get_running_loop().create_future()
            self.send(frame)
            return await self.soon(self._asked)

    async def soon(self, waited_for: Awaitable[T]) -> T:
        """What init does at once; if it does not, nobody knows what is with that sandbox.

        Raises:
            HostFailure: it did not, or the sandbox broke off.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await waited_for
        except TimeoutError:
            error = SandboxLost(f"the session's sandbox did not answer within {ANSWER_TIMEOUT_S:g} s")
            self._break_off(error)
            raise error from None

    async def oom_event(self, wait_s: float) -> bool:
        """Whether the kernel killed for want of memory in it."""
        return await self._sandbox.oom_event(wait_s)

    # --- What comes

    async def _read(self) -> None:
        try:
            while (event := await self._sandbox.next_event()) is not None:
                if isinstance(event, protocol.OfSession):
                    self._take(session_frames.parse(event))
                elif isinstance(event, protocol.Failed):
                    raise SandboxLost(f"the sandbox gave up: {event.message}")
                elif not isinstance(event, protocol.Preloaded | protocol.Ready):
                    raise ProtocolViolation(f"{event} in a session")
            raise SandboxLost("the session's sandbox broke off; was the engine stopped?")
        except HostFailure as error:
            self._break_off(error)
        except Exception as error:
            self._break_off(SandboxLost(f"the host failed: {error!r}"))  # or everybody would wait for ever
            raise

    def _break_off(self, error: HostFailure) -> None:
        self._lose(error)
        self._closing = asyncio.ensure_future(self.close())

    def _take(self, event: session_frames.SessionEvent) -> None:
        if isinstance(event, session_frames.Answer):
            if self._asked is None or self._asked.done():
                raise ProtocolViolation("an answer that nobody asked for")
            self._asked.set_result(event)
            return
        interpreter = self._interpreters.get(event.branch)
        if interpreter is None:
            return  # it was forgotten meanwhile
        if isinstance(event, session_frames.Ended):
            self.oom_kills = max(self.oom_kills, event.oom_kills)
            interpreter.take_end(event)
        else:
            interpreter.take(event)

    def take_text(self, interpreter: Interpreter, stream: str, data: bytes) -> None:
        """Output goes to the cell that runs, or waits for the next one."""
        if interpreter.cell is not None and not interpreter.cell.is_over:
            interpreter.cell.take_text(stream, data)
        else:
            kept = self._between.setdefault(interpreter.number, {}).setdefault(stream, bytearray())
            kept += data[: BETWEEN_BYTES + 1 - len(kept)]

    def take_between(self, number: int) -> tuple[dict[str, bytes], bool]:
        """What a branch wrote since its last cell, and whether there was more than is kept."""
        written = self._between.pop(number, {})
        kept = {stream: bytes(data[:BETWEEN_BYTES]) for stream, data in written.items()}
        return kept, any(len(data) > BETWEEN_BYTES for data in written.values())

    def _lose(self, error: Exception) -> None:
        if self.lost is None:
            self.lost = error
            for interpreter in self._interpreters.values():
                interpreter.take_end(None)
            if self._asked is not None and not self._asked.done():
                self._asked.set_exception(error)
                self._asked.exception()  # somebody may not wait for it any more
