"""One branch's interpreter: sends it messages, and passes on its answers and its output.

An interpreter shares its process with the program, so its messages may be anything. One that sends bytes
that are not a message is killed: only its own program can have sent them.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import signal
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol, TypeAlias, TypeVar

from codeforge.errors import SandboxLost, SessionEnded
from codeforge.model import KiB, StreamName
from codeforge.protocol import session_frames
from codeforge.sandboxes import OutputBuffer
from codeforge.sessions.cell import Cell

T = TypeVar("T")

Message: TypeAlias = dict[str, Any]
"""A JSON object."""

ANSWER_TIMEOUT_S = 30.0
"""How long init and an interpreter may take to answer. They need moments; later, they hang."""

READY_TIMEOUT_S = 60.0
"""From START to an interpreter that takes cells: Python with IPython needs a second, on half a core."""

UNREAD_BYTES = 64 * KiB
"""How much of stdout, and of stderr, is kept of what a branch writes while no cell runs."""


class Transport(Protocol):
    """What an interpreter needs of the connection to its sandbox."""

    @property
    def lost(self) -> Exception | None:
        """Why the connection ended; ``None`` while it is open."""

    def send(self, frames: bytes) -> None:
        """Send frames, after everything that was sent before. Does nothing once the connection ended."""

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in a task that ends with the connection."""

    async def request(self, frame: bytes) -> session_frames.Answer:
        """Send a frame that init answers, and wait for its answer."""

    async def within_answer_timeout(self, awaitable: Awaitable[T]) -> T:
        """Wait for something that init does in moments; end the connection if it takes too long."""


