"""Plays init to a Python worker: starts it, and speaks its control protocol.

It needs only the standard library, so it also runs inside the image:

    docker run --rm -i --user 0 -v $PWD/tests:/t:ro --tmpfs /code --entrypoint python IMAGE \
        /t/worker_harness.py --preload 'json re' --preload numpy < program.py

It runs the program as a plain process, in a worker that becomes it, and in two forks of a template, and
prints the results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

DEADLINE_S = 60.0


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended. ``status`` is a wait status."""

    status: int
    stdout: bytes
    stderr: bytes
    wall_s: float
    user_us: int = 0
    system_us: int = 0

    @property
    def exit_code(self) -> int:
        return os.waitstatus_to_exitcode(self.status)


class WorkerGone(AssertionError):
    """The worker closed its socket or its process ended."""


class Pipes:
    """The three pipes of a run. Threads read and write them while it runs."""

    def __init__(self, stdin: bytes) -> None:
        ends = [os.pipe() for _ in range(3)]
        self.theirs = [ends[0][0], ends[1][1], ends[2][1]]
        self._read: dict[int, bytes] = {}
        self._threads = [
            threading.Thread(target=self._feed, args=(ends[0][1], stdin)),
            threading.Thread(target=self._drain, args=(1, ends[1][0])),
            threading.Thread(target=self._drain, args=(2, ends[2][0])),
        ]
        for thread in self._threads:
            thread.start()

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)

    def finish(self) -> tuple[bytes, bytes]:
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "a pipe is still open"
        return self._read[1], self._read[2]

    def _feed(self, fd: int, data: bytes) -> None:
        with open(fd, "wb") as pipe:
            try:
                pipe.write(data)
                pipe.flush()
            except BrokenPipeError:
                pass

    def _drain(self, which: int, fd: int) -> None:
        with open(fd, "rb") as pipe:
            self._read[which] = pipe.read()


