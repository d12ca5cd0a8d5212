"""Sessions: a sandbox that keeps an interpreter's state over many cells, because the caller asked.

Theory of operation: a session is a branch of a ``Link``, which is one sandbox. The first one leases the
sandbox; a fork of it is another branch there, with an interpreter, stdio and files of its own; the
sandbox goes when the last branch is closed. One cell at a time runs in a branch; callers wait for their
turn. What an interpreter says is taken as the program's word; how a cell ended is decided here.

A cell that is to stop is interrupted first, so that the session keeps its state; what does not yield
within ``cell.INTERRUPT_GRACE_S`` is killed, and the interpreter with it. A caller that is cancelled leaves a
cell behind that is stopped in just that way, and the next caller waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from codeforge.errors import CannotFork, InvalidRequest, SandboxLost, SessionEnded
from codeforge.model import (
    CellOutput,
    CellResult,
    Completions,
    MiB,
    MimeBundle,
    require_int,
    text_bytes,
    text_of,
)
from codeforge.protocol import session_frames
from codeforge.sessions.cell import Cell, StopReason
from codeforge.sessions.connection import Interpreter, Link
from codeforge.sessions.files import SessionFiles
from codeforge.sessions.registry import Family

OOM_EVENT_WAIT_S = 2.0
"""The kernel's counter is read at once; the engine's event of the same kill comes a little later."""

MAX_CODE_BYTES = 16 * MiB
"""Of one cell."""

_NO_INTERPRETER = "the session's interpreter ended; restart() gives it a new one, and keeps the files"


class Session:
    """A live interpreter in a locked-down sandbox; made by ``CodeExecutor.session``.

    Use it as ``async with executor.session() as session``. The sandbox is started by the first use.
    What survives what is in docs/sessions.md.

    Attributes:
        files: the files of this branch.
        language: the row.
    """

    def __init__(self, family: Family, number: int = 0) -> None:
        self._family = family
        self._number = number
        self._turn = asyncio.Lock()
        self._closed = False
        self._why_closed = "the session is closed"
        self._idle: asyncio.TimerHandle | None = None
        self._busy = 0
        self.language = family.run.language
        self.files = SessionFiles(self._ask_about_files)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed, by ``close`` or because nobody used it."""
        return self._closed

    @property
    def alive(self) -> bool:
        """Whether it has an interpreter, with whatever state it had."""
        link = self._family.link
        return not self._closed and link is not None and link[self._number].alive

    @property
    def container_id(self) -> str:
        """The engine's name for the sandbox; empty before the first use."""
        return "" if self._family.link is None else self._family.link.id

    @property
    def posture(self) -> Mapping[str, str]:
        """What the kernel said about the sandbox; empty before the first use."""
        return {} if self._family.link is None else self._family.link.posture

    async def start(self) -> None:
        """Have the interpreter ready; without this, the first use does it.

        Raises:
            Busy: there is no room for another session now.
            SessionEnded: it was closed.
            HostFailure: it could not be started.
        """
        async with self._use():
            await self._link()

    async def run(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_display: Callable[[MimeBundle], object] | None = None,
    ) -> CellResult:
        """Run a cell. Variables, imports, functions, directory and files stay for the next one.

        Args:
            code: the cell; the value of its last expression is its result.
            timeout: seconds, without the time it waits for its turn; default: the session's.
            on_stdout: called with text as it is written.
            on_stderr: likewise.
            on_display: called with what is displayed, as it is.

        Raises:
            InvalidRequest: the cell cannot be run; nothing was started.
            SessionEnded: there is no interpreter any more.
            HostFailure: the engine or the sandbox failed.
        """
        async with contextlib.aclosing(self.stream(code, timeout=timeout)) as events:
            async for event in events:
                if isinstance(event, CellResult):
                    return event
                listener = on_display
                if isinstance(event, CellOutput):
                    write = on_stdout if event.stream == "stdout" else on_stderr
                    if write is not None:
                        write(event.text)
                elif listener is not None:
                    listener(event)
        raise SessionEnded(self._why_closed)

    async def stream(
        self, code: str, *, timeout: float | None = None
    ) -> AsyncGenerator[CellOutput | MimeBundle | CellResult, None]:
        """Run a cell: what it writes and displays as it does, then its result.

        Leave the loop early, and the cell is interrupted.
        """
        if len(text_bytes("code", code)) > MAX_CODE_BYTES:
            raise InvalidRequest(f"a cell has at most {MAX_CODE_BYTES} bytes; use files")
        limits = self._family.run.limits
        if timeout is not None:
            limits = limits.with_timeout(timeout)
        async with self._use(), self._turn:
            link = await self._link()
            interpreter = await self._idle_interpreter(link)
            cell = interpreter.cell = Cell(
                self._family.next_cell(),
                limits,
                link.take_between(self._number),
                oom_kills=link.oom_kills,
                interrupt=interpreter.interrupt,
                kill=interpreter.kill,
            )
            link.spawn(interpreter.say({"do": "run", "cell": cell.number, "code": code}))
            try:
                async for event in cell.events():
                    yield event
            finally:
                cell.stop(StopReason.INTERRUPT)  # if the caller left
            result = await self._conclude(link, cell)
        # Its turn is over: who gets this may restart the session, or run the next cell.
        yield result

    async def _conclude(self, link: Link, cell: Cell) -> CellResult:
        oom = False
        if cell.lost:
            oom = await link.oom_event(OOM_EVENT_WAIT_S)
            if not oom:
                raise link.lost or SandboxLost("the session's sandbox broke off")
        elif cell.may_be_out_of_memory:
            oom = await link.oom_event(OOM_EVENT_WAIT_S)
        return cell.result(oom=oom)

    async def interrupt(self) -> None:
        """Stop the cell that runs, if one does: it raises KeyboardInterrupt, and the session keeps its state.

        The call of ``run`` gets the result. A cell that takes no notice runs on, up to its timeout.
        """
        link = self._family.link
        if link is not None and not self._closed:
            cell = link[self._number].cell
            if cell is not None:
                cell.stop(StopReason.INTERRUPT, insist=False)

    async def restart(self) -> None:
        """A new interpreter, without the variables and with the files. What runs is killed.

        Raises:
            SessionEnded: it was closed, or its sandbox is gone.
        """
        async with self._use():
            interpreter = (await self._link())[self._number]
            if interpreter.ready:
                await interpreter.end()  # its cell has the turn
            async with self._turn:
                link = await self._link()
                await link[self._number].end()  # somebody may have restarted it meanwhile
                if link.lost is not None:
                    raise SessionEnded(f"the session's sandbox is gone: {link.lost}")
                try:
                    await self._link()  # raises if it was closed meanwhile
                    await link.restart(self._number, self._family.start_frames(self._number))
                except SandboxLost:
                    if self._closed:
                        raise SessionEnded(self._why_closed) from None
                    raise

    async def fork(self, n: int = 1) -> list[Session]:
        """Copies of this session as it is now: variables, imports, files; each goes its own way from here.

        They share the sandbox and its limits with it, and the memory of what none of them has changed.

        Raises:
            InvalidRequest: the language cannot, or that many branches are not allowed.
            CannotFork: the session holds what a copy could not have: threads, open sockets, child processes.
            SessionEnded: there is no interpreter any more.
        """
        require_int("n", n, 1, session_frames.MAX_BRANCHES - 1)
        if not self.language.branches:
            raise InvalidRequest(f"a session in {self.language.name} cannot be forked; Python's can")
        copies: list[Session] = []
        async with self._use(), self._turn:
            link = await self._link()
            interpreter = await self._idle_interpreter(link)
            try:
                for _ in range(n):
                    copy = await interpreter.fork(link.free_number())
                    if isinstance(copy, str):
                        raise CannotFork(copy)
                    copies.append(Session(self._family, copy.number))
                    copies[-1]._rest()
            except BaseException:
                for made in copies:
                    await made.close()
                raise
        return copies

    async def complete(self, code: str, at: int | None = None) -> Completions:
        """What could stand at position ``at`` (default: the end) of the code, as the session knows it.

        Raises:
            InvalidRequest: there is no such position.
            SessionEnded: there is no interpreter any more.
        """
        text_bytes("code", code)
        where = len(code) if at is None else at
        require_int("at", where, 0, len(code))
        said = await self._ask({"do": "complete", "code": code, "at": where})
        start, end, matches = said.get("start"), said.get("end"), said.get("matches")
        if not (isinstance(start, int) and isinstance(end, int) and isinstance(matches, list)):
            return Completions(where, where, ())
        return Completions(start, end, tuple(map(text_of, matches)))

    async def is_complete(self, code: str) -> bool:
        """Whether that is a whole cell, or more lines of it are to come.

        Raises:
            SessionEnded: there is no interpreter any more.
        """
        return (await self._ask({"do": "is_complete", "code": code})).get("status") != "incomplete"

    async def close(self) -> None:
        """End the interpreter, and remove its files; with the last branch, the sandbox.

        May be called again.
        """
        if self._closed:
            return
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        if self._family.link is not None:
            await self._leave(self._family.link)

    async def _leave(self, link: Link) -> None:
        link.forget(self._number)
        if link.unused:
            await asyncio.shield(asyncio.ensure_future(link.close()))

    # --- Using it

    @contextlib.asynccontextmanager
    async def _use(self) -> AsyncGenerator[None, None]:
        """While somebody uses it, it is not idle."""
        if self._closed:
            raise SessionEnded(self._why_closed)
        self._busy += 1
        if self._idle is not None:
            self._idle.cancel()
        try:
            yield
        finally:
            self._busy -= 1
            self._rest()

    def _rest(self) -> None:
        seconds = self._family.idle_timeout
        if seconds is not None and not self._busy and not self._closed:
            self._idle = asyncio.get_running_loop().call_later(seconds, self._time_out)

    def _time_out(self) -> None:
        self._why_closed = f"the session was closed: nobody used it for {self._family.idle_timeout:g} s"
        link = self._family.link
        if link is not None:
            self._closing = asyncio.ensure_future(self.close())
        else:
            self._closed = True

    async def _link(self) -> Link:
        """The open link; there is one while there is a branch."""
        link = await self._family.link_up()
        if self._closed:
            await self._leave(link)  # it was closed while the sandbox was being started
            raise SessionEnded(self._why_closed)
        return link

    async def _idle_interpreter(self, link: Link) -> Interpreter:
        """The interpreter, once it is done with a cell that nobody waits for any more."""
        interpreter = link[self._number]
        if interpreter.cell is not None:
            await interpreter.cell.until_over()
        if self._closed:
            raise SessionEnded(self._why_closed)
        if not interpreter.alive:
            if link.lost is not None:
                raise SessionEnded(f"the session's sandbox is gone: {link.lost}")
            raise SessionEnded(_NO_INTERPRETER)
        return interpreter

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        text_bytes("code", message["code"])
        async with self._use(), self._turn:
            interpreter = await self._idle_interpreter(await self._link())
            return await interpreter.ask(message)

    async def _ask_about_files(
        self, frame: Callable[..., bytes], *arguments: object
    ) -> session_frames.Answer:
        async with self._use():
            return await (await self._link()).request(frame(self._number, *arguments))
