"""Stands between an executor and its daemon, damages chosen calls, and counts the programs that are run.

A program counts as run when its GO has passed through to a sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scripted_engine import frames

_PIECE = 65536
_HEADER_BYTES = 5


class Harm(enum.Enum):
    """What is done to a call."""

    DELAY = "it is passed on late"
    REFUSE = "it is answered with status 500"
    LOSE = "the connection ends before it is passed on"
    LOSE_ANSWER = "it is passed on, and the connection ends instead of an answer"
    TRUNCATE = "the connection ends in the middle of the answer's body"
    SILENCE = "it is passed on, and never answered"
    HALF_CLOSE = "a hijacked stream ends towards the executor, and stays open towards the daemon"
    MUTE = "a hijacked stream carries nothing more towards the executor"
    DUPLICATE = "every piece of the answer's body comes twice"


@dataclass
class Fault:
    """A fault in the next ``times`` calls that match.

    Attributes:
        call: pattern of method and path, without the API's version: ``POST /containers/create``.
        after: for a hijacked stream: the bytes from the daemon that pass unharmed.
        met: how many calls it has met.
    """

    harm: Harm
    call: str
    times: int
    after: int
    delay_s: float
    met: int = 0


class Broken(Exception):
    """Raised to end this connection now."""


class ChaosProxy:
    """A proxy of HTTP and of hijacked streams, on its own socket.

    Attributes:
        faults: the first one that matches a call is applied.
        started: how often each program was run, by its source.
    """

    def __init__(self, folder: Path, upstream: str) -> None:
        self._path = folder / "proxy.sock"
        self._upstream = upstream.removeprefix("unix://")
        self._tasks: set[asyncio.Task[None]] = set()
        self.host = f"unix://{self._path}"
        self.faults: list[Fault] = []
        self.started: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, str(self._path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    def harm(
        self, harm: Harm, call: str, *, times: int = 1_000_000, after: int = 0, delay_s: float = 5.0
    ) -> Fault:
        """Damage calls that match from now on."""
        fault = Fault(harm, call, times, after, delay_s)
        self.faults.append(fault)
        return fault

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_writer = None
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._upstream, limit=1 << 20)
            client, daemon = _Peer(reader, writer), _Peer(up_reader, up_writer)
            while await self._pass_call(client, daemon):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, Broken):
            pass  # cancelled: the proxy ends
        finally:
            self._tasks.discard(task)
            for each in (writer, up_writer):
                if each is not None:
                    each.transport.abort()

    def _fault_for(self, call: str) -> Fault | None:
        for fault in self.faults:
            if fault.met < fault.times and re.fullmatch(fault.call, call):
                fault.met += 1
                return fault
        return None

    async def _pass_call(self, client: _Peer, daemon: _Peer) -> bool:
        """One call and its answer; returns whether another may follow."""
        head = await client.head()
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        call = f"{method} {re.sub(r'^/v[0-9.]+', '', path)}"
        fault = self._fault_for(call)
        harm = fault.harm if fault else None
        if fault is not None and harm is Harm.DELAY:
            await asyncio.sleep(fault.delay_s)
        if harm is Harm.LOSE:
            raise Broken
        body = b"".join([piece async for piece in client.body(head, of_request=True)])
        if harm is Harm.REFUSE:
            message = b'{"message":"harm is done"}'
            await client.send(
                b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(message), message)
            )
            return True
        await daemon.send(head + body)
        answer = await daemon.head()
        if harm is Harm.LOSE_ANSWER:
            raise Broken
        if harm is Harm.SILENCE:
            await asyncio.Event().wait()
        await client.send(answer)
        if answer.startswith(b"HTTP/1.1 101"):
            await self._relay(client, daemon, fault)
            return False
        async for piece in daemon.body(answer, of_request=False):
            if harm is Harm.TRUNCATE:
                await client.send(piece[: len(piece) // 2])
                raise Broken
            await client.send(piece * 2 if harm is Harm.DUPLICATE else piece)
        return True

    async def _relay(self, client: _Peer, daemon: _Peer, fault: Fault | None) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self._up(client, daemon))
            both.create_task(self._down(client, daemon, fault))

    async def _up(self, client: _Peer, daemon: _Peer) -> None:
        watched, program = b"", b""
        with contextlib.suppress(OSError):
            while data := await client.reader.read(_PIECE):
                # Counted before it goes on: what may have been run counts as run.
                watched += data
                whole = _whole_frames(watched)
                for kind, payload in frames(watched[:whole]):
                    if kind == "d":
                        program += payload
                    elif kind == "g":
                        self.started[program.decode(errors="replace")] += 1
                        program = b""
                watched = watched[whole:]
                await daemon.send(data)
            daemon.writer.write_eof()

    async def _down(self, client: _Peer, daemon: _Peer, fault: Fault | None) -> None:
        passed = 0
        ended = False
        with contextlib.suppress(OSError):
            while data := await daemon.reader.read(_PIECE):
                if fault is not None and fault.harm in (Harm.HALF_CLOSE, Harm.MUTE):
                    data = data[: max(0, fault.after - passed)]
                    if not data and fault.harm is Harm.HALF_CLOSE and not ended:
                        ended = True
                        client.writer.write_eof()
                passed += len(data)
                if data:
                    await client.send(data)
            if fault is None or fault.harm is not Harm.MUTE:
                client.writer.write_eof()


def _whole_frames(data: bytes) -> int:
    """How many of these bytes are whole frames."""
    at = 0
    while at + _HEADER_BYTES <= len(data):
        end = at + _HEADER_BYTES + int.from_bytes(data[at : at + 4], "little")
        if end > len(data):
            break
        at = end
    return at


class _Peer:
    """One end of a connection that speaks HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> bytes:
        """A request's or an answer's head."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def body(self, head: bytes, *, of_request: bool) -> AsyncIterator[bytes]:
        """The body, in the pieces in which it is framed."""
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            size = 1
            while size:
                line = await self.reader.readuntil(b"\r\n")
                size = int(line, 16)
                yield line + await self.reader.readexactly(size + 2)
        elif length := re.search(rb"content-length: (\d+)", lower):
            yield await self.reader.readexactly(int(length[1]))
        elif not of_request and not re.match(rb"HTTP/1.1 (1|204|304)", head):
            while data := await self.reader.read(_PIECE):
                yield data
