"""The output buffer of runs and cells: what it keeps, what it counts, and when output is a flood."""

from __future__ import annotations

from hypothesis import given, strategies as st

from codeforge.model.result import StreamName
from codeforge.sandboxes.output_buffer import OutputBuffer

STREAMS: st.SearchStrategy[StreamName] = st.sampled_from(["stdout", "stderr"])
PIECES = st.lists(st.tuples(STREAMS, st.binary(max_size=10), st.booleans()), max_size=20)


def test_output_within_the_limit_is_kept_whole() -> None:
    buffer = OutputBuffer(5)
    assert [buffer.add("stdout", piece) for piece in (b"abc", b"", b"de")] == [b"abc", b"", b"de"]
    assert (buffer.kept("stdout"), buffer.written("stdout"), buffer.truncated) == (b"abcde", 5, False)


def test_output_beyond_the_limit_is_cut_and_counted() -> None:
    buffer = OutputBuffer(5)
    assert [buffer.add("stderr", piece) for piece in (b"abc", b"def", b"ghi")] == [b"abc", b"de", b""]
    buffer.add_dropped("stderr", 100)
    assert (buffer.kept("stderr"), buffer.written("stderr"), buffer.truncated) == (b"abcde", 109, True)


def test_dropped_output_alone_makes_it_truncated() -> None:
    buffer = OutputBuffer(5)
    buffer.add_dropped("stdout", 1)
    assert (buffer.truncated, buffer.kept("stdout"), buffer.streams) == (True, b"", ())


def test_each_stream_has_the_whole_limit() -> None:
    buffer = OutputBuffer(3)
    buffer.add("stderr", b"err")
    buffer.add("stdout", b"out")
    assert (buffer.kept("stdout"), buffer.kept("stderr"), buffer.truncated) == (b"out", b"err", False)
    assert buffer.streams == ("stderr", "stdout")


def test_a_flood_is_more_than_so_much_of_one_stream_kept_or_not() -> None:
    buffer = OutputBuffer(2, flood_bytes=10)
    buffer.add("stdout", b"x" * 6)
    buffer.add_dropped("stdout", 4)
    buffer.add("stderr", b"x" * 10)
    assert not buffer.flooded
    buffer.add_dropped("stderr", 1)
    assert buffer.flooded


def test_without_a_flood_limit_nothing_is_a_flood() -> None:
    buffer = OutputBuffer(0)
    buffer.add_dropped("stdout", 2**64)
    assert not buffer.flooded


def test_text_has_replacement_characters_for_bytes_that_are_not_utf8() -> None:
    buffer = OutputBuffer(4)
    buffer.add("stdout", "é€".encode())
    assert (buffer.text("stdout"), buffer.text("stderr")) == ("é\ufffd", "")


@given(PIECES, st.integers(0, 30), st.integers(0, 30))
def test_every_byte_is_kept_or_counted(
    pieces: list[tuple[StreamName, bytes, bool]], limit: int, flood: int
) -> None:
    buffer, came, size = (
        OutputBuffer(limit, flood),
        {"stdout": b"", "stderr": b""},
        {"stdout": 0, "stderr": 0},
    )
    for stream, data, arrives in pieces:
        size[stream] += len(data)
        if arrives:
            came[stream] += data
            buffer.add(stream, data)
        else:
            buffer.add_dropped(stream, len(data))
    streams: tuple[StreamName, StreamName] = ("stdout", "stderr")
    for stream in streams:
        assert buffer.kept(stream) == came[stream][:limit]
        assert buffer.written(stream) == size[stream]
    assert buffer.truncated == any(size[stream] > len(came[stream][:limit]) for stream in streams)
    assert buffer.flooded == any(total > flood for total in size.values())
