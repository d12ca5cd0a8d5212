"""The frames of sessions, about branches and their files, and the messages inside. No I/O.

A branch is one interpreter of a session, and has a number. Frames carry bytes between the host and the
interpreters' sockets. An interpreter's messages there are JSON, in frames of their own. init vouches for
the frames around a message, not for the message: the interpreter shares its process with the program, so
that a message may be anything. No message decides a verdict.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from codeforge.errors import ProtocolViolation
from codeforge.protocol import frames

MAX_BRANCHES = 64
"""How many branches a sandbox can have, as in session.c; their numbers begin at 0."""

MESSAGE_PIECE_BYTES = frames.PAYLOAD_MAX - 5
"""Bytes of a message in one frame, which also has the branch's number and the type of the piece."""

MAX_MESSAGE_BYTES = 32 << 20
"""Longest message of an interpreter; only a program that forges messages sends longer ones."""

FILE_PIECE_BYTES = 60 * 1024
"""Bytes of a file in one request or answer, which also has a path."""

_HEAD = struct.Struct("<IB")
_ENTRY = struct.Struct("<BQQIH")


# --- Host to init ------------------------------------------------------------------------------------


def _for(branch: int, kind: bytes, payload: bytes = b"") -> bytes:
    return frames.frame(kind, branch.to_bytes(4, "little") + payload)


def start(branch: int) -> bytes:
    """Make the waiting worker the interpreter of a branch; its command is sent first."""
    return _for(branch, b"s")


def fork(branch: int, new: int) -> bytes:
    """Copy a branch's files, and tell its interpreter to fork. init answers when it has done both."""
    return _for(branch, b"b", new.to_bytes(4, "little"))


def signal(branch: int, number: int) -> bytes:
    """Send SIGINT or SIGKILL to an interpreter and to the child process that it waits for."""
    return _for(branch, b"n", bytes([number]))


def forget(branch: int) -> bytes:
    """End a branch, and remove its files; init sends nothing more about it."""
    return _for(branch, b"x")


def message(branch: int, content: Mapping[str, Any]) -> list[bytes]:
    """Return the frames of a message; each is sent once the one before was taken (``MessageTaken``)."""
    data = json.dumps(content).encode()
    pieces = [data[at : at + MESSAGE_PIECE_BYTES] for at in range(0, len(data), MESSAGE_PIECE_BYTES)]
    return [_for(branch, b"m", kind + piece) for kind, piece in zip(_kinds(len(pieces)), pieces, strict=True)]


def _kinds(count: int) -> Iterator[bytes]:
    return (b"J" if at == count - 1 else b"j" for at in range(count))


def _files(branch: int, what: bytes, fields: bytes, path: bytes) -> bytes:
    return _for(branch, b"q", what + fields + path)


def read_file(branch: int, path: str, offset: int) -> bytes:
    """Read a file from ``offset``: answered with a piece of it, empty at the end of the file."""
    return _files(branch, b"r", struct.pack("<QI", offset, FILE_PIECE_BYTES), path.encode())


def write_file(branch: int, path: str, offset: int, data: bytes, mode: int = 0o644) -> bytes:
    """Write a piece of a file. Offset 0 creates or empties the file, and makes missing directories."""
    name = path.encode()
    fields = struct.pack("<QIH", offset, mode, len(name))
    return _files(branch, b"w", fields, name + data)


def list_files(branch: int, path: str, start: int) -> bytes:
    """List a directory: answered as ``parse_listing`` reads. An empty path is the branch's own directory."""
    return _files(branch, b"l", struct.pack("<Q", start), path.encode())


def stat_file(branch: int, path: str) -> bytes:
    """Describe a file: answered with one entry."""
    return _files(branch, b"s", b"", path.encode())


def remove_file(branch: int, path: str) -> bytes:
    """Remove a file, or a directory with everything in it."""
    return _files(branch, b"d", b"", path.encode())


