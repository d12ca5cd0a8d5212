"""A Python interpreter that waits for its program.

init starts ``python /code/main.py`` before /code/main.py exists. This file runs while the interpreter
imports ``site`` (from codeforge_worker.pth, only if init set the variable). It waits until that is
nearly done, does what init asks for on the control socket, and returns. The interpreter then opens and
runs /code/main.py as usual, so the program cannot tell that it waited.

- PRELOAD: import modules ahead of the program, hidden from it (python_preload.py, python_recorder.py).
- GO: become the run.
- START: become a session. The interpreter runs python_session.py, which takes over the socket.
- FORK: act as a template. The child becomes the run; the parent reports how it ended, and waits again.

It is executed, not imported: it leaves no module, name or frame behind.
"""

import os
import sys

_signal = __import__("_signal")  # `signal` would load enum
TYPE_CHECKING = False  # typing.TYPE_CHECKING would load typing
if TYPE_CHECKING:
    from typing import Any

    from codeforge.guest.python.python_preload import Preloads

_PRELOAD, _GO, _START, _FORK = b"p", b"g", b"s", b"f"
_PRELOADED, _STARTED, _ENDED, _NOT_STARTED = b"P", b"S", b"X", b"E"
_HEADER_BYTES = 5


class _Control:
    """The control socket, which carries frames both ways. Its end ends this process."""

    def __init__(self, fd: int) -> None:
        # Not `socket`, which loads twenty modules: the program may be waiting already.
        import _socket

        del sys.modules["_socket"]
        self._socket = _socket.socket(fileno=fd)
        self._space = _socket.CMSG_SPACE(3 * 4)

    def receive(self) -> tuple[bytes, bytes, list[int]]:
        """The next frame: type, payload and the descriptors that came with it."""
        header, ancillary, _, _ = self._socket.recvmsg(_HEADER_BYTES, self._space)
        if not header:
            os._exit(0)
        header += self._read(_HEADER_BYTES - len(header))
        fds = [
            int.from_bytes(data[at : at + 4], sys.byteorder)
            for _, _, data in ancillary
            for at in range(0, len(data), 4)
        ]
        return header[4:], self._read(int.from_bytes(header[:4], "little")), fds

    def send(self, kind: bytes, *fields: tuple[int, int]) -> None:
        """Send a frame of integers, each given with its size in bytes."""
        payload = b"".join(value.to_bytes(size, "little", signed=value < 0) for value, size in fields)
        try:
            self._socket.sendall(len(payload).to_bytes(4, "little") + kind + payload)
        except OSError:
            os._exit(0)

    def close(self) -> None:
        self._socket.close()

    def detach(self) -> None:
        self._socket.detach()

    def _read(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._socket.recv(size)
            if not piece:
                os._exit(0)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _serve(control: _Control) -> None:
    """Do what init asks until this process becomes the run."""
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    preloads = None
    while True:
        kind, payload, fds = control.receive()
        if kind == _PRELOAD:
            preloads = preloads or _new_preloads()
            preloads.add(payload.decode().split())
            control.send(_PRELOADED)
        elif kind in (_GO, _START):
            break
        elif kind == _FORK:
            preloads = preloads or _new_preloads()
            if _fork(control, preloads, fds):
                preloads.set_dumpable(True)
                _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
                break
    if kind == _START:
        control.detach()
    else:
        control.close()
    _take_over(payload)
    if preloads:
        # Imports look first in the program's directory, or for a session in the working directory.
        code = os.getcwd() if kind == _START else os.path.dirname(sys.argv[0])  # noqa: PTH109, PTH120 - no pathlib
        preloads.hand_over(code)


def _new_preloads() -> "Preloads":
    visible = frozenset(sys.modules)
    namespace: dict[str, Any] = {"__name__": "codeforge_preload"}
    for name in ("python_recorder.py", "python_preload.py"):
        path = f"{__file__.rpartition('/')[0]}/{name}"
        with open(path, encoding="utf-8") as source:  # noqa: PTH123 - pathlib is the program's
            # importlib removes frames with this file name from tracebacks.
            code = compile(source.read(), "<frozen importlib._bootstrap>", "exec")
        exec(code, namespace)  # noqa: S102 - an import would leave a module
    made: Preloads = namespace["Preloads"](visible)
    return made


def _fork(control: _Control, preloads: "Preloads", fds: list[int]) -> bool:
    """Fork a run and wait for its end; returns True in the child."""
    preloads.set_dumpable(False)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        pid = os.fork()
    except OSError as error:
        pid = -1
        control.send(_NOT_STARTED, (error.errno or 0, 4))
    if pid == 0:
        os.setsid()
        for standard, fd in enumerate(fds):
            os.dup2(fd, standard)
    for fd in fds:
        os.close(fd)
    if pid > 0:
        control.send(_STARTED, (pid, 4))
        status, usage = preloads.wait(pid)
        times = (round(seconds * 1e6) for seconds in (usage.ru_utime, usage.ru_stime))
        control.send(_ENDED, (status, 4), *((microseconds, 8) for microseconds in times))
    return pid == 0


def _take_over(command: bytes) -> None:
    """Take over argv and environment of the run."""
    count, _, rest = command.partition(b"\0")
    strings = [os.fsdecode(s) for s in rest.split(b"\0")[:-1]]
    argv, environment = strings[: int(count)], strings[int(count) :]
    sys.argv[:] = argv[1:]
    sys.orig_argv[:] = argv
    for variable in environment:
        key, _, value = variable.partition("=")
        os.environ[key] = value


def _serve_late() -> None:
    """Serve in the last step of `site`, so that as little as possible is left for the run to do."""
    control = _Control(int(os.environ.pop("CODEFORGE_CONTROL_FD")))
    site: Any = sys.modules["site"]
    first, last = site.execsitecustomize, site.execusercustomize

    def skip() -> None:
        site.execusercustomize = last

    def serve() -> None:
        site.execsitecustomize = first
        first()
        if site.ENABLE_USER_SITE:
            last()
            site.execusercustomize = skip
        _serve(control)

    site.execsitecustomize = serve


_serve_late()
