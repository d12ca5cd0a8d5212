"""Frames: those to init are well formed; those from init are believed only as long as they are in order."""

from __future__ import annotations

import gc
import itertools
import struct
import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, strategies as st

from codeforge import protocol
from codeforge.errors import ProtocolViolation
from codeforge.protocol.frames import (
    MAX_FILES_OUT,
    PAYLOAD_MAX,
    Acknowledged,
    Clean,
    Decoder,
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
from codeforge.sandboxes.sandbox import new_token

HEADER_BYTES = 5
TOKEN = b"sixteen of these"


def frame(kind: str, payload: bytes = b"") -> bytes:
    """One frame, written down independently of the code under test."""
    return len(payload).to_bytes(4, "little") + kind.encode() + payload


def parse(stream: bytes) -> list[tuple[str, bytes]]:
    """Return all frames of a stream, in the simplest way."""
    frames = []
    while stream:
        end = HEADER_BYTES + int.from_bytes(stream[:4], "little")
        assert len(stream) >= end, "an unfinished frame"
        frames.append((chr(stream[4]), stream[HEADER_BYTES:end]))
        stream = stream[end:]
    return frames


# --- To init -------------------------------------------------------------------------------------


def test_limits_are_integers_of_fixed_width() -> None:
    [(kind, payload)] = parse(protocol.limits(output_bytes=1, files_bytes=2**40, max_age_s=1.5))
    assert kind == "l"
    assert struct.unpack("<QQII", payload) == (1, 2**40, MAX_FILES_OUT, 1500)


def test_an_age_that_does_not_fit_its_field_becomes_the_longest_one() -> None:
    [(_, payload)] = parse(protocol.limits(output_bytes=0, files_bytes=0, max_age_s=1e9))
    assert payload[-4:] == b"\xff\xff\xff\xff"


ARGUMENTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(st.lists(ARGUMENTS), st.dictionaries(st.from_regex(r"\A[A-Z_]{1,5}\Z"), ARGUMENTS), ARGUMENTS)
def test_a_command_is_its_arguments_its_variables_and_its_directory(
    argv: list[str], env: dict[str, str], cwd: str
) -> None:
    expected = [("a", arg.encode()) for arg in argv]
    expected += [("e", f"{key}={value}".encode()) for key, value in env.items()]
    assert parse(protocol.command(argv, env, cwd)) == [*expected, ("c", cwd.encode())]


@pytest.mark.parametrize("size", [0, 1, PAYLOAD_MAX - 1, PAYLOAD_MAX, PAYLOAD_MAX + 1, 3 * PAYLOAD_MAX])
def test_a_file_is_its_mode_its_path_and_its_bytes_in_full_frames(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    head, *pieces = parse(protocol.file("a/é", data, 0o755))
    assert head == ("f", b"\xed\x01\0\0" + "a/é".encode())
    assert {kind for kind, _ in pieces} <= {"d"}
    assert b"".join(piece for _, piece in pieces) == data
    assert all(len(piece) == PAYLOAD_MAX for _, piece in pieces[:-1])


@pytest.mark.parametrize(
    ("sent", "frames"),
    [
        (protocol.worker(), [("w", b"\0")]),
        (protocol.worker(template=True), [("w", b"\1")]),
        (protocol.preload("numpy é"), [("p", "numpy é".encode())]),
        (protocol.kill(), [("k", b"")]),
        (protocol.go(token=TOKEN), [("g", b"\0" + TOKEN)]),
        (protocol.go(token=TOKEN, fresh=True), [("g", b"\1" + TOKEN)]),
        (protocol.go(token=TOKEN, keep=True), [("g", b"\2" + TOKEN)]),
        (protocol.go(token=TOKEN, fresh=True, keep=True), [("g", b"\3" + TOKEN)]),
        (protocol.stdin(b""), [("i", b"")]),
        (protocol.stdin(b"x\0"), [("i", b"x\0")]),
        (protocol.stdin(b"x" * PAYLOAD_MAX), [("i", b"x" * PAYLOAD_MAX)]),
    ],
    ids=[
        "worker",
        "template",
        "preload",
        "kill",
        "go",
        "go fresh",
        "go keep",
        "go fresh keep",
        "end of stdin",
        "stdin",
        "full stdin",
    ],
)
def test_every_other_request_is_one_frame(sent: bytes, frames: list[tuple[str, bytes]]) -> None:
    assert parse(sent) == frames


@pytest.mark.parametrize(
    "send",
    [
        lambda: protocol.stdin(b"x" * (PAYLOAD_MAX + 1)),
        lambda: protocol.command(["x" * (PAYLOAD_MAX + 1)], {}, "/"),
        lambda: protocol.command([], {"K": "x" * PAYLOAD_MAX}, "/"),
        lambda: protocol.file("x" * PAYLOAD_MAX, b""),
        lambda: protocol.preload("x" * (PAYLOAD_MAX + 1)),
    ],
    ids=["stdin", "arg", "variable", "path", "step"],
)
def test_no_frame_is_sent_that_init_would_refuse(send: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match="a frame holds 65536 bytes, not "):
        send()


# --- From init: in order --------------------------------------------------------------------------

READY = frame("R", b"pid=1\nuid=10001\nroot=ro,nosuid\ncap_eff=0\n")
EXIT = frame("W", struct.pack("<BBQQQII", 0, 3, 1_500_000, 250_000, 4096, 1, 2) + TOKEN)
KILLED = frame("W", struct.pack("<BBQQQII", 1, 9, 0, 0, 0, 0, 0) + TOKEN)
CLEAN = frame("C")
DONE = frame("Z")
PRELOADED = frame("P")
FAILED = frame("!", b"no /code")


def dropped(stream: int, size: int) -> bytes:
    return frame("X", struct.pack("<BQ", stream, size))


def file_out(path: bytes, *pieces: bytes, mode: int = 0o644) -> bytes:
    return frame("F", struct.pack("<I", mode) + path) + b"".join(frame("D", piece) for piece in pieces)


STORY = [
    PRELOADED,
    frame("O", b"out\xc3"),
    frame("E", b"err"),
    frame("A", struct.pack("<I", 7)),
    frame("O"),
    dropped(1, 2**40),
    dropped(2, 1),
    EXIT,
    frame("A", struct.pack("<I", 1)),
    file_out(b"a/b", b"one", b"", b"two", mode=0o755),
    file_out(b"empty"),
    frame("S", b"\x01link\xff"),
    file_out(b"\xff\n"),
    DONE,
]
EVENTS: list[Event] = [
    Preloaded(),
    Wrote("stdout", b"out\xc3"),
    Wrote("stderr", b"err"),
    Acknowledged(7),
    Wrote("stdout", b""),
    Dropped("stdout", 2**40),
    Dropped("stderr", 1),
    Exited(3, None, cpu_s=0.25, memory_peak_bytes=4096, oom_kills=1, pids_refused=2),
    Acknowledged(1),
    FileOut(b"a/b", b"onetwo"),
    FileOut(b"empty", b""),
    Skipped(b"link\xff", SkipReason.NOT_REGULAR),
    FileOut(b"\xff\n", b""),
    Done(),
]


def running(before: bytes = READY, *, files_bytes: int = 1000) -> Decoder:
    """Return a decoder of what comes after GO."""
    decoder = Decoder()
    decoder.feed(before)
    decoder.expect_run(files_bytes=files_bytes, token=TOKEN)
    return decoder


def decode(pieces: Iterable[bytes], *, files_bytes: int = 1000) -> list[Event]:
    """Return the events of a run."""
    decoder = running(files_bytes=files_bytes)
    return [event for piece in pieces for event in decoder.feed(piece)]


def test_the_events_of_a_run_come_in_order() -> None:
    decoder = Decoder()
    assert decoder.feed(READY) == [Ready({"pid": "1", "uid": "10001", "root": "ro,nosuid", "cap_eff": "0"})]
    assert decoder.feed(PRELOADED * 2) == [Preloaded(), Preloaded()]
    decoder.expect_run(files_bytes=6, token=TOKEN)
    assert decoder.feed(b"".join(STORY)) == EVENTS
    assert decoder.over


def test_each_run_of_a_sandbox_has_its_own_bounds() -> None:
    decoder = running(files_bytes=6)
    for _ in range(3):
        assert decoder.feed(b"".join(STORY[:-1]) + CLEAN) == [*EVENTS[:-1], Clean()]
        assert not decoder.over
        assert decoder.feed(PRELOADED) == [Preloaded()]
        decoder.expect_run(files_bytes=6, token=TOKEN)
    with pytest.raises(ProtocolViolation, match="beyond the limit"):
        decoder.feed(EXIT + file_out(b"a", b"1234567"))


@pytest.mark.parametrize("said", [b"", bytes(16), TOKEN[:-1], TOKEN + b"x", TOKEN[::-1]])
def test_an_exit_without_the_token_of_the_run_is_a_violation(said: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode([frame("W", bytes(34) + said)])


def test_each_run_has_a_random_token() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {protocol.TOKEN_BYTES}


def test_the_token_of_one_run_does_not_end_another() -> None:
    decoder = running()
    decoder.feed(EXIT + CLEAN)
    decoder.expect_run(files_bytes=0, token=TOKEN[::-1])
    with pytest.raises(ProtocolViolation, match="that init did not report"):
        decoder.feed(EXIT)


def test_the_last_file_of_a_run_comes_before_clean() -> None:
    assert decode([EXIT, file_out(b"a", b"x"), CLEAN])[1:] == [FileOut(b"a", b"x"), Clean()]


@pytest.mark.parametrize(
    "before", [[], [READY, b""], [READY, b"", EXIT], [READY, b"", EXIT, DONE], [READY, FAILED]]
)
def test_a_run_can_be_expected_only_when_one_can_begin(before: list[bytes]) -> None:
    decoder = Decoder()
    for piece in before:
        if not piece:
            decoder.expect_run(files_bytes=0, token=TOKEN)
        decoder.feed(piece)
    with pytest.raises(ValueError, match="no run to expect"):
        decoder.expect_run(files_bytes=0, token=TOKEN)


def test_a_run_fed_byte_by_byte_is_the_same_run() -> None:
    assert decode(bytes([byte]) for byte in b"".join(STORY)) == EVENTS


@given(st.lists(st.integers(0, len(b"".join(STORY))), max_size=20))
def test_a_run_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    stream = b"".join(STORY)
    ends = [0, *sorted(cuts), len(stream)]
    assert decode(stream[a:b] for a, b in itertools.pairwise(ends)) == EVENTS


OUTPUT = st.builds(frame, st.sampled_from("OE"), st.binary(max_size=30))
SMALL = st.builds(dropped, st.integers(1, 2), st.integers(0, 2**64 - 1)) | st.builds(
    lambda size: frame("A", struct.pack("<I", size)), st.integers(0, 2**32 - 1)
)
LEFT = st.builds(
    file_out, st.binary(min_size=1, max_size=9), st.binary(max_size=30), st.binary(max_size=9)
) | st.builds(
    lambda reason, path: frame("S", bytes([reason]) + path),
    st.sampled_from(SkipReason),
    st.binary(max_size=9),
)
STREAMS = st.builds(
    lambda run, end, left: b"".join([*run, end, *left, DONE]),
    st.lists(OUTPUT | SMALL, max_size=8),
    st.sampled_from([EXIT, KILLED]),
    st.lists(LEFT, max_size=8),
)


@given(STREAMS, st.lists(st.integers(1, 40), min_size=1, max_size=10))
def test_any_run_is_the_same_however_it_is_cut(stream: bytes, sizes: list[int]) -> None:
    pieces: list[bytes] = []
    at = 0
    while at < len(stream):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream[at : at + size])
        at += size
    whole = decode([stream])
    assert decode(pieces) == whole
    assert isinstance(whole[-1], Done)


@pytest.mark.parametrize("ending", [DONE, FAILED], ids=["done", "failed"])
def test_a_decoder_is_over_after_the_last_event_and_not_before(ending: bytes) -> None:
    decoder = running()
    decoder.feed(EXIT + ending[:-1])
    assert not decoder.over
    decoder.feed(ending[-1:])
    assert decoder.over


def decoders() -> dict[str, Decoder]:
    """Return a decoder in each state in which frames may come."""
    idle = Decoder()
    idle.feed(READY)
    ended = running()
    ended.feed(EXIT)
    return {"before READY": Decoder(), "before GO": idle, "before EXIT": running(), "after EXIT": ended}


def test_init_may_fail_at_any_time() -> None:
    for decoder in decoders().values():
        assert decoder.feed(frame("!", b"pipe: \xff\n"))[-1] == Failed("pipe: \ufffd\n")
        assert decoder.over


def test_a_file_is_dropped_if_init_fails_in_the_middle_of_it() -> None:
    events = decode([EXIT, file_out(b"a", b"half"), FAILED])
    assert not [event for event in events if isinstance(event, FileOut)]


@pytest.mark.parametrize(
    ("payload", "code", "signal"),
    [((0, 0), 0, None), ((0, 255), 255, None), ((1, 9), None, 9), ((1, 64), None, 64), ((7, 15), None, 15)],
)
def test_an_exit_has_an_exit_code_or_a_signal(
    payload: tuple[int, int], code: int | None, signal: int | None
) -> None:
    [event] = decode([frame("W", struct.pack("<BBQQQII", *payload, 0, 0, 0, 0, 0) + TOKEN)])
    assert event == Exited(code, signal, cpu_s=0, memory_peak_bytes=0, oom_kills=0, pids_refused=0)


@given(st.binary())
def test_any_bytes_can_be_read_as_a_posture(payload: bytes) -> None:
    [event] = Decoder().feed(frame("R", payload))
    assert isinstance(event, Ready)
    assert all("=" not in key for key in event.posture)


def test_a_posture_is_read_only() -> None:
    [event] = Decoder().feed(READY)
    assert isinstance(event, Ready)
    assert not hasattr(event.posture, "__setitem__")


# --- From init: violations -----------------------------------------------------------------------

SKIP = frame("S", b"\x03big")
OUT = frame("O", b"x")
ALL = (
    *(READY, PRELOADED, OUT, frame("E"), dropped(1, 1), frame("A", bytes(4)), EXIT),
    *(file_out(b"a"), SKIP, frame("D"), CLEAN, DONE, FAILED),
)
ALLOWED = {
    "before READY": (READY, FAILED),
    "before GO": (PRELOADED, FAILED),
    "before EXIT": (PRELOADED, OUT, frame("E"), dropped(1, 1), frame("A", bytes(4)), EXIT, FAILED),
    "after EXIT": (frame("A", bytes(4)), file_out(b"a"), SKIP, CLEAN, DONE, FAILED),
}


@pytest.mark.parametrize("state", ALLOWED)
def test_every_state_takes_its_frames_and_no_others(state: str) -> None:
    for piece in ALL:
        decoder = decoders()[state]
        if piece in ALLOWED[state]:
            decoder.feed(piece)
        else:
            with pytest.raises(ProtocolViolation):
                decoder.feed(piece)


@pytest.mark.parametrize("last", [DONE, FAILED], ids=["done", "failed"])
def test_any_frame_after_the_last_event_is_a_violation(last: bytes) -> None:
    for piece in ALL:
        decoder = running()
        decoder.feed(EXIT + last)
        with pytest.raises(ProtocolViolation):
            decoder.feed(piece)


@pytest.mark.parametrize(
    "stream",
    [
        [EXIT, file_out(b"a", b"x"), SKIP, frame("D", b"y")],
        [EXIT, file_out(b"a"), frame("A", bytes(4)), frame("D", b"y")],
        [EXIT, CLEAN, OUT],
        [EXIT, CLEAN, CLEAN],
        [EXIT, CLEAN, DONE],
    ],
)
def test_a_frame_out_of_order_is_a_violation(stream: list[bytes]) -> None:
    decoder = running()
    for piece in stream[:-1]:
        decoder.feed(piece)
    with pytest.raises(ProtocolViolation):
        decoder.feed(stream[-1])


def test_an_unknown_frame_is_a_violation() -> None:
    for kind in set(range(256)) - set(b"RPOEXAWFDSCZ!"):
        for decoder in decoders().values():
            with pytest.raises(ProtocolViolation):
                decoder.feed(bytes(4) + bytes([kind]))


@pytest.mark.parametrize(
    "wrong",
    [
        *[frame("W", bytes(size) + TOKEN) for size in (0, 29, 31, 33, 35, 38, 100)],
        *[frame("A", bytes(size)) for size in (0, 3, 5)],
        *[frame("X", b"\1" + bytes(size)) for size in (0, 7, 9)],
        frame("X"),
        *[dropped(stream, 1) for stream in (0, 3, 255)],
    ],
)
def test_a_payload_of_the_wrong_size_or_stream_is_a_violation(wrong: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode([wrong])


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0x", b"\x07x", b"\xffx"])
def test_a_skipped_file_needs_a_known_reason(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="without a known reason"):
        decode([EXIT, frame("S", payload)])


@pytest.mark.parametrize("reason", SkipReason)
def test_every_known_reason_is_passed_on(reason: SkipReason) -> None:
    assert decode([EXIT, frame("S", bytes([reason]) + b"x")])[-1] == Skipped(b"x", reason)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\xa4\x01\0", b"\xa4\x01\0\0"])
def test_a_file_needs_a_name(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="a file without a name"):
        decode([EXIT, frame("F", payload)])


@pytest.mark.parametrize("last", [SKIP, file_out(b"a")], ids=["skipped", "file"])
def test_more_files_than_the_limit_are_a_violation(last: bytes) -> None:
    decoder = running()
    decoder.feed(EXIT + file_out(b"a") * MAX_FILES_OUT + SKIP * (MAX_FILES_OUT + 1))
    with pytest.raises(ProtocolViolation, match="more files than the limit"):
        decoder.feed(last)


def test_more_bytes_of_files_than_the_limit_are_a_violation() -> None:
    decoder = running(files_bytes=10)
    decoder.feed(EXIT + file_out(b"a", b"12345") + file_out(b"b", b"12345"))
    decoder.feed(frame("D"))
    with pytest.raises(ProtocolViolation, match="beyond the limit"):
        decoder.feed(frame("D", b"6"))


@pytest.mark.parametrize("size", [PAYLOAD_MAX + 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", "RPOEXAWFDSCZ!")
def test_a_frame_that_is_too_large_is_refused_before_its_payload_arrives(kind: str, size: int) -> None:
    with pytest.raises(ProtocolViolation, match=f"a frame of {size} bytes"):
        Decoder().feed(struct.pack("<I", size) + kind.encode())


def test_a_frame_of_exactly_the_limit_is_accepted() -> None:
    assert decode([frame("O", b"x" * PAYLOAD_MAX)])[-1] == Wrote("stdout", b"x" * PAYLOAD_MAX)


def test_a_frame_out_of_order_is_refused_before_its_payload_arrives() -> None:
    with pytest.raises(ProtocolViolation, match="before READY"):
        Decoder().feed(frame("O", b"x" * 100)[:HEADER_BYTES])


@given(
    st.lists(
        st.sampled_from([*STORY, READY, KILLED, FAILED, SKIP, CLEAN]) | st.binary(max_size=40), max_size=20
    )
)
def test_any_bytes_are_events_or_a_violation_and_at_most_a_frame_is_kept(pieces: list[bytes]) -> None:
    decoder = running(files_bytes=100)
    try:
        for piece in pieces:
            decoder.feed(piece)
            assert len(decoder._buffer) <= HEADER_BYTES + PAYLOAD_MAX
    except ProtocolViolation:
        with pytest.raises(ProtocolViolation):  # a violation is final
            decoder.feed(b"")


@given(st.binary())
def test_any_bytes_after_ready_are_events_or_a_violation(data: bytes) -> None:
    decoder = running(files_bytes=100)
    try:
        decoder.feed(data)
    except ProtocolViolation:
        return
    assert len(decoder._buffer) <= HEADER_BYTES + PAYLOAD_MAX


@pytest.mark.parametrize("chunk", [1000, 4096, 65536])
def test_ten_mebibytes_of_frames_leave_at_most_one_in_memory(chunk: int) -> None:
    decoder = running()
    stream = frame("O", b"x" * PAYLOAD_MAX) * 160
    for at in range(0, len(stream), chunk):
        decoder.feed(stream[at : at + chunk])
        assert len(decoder._buffer) < HEADER_BYTES + PAYLOAD_MAX


@pytest.mark.parametrize("junk", [b"\0", b"\xff", b"R", b"\n", b"{"])
def test_ten_mebibytes_of_junk_are_refused_at_the_first_header(junk: bytes) -> None:
    decoder = Decoder()
    stream = itertools.repeat(junk * 1024, 10 * 1024)
    with pytest.raises(ProtocolViolation):
        list(map(decoder.feed, stream))
    assert len(decoder._buffer) <= HEADER_BYTES + PAYLOAD_MAX + 1024


def test_a_file_is_kept_only_up_to_the_limit() -> None:
    decoder = running(files_bytes=PAYLOAD_MAX)
    decoder.feed(EXIT + file_out(b"a", b"x" * PAYLOAD_MAX))
    with pytest.raises(ProtocolViolation):
        decoder.feed(frame("D", b"x" * PAYLOAD_MAX))


def storm_s(count: int) -> float:
    decoder = running()
    storm = frame("O") * count
    gc.disable()  # its duration depends on all other objects
    try:
        start = time.process_time()
        assert len(decoder.feed(storm)) == count
        return time.process_time() - start
    finally:
        gc.enable()


def test_the_time_for_empty_frames_is_proportional_to_their_number() -> None:
    few, many = min(storm_s(10_000) for _ in range(3)), min(storm_s(80_000) for _ in range(3))
    assert many < 8 * few * 3  # quadratic would be 64 times
