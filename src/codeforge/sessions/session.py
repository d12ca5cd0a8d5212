"""Sessions: an interpreter that keeps its state from cell to cell.

Theory of operation: a session is one branch of a ``SessionGroup``, which is one sandbox. The first session
leases the sandbox. A fork of it is another branch there, with its own interpreter, stdio and files. The
sandbox ends when the last branch is closed. A branch runs one cell at a time; callers wait for their turn.

To stop a cell, the host interrupts it first, so that the session keeps its state. If the cell does not end
within ``cell.INTERRUPT_GRACE_S``, the host kills the interpreter. The cell of a cancelled caller is stopped
in the same way, and the next caller waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Self

from codeforge.errors import InvalidRequest, SandboxLost, SessionEnded
from codeforge.model import (
    CellOutput,
    CellResult,
    Completions,
    MiB,
    MimeBundle,
    OnDisplay,
    OnText,
    call_listener,
    require_int,
    result_of,
    text_bytes,
    text_of,
)
from codeforge.protocol import Answer, session_frames
from codeforge.sessions.cell import Cell
from codeforge.sessions.connection import Connection
from codeforge.sessions.files import SessionFiles
from codeforge.sessions.interpreter import Interpreter, Message
from codeforge.sessions.registry import SessionGroup

MAX_CODE_BYTES = 16 * MiB
"""How long the code of one cell may be."""

_NO_INTERPRETER = "the session's interpreter ended; restart() starts a new one and keeps the files"


class Session:
    """A live interpreter in a locked-down sandbox; made by ``CodeExecutor.session``.

    Use it as ``async with executor.session() as session``. The first use starts the sandbox.
    docs/sessions.md says what survives what.

    Attributes:
        files: the files of this branch.
        language: its language.
    """

    def __init__(self, group: SessionGroup, number: int = 0) -> None:
        self.language = group.run.language
        self.files = SessionFiles(number, self._request_file)
        self._group = group
        self._number = number
        self._turn = asyncio.Lock()
        self._closed = False
        self._why_closed = "the session is closed"
        self._users = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed, by ``close`` or by its idle timeout."""
        return self._closed

    @property
    def alive(self) -> bool:
        """Whether its interpreter runs, and with it the session's state."""
        connection = self._group.connection
        return not self._closed and connection is not None and connection[self._number].alive

    @property
    def container_id(self) -> str:
        """The engine's name for the sandbox; empty before the first use."""
        return "" if self._group.connection is None else self._group.connection.id

    @property
    def posture(self) -> Mapping[str, str]:
        """What the kernel reported about the sandbox; empty before the first use."""
        return {} if self._group.connection is None else self._group.connection.posture

    async def start(self) -> None:
        """Start the sandbox and the interpreter; without this, the first use does.

        Raises:
            Busy: there is no room for another session now.
            SessionEnded: the session was closed.
            HostFailure: the session could not be started.
        """
        async with self._use():
            await self._connect()

    async def run(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        on_display: OnDisplay | None = None,
    ) -> CellResult:
        """Run a cell. Variables, imports, functions, the working directory and files stay for the next one.

        Args:
            code: the cell; the value of its last expression is its result.
            timeout: seconds, not counting the wait for its turn; default: the session's.
            on_stdout: called with text as it is written to stdout.
            on_stderr: the same for stderr.
            on_display: called with each bundle as it is displayed.

        Raises:
            InvalidRequest: the cell cannot be run; nothing was started.
            SessionEnded: the session has no interpreter any more.
            HostFailure: the engine or the sandbox failed.
        """
        return await result_of(
            self.stream(code, timeout=timeout),
            lambda event: call_listener(event, on_stdout, on_stderr, on_display),
        )

    async def stream(
        self, code: str, *, timeout: float | None = None
    ) -> AsyncGenerator[CellOutput | MimeBundle | CellResult, None]:
        """Run a cell: yields what it writes and displays as it does, then its result.

        If the caller leaves the loop early, the cell is interrupted. Raises as ``run`` does.
        """
        if len(text_bytes("code", code)) > MAX_CODE_BYTES:
            raise InvalidRequest(f"a cell has at most {MAX_CODE_BYTES} bytes; use files")
        limits = self._group.run.limits
        if timeout is not None:
            limits = limits.with_timeout(timeout)
        async with self._use(), self._turn:
            connection = await self._connect()
            interpreter = await self._idle_interpreter(connection)
            cell = interpreter.cell = Cell(
                self._group.next_cell_number(),
                limits,
                interpreter.take_unread(),
                oom_kills=connection.oom_kills,
                interrupt=interpreter.interrupt,
                kill=interpreter.kill,
            )
            connection.spawn(interpreter.send({"do": "run", "cell": cell.number, "code": code}))
            try:
                async for event in cell.events():
                    yield event
            finally:
                cell.interrupt(then_kill=True)  # if the caller left; a cell that is over stays as it is
            result = await self._conclude(connection, cell)
        # The turn is over: the caller may restart the session or run the next cell before the loop ends.
        yield result

    async def _conclude(self, connection: Connection, cell: Cell) -> CellResult:
        oom = (cell.lost or cell.may_be_out_of_memory) and await connection.oom_event()
        if cell.lost and not oom:
            raise connection.lost or SandboxLost("the session's sandbox ended unexpectedly")
        return cell.result(oom=oom)

    async def interrupt(self) -> None:
        """Interrupt the cell that runs, if any: it raises KeyboardInterrupt, and the session keeps its state.

        The caller of ``run`` gets the result. A cell that ignores the interrupt runs on, up to its timeout.
        """
        connection = self._group.connection
        if connection is not None and not self._closed:
            cell = connection[self._number].cell
            if cell is not None:
                cell.interrupt(then_kill=False)

    async def restart(self) -> None:
        """Start a new interpreter. Variables are lost, files stay; a cell that runs is killed.

        Raises:
            SessionEnded: the session was closed, or its sandbox is gone.
            HostFailure: the new interpreter could not be started.
        """
        async with self._use():
            interpreter = (await self._connect())[self._number]
            if interpreter.ready:
                await interpreter.end()  # so that its cell ends and gives up the turn
            async with self._turn:
                connection = await self._connect()
                await connection[self._number].end()  # another caller may have restarted it meanwhile
                if connection.lost is not None:
                    raise SessionEnded(f"the session's sandbox is gone: {connection.lost}")
                try:
                    await self._connect()  # raises if the session was closed meanwhile
                    await connection.restart(self._number, self._group.start_frames(self._number))
                except SandboxLost:
                    if self._closed:
                        raise SessionEnded(self._why_closed) from None
                    raise

    async def fork(self, n: int = 1) -> list[Session]:
        """Make independent copies of this session as it is now: variables, imports, files.

        They share its sandbox and the limits of that, and the memory of what none of them has changed.

        Raises:
            InvalidRequest: the language cannot fork, or there may not be that many branches.
            CannotFork: the session holds what a copy could not have: threads, open sockets, child processes.
            SessionEnded: the session has no interpreter any more.
        """
        require_int("n", n, 1, session_frames.MAX_BRANCHES - 1)
        if not self.language.branches:
            raise InvalidRequest(f"a session in {self.language.name} cannot be forked; Python's can")
        copies: list[Session] = []
        async with self._use(), self._turn:
            connection = await self._connect()
            interpreter = await self._idle_interpreter(connection)
            try:
                for _ in range(n):
                    copy = await connection.fork(interpreter)
                    copies.append(Session(self._group, copy.number))
                    copies[-1]._start_idle_timer()
            except BaseException:
                for made in copies:
                    await made.close()
                raise
        return copies

    async def complete(self, code: str, at: int | None = None) -> Completions:
        """Return completions for position ``at`` (default: the end) of the code, by what the session knows.

        Raises:
            InvalidRequest: the code has no such position.
            SessionEnded: the session has no interpreter any more.
        """
        text_bytes("code", code)
        position = len(code) if at is None else at
        require_int("at", position, 0, len(code))
        match await self._ask({"do": "complete", "code": code, "at": position}):
            case {"start": int(start), "end": int(end), "matches": list(matches)}:
                return Completions(start, end, tuple(map(text_of, matches)))
        return Completions(position, position, ())

    async def is_complete(self, code: str) -> bool:
        """Return whether the code is a whole cell; if not, it needs more lines.

        Raises:
            SessionEnded: the session has no interpreter any more.
        """
        return (await self._ask({"do": "is_complete", "code": code})).get("status") != "incomplete"

    async def close(self) -> None:
        """End the interpreter, and remove its files. The sandbox ends with the last branch.

        May be called again.
        """
        if self._closed:
            return
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._group.connection is not None:
            await self._leave(self._group.connection)

    async def _leave(self, connection: Connection) -> None:
        connection.forget(self._number)
        if connection.unused:
            await asyncio.shield(asyncio.ensure_future(connection.close()))

    # --- Using it

    @contextlib.asynccontextmanager
    async def _use(self) -> AsyncGenerator[None, None]:
        """Keep the session from timing out as idle inside the block."""
        if self._closed:
            raise SessionEnded(self._why_closed)
        self._users += 1
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        try:
            yield
        finally:
            self._users -= 1
            self._start_idle_timer()

    def _start_idle_timer(self) -> None:
        seconds = self._group.idle_timeout
        if seconds is not None and not self._users and not self._closed:
            self._idle_timer = asyncio.get_running_loop().call_later(seconds, self._close_idle)

    def _close_idle(self) -> None:
        self._why_closed = f"the session was closed: nobody used it for {self._group.idle_timeout:g} s"
        if self._group.connection is not None:
            self._closing = asyncio.ensure_future(self.close())
        else:
            self._closed = True

    async def _connect(self) -> Connection:
        connection = await self._group.connect()
        if self._closed:
            await self._leave(connection)  # the session was closed while the sandbox was starting
            raise SessionEnded(self._why_closed)
        return connection

    async def _idle_interpreter(self, connection: Connection) -> Interpreter:
        """Return the interpreter, once the cell that a caller may have left behind is over."""
        interpreter = connection[self._number]
        if interpreter.cell is not None:
            await interpreter.cell.wait_until_over()
        if self._closed:
            raise SessionEnded(self._why_closed)
        if not interpreter.alive:
            if connection.lost is not None:
                raise SessionEnded(f"the session's sandbox is gone: {connection.lost}")
            raise SessionEnded(_NO_INTERPRETER)
        return interpreter

    async def _ask(self, message: Message) -> Message:
        text_bytes("code", message["code"])
        async with self._use(), self._turn:
            interpreter = await self._idle_interpreter(await self._connect())
            return await interpreter.ask(message)

    async def _request_file(self, frame: bytes) -> Answer:
        async with self._use():
            return await (await self._connect()).request(frame)
