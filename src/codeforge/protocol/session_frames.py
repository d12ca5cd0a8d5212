"""What a session adds to wire.py: frames about branches and their files, and the messages inside. No I/O.

A branch is one interpreter of a session; each has a number. Frames carry bytes between the host and
the interpreters' sockets. What an interpreter says there is JSON in frames of its own. init vouches for
the frames around it and for nothing inside: the program shares the process with who says it, so that a
message may be anything. It never decides a verdict.
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
"""As in session.c; numbers are from 0."""

MESSAGE_PIECE_BYTES = frames.PAYLOAD_MAX - 5
"""Of a message to an interpreter: beside the branch's number and the type of the piece."""

MAX_SAID_BYTES = 32 << 20
"""Of one message of an interpreter's; what is longer, its program made up."""

FILE_PIECE_BYTES = 60 * 1024
"""Of a file, in one request or answer: beside a path."""

_HEAD = struct.Struct("<IB")
_ENTRY = struct.Struct("<BQQIH")


# --- Host to init ------------------------------------------------------------------------------------


def _for(branch: int, kind: bytes, payload: bytes = b"") -> bytes:
    return frames.frame(kind, branch.to_bytes(4, "little") + payload)


def start(branch: int) -> bytes:
    """Make the worker that waits an interpreter that stays; the command goes before."""
    return _for(branch, b"s")


def fork(branch: int, new: int) -> bytes:
    """Have an interpreter copied; answered when it has been told to."""
    return _for(branch, b"b", new.to_bytes(4, "little"))


def signal(branch: int, number: int) -> bytes:
    """SIGINT or SIGKILL, to the interpreter and what it waits for."""
    return _for(branch, b"n", bytes([number]))


def forget(branch: int) -> bytes:
    """End it, and remove its files; nothing more is heard of it."""
    return _for(branch, b"x")


def message(branch: int, content: Mapping[str, Any]) -> list[bytes]:
    """Frames, each to be sent after the one before was taken."""
    data = json.dumps(content).encode()
    pieces = [data[at : at + MESSAGE_PIECE_BYTES] for at in range(0, len(data), MESSAGE_PIECE_BYTES)]
    return [_for(branch, b"m", kind + piece) for kind, piece in zip(_kinds(len(pieces)), pieces, strict=True)]


def _kinds(count: int) -> Iterator[bytes]:
    return (b"J" if at == count - 1 else b"j" for at in range(count))


def _files(branch: int, what: bytes, fields: bytes, path: bytes) -> bytes:
    return _for(branch, b"q", what + fields + path)


def read_file(branch: int, path: str, offset: int) -> bytes:
    """Answered with a piece of the file, empty at its end."""
    return _files(branch, b"r", struct.pack("<QI", offset, FILE_PIECE_BYTES), path.encode())


def write_file(branch: int, path: str, offset: int, data: bytes, mode: int = 0o644) -> bytes:
    """At 0 the file is made, or emptied, and directories on the way are made."""
    name = path.encode()
    fields = struct.pack("<QIH", offset, mode, len(name))
    return _files(branch, b"w", fields, name + data)


def list_files(branch: int, path: str, start: int) -> bytes:
    """Answered with a ``Listing``; an empty path is the branch's own directory."""
    return _files(branch, b"l", struct.pack("<Q", start), path.encode())


def look_at_file(branch: int, path: str) -> bytes:
    """Answered with one entry."""
    return _files(branch, b"s", b"", path.encode())


def remove_file(branch: int, path: str) -> bytes:
    """A directory goes with all that is in it."""
    return _files(branch, b"d", b"", path.encode())


