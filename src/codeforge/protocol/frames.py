"""Frames between the host and init: bytes in, events out. No I/O; docs/protocol.md has the table.

A frame is, in both directions, a u32 size (little-endian), a u8 type and a payload. What init sends comes
out of a sandbox: sizes are checked before anything is kept, the order is checked, and the first fault
raises ``ProtocolViolation``. After that, nothing from that sandbox is believed.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from codeforge.errors import ProtocolViolation

PAYLOAD_MAX = 64 * 1024
"""Largest payload. init keeps one frame in a fixed buffer of this size; the host refuses larger frames."""

STDIN_WINDOW = 64 * 1024
"""Bytes of stdin that may be sent before init acknowledges them: the size of its buffer."""

MAX_FILES_OUT = 1000
"""How many files a run may leave, and how many skipped ones besides; ``limits`` sends init this number."""

MAX_PATH_OUT = 4095
"""Longest path of a file that a run left, in bytes; init cannot send a longer one."""

_HEADER = struct.Struct("<IB")
_LIMITS = struct.Struct("<QQII")
_EXIT = struct.Struct("<BBQQQII")

TOKEN_BYTES = 16
"""Length of the random token that GO gives to init and EXIT gives back."""

PROTOCOL = 5
"""Version of the protocol; init reports its own version in the posture."""


# --- Host to init ------------------------------------------------------------------------------------


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return one frame.

    Raises:
        ValueError: the payload is too large.
    """
    if len(payload) > PAYLOAD_MAX:
        raise ValueError(f"a frame holds {PAYLOAD_MAX} bytes, not {len(payload)}")
    return _HEADER.pack(len(payload), kind[0]) + payload


