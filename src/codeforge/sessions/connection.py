"""The connection to the sandbox of a session and its branches.

Theory of operation: one task reads, and passes each event to the ``Interpreter`` of its branch; nothing it
calls waits. Another task writes. A message to an interpreter is cut into pieces, and each piece waits until
init has passed on the one before. Requests that init answers go out one at a time, so that the next answer
is always that of the request under way.

When the channel ends, every call that waits for something raises an error.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from codeforge import protocol
from codeforge.errors import (
    CannotFork,
    HostFailure,
    InvalidRequest,
    ProtocolViolation,
    SandboxLost,
    SessionEnded,
)
from codeforge.model import text_of
from codeforge.protocol import session_frames
from codeforge.sandboxes import OOM_EVENT_WAIT_S, Pool, Sandbox, SandboxKind
from codeforge.sessions.interpreter import (
    ANSWER_TIMEOUT_S,
    READY_TIMEOUT_S,
    Interpreter,
    Message,
)

T = TypeVar("T")


class Connection:
    """One sandbox's channel, for as long as one of its branches is open.

    Attributes:
        lost: why the connection ended, once it has.
        closed: whether the sandbox was given back.
        oom_kills: the kernel's count of out-of-memory kills in the sandbox when a branch last ended.
    """

    def __init__(self, sandbox: Sandbox, lease: AsyncExitStack) -> None:
        self.lost: Exception | None = None
        self.closed = False
        self.oom_kills = 0
        self._sandbox = sandbox
        self._lease = lease
        self._closing: asyncio.Task[None] | None = None
        self._interpreters: dict[int, Interpreter] = {}
        self._last_number = 0
        # Bounded by what can be under way: one piece for each interpreter, and one request.
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._request_turn = asyncio.Lock()
        self._answer: asyncio.Future[session_frames.Answer] | None = None
        self._requests: set[asyncio.Task[session_frames.Answer]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(
        cls, pool: Pool, kind: SandboxKind, frames: list[bytes], restart_frames: list[bytes] | None
    ) -> Connection:
        """Lease a sandbox of that kind, and start an interpreter in it as branch 0.

        Args:
            pool: where the sandbox comes from.
            kind: the sandbox's kind.
            frames: sent before START.
            restart_frames: start another interpreter instead of the one that was waiting in the sandbox.

        Raises:
            Busy: there is no room for another sandbox.
            HostFailure: the sandbox or the interpreter could not be started.
        """
        lease = AsyncExitStack()
        connection = cls(await lease.enter_async_context(pool.lease(kind, no_wait=True)), lease)
        try:
            await connection._begin(frames, restart_frames)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _begin(self, frames: list[bytes], restart_frames: list[bytes] | None) -> None:
        first = self._add(0)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._sandbox.begin_session(b"".join([*frames, session_frames.start(0)]))
        except TimeoutError:
            raise SandboxLost(f"the sandbox took no files within {READY_TIMEOUT_S:g} s") from None
        self.spawn(self._read())
        self.spawn(self._write())
        await first.wait_until_ready()
        if restart_frames is not None:
            await first.end()
            await self.restart(0, restart_frames)

    @property
    def id(self) -> str:
        """The engine's name for the sandbox."""
        return self._sandbox.id

    @property
    def posture(self) -> dict[str, str]:
        """What the kernel reported about the sandbox."""
        return dict(self._sandbox.posture)

    async def oom_event(self) -> bool:
        """Whether the engine reports an out-of-memory kill in the sandbox; waits a moment for the event."""
        return await self._sandbox.oom_event(OOM_EVENT_WAIT_S)

    async def close(self) -> None:
        """Give the sandbox back, which ends it. May be called again."""
        if not self.closed:
            self.closed = True
            try:
                await self._stop()
            finally:  # the caller may be cancelled a second time
                await self._lease.aclose()

    def close_soon(self) -> None:
        """Close it in the background."""
        self._closing = asyncio.ensure_future(self.close())

    async def _stop(self) -> None:
        # Otherwise tasks would wait for events that are no longer read.
        self._lose(SessionEnded("the session was closed"))
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _lose(self, error: Exception) -> None:
        if self.lost is None:
            self.lost = error
            for interpreter in self._interpreters.values():
                interpreter.handle_end(None)
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(error)
                self._answer.exception()  # retrieved, even if its caller has left: asyncio would log it

    def _break_off(self, error: HostFailure) -> None:
        self._lose(error)
        self.close_soon()

    # --- Branches

    def __getitem__(self, number: int) -> Interpreter:
        return self._interpreters[number]

    @property
    def unused(self) -> bool:
        """Whether no branch is left."""
        return not self._interpreters

    async def restart(self, number: int, frames: list[bytes]) -> None:
        """Start an interpreter in place of one that has ended.

        Raises:
            SandboxLost: it did not start.
        """
        interpreter = self._add(number)
        self.send(b"".join([*frames, session_frames.start(number)]))
        await interpreter.wait_until_ready()

    async def fork(self, source: Interpreter) -> Interpreter:
        """Copy an interpreter, and return the copy, which is a new branch.

        Raises:
            InvalidRequest: there are as many branches as may be.
            CannotFork: the interpreter or init says that there can be no copy, or the copy did not start.
            SessionEnded: the interpreter ended.
            HostFailure: the connection ended.
        """
        number = self._free_number()
        copy = self._add(number)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        asking = self.spawn(self._ask_to_fork(source, number, answer))
        is_made = False
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                reply = await source.wait_unless_over(answer)
            if reply.get("is") != "forked":
                raise CannotFork(text_of(reply.get("why")))
            await copy.wait_until_ready()
            is_made = True
            return copy
        except TimeoutError:
            raise CannotFork(f"the interpreter did not answer within {READY_TIMEOUT_S:g} s") from None
        except SandboxLost as error:
            if self.lost is not None:
                raise
            raise CannotFork(str(error)) from error
        finally:
            # If the request is not sent yet, _ask_to_fork forgets the copy, after it has sent the request.
            if not is_made and (asking.done() or not answer.cancelled()):
                self._abandon(number)

    async def _ask_to_fork(self, source: Interpreter, number: int, answer: asyncio.Future[Message]) -> None:
        try:
            await source.ask_to_fork(number, answer)
        finally:
            if answer.cancelled():
                self._abandon(number)

    def forget(self, number: int) -> None:
        """End a branch, and have init remove its files."""
        interpreter = self._interpreters.pop(number, None)
        if interpreter is not None:
            interpreter.handle_end(session_frames.Ended(number, None, signal.SIGKILL, 0, 0))
            self.send(session_frames.forget(number))

    def _abandon(self, number: int) -> None:
        """Forget a copy that was not delivered; close the connection if no other branch is left."""
        self.forget(number)
        if self.unused:
            self.close_soon()

    def _add(self, number: int) -> Interpreter:
        before = self._interpreters.get(number)
        interpreter = Interpreter(self, number, unread=before.unread if before is not None else None)
        self._interpreters[number] = interpreter
        return interpreter

    def _free_number(self) -> int:
        # 0 is not used again: the first branch's directory is in another place than the others'.
        most = session_frames.MAX_BRANCHES - 1
        # Numbers are used in turn, as frames about the one that became free last may still be on their way.
        for number in (1 + (self._last_number + step) % most for step in range(most)):
            if number not in self._interpreters:
                self._last_number = number
                return number
        raise InvalidRequest(f"a session has at most {session_frames.MAX_BRANCHES} branches; close some")

    # --- What is sent: see ``Transport``

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in a task that ends with the connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def send(self, frames: bytes) -> None:
        """Send frames, after everything that was sent before. Does nothing once the connection ended."""
        self._outgoing.put_nowait(frames)

    async def _write(self) -> None:
        while True:
            await self._sandbox.write(await self._outgoing.get())

    async def request(self, frame: bytes) -> session_frames.Answer:
        """Send a frame that init answers, and wait for its answer.

        Raises:
            HostFailure: the connection ended.
        """
        # A task goes on if its caller is cancelled: the next request must not get the answer to this one.
        requesting = asyncio.get_running_loop().create_task(self._request(frame))
        self._requests.add(requesting)
        requesting.add_done_callback(self._requested)
        return await asyncio.shield(requesting)

    def _requested(self, requesting: asyncio.Task[session_frames.Answer]) -> None:
        self._requests.discard(requesting)
        if not requesting.cancelled():
            requesting.exception()  # retrieved, even if its caller has left: asyncio would log it

    async def _request(self, frame: bytes) -> session_frames.Answer:
        async with self._request_turn:
            if self.lost is not None:
                raise self.lost
            self._answer = asyncio.get_running_loop().create_future()
            self.send(frame)
            return await self.within_answer_timeout(self._answer)

    async def within_answer_timeout(self, awaitable: Awaitable[T]) -> T:
        """Wait for something that init does in moments; end the connection if it takes too long.

        Raises:
            HostFailure: it took too long, or the connection ended.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await awaitable
        except TimeoutError:
            error = SandboxLost(f"the session's sandbox did not answer within {ANSWER_TIMEOUT_S:g} s")
            self._break_off(error)
            raise error from None

    # --- What comes

    async def _read(self) -> None:
        try:
            while (event := await self._sandbox.next_event()) is not None:
                match event:
                    case protocol.SessionFrame():
                        self._handle(session_frames.parse(event))
                    case protocol.Preloaded() | protocol.Ready():
                        pass  # from before the session began
                    case protocol.Failed(message):
                        raise SandboxLost(f"the sandbox's init failed: {message}")
                    case _:
                        raise ProtocolViolation(f"{event} in a session")
            raise SandboxLost("the session's sandbox ended unexpectedly; was the engine stopped?")
        except HostFailure as error:
            self._break_off(error)
        except Exception as error:
            self._break_off(SandboxLost(f"the host failed: {error!r}"))  # callers must not wait forever
            raise

    def _handle(self, event: session_frames.SessionEvent) -> None:
        if isinstance(event, session_frames.Answer):
            if self._answer is None or self._answer.done():
                raise ProtocolViolation("an answer without a request")
            self._answer.set_result(event)
            return
        interpreter = self._interpreters.get(event.branch)
        if interpreter is None:
            return  # the branch was forgotten meanwhile
        if isinstance(event, session_frames.Ended):
            self.oom_kills = max(self.oom_kills, event.oom_kills)
            interpreter.handle_end(event)
        else:
            interpreter.handle(event)
