"""Plays init for a JavaScript or TypeScript session, with Node 18 and the images' packages."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from codeforge.environments.store import EnvironmentStore, is_complete
from codeforge.model.languages import TYPESCRIPT
from session_harness import Stream, wait_readable

GUEST = Path(__file__).parents[1] / "src" / "codeforge" / "guest"
DEADLINE_S = 60.0

# The socket becomes descriptor 3; nothing else stays open.
_START = 'fd=$1; shift; exec 3<&"$fd" {fd}<&-; exec "$@"'

Message = dict[str, Any]


class NoNode(Exception):
    """There is neither an environment nor an image."""


def node_home(scratch: Path) -> Path:
    """A folder with ``node``, ``node_modules`` and ``tsconfig.json``, from the environment or the image."""
    packages = EnvironmentStore().packages(TYPESCRIPT)
    if is_complete(packages):
        (scratch / "node").symlink_to(packages / "usr-local" / "bin" / "node")
        for name in ("node_modules", "tsconfig.json"):
            (scratch / name).symlink_to(packages / "root" / name)
        return scratch
    try:
        made = _docker("create", "--network=none", TYPESCRIPT.image)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoNode(f"no environment of TypeScript, and no image {TYPESCRIPT.image}: {error}") from error
    try:
        for path in ("/usr/local/bin/node", "/node_modules", "/tsconfig.json"):
            _docker("cp", f"{made}:{path}", str(scratch))
    finally:
        _docker("rm", made)
    return scratch


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Done:
    """The result of a cell."""

    value: Any
    error: Any
    displays: list[Message]
    stdout: str
    stderr: str

    @property
    def data(self) -> dict[str, Any]:
        assert self.error is None, self.error
        return {} if self.value is None else dict(self.value["data"])

    @property
    def text(self) -> str | None:
        return self.data.get("text/plain")

    @property
    def name(self) -> str | None:
        return None if self.error is None else str(self.error["name"])

    @property
    def traceback(self) -> str:
        return "\n".join(self.error["traceback"])


class Session:
    """A session. As a context manager it kills the session at the end.

    Args:
        home: the folder that `node_home` returned.
        folder: an empty folder, which is ``/`` for the session program.
        typescript: whether it is a session of TypeScript.
        preload: steps to do, in order, before the session starts.
    """

    def __init__(
        self, home: Path, folder: Path, *, typescript: bool = False, preload: Sequence[str] = ()
    ) -> None:
        self.code = folder / "code"
        self.code.mkdir()
        guest = folder / "opt" / "codeforge"
        guest.mkdir(parents=True)
        for path in (*GUEST.glob("node/*"), *GUEST.glob("typescript/*")):
            if path.suffix in (".cjs", ".ts"):
                shutil.copy(path, guest)
        for name in ("node_modules", "tsconfig.json"):
            (folder / name).symlink_to(home / name)
        node = str((home / "node").resolve())
        self._argv = [node, "--require", str(guest / "node_worker.cjs"), str(guest / "node_session.cjs")]
        self._argv += ["--typescript"] if typescript else []
        self.cell = 0
        self._control, theirs = socket.socketpair()
        self._control.settimeout(DEADLINE_S)
        self.pipes = [Stream(), Stream()]
        self.process = subprocess.Popen(
            ["bash", "-c", _START, "bash", str(theirs.fileno()), *self._argv],
            stdin=subprocess.DEVNULL,
            stdout=self.pipes[0].theirs,
            stderr=self.pipes[1].theirs,
            pass_fds=[theirs.fileno()],
            cwd=self.code,
            start_new_session=True,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "CODEFORGE_CONTROL_FD": "3"},
        )
        theirs.close()
        for pipe in self.pipes:
            os.close(pipe.theirs)
        for step in preload:
            self._send(b"p", step.encode())
            assert self._receive() == (b"P", b"")
        variables = ["KEY=a=b"]
        self._send(b"s", "".join(f"{item}\0" for item in [len(self._argv), *self._argv, *variables]).encode())
        assert self.hear() == {"is": "ready"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in self.pipes:
            pipe.close()

    # --- Frames and messages

    def _send(self, kind: bytes, payload: bytes) -> None:
        self._control.sendall(len(payload).to_bytes(4, "little") + kind + payload)

    def _exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            wait_readable(self._control.fileno(), self.pipes)
            piece = self._control.recv(size - len(got))
            if not piece:
                raise EOFError(f"the session left; the end of its stderr: {self.pipes[1].take()[-2000:]!r}")
            got += piece
        return bytes(got)

    def _receive(self) -> tuple[bytes, bytes]:
        head = self._exactly(5)
        return head[4:], self._exactly(int.from_bytes(head[:4], "little"))

    def say(self, message: Message, piece: int = 65000) -> None:
        text = json.dumps(message, ensure_ascii=False).encode()
        pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
        for part in pieces[:-1]:
            self._send(b"j", part)
        self._send(b"J", pieces[-1])

    def hear(self) -> Message:
        kind, payload = self._receive()
        assert kind == b"J"
        message: Message = json.loads(payload)
        return message

    def ask(self, **message: Any) -> Message:
        self.say(message)
        return self.hear()

    # --- Cells

    def run(self, code: str, *, when_begun: Callable[[], object] | None = None) -> Done:
        self.cell += 1
        self.say({"do": "run", "cell": self.cell, "code": code})
        displays = []
        while (message := self.hear())["is"] != "done":
            if message["is"] == "display":
                displays.append(message)
            elif message["is"] == "begun" and when_begun:
                when_begun()
        assert message["cell"] == self.cell
        stdout, stderr = (pipe.take() for pipe in self.pipes)
        return Done(message["value"], message["error"], displays, stdout, stderr)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def run_interrupted(self, code: str, *, after_s: float = 0.02) -> Done:
        def interrupt() -> None:
            time.sleep(after_s)
            self.interrupt()

        return self.run(code, when_begun=interrupt)

    def hang_up(self) -> int:
        self._control.close()
        return self.process.wait(DEADLINE_S)

    def end(self) -> int:
        """Wait until the session leaves by itself and its output ends; returns its exit status."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                self._receive()
        while any(pipe.is_open for pipe in self.pipes):
            wait_readable(-1, self.pipes)
        return self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def slowly(session: Session) -> Iterator[None]:
    """Have stdout read slowly."""
    session.pipes[0].pause_s = 0.002
    yield
    session.pipes[0].pause_s = 0.0
