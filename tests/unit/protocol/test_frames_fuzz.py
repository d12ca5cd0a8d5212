"""Any bytes from a sandbox: the same events or the same violation however they are cut into pieces, in
little memory and in time proportional to their length.
"""

from __future__ import annotations

import functools
import itertools
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import event, given, strategies as st

from codeforge import protocol
from codeforge.errors import ProtocolViolation
from codeforge.protocol.frames import (
    PAYLOAD_MAX,
    Acknowledged,
    Clean,
    Decoder,
    Done,
    Dropped,
    Event,
    Failed,
    FileOut,
    Preloaded,
    Ready,
    Skipped,
    SkipReason,
    Wrote,
)
from fuzzing import examples
from scripted_engine import exit_frame
from wire_streams import (
    ANY_STREAMS,
    EXITS,
    FILES_BYTES,
    HEADER_BYTES,
    KINDS,
    TOKEN,
    U32,
    U64,
    WRONG,
    Model,
    event_of,
    frame,
    good_streams,
    one_of,
)

# --- The same events each time -----------------------------------------------------------------------------


@dataclass
class Decoded:
    """The events of a stream; ``violation`` is the text of its first fault."""

    events: list[Event] = field(default_factory=list)
    violation: str | None = None
    over: bool = False


def decode(phases: Iterable[Iterable[bytes]]) -> Decoded:
    """Decode the pieces of each phase; after each phase the host sends GO if it may."""
    decoder, decoded, may_go = Decoder(), Decoded(), False
    try:
        for pieces in phases:
            if may_go:
                decoder.expect_run(files_bytes=FILES_BYTES, token=TOKEN)
            events = [event for piece in pieces for event in feed(decoder, piece, decoded)]
            may_go = not decoder.over and any(isinstance(event, Ready | Clean) for event in events)
    except ProtocolViolation as violation:
        decoded.violation = str(violation)
    decoded.over = decoder.over
    return decoded


def feed(decoder: Decoder, piece: bytes, decoded: Decoded) -> list[Event]:
    events = decoder.feed(piece)
    decoded.events += events
    return events