# --- Init to host ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """A branch wrote to a stream; what it wrote before it said something comes before that."""

    branch: int
    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Said:
    """Bytes of messages; see ``MessageDecoder``."""

    branch: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """The last piece of a message is on its way."""

    branch: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An interpreter ended. Its files are there until it is forgotten.

    ``oom_kills`` and ``pids_refused`` are what the kernel counted in the sandbox since its start.
    """

    branch: int
    exit_code: int | None
    signal: int | None
    oom_kills: int
    pids_refused: int


@dataclass(frozen=True, slots=True)
class Answer:
    """To ``fork``, or to what was asked about files; 0 is no error."""

    error: int
    data: bytes


SessionEvent: TypeAlias = Text | Said | Taken | Ended | Answer


def parse(frame: frames.OfSession) -> SessionEvent:
    """What a frame of a session says.

    Raises:
        ProtocolViolation: init cannot have sent this.
    """
    payload = frame.payload
    if frame.kind in (b"T", b"M"):
        if len(payload) < (5 if frame.kind == b"T" else 4):
            raise ProtocolViolation("a frame of a session without a branch")
        branch = int.from_bytes(payload[:4], "little")
        if frame.kind == b"M":
            return Said(branch, payload[4:])
        if payload[4] not in frames.STREAMS:
            raise ProtocolViolation(f"stream {payload[4]}")
        return Text(branch, frames.STREAMS[payload[4]], payload[5:])
    if frame.kind == b"K":
        return Taken(*frames.unpack("<I", payload))
    if frame.kind == b"B":
        branch, by_signal, number, oom_kills, pids_refused = frames.unpack("<IBBII", payload)
        code, sig = (None, number) if by_signal else (number, None)
        return Ended(branch, code, sig, oom_kills, pids_refused)
    if len(payload) < 4:
        raise ProtocolViolation("an answer without a number")
    return Answer(int.from_bytes(payload[:4], "little"), payload[4:])


class EntryKind(enum.StrEnum):
    """What a name in a directory stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


_ENTRY_KINDS = {b"f": EntryKind.FILE, b"d": EntryKind.DIRECTORY, b"l": EntryKind.LINK, b"o": EntryKind.OTHER}


@dataclass(frozen=True, slots=True)
class RawEntry:
    """A name in a directory."""

    name: bytes
    kind: EntryKind
    size: int
    changed_ns: int
    mode: int


def parse_listing(data: bytes) -> tuple[int, list[RawEntry]]:
    """Where the rest of the directory begins, or 0, and what comes before that.

    Raises:
        ProtocolViolation: init cannot have sent this.
    """
    if len(data) < 8:
        raise ProtocolViolation("a listing without a beginning")
    return int.from_bytes(data[:8], "little"), list(parse_entries(data[8:]))


def parse_entries(data: bytes) -> Iterator[RawEntry]:
    """One after another.

    Raises:
        ProtocolViolation: init cannot have sent this.
    """
    at = 0
    while at < len(data):
        if len(data) - at < _ENTRY.size:
            raise ProtocolViolation("an entry that is cut off")
        kind, size, changed_ns, mode, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        if bytes([kind]) not in _ENTRY_KINDS or len(data) - at < length:
            raise ProtocolViolation("an entry of no known kind, or cut off")
        yield RawEntry(data[at : at + length], _ENTRY_KINDS[bytes([kind])], size, changed_ns, mode)
        at += length


class NotAMessage(Exception):
    """What an interpreter said is not a message; only its program can have done that."""


class MessageDecoder:
    """Turns what one interpreter said into messages. Keeps at most one."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that ``data`` completes, in order.

        Raises:
            NotAMessage: that is no message; whatever comes after it means nothing.
        """
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            size, kind = _HEAD.unpack_from(self._buffer)
            if size > MAX_SAID_BYTES or kind not in b"JP":
                raise NotAMessage(f"frame {bytes([kind])!r} of {size} bytes")
            end = _HEAD.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            if kind == b"J"[0]:  # P is of the worker that it was: a step was done
                yield _parse_message(payload)


def _parse_message(payload: bytes) -> dict[str, Any]:
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise NotAMessage(str(error)) from None
    if not isinstance(content, dict):
        raise NotAMessage("not an object")
    return content