class Interpreter:
    """One branch's interpreter, as the host sees it.

    Attributes:
        number: the number of its branch.
        cell: the cell that runs, or the last one that did.
        ended: how it ended, once it has.
        unread: what its branch wrote while no cell ran; the next cell takes it.
    """

    def __init__(self, transport: Transport, number: int, unread: OutputBuffer | None = None) -> None:
        self.number = number
        self.cell: Cell | None = None
        self.ended: session_frames.Ended | None = None
        self.unread = unread or OutputBuffer(UNREAD_BYTES)
        self._transport = transport
        self._decoder = session_frames.MessageDecoder()
        self._ready = asyncio.Event()
        self._taken = asyncio.Event()
        self._over = asyncio.Event()
        self._sending = asyncio.Lock()
        self._request_numbers = itertools.count()
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._forks: collections.deque[asyncio.Future[Message]] = collections.deque()

    @property
    def alive(self) -> bool:
        """Whether it runs, and the connection to it is open."""
        return self.ended is None and self._transport.lost is None

    @property
    def ready(self) -> bool:
        """Whether it ever was ready to run cells."""
        return self._ready.is_set()

    # --- What is sent to it

    async def send(self, message: Message) -> None:
        """Send it a message, piece by piece as init takes them. Does nothing once it has ended."""
        async with self._sending:
            for piece in session_frames.message(self.number, message):
                if not self.alive:
                    return
                self._taken.clear()
                self._transport.send(piece)
                await self._taken.wait()

    async def ask(self, message: Message) -> Message:
        """Send it a question, and wait for its answer.

        Raises:
            SessionEnded: it ended, or did not answer and was killed.
        """
        number = next(self._request_numbers)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        self._transport.spawn(self.send({**message, "request": number}))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self.wait_unless_over(reply)
        except TimeoutError:
            await self.end()
            raise SessionEnded(
                f"the session's interpreter did not answer within {ANSWER_TIMEOUT_S:g} s and was killed; "
                "restart() starts a new one and keeps the files"
            ) from None
        finally:
            del self._replies[number]

    async def ask_to_fork(self, number: int, answer: asyncio.Future[Message]) -> None:
        """Ask it for a copy, as the branch of that number, and set ``answer`` to its answer.

        This waits for its turn among the messages: an interpreter answers them one after another.
        """
        async with self._sending:
            if answer.done() or not self.alive:
                return
            self._forks.append(answer)
            self._taken.clear()
            files_copied = await self._transport.request(session_frames.fork(self.number, number))
            if files_copied.error:
                with contextlib.suppress(ValueError):  # its program sent an answer before it was asked
                    self._forks.remove(answer)
                why = f"the session's files could not be copied: {os.strerror(files_copied.error)}"
                _set_result(answer, {"is": "not_forked", "why": why})
            elif self.alive:
                await self._taken.wait()

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in its cell."""
        self._transport.send(session_frames.signal(self.number, signal.SIGINT))

    def kill(self) -> None:
        """Send it SIGKILL; the connection ends if init does not report its end in time."""
        self._transport.send(session_frames.signal(self.number, signal.SIGKILL))
        self._transport.spawn(self._wait_until_killed())

    async def _wait_until_killed(self) -> None:
        with contextlib.suppress(SandboxLost):  # the callers that wait for it get the error
            await self._transport.within_answer_timeout(self._over.wait())

    async def end(self) -> None:
        """Kill it, and wait until it has ended.

        Raises:
            SandboxLost: init did not end it in time.
        """
        if self.alive:
            self.kill()
            await self._transport.within_answer_timeout(self._over.wait())

    # --- Waiting

    async def wait_until_ready(self) -> None:
        """Wait until it takes cells.

        Raises:
            SandboxLost: it ended first, or took too long.
        """
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self.wait_unless_over(asyncio.ensure_future(self._ready.wait()))
        except TimeoutError:
            raise SandboxLost(
                f"the session's interpreter was not ready within {READY_TIMEOUT_S:g} s"
            ) from None
        except SessionEnded as error:
            raise SandboxLost(f"the session did not start: {error}") from error

    async def wait_unless_over(self, awaited: asyncio.Future[T]) -> T:
        """Wait for a future, which is cancelled if it does not come.

        Raises:
            SessionEnded: the interpreter ended first.
            Exception: the connection ended first; this is why.
        """
        over = asyncio.ensure_future(self._over.wait())
        both: set[asyncio.Future[Any]] = {awaited, over}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not awaited.done():
                raise self._transport.lost or SessionEnded("the session's interpreter ended")
            return awaited.result()
        finally:
            over.cancel()
            awaited.cancel()

    # --- What comes from it

    def handle(
        self, event: session_frames.Text | session_frames.MessageData | session_frames.MessageTaken
    ) -> None:
        """Handle one event of its branch."""
        match event:
            case session_frames.Text(_, stream, data):
                self._take_output(stream, data)
            case session_frames.MessageTaken():
                self._taken.set()
            case session_frames.MessageData(_, data):
                try:
                    for message in self._decoder.feed(data):
                        self._handle_message(message)
                except session_frames.InvalidMessage:
                    self.kill()

    def _take_output(self, stream: StreamName, data: bytes) -> None:
        if self.cell is not None and not self.cell.is_over:
            self.cell.take_output(stream, data)
        else:
            self.unread.add(stream, data)

    def take_unread(self) -> OutputBuffer:
        """Return what its branch wrote since the last cell, and start a new buffer."""
        unread, self.unread = self.unread, OutputBuffer(UNREAD_BYTES)
        return unread

    def _handle_message(self, message: Message) -> None:
        cell = self.cell
        match message:
            case {"is": "ready"}:
                self._ready.set()
            case {"is": "forked" | "not_forked"}:
                if self._forks:
                    _set_result(self._forks.popleft(), message)
            case {"request": int(number)}:
                if number in self._replies:
                    _set_result(self._replies[number], message)
            case {"cell": number} if cell is not None and number == cell.number:
                cell.handle_message(message)

    def handle_end(self, ended: session_frames.Ended | None) -> None:
        """Note that it has ended; ``None``: the whole connection has."""
        self.ended = ended
        self._over.set()
        self._taken.set()
        if self.cell is not None:
            self.cell.interpreter_ended(ended)


def _set_result(future: asyncio.Future[Message], message: Message) -> None:
    if not future.done():
        future.set_result(message)