def cut(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in itertools.cycle(sizes):
        if not stream:
            return
        yield stream[:size]
        stream = stream[size:]


@examples(250)
@given(ANY_STREAMS)
def test_every_stream_is_decoded_as_the_table_says(phases: list[bytes]) -> None:
    model, in_order = Model(), True
    for phase in phases:
        if model.state == "idle":
            model.go()
        in_order = in_order and model.take(phase)
    decoded = decode([[phase] for phase in phases])
    event("in order" if in_order else "out of line")
    assert (decoded.violation is None) == in_order, decoded
    if in_order:
        assert decoded.events == model.events
        assert decoded.over == (model.state == "over")


@examples(250)
@given(ANY_STREAMS, st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_every_stream_is_decoded_alike_however_it_is_cut(phases: list[bytes], sizes: list[int]) -> None:
    whole = decode([phase] for phase in phases)
    pieces = decode(cut(phase, sizes) for phase in phases)
    single = decode(cut(phase, [1]) for phase in phases)
    assert whole.violation == pieces.violation == single.violation
    assert whole.over == pieces.over == single.over
    # Events that are read together with a violation are dropped with it.
    assert single.events[: len(pieces.events)] == pieces.events
    assert single.events[: len(whole.events)] == whole.events
    if whole.violation is None:
        assert whole.events == single.events


@examples(200)
@given(good_streams(), st.floats(0, 1, exclude_max=True))
def test_a_stream_that_stops_anywhere_ends_no_run(phases: list[bytes], where: float) -> None:
    whole = decode([phase] for phase in phases)
    *before, last = phases
    stopped = decode([*([phase] for phase in before), [last[: int(where * len(last))]]])
    assert whole.violation is stopped.violation is None
    assert stopped.events == whole.events[: len(stopped.events)]
    assert len(stopped.events) < len(whole.events)
    assert not stopped.over


# --- Round trips -----------------------------------------------------------------------------------


def frames_of(sent: Event) -> bytes:
    """Encode an event as init does."""
    match sent:
        case Wrote(stream, data):
            return frame("O" if stream == "stdout" else "E", data)
        case Dropped(stream, size):
            return frame("X", struct.pack("<BQ", 1 if stream == "stdout" else 2, size))
        case Acknowledged(size):
            return frame("A", struct.pack("<I", size))
        case FileOut(path, data):
            pieces = (data[at : at + PAYLOAD_MAX] for at in range(0, len(data), PAYLOAD_MAX))
            return frame("F", struct.pack("<I", 0o644) + path) + b"".join(frame("D", p) for p in pieces)
        case Skipped(path, reason):
            return frame("S", bytes([reason]) + path)
        case Failed(message):
            return frame("!", message.encode())
        case Preloaded():
            return frame("P")
        case _:
            raise AssertionError(f"not in the middle of a run: {sent}")


STREAM_NAMES = st.sampled_from(("stdout", "stderr"))
LARGE = st.binary(max_size=40) | st.sampled_from([b"x" * PAYLOAD_MAX, b"y" * (2 * PAYLOAD_MAX + 1)])
RUNNING = st.one_of(
    st.builds(Wrote, STREAM_NAMES, st.binary(max_size=40) | st.just(b"x" * PAYLOAD_MAX)),
    st.builds(Dropped, STREAM_NAMES, U64),
    st.builds(Acknowledged, U32),
    st.just(Preloaded()),
)
LEFT = st.one_of(
    st.builds(FileOut, st.binary(min_size=1, max_size=300), LARGE),
    st.builds(Skipped, st.binary(max_size=300), st.sampled_from(SkipReason)),
    st.builds(Acknowledged, U32),
)
ENDS = st.sampled_from([(frame("Z"), Done()), (frame("C"), Clean())]) | st.text(max_size=30).filter(
    lambda text: "\ufffd" not in text
).map(lambda text: (frame("!", text.encode()), Failed(text)))


@examples(200)
@given(st.lists(RUNNING, max_size=6), EXITS, st.lists(LEFT, max_size=6), ENDS)
def test_every_kind_of_frame_survives_a_round_trip(
    running: list[Event], exit_payload: bytes, left: list[Event], end: tuple[bytes, Event]
) -> None:
    decoder = Decoder()
    decoder.feed(frame("R", b"pid=1"))
    decoder.expect_run(files_bytes=1 << 30, token=TOKEN)
    assert decoder.feed(b"".join(map(frames_of, running))) == running
    exited = event_of("W", exit_payload)
    stream = frame("W", exit_payload) + b"".join(map(frames_of, left))
    if isinstance(end[1], Failed) and left and isinstance(left[-1], FileOut):
        left = left[:-1]  # it may be incomplete
    assert decoder.feed(stream + end[0]) == [exited, *left, end[1]]


@examples(100)
@given(st.dictionaries(st.from_regex(r"\A[a-z_]{1,8}\Z"), st.from_regex(r"\A[ -~]{0,20}\Z"), max_size=8))
def test_a_posture_survives_a_round_trip(posture: dict[str, str]) -> None:
    lines = "".join(f"{key}={value}\n" for key, value in posture.items())
    assert Decoder().feed(frame("R", lines.encode())) == [Ready(posture)]


# --- Memory ---------------------------------------------------------------------------------


def running() -> Decoder:
    decoder = Decoder()
    decoder.feed(frame("R"))
    decoder.expect_run(files_bytes=PAYLOAD_MAX, token=TOKEN)
    return decoder


def ended() -> Decoder:
    decoder = running()
    decoder.feed(exit_frame())
    return decoder


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the peak of allocated memory during ``work``."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def feed_all(decoder: Decoder, pieces: Iterable[bytes]) -> int:
    """Feed until the first violation, dropping events; return how many bytes were accepted."""
    taken = 0
    try:
        for piece in pieces:
            decoder.feed(piece)
            taken += len(piece)
    except ProtocolViolation:
        pass
    return taken


@pytest.mark.parametrize("size", [1, PAYLOAD_MAX, PAYLOAD_MAX + 1, 2**24, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_header_alone_allocates_nothing(kind: str, size: int) -> None:
    said = [struct.pack("<I", size), kind.encode()]
    for decoder in (Decoder(), running(), ended()):
        assert peak_bytes(functools.partial(feed_all, decoder, said)) < 4096


@examples(100)
@given(st.lists(WRONG | one_of("OEXAPW"), max_size=40), st.sampled_from([Decoder, running, ended]))
def test_memory_for_any_bytes_is_proportional_to_their_length(
    frames: list[bytes], make: Callable[[], Decoder]
) -> None:
    stream, decoder = b"".join(frames), make()
    assert peak_bytes(lambda: feed_all(decoder, [stream])) < 8192 + 200 * len(stream)


ENDLESS: dict[str, tuple[Callable[[], Decoder], bytes]] = {
    "output": (running, frame("O", b"x" * PAYLOAD_MAX)),
    "empty output": (running, frame("E") * 800),
    "counts of dropped output": (running, frame("X", struct.pack("<BQ", 1, 2**64 - 1)) * 300),
    "acknowledgements": (running, frame("A", b"\xff" * 4) * 500),
    "steps": (running, frame("P") * 800),
    "late acknowledgements": (ended, frame("A", bytes(4)) * 500),
    "files": (ended, frame("F", bytes(4) + b"x") * 20),
    "skipped files": (ended, frame("S", b"\1x") * 20),
    "data": (ended, frame("F", bytes(4) + b"x") + frame("D", b"x" * 1000)),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_stream_leaves_little_in_memory(name: str) -> None:
    make, piece = ENDLESS[name]
    decoder = make()
    assert peak_bytes(lambda: feed_all(decoder, itertools.repeat(piece, 90))) < 300_000


# --- Time --------------------------------------------------------------------


def seconds(make: Callable[[], Decoder], pieces: list[bytes]) -> float:
    """Return the shortest of three measurements."""
    measured = []
    for _ in range(3):
        decoder, start = make(), time.process_time()
        for piece in pieces:
            decoder.feed(piece)
        measured.append(time.process_time() - start)
    return min(measured)


STORMS: dict[str, tuple[Callable[[], Decoder], Callable[[int], list[bytes]]]] = {
    "many frames at once": (running, lambda n: [frame("A", bytes(4)) * n]),
    "byte after byte": (
        running,
        lambda n: [bytes([b]) for b in frame("O", bytes(PAYLOAD_MAX))] * (n // 8192),
    ),
    "a file in single bytes": (ended, lambda n: [frame("F", bytes(4) + b"x"), frame("D", b"x") * n]),
    "a file of nothing": (ended, lambda n: [frame("F", bytes(4) + b"x"), *[frame("D")] * n]),
    "a header at a time": (running, lambda n: [frame("O")] * n),
}


@pytest.mark.parametrize("name", STORMS)
def test_eight_times_as_much_takes_about_eight_times_as_long(name: str) -> None:
    make, pieces = STORMS[name]
    few, many = seconds(make, pieces(8192)), seconds(make, pieces(65536))
    assert many < 3 * 8 * few + 0.05  # quadratic time would be 64 times as long


def test_the_time_for_a_posture_is_proportional_to_its_length() -> None:
    short = seconds(Decoder, [frame("R", b"a=\n" * 1000)])
    long = seconds(Decoder, [frame("R", b"a=\n" * 20000)])
    assert long < 3 * 20 * short + 0.05


def test_no_frame_to_init_is_larger_than_its_buffer() -> None:
    sent = [
        protocol.file("f", bytes(3 * PAYLOAD_MAX)),
        protocol.stdin(bytes(PAYLOAD_MAX)),
        protocol.command(["a" * PAYLOAD_MAX], {"K": "v" * (PAYLOAD_MAX - 2)}, "c" * PAYLOAD_MAX),
    ]
    stream = b"".join(sent)
    while stream:
        size = int.from_bytes(stream[:4], "little")
        assert size <= PAYLOAD_MAX
        stream = stream[HEADER_BYTES + size :]
