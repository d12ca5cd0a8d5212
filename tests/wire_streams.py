"""Generated streams of frames that init may or may not send, and the events that they stand for.

Written from the table in docs/protocol.md, independently of ``codeforge.protocol``.
"""

from __future__ import annotations

import functools
import struct

from hypothesis import strategies as st

from codeforge.protocol.frames import (
    MAX_FILES_OUT,
    PAYLOAD_MAX,
    Acknowledged,
    Clean,
    Done,
    Dropped,
    Event,
    Exited,
    Failed,
    FileOut,
    Preloaded,
    Ready,
    Skipped,
    SkipReason,
    Wrote,
)
from scripted_engine import KNOWN_TOKEN

HEADER_BYTES = 5
FILES_BYTES = 100
EXIT_LAYOUT = "<BBQQQII"
TOKEN = KNOWN_TOKEN
EXIT_BYTES = struct.calcsize(EXIT_LAYOUT) + len(TOKEN)
KINDS = "RPOEXAWFDSCZ!"


def frame(kind: str, payload: bytes = b"", size: int | None = None) -> bytes:
    """Return a frame; ``size``: what its header says, if not the truth."""
    return struct.pack("<I", len(payload) if size is None else size) + kind.encode("latin-1") + payload


# --- The expected events ----------------------------------------------------------------------------

ALLOWED = {"start": "R!", "idle": "P!", "run": "PAOEXW!", "files": "AFDSCZ!", "over": ""}
SIZES = {"A": 4, "X": 9, "W": EXIT_BYTES, "P": 0, "C": 0, "Z": 0}
REASONS = [bytes([number]) for number in range(1, 7)]
NEXT = {"R": "idle", "W": "files", "C": "idle", "Z": "over", "!": "over"}


class Model:
    """The table of docs/protocol.md, frame by frame, for streams in one piece."""

    def __init__(self) -> None:
        self.state = "start"
        self.rest = b""
        self.events: list[Event] = []
        self.file: list[bytes] | None = None
        self.bytes_left = self.names_left = 0

    def go(self) -> None:
        self.state, self.bytes_left, self.names_left = "run", FILES_BYTES, 2 * MAX_FILES_OUT + 1

    def take(self, stream: bytes) -> bool:
        """Read a stream; return whether all of it is in order."""
        stream = self.rest + stream
        while len(stream) >= HEADER_BYTES:
            size, kind = struct.unpack("<I", stream[:4])[0], chr(stream[4])
            if size > PAYLOAD_MAX or kind not in ALLOWED[self.state]:
                return False
            if len(stream) < HEADER_BYTES + size:
                break
            payload, stream = stream[HEADER_BYTES : HEADER_BYTES + size], stream[HEADER_BYTES + size :]
            if SIZES.get(kind, size) != size or not self.is_sound(kind, payload):
                return False
            self.state = NEXT.get(kind, self.state)
        self.rest = stream
        return True

    def is_sound(self, kind: str, payload: bytes) -> bool:
        if kind == "D":
            if self.file is not None:
                self.file.append(payload)
                self.bytes_left -= len(payload)
            return self.file is not None and self.bytes_left >= 0
        if self.file is not None and kind != "!":
            head, *data = self.file
            self.events.append(FileOut(head[4:], b"".join(data)))
        self.file = None
        if kind in "FS":
            self.names_left -= 1
            if self.names_left < 0 or (kind == "F" and len(payload) < 5):
                return False
        if (kind == "S" and payload[:1] not in REASONS) or (kind == "X" and payload[0] not in (1, 2)):
            return False
        if kind == "W" and not payload.endswith(TOKEN):
            return False
        if kind == "F":
            self.file = [payload]
        else:
            self.events.append(event_of(kind, payload))
        return True