def _chunks(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    return (bytes(view[at : at + PAYLOAD_MAX]) for at in range(0, len(data), PAYLOAD_MAX))


def limits(*, output_bytes: int, files_bytes: int, max_age_s: float) -> bytes:
    """Set what init enforces by itself: output kept per stream, bytes of files, seconds until it gives up."""
    max_age_ms = min(int(max_age_s * 1000), 0xFFFFFFFF)
    return frame(b"l", _LIMITS.pack(output_bytes, files_bytes, MAX_FILES_OUT, max_age_ms))


def command(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> bytes:
    """Set argv, variables (added to the sandbox's own) and directory for the next ``worker`` or ``go``."""
    frames = [frame(b"a", arg.encode()) for arg in argv]
    frames += [frame(b"e", f"{key}={value}".encode()) for key, value in env.items()]
    return b"".join([*frames, frame(b"c", cwd.encode())])


def worker(*, template: bool = False) -> bytes:
    """Start the command, which then waits for ``go``. A template stays, and forks a process for each run."""
    return frame(b"w", bytes([template]))


def preload(step: str) -> bytes:
    """Make the worker preload what the language calls ``step``; it answers with ``Preloaded``."""
    return frame(b"p", step.encode())


def file(path: str, data: bytes, mode: int = 0o644) -> bytes:
    """Write a file below /code; missing directories are made."""
    head = frame(b"f", struct.pack("<I", mode) + path.encode())
    return head + b"".join(frame(b"d", chunk) for chunk in _chunks(data))


def go(*, token: bytes, fresh: bool = False, keep: bool = False) -> bytes:
    """Run the command.

    Args:
        token: ``TOKEN_BYTES`` random bytes. init gets them before the program starts and sends them back
            after it is dead. So a program that reaches the channel (gVisor of 2022 lets it open init's
            descriptors) still cannot report its own end.
        fresh: run in a new process, even if a worker waits.
        keep: clean the sandbox afterwards, for another run.
    """
    return frame(b"g", bytes([fresh | keep << 1]) + token)


def stdin(data: bytes) -> bytes:
    """Send bytes to the run's stdin, at most one frame and within the window; no bytes: end of file."""
    return frame(b"i", data)


def kill() -> bytes:
    """End the run now; init reports as after any other end."""
    return frame(b"k")


# --- Init to host --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The first event: init runs, and this is what the kernel told it about the sandbox."""

    posture: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Preloaded:
    """The worker did a preload step."""


@dataclass(frozen=True, slots=True)
class Wrote:
    """The run wrote to a stream."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """The run wrote this many bytes to a stream that init did not send, as they exceed the limit."""

    stream: Literal["stdout", "stderr"]
    size: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """init passed on this many bytes of stdin: as many more may be sent."""

    size: int


@dataclass(frozen=True, slots=True)
class Exited:
    """How the run's first process ended; all other processes of the run are dead too.

    Attributes:
        exit_code: ``None`` if a signal ended it.
        signal: its number; ``None`` if no signal ended it.
        cpu_s: seconds of CPU since GO.
        memory_peak_bytes: since the sandbox started.
        oom_kills: processes that the kernel killed for lack of memory since GO.
        pids_refused: new processes and threads that the kernel refused since GO.
    """

    exit_code: int | None
    signal: int | None
    cpu_s: float
    memory_peak_bytes: int
    oom_kills: int
    pids_refused: int


@dataclass(frozen=True, slots=True)
class FileOut:
    """A file that the run wrote, complete."""

    path: bytes
    data: bytes


class SkipReason(enum.IntEnum):
    """Why init does not send something that the run left under /code."""

    NOT_REGULAR = 1
    LINKED = 2
    TOO_LARGE = 3
    TOO_MANY = 4
    TOO_DEEP = 5
    UNREADABLE = 6


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something under /code that init does not send."""

    path: bytes
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Clean:
    """The last event of a run. Nothing of the run is left: the sandbox takes another one."""


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of a run, and of its sandbox."""


@dataclass(frozen=True, slots=True)
class Failed:
    """init could not continue, and has ended the sandbox."""

    message: str


@dataclass(frozen=True, slots=True)
class SessionFrame:
    """A frame of a session; ``session_frames.parse`` reads it."""

    kind: bytes
    payload: bytes


Event: TypeAlias = (
    Ready
    | Preloaded
    | Wrote
    | Dropped
    | Acknowledged
    | Exited
    | FileOut
    | Skipped
    | Clean
    | Done
    | Failed
    | SessionFrame
)


class _State(enum.Enum):
    START = "before READY"
    IDLE = "before GO"
    RUN = "before EXIT"
    FILES = "after EXIT"
    SESSION = "in a session"
    OVER = "after DONE"


_ALLOWED: Mapping[_State, bytes] = MappingProxyType(
    {
        _State.START: b"R!",
        _State.IDLE: b"P!",
        _State.RUN: b"OEXAPW!",
        _State.FILES: b"AFDSCZ!",
        _State.SESSION: b"TMKBQP!",
        _State.OVER: b"",
    }
)
STREAMS: Mapping[int, Literal["stdout", "stderr"]] = MappingProxyType({1: "stdout", 2: "stderr"})


class Decoder:
    """Turns the bytes from init into events, however they are cut into pieces.

    Keeps at most one frame and one file in memory.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._state = _State.START
        self._files_left = self._entries_left = 0
        self._token = b""
        self._open_file: tuple[bytes, bytearray] | None = None

    def expect_run(self, *, files_bytes: int, token: bytes) -> None:
        """Expect a run, as GO is sent with ``token``. ``files_bytes`` bounds the sum of all files it leaves.

        Raises:
            ValueError: no run can begin now.
        """
        if self._state is not _State.IDLE:
            raise ValueError(f"there is no run to expect {self._state.value}")
        self._state = _State.RUN
        self._files_left = files_bytes
        self._token = token
        self._entries_left = 2 * MAX_FILES_OUT + 1

    def expect_session(self) -> None:
        """Expect a session instead of a run, as START is sent.

        Raises:
            ValueError: no session can begin now.
        """
        if self._state is not _State.IDLE:
            raise ValueError(f"there is no session to expect {self._state.value}")
        self._state = _State.SESSION

    @property
    def over(self) -> bool:
        """Whether the last event was read: nothing can follow."""
        return self._state is _State.OVER

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes, in order.

        Raises:
            ProtocolViolation: init cannot have sent this.
        """
        self._buffer += data
        events: list[Event] = []
        at = 0
        while len(self._buffer) - at >= _HEADER.size:
            size, kind = _HEADER.unpack_from(self._buffer, at)
            if size > PAYLOAD_MAX:
                raise ProtocolViolation(f"a frame of {size} bytes")
            if kind not in _ALLOWED[self._state]:
                raise ProtocolViolation(f"frame {bytes([kind])!r} {self._state.value}")
            if len(self._buffer) - at < _HEADER.size + size:
                break
            start = at + _HEADER.size
            at = start + size
            events += self._event(bytes([kind]), bytes(self._buffer[start:at]))
        del self._buffer[:at]
        return events

    def _event(self, kind: bytes, payload: bytes) -> Iterator[Event]:
        if kind == b"!":
            self._open_file = None  # it may be incomplete
        elif kind != b"D":
            yield from self._close_file()
        match kind:
            case b"O":
                yield Wrote("stdout", payload)
            case b"E":
                yield Wrote("stderr", payload)
            case b"D":
                self._append(payload)
            case b"R":
                self._state = _State.IDLE
                yield Ready(_parse_posture(payload))
            case b"P":
                unpack("<", payload)
                yield Preloaded()
            case b"X":
                number, size = unpack("<BQ", payload)
                if number not in STREAMS:
                    raise ProtocolViolation(f"stream {number}")
                yield Dropped(STREAMS[number], size)
            case b"A":
                (size,) = unpack("<I", payload)
                yield Acknowledged(size)
            case b"W":
                self._state = _State.FILES
                yield _parse_exit(payload, self._token)
            case b"F":
                self._open(payload)
            case b"S":
                yield self._skipped(payload)
            case b"C":
                unpack("<", payload)
                self._state = _State.IDLE
                yield Clean()
            case b"Z":
                unpack("<", payload)
                self._state = _State.OVER
                yield Done()
            case _ if self._state is _State.SESSION and kind != b"!":
                yield SessionFrame(kind, payload)
            case _:
                self._state = _State.OVER
                yield Failed(payload.decode("utf-8", "replace"))

    def _count_entry(self, path: bytes) -> None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise ProtocolViolation("more files than the limit")
        if len(path) > MAX_PATH_OUT:
            raise ProtocolViolation(f"a path of {len(path)} bytes")

    def _open(self, payload: bytes) -> None:
        self._count_entry(payload[4:])
        if len(payload) < 5:
            raise ProtocolViolation("a file without a name")
        self._open_file = (payload[4:], bytearray())  # before the path: its mode, which the host does not use

    def _append(self, payload: bytes) -> None:
        self._files_left -= len(payload)
        if self._open_file is None or self._files_left < 0:
            raise ProtocolViolation("file data without a file, or beyond the limit")
        self._open_file[1].extend(payload)

    def _close_file(self) -> Iterator[Event]:
        if self._open_file is not None:
            path, data = self._open_file
            self._open_file = None
            yield FileOut(path, bytes(data))

    def _skipped(self, payload: bytes) -> Skipped:
        self._count_entry(payload[1:])
        if not payload or payload[0] not in SkipReason.__members__.values():
            raise ProtocolViolation("a skipped file without a known reason")
        return Skipped(payload[1:], SkipReason(payload[0]))


def unpack(layout: str, payload: bytes) -> tuple[int, ...]:
    """Return the integers of a payload with exactly this layout.

    Raises:
        ProtocolViolation: the payload has another size.
    """
    if len(payload) != struct.calcsize(layout):
        raise ProtocolViolation(f"a payload of {len(payload)} bytes, not {struct.calcsize(layout)}")
    return struct.unpack(layout, payload)


def _parse_exit(payload: bytes, token: bytes) -> Exited:
    numbers = unpack(_EXIT.format, payload[: _EXIT.size])
    if payload[_EXIT.size :] != token:
        raise ProtocolViolation("an end of the run that init did not report")
    by_signal, number, _wall_us, cpu_us, peak, oom_kills, pids_refused = numbers
    return Exited(
        exit_code=None if by_signal else number,
        signal=number if by_signal else None,
        cpu_s=cpu_us / 1e6,
        memory_peak_bytes=peak,
        oom_kills=oom_kills,
        pids_refused=pids_refused,
    )


def _parse_posture(payload: bytes) -> Mapping[str, str]:
    lines = payload.decode("utf-8", "replace").splitlines()
    return MappingProxyType({key: value for key, _, value in (line.partition("=") for line in lines)})