# --- Init to host ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """A branch wrote to a stream. What it wrote before it sent a message comes before the message."""

    branch: int
    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class MessageData:
    """Bytes of an interpreter's messages; see ``MessageDecoder``."""

    branch: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MessageTaken:
    """init has passed on the last piece of a message: the next piece may be sent."""

    branch: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An interpreter ended. Its files stay until the branch is forgotten.

    ``oom_kills`` and ``pids_refused`` are the kernel's counts since the sandbox started.
    """

    branch: int
    exit_code: int | None
    signal: int | None
    oom_kills: int
    pids_refused: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to ``fork`` or to a request about files. ``error`` is an errno, or 0."""

    error: int
    data: bytes


SessionEvent: TypeAlias = Text | MessageData | MessageTaken | Ended | Answer


def parse(frame: frames.SessionFrame) -> SessionEvent:
    """Parse a frame of a session.

    Raises:
        ProtocolViolation: init cannot have sent this.
    """
    payload = frame.payload
    match frame.kind:
        case b"T":
            branch, data = _split(payload)
            if not data or data[0] not in frames.STREAMS:
                raise ProtocolViolation("output without a known stream")
            return Text(branch, frames.STREAMS[data[0]], data[1:])
        case b"M":
            return MessageData(*_split(payload))
        case b"K":
            return MessageTaken(*frames.unpack("<I", payload))
        case b"B":
            branch, by_signal, number, oom_kills, pids_refused = frames.unpack("<IBBII", payload)
            exit_code, signal_number = (None, number) if by_signal else (number, None)
            return Ended(branch, exit_code, signal_number, oom_kills, pids_refused)
        case _:
            return Answer(*_split(payload))


def _split(payload: bytes) -> tuple[int, bytes]:
    """Return the branch or error number that a payload begins with, and the rest."""
    if len(payload) < 4:
        raise ProtocolViolation("a frame of a session without a number")
    return int.from_bytes(payload[:4], "little"), payload[4:]


class EntryKind(enum.StrEnum):
    """What an entry of a directory is."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


_ENTRY_KINDS = {b"f": EntryKind.FILE, b"d": EntryKind.DIRECTORY, b"l": EntryKind.LINK, b"o": EntryKind.OTHER}


@dataclass(frozen=True, slots=True)
class RawEntry:
    """An entry of a directory, as init describes it.

    Attributes:
        name: any bytes but ``/`` and NUL.
        kind: what it is.
        size: in bytes.
        changed_ns: in nanoseconds since 1970.
        mode: permission bits.
    """

    name: bytes
    kind: EntryKind
    size: int
    changed_ns: int
    mode: int


def parse_listing(data: bytes) -> tuple[int, list[RawEntry]]:
    """Parse a listing: where the rest of the directory begins (0: there is no rest), and the entries.

    Raises:
        ProtocolViolation: init cannot have sent this.
    """
    if len(data) < 8:
        raise ProtocolViolation("a listing without a beginning")
    return int.from_bytes(data[:8], "little"), list(parse_entries(data[8:]))


def parse_entries(data: bytes) -> Iterator[RawEntry]:
    """Parse entries, one after another.

    Raises:
        ProtocolViolation: init cannot have sent this.
    """
    at = 0
    while at < len(data):
        if len(data) - at < _ENTRY.size:
            raise ProtocolViolation("an entry that is cut short")
        kind, size, changed_ns, mode, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        if bytes([kind]) not in _ENTRY_KINDS or len(data) - at < length:
            raise ProtocolViolation("an entry of an unknown kind, or cut short")
        yield RawEntry(data[at : at + length], _ENTRY_KINDS[bytes([kind])], size, changed_ns, mode)
        at += length


class InvalidMessage(Exception):
    """An interpreter sent bytes that are not a message; only its own program can have done that."""


class MessageDecoder:
    """Turns the bytes from one interpreter into messages. Keeps at most one message in memory."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the messages that ``data`` completes, in order.

        Raises:
            InvalidMessage: this is not a message; what follows it cannot be read.
        """
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            size, kind = _HEAD.unpack_from(self._buffer)
            if size > MAX_MESSAGE_BYTES or kind not in b"JP":
                raise InvalidMessage(f"frame {bytes([kind])!r} of {size} bytes")
            end = _HEAD.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            if kind == b"J"[0]:  # P reports a preload step, from when it was a waiting worker
                yield _parse_message(payload)


def _parse_message(payload: bytes) -> dict[str, Any]:
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(str(error)) from None
    if not isinstance(content, dict):
        raise InvalidMessage("not an object")
    return content
