"""The session's control socket: frames both ways, and when a signal may interrupt.

A frame is its size (u32, little-endian), its type, and the payload.
"""

from __future__ import annotations

import _socket
import _thread
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any, TypeVar

    T = TypeVar("T")

CONTROL_FD = 3
HEADER_BYTES = 5
MAX_MESSAGE_BYTES = 32 << 20
PIECE, MESSAGE, FORK = b"j", b"J", b"f"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Interrupts:
    """Turns SIGINT into a KeyboardInterrupt inside `allow`, and nowhere else.

    The handler looks at the stack to decide, so there is no gap between two states: a signal that
    arrives while a cell starts is kept for it, and one that arrives after its end is ignored.
    """

    def __init__(self) -> None:
        self.cell_is_on = False
        self.instead: Callable[[FrameType], bool] = lambda frame: False
        """Called first; returns whether it handled the signal."""
        self._is_pending = False
        self._shielded: set[CodeType] = set()

    def allow(self, work: Callable[[], T]) -> T:
        """Call the function; a signal interrupts it."""
        return self._inside(work)

    def _inside(self, work: Callable[[], T]) -> T:
        self.check()
        return work()

    def start(self) -> None:
        """A cell begins: signals are meant for it."""
        self._is_pending = False
        self.cell_is_on = True

    def end(self) -> None:
        """The cell has ended: signals are ignored."""
        self.cell_is_on = self._is_pending = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal is pending."""
        if self._is_pending:
            self._is_pending = False
            raise KeyboardInterrupt

    def shield(self, function: Callable[..., object]) -> None:
        """Never interrupt this function. It must be followed by a call of `settle`."""
        self._shielded.add(function.__code__)

    def settle(self) -> None:
        """Handle a signal that arrived during a shielded function."""
        if self._is_pending:
            self.handle(0, sys._getframe(1))

    def handle(self, _: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        if not self.cell_is_on:
            return
        at = frame
        while at is not None and at.f_code is not _INSIDE:
            if at.f_code in self._shielded:
                break
            at = at.f_back
        else:
            if at is not None and frame is not None:
                if not self.instead(frame):
                    self._is_pending = False
                    raise KeyboardInterrupt
                return
        self._is_pending = True


_INSIDE = Interrupts._inside.__code__


class Channel:
    """Sends and receives frames. The end of the stream ends the process."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._space = _socket.CMSG_SPACE(3 * 4)
        self.adopt()
        interrupts.shield(self._send_all)

    def adopt(self) -> None:
        """Take over the descriptor for this process."""
        os.set_inheritable(CONTROL_FD, False)
        self._socket = _socket.socket(fileno=CONTROL_FD)
        self._owner = os.getpid()
        self._lock = _thread.allocate_lock()

    def let_go(self) -> None:
        """Forget the descriptor without closing it."""
        self._socket.detach()

    @property
    def is_ours(self) -> bool:
        """Whether this process has the session, and is not one that a cell forked."""
        return os.getpid() == self._owner

    def receive(self) -> tuple[bytes, bytes, list[int]]:
        """The next frame: type, payload and the descriptors that came with it."""
        header, ancillary, _, _ = self._socket.recvmsg(HEADER_BYTES, self._space)
        header += self._read(HEADER_BYTES - len(header))
        fds = [
            int.from_bytes(data[at : at + 4], "little")
            for _, _, data in ancillary
            for at in range(0, len(data), 4)
        ]
        return header[4:], self._read(int.from_bytes(header[:4], "little")), fds

    def _read(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._socket.recv(size)
            if not piece:
                os._exit(0)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, without its data if that is too large. Processes forked by a cell send nothing."""
        if not self.is_ours:
            return
        payload = _bytes_of(message)
        if len(payload) > MAX_MESSAGE_BYTES:
            payload = _bytes_of(_without_data(message))
        self._send_all(len(payload).to_bytes(4, "little") + MESSAGE, payload)
        self._interrupts.settle()

    def _send_all(self, header: bytes, payload: bytes) -> None:
        with self._lock:
            try:
                self._socket.sendall(header + payload if len(payload) < 1 << 16 else header)
                if len(payload) >= 1 << 16:
                    self._socket.sendall(payload)
            except OSError:
                os._exit(0)


def _bytes_of(message: dict[str, Any]) -> bytes:
    return _encode(message).encode(errors="replace")  # lone surrogates


def _without_data(message: dict[str, Any]) -> dict[str, Any]:
    holder = message if message["is"] == "display" else message.get("value")
    if not holder:
        return {**message, "error": {**message["error"], "value": "too much to send", "traceback": []}}
    sizes = {mime: len(_bytes_of({mime: item})) for mime, item in holder["data"].items()}
    mime = max(sizes, key=lambda name: sizes[name])
    said = {"data": {"text/plain": f"<{mime} of {sizes[mime]} bytes: too much to send>"}, "metadata": {}}
    return {**message, **said} if holder is message else {**message, "value": said}
