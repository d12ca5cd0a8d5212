"""Whatever comes out of a sandbox: the same events or the same violation however it was cut, in little
memory and in time that is in proportion.
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
from hypothesis import event, given
from hypothesis import strategies as st

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

# --- The same thing twice -----------------------------------------------------------------------------


@dataclass
class Heard:
    """What came of a stream; ``violation`` is what its first fault was called."""

    events: list[Event] = field(default_factory=list)
    violation: str | None = None
    over: bool = False


def hear(phases: Iterable[Iterable[bytes]]) -> Heard:
    """What a decoder makes of it: of each phase's pieces, after which the host says GO if it may."""
    decoder, heard, may_go = Decoder(), Heard(), False
    try:
        for pieces in phases:
            if may_go:
                decoder.expect_run(files_bytes=FILES_BYTES, token=TOKEN)
            told = [event for piece in pieces for event in feed(decoder, piece, heard)]
            may_go = not decoder.over and any(isinstance(event, Ready | Clean) for event in told)
    except ProtocolViolation as violation:
        heard.violation = str(violation)
    heard.over = decoder.over
    return heard


def feed(decoder: Decoder, piece: bytes, heard: Heard) -> list[Event]:
    events = decoder.feed(piece)
    heard.events += events
    return events


def cut(stream: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in itertools.cycle(sizes):
        if not stream:
            return
        yield stream[:size]
        stream = stream[size:]


@examples(250)
@given(ANY_STREAMS)
def test_every_stream_is_what_the_table_says(phases: list[bytes]) -> None:
    model, in_order = Model(), True
    for phase in phases:
        if model.state == "idle":
            model.go()
        in_order = in_order and model.take(phase)
    heard = hear([[phase] for phase in phases])
    event("in order" if in_order else "out of line")
    assert (heard.violation is None) == in_order, heard
    if in_order:
        assert heard.events == model.events
        assert heard.over == (model.state == "over")


@examples(250)
@given(ANY_STREAMS, st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_every_stream_is_the_same_however_it_was_cut(phases: list[bytes], sizes: list[int]) -> None:
    whole = hear([phase] for phase in phases)
    pieces = hear(cut(phase, sizes) for phase in phases)
    single = hear(cut(phase, [1]) for phase in phases)
    assert whole.violation == pieces.violation == single.violation
    assert whole.over == pieces.over == single.over
    # What is heard in the same read as a violation is not believed either.
    assert single.events[: len(pieces.events)] == pieces.events
    assert single.events[: len(whole.events)] == whole.events
    if whole.violation is None:
        assert whole.events == single.events


@examples(200)
@given(good_streams(), st.floats(0, 1, exclude_max=True))
def test_a_stream_that_stops_anywhere_ends_nothing_too_early(phases: list[bytes], where: float) -> None:
    whole = hear([phase] for phase in phases)
    *before, last = phases
    stopped = hear([*([phase] for phase in before), [last[: int(where * len(last))]]])
    assert whole.violation is stopped.violation is None
    assert stopped.events == whole.events[: len(stopped.events)]
    assert len(stopped.events) < len(whole.events)
    assert not stopped.over


# --- There and back -----------------------------------------------------------------------------------


def frames_of(told: Event) -> bytes:
    """As init would write it."""
    match told:
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
            raise AssertionError(f"not in the middle of a run: {told}")


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
def test_every_kind_of_frame_goes_there_and_back(
    running: list[Event], exit_payload: bytes, left: list[Event], end: tuple[bytes, Event]
) -> None:
    decoder = Decoder()
    decoder.feed(frame("R", b"pid=1"))
    decoder.expect_run(files_bytes=1 << 30, token=TOKEN)
    assert decoder.feed(b"".join(map(frames_of, running))) == running
    exited = event_of("W", exit_payload)
    stream = frame("W", exit_payload) + b"".join(map(frames_of, left))
    if isinstance(end[1], Failed) and left and isinstance(left[-1], FileOut):
        left = left[:-1]  # nobody knows whether it was whole
    assert decoder.feed(stream + end[0]) == [exited, *left, end[1]]


@examples(100)
@given(st.dictionaries(st.from_regex(r"\A[a-z_]{1,8}\Z"), st.from_regex(r"\A[ -~]{0,20}\Z"), max_size=8))
def test_a_posture_goes_there_and_back(posture: dict[str, str]) -> None:
    lines = "".join(f"{key}={value}\n" for key, value in posture.items())
    assert Decoder().feed(frame("R", lines.encode())) == [Ready(posture)]


# --- In little memory ---------------------------------------------------------------------------------


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
    """What is allocated at most while it goes on."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def feed_all(decoder: Decoder, pieces: Iterable[bytes]) -> int:
    """Feeds as long as it may; what it says is forgotten. Returns how much was taken."""
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
def test_nothing_is_allocated_for_a_size_that_is_only_said(kind: str, size: int) -> None:
    said = [struct.pack("<I", size), kind.encode()]
    for decoder in (Decoder(), running(), ended()):
        assert peak_bytes(functools.partial(feed_all, decoder, said)) < 4096


@examples(100)
@given(st.lists(WRONG | one_of("OEXAPW"), max_size=40), st.sampled_from([Decoder, running, ended]))
def test_what_any_bytes_take_is_in_proportion_to_them(
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
def test_what_goes_on_without_end_leaves_little_behind(name: str) -> None:
    make, piece = ENDLESS[name]
    decoder = make()
    assert peak_bytes(lambda: feed_all(decoder, itertools.repeat(piece, 90))) < 300_000


# --- In time that is in proportion --------------------------------------------------------------------


def seconds(make: Callable[[], Decoder], pieces: list[bytes]) -> float:
    """The least that it takes."""
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
    assert many < 3 * 8 * few + 0.05  # squared it would be 64 times


def test_a_posture_of_many_lines_takes_about_as_long_as_its_bytes() -> None:
    short = seconds(Decoder, [frame("R", b"a=\n" * 1000)])
    long = seconds(Decoder, [frame("R", b"a=\n" * 20000)])
    assert long < 3 * 20 * short + 0.05


def test_no_frame_of_the_hosts_is_larger_than_what_init_keeps() -> None:
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
