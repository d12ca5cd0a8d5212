"""Plays init for a Python session: starts it, and sends messages, forks and signals."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

GUEST = Path(__file__).parents[1] / "src" / "codeforge" / "guest" / "python"
DEADLINE_S = 60.0


class Gone(AssertionError):
    """The program closed its socket."""


class NotForked(Exception):
    """The program refused to fork; its argument says why."""


class Stream:
    """One of a program's output pipes. Nothing reads it but the calls below and ``wait_readable``."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.pipe()
        os.set_blocking(self.ours, False)
        self.is_open = True
        self.pause_s = 0.0
        """How long to wait after each piece, to play a slow reader."""
        self._data = bytearray()

    def read(self) -> None:
        """Read what is there."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.ours, 1 << 16):
                self._data += piece
                time.sleep(self.pause_s)
            self.is_open = False

    def peek(self) -> str:
        """What came since the last ``take``."""
        if self.is_open:
            self.read()
        return self._data.decode(errors="surrogateescape")

    def take(self) -> str:
        """What came since the last call: all that was written before the program's last message."""
        text = self.peek()
        self._data.clear()
        return text

    def close(self) -> None:
        if self.ours >= 0:
            os.close(self.ours)
        self.ours, self.is_open = -1, False


def wait_readable(descriptor: int, streams: Sequence[Stream]) -> None:
    """Read the streams until the descriptor can be read; with -1, until something came."""
    others = [descriptor] if descriptor >= 0 else []
    while True:
        pipes = {stream.ours: stream for stream in streams if stream.is_open}
        ready, _, _ = select.select([*others, *pipes], [], [], DEADLINE_S)
        assert ready, "nothing came in time"
        for end in pipes.keys() & set(ready):
            pipes[end].read()
        if not others or descriptor in ready:
            return


class Client:
    """One session: its socket and its streams."""

    def __init__(self, control: socket.socket, stdout: Stream, stderr: Stream) -> None:
        self._control = control
        control.settimeout(DEADLINE_S)
        self._stdout, self._stderr = stdout, stderr
        self._cells = 0
        self.pid = 0

    # --- Frames

    def send_frame(self, kind: bytes, payload: bytes, fds: Sequence[int] = ()) -> None:
        frame = len(payload).to_bytes(4, "little") + kind + payload
        sent = socket.send_fds(self._control, [frame], fds) if fds else 0
        self._control.sendall(frame[sent:])

    def send(self, message: dict[str, Any]) -> None:
        self.send_frame(b"J", json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        header = self._receive(5)
        assert header[4:] == b"J", header
        payload = self._receive(int.from_bytes(header[:4], "little"))
        message = json.loads(payload.decode(), parse_constant=lambda name: 1 / 0)
        assert isinstance(message, dict)
        return message

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            wait_readable(self._control.fileno(), (self._stdout, self._stderr))
            piece = self._control.recv(size - len(data))
            if not piece:
                raise Gone
            data += piece
        return bytes(data)

    def close(self) -> None:
        self._control.close()
        self._stdout.close()
        self._stderr.close()

    # --- Cells and requests

    def ready(self) -> Self:
        assert self.receive() == {"is": "ready"}
        return self

    def begin(self, code: str) -> int:
        self._cells += 1
        self.send({"do": "run", "cell": self._cells, "code": code})
        assert self.receive() == {"is": "begun", "cell": self._cells}
        return self._cells

    def end(self, cell: int) -> Cell:
        displays = []
        while (message := self.receive())["is"] == "display":
            assert message["cell"] == cell
            displays.append(message["data"])
        assert (message["is"], message["cell"]) == ("done", cell), message
        return Cell(message["value"], message["error"], displays, self._stdout.take(), self._stderr.take())

    def wait_for_output(self, text: str) -> None:
        """Wait until the text is in stdout; it stays there."""
        while text not in self._stdout.peek():
            assert self._stdout.is_open, "stdout ended"
            wait_readable(-1, (self._stdout,))

    def run(self, code: str) -> Cell:
        return self.end(self.begin(code))

    def value(self, code: str) -> str:
        """Run a cell; returns its value as text."""
        cell = self.run(code)
        assert cell.error is None, cell.error
        assert cell.data is not None, cell
        text = cell.data["text/plain"]
        assert isinstance(text, str)
        return text

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.send({**message, "request": 9})
        answer = self.receive()
        assert answer.pop("request") == 9
        return answer

    def obstacle(self, directory: Path) -> str | None:
        """Why it refuses to fork, or None; a branch that it made for that is gone."""
        try:
            self.fork(directory).close()
        except NotForked as refusal:
            return str(refusal)
        return None

    def fork(self, directory: Path) -> Client:
        streams = Stream(), Stream()
        ours, theirs = socket.socketpair()
        fds = [streams[0].theirs, streams[1].theirs, theirs.fileno()]
        self.send_frame(b"f", os.fsencode(directory), fds)
        os.close(fds[0])
        os.close(fds[1])
        answer = self.receive()
        theirs.close()
        if answer != {"is": "forked"}:
            ours.close()
            assert answer["is"] == "not_forked", answer
            raise NotForked(answer["why"])
        return Client(ours, *streams).ready()


class Cell:
    """The result of a cell."""

    def __init__(
        self,
        value: dict[str, Any] | None,
        error: dict[str, Any] | None,
        displays: list[dict[str, Any]],
        stdout: str,
        stderr: str,
    ) -> None:
        self.data: dict[str, Any] | None = value["data"] if value else None
        self.error = error
        self.displays = displays
        self.stdout, self.stderr = stdout, stderr

    @property
    def traceback(self) -> str:
        assert self.error is not None
        return "\n".join(self.error["traceback"])

    def __repr__(self) -> str:
        return f"Cell({vars(self)})"


class Program(Client):
    """A session's first process. As a context manager it ends the process."""

    def __init__(
        self,
        directory: Path,
        *,
        python: str | Path = sys.executable,
        options: Sequence[str] = (),
        wait: bool = False,
    ) -> None:
        self.directory = directory
        stdout, stderr = Stream(), Stream()
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        self.argv = [str(python), *options, str(GUEST / "python_session.py")]
        # The socket becomes descriptor 3, as under init.
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{theirs.fileno()} {theirs.fileno()}<&-; exec "$@"', "bash", *self.argv],
            stdin=subprocess.DEVNULL,
            stdout=stdout.theirs,
            stderr=stderr.theirs,
            pass_fds=[theirs.fileno()],
            cwd=directory,
            start_new_session=True,
            env={**_plain_environment(), **({"CODEFORGE_CONTROL_FD": "3"} if wait else {})},
        )
        theirs.close()
        os.close(stdout.theirs)
        os.close(stderr.theirs)
        super().__init__(ours, stdout, stderr)
        if not wait:
            self.ready()

    def start(self, *steps: str) -> Self:
        """Preload, then send START, to a process that waits."""
        for step in steps:
            self.send_frame(b"p", step.encode())
            assert self._receive(5) == b"\0\0\0\0P"
        command = "".join(f"{item}\0" for item in [str(len(self.argv)), *self.argv, "GREETING=hello"])
        self.send_frame(b"s", command.encode())
        return self.ready()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and (said := self._stderr.peek() + self._stdout.peek()):
            error.add_note(f"the program said: {said}")
        self.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _plain_environment() -> dict[str, str]:
    kept = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