class Worker:
    """One worker process. A context manager that ends it."""

    def __init__(
        self,
        code: Path,
        *,
        python: str | Path = sys.executable,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> None:
        self.program = code / "main.py"
        self.argv = [str(python), str(self.program)]
        self._pipes = Pipes(stdin)
        self._control, theirs = socket.socketpair()
        self._control.settimeout(DEADLINE_S)
        os.set_inheritable(theirs.fileno(), True)
        # The worker reads the descriptor's number from the variable; only init insists on 3.
        self.process = subprocess.Popen(
            self.argv,
            stdin=self._pipes.theirs[0],
            stdout=self._pipes.theirs[1],
            stderr=self._pipes.theirs[2],
            pass_fds=[theirs.fileno()],
            cwd=code,
            start_new_session=True,
            env={
                **(os.environ if environment is None else environment),
                "CODEFORGE_CONTROL_FD": str(theirs.fileno()),
            },
        )
        theirs.close()
        self._pipes.close_theirs()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control.close()
        self.process.kill()
        self.process.wait()
        said = self._pipes.finish()
        if error is not None and any(said):
            error.add_note(f"the worker wrote: {said}")

    def _wait(self) -> int:
        """Wait at once; Popen.wait with a timeout polls every 50 ms."""
        pidfd = os.pidfd_open(self.process.pid)
        ready, _, _ = select.select([pidfd], [], [], DEADLINE_S)
        os.close(pidfd)
        assert ready, "the worker does not end"
        return self.process.wait()

    # --- Frames

    def send(self, kind: bytes, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a frame as init does: with descriptors, in one message if it fits."""
        frame = len(payload).to_bytes(4, "little") + kind + payload
        sent = socket.send_fds(self._control, [frame], fds) if fds else 0
        self._control.sendall(frame[sent:])

    def send_raw(self, data: bytes) -> None:
        """Send part of a frame."""
        self._control.sendall(data)

    def receive(self) -> tuple[bytes, bytes]:
        header = self._receive(5)
        return header[4:], self._receive(int.from_bytes(header[:4], "little"))

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._control.recv(size - len(data))
            if not piece:
                raise WorkerGone(f"status {self.process.wait(DEADLINE_S)}")
            data += piece
        return data

    # --- What init does

    def preload(self, *steps: str) -> None:
        for step in steps:
            self.send(b"p", step.encode())
            assert self.receive() == (b"P", b"")

    def go(self, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Ended:
        """Let it become the run, and wait for its end."""
        start = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.send(b"g", self.command(arguments, environment))
        code = self._wait()
        wall_s = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Ended(
            code << 8 if code >= 0 else -code,
            *self._pipes.finish(),
            wall_s,
            round((after.ru_utime - before.ru_utime) * 1e6),
            round((after.ru_stime - before.ru_stime) * 1e6),
        )

    def fork(
        self,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Ended:
        """Let it fork a run, and wait for its end."""
        pipes = Pipes(stdin)
        start = time.perf_counter()
        self.send(b"f", self.command(arguments, environment), pipes.theirs)
        pipes.close_theirs()
        kind, payload = self.receive()
        assert kind == b"S", (kind, payload)
        self.run_pid = int.from_bytes(payload, "little")
        kind, payload = self.receive()
        wall_s = time.perf_counter() - start
        assert kind == b"X", (kind, payload)
        assert len(payload) == 20
        return Ended(
            int.from_bytes(payload[:4], "little", signed=True),
            *pipes.finish(),
            wall_s,
            int.from_bytes(payload[4:12], "little"),
            int.from_bytes(payload[12:], "little"),
        )

    def hang_up(self) -> int:
        """Close the socket and return the worker's exit code."""
        self._control.close()
        return self.process.wait(DEADLINE_S)

    def command(self, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> bytes:
        argv = [*self.argv, *arguments]
        variables = [f"{key}={value}" for key, value in (environment or {}).items()]
        return "".join(f"{item}\0" for item in [str(len(argv)), *argv, *variables]).encode()


def run_plainly(
    code: Path,
    *,
    python: str | Path = sys.executable,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    stdin: bytes = b"",
) -> Ended:
    """Run the program in /code as a process of its own."""
    start = time.perf_counter()
    done = subprocess.run(
        [str(python), str(code / "main.py"), *arguments],
        input=stdin,
        capture_output=True,
        cwd=code,
        start_new_session=True,
        env=environment,
        timeout=DEADLINE_S,
    )
    status = done.returncode << 8 if done.returncode >= 0 else -done.returncode
    return Ended(status, done.stdout, done.stderr, time.perf_counter() - start)


def memory_kib(pid: int) -> dict[str, int]:
    """The figures in smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.rstrip(":"): int(size) for name, size, _ in map(str.split, lines)}


def _show(what: str, run: Ended, *, quiet: bool) -> None:
    cpu_ms = (run.user_us + run.system_us) / 1e3
    print(f"{what}: exit {run.exit_code}, {run.wall_s * 1e3:.1f} ms, CPU {cpu_ms:.1f}")
    if not quiet:
        for stream in (run.stdout, run.stderr):
            sys.stdout.write(stream.decode(errors="replace"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preload", action="append", default=[], metavar="STEP")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--quiet", action="store_true", help="print figures only")
    options = parser.parse_args()
    code = Path("/code") if Path("/code").is_dir() else Path(tempfile.mkdtemp())
    (code / "main.py").write_text(sys.stdin.read())
    for _ in range(options.times):
        _show("plain", run_plainly(code, python="python"), quiet=options.quiet)
    for _ in range(options.times):
        with Worker(code, python="python") as worker:
            for step in options.preload:
                start = time.perf_counter()
                worker.preload(step)
                print(f"  preload {step[:20]}: {(time.perf_counter() - start) * 1e3:.0f} ms")
            print(
                json.dumps(
                    {key: memory_kib(worker.process.pid)[key] for key in ("Rss", "Pss", "Private_Dirty")}
                )
            )
            _show("go", worker.go(), quiet=options.quiet)
    with Worker(code, python="python") as worker:
        worker.preload(*options.preload)
        for _ in range(options.times):
            _show("fork", worker.fork(), quiet=options.quiet)


if __name__ == "__main__":
    main()