def event_of(kind: str, payload: bytes) -> Event:
    """Return the event of a frame of any kind except the kinds for files."""
    match kind:
        case "R":
            pairs = (line.partition("=")[::2] for line in payload.decode(errors="replace").splitlines())
            return Ready(dict(pairs))
        case "P":
            return Preloaded()
        case "C":
            return Clean()
        case "Z":
            return Done()
        case "O" | "E":
            return Wrote("stdout" if kind == "O" else "stderr", payload)
        case "X":
            return Dropped("stdout" if payload[0] == 1 else "stderr", int.from_bytes(payload[1:], "little"))
        case "A":
            return Acknowledged(int.from_bytes(payload, "little"))
        case "S":
            return Skipped(payload[1:], SkipReason(payload[0]))
        case "W":
            by_signal, number, _, cpu_us, *counts = struct.unpack(EXIT_LAYOUT, payload[: -len(TOKEN)])
            code, signal = (None, number) if by_signal else (number, None)
            return Exited(code, signal, cpu_us / 1e6, *counts)
        case _:
            return Failed(payload.decode(errors="replace"))


# --- Streams ------------------------------------------------------------------------------------------

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
SMALL = st.binary(max_size=12)
PATHS = st.sampled_from([b"a", b"../x", b"/etc/passwd", b"a\0b", b"\xff", b"n" * 300]) | st.binary(
    min_size=1, max_size=12
)


def packed(layout: str, *parts: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(lambda values: struct.pack(layout, *values))


EXITS = packed(EXIT_LAYOUT, st.integers(0, 2), st.integers(0, 255), U64, U64, U64, U32, U32).map(
    lambda numbers: numbers + TOKEN
)
PAYLOADS: dict[str, st.SearchStrategy[bytes]] = {
    **{kind: st.just(b"") for kind in "PCZ"},
    **dict.fromkeys("ROED!", SMALL),
    "X": packed("<BQ", st.integers(1, 2), U64),
    "A": packed("<I", U32),
    "W": EXITS,
    "F": st.tuples(packed("<I", U32), PATHS).map(b"".join),
    "S": st.tuples(packed("B", st.integers(1, 6)), PATHS).map(b"".join),
}


@functools.cache
def one_of(kinds: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from(kinds).flatmap(lambda kind: PAYLOADS[kind].map(functools.partial(frame, kind)))


LIES = st.sampled_from([0, 1, 4, 9, PAYLOAD_MAX, PAYLOAD_MAX + 1, 2**31, 2**32 - 1])
WRONG = st.one_of(
    one_of(KINDS),  # a valid frame, out of order
    st.builds(frame, st.sampled_from(KINDS), st.binary(max_size=40)),
    st.builds(frame, st.sampled_from(KINDS), SMALL, LIES),
    st.builds(frame, st.characters(max_codepoint=255), SMALL),
    st.binary(max_size=8),
)


FILE = st.tuples(one_of("F"), st.lists(one_of("D"), max_size=2)).map(
    lambda parts: b"".join([parts[0], *parts[1]])
)


@st.composite
def good_streams(draw: st.DrawFn) -> list[bytes]:
    """Streams that init may send, by phase."""
    phases = [draw(one_of("R")) + b"".join(draw(st.lists(one_of("P"), max_size=2)))]
    for last in draw(st.lists(st.sampled_from("CCZ"), min_size=1, max_size=3)):
        frames = [
            *draw(st.lists(one_of("OEXAP"), max_size=6)),
            draw(one_of("W")),
            *draw(st.lists(FILE | one_of("SA"), max_size=4)),
            draw(one_of(last)),
        ]
        phases.append(b"".join(frames))
        if last == "Z":
            break
    return phases


@st.composite
def bad_streams(draw: st.DrawFn) -> list[bytes]:
    """The same with an insertion that is probably a violation."""
    phases = draw(good_streams())
    number = draw(st.integers(0, len(phases) - 1))
    at = draw(st.integers(0, len(phases[number])))
    phases[number] = phases[number][:at] + draw(WRONG) + phases[number][at:]
    return phases


ANY_STREAMS = good_streams() | bad_streams() | st.lists(st.lists(WRONG, max_size=8).map(b"".join), max_size=3)
