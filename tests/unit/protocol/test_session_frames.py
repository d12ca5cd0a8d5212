"""The session frames: requests as init reads them, events as it writes them, and hostile bytes."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given, strategies as st

from codeforge import protocol
from codeforge.errors import ProtocolViolation
from codeforge.model.cell_result import bundle_bytes, bundle_of, error_of, text_of
from codeforge.model.request import MAX_PATH_BYTES
from codeforge.protocol import session_frames
from codeforge.protocol.session_frames import (
    Answer,
    Ended,
    EntryKind,
    InvalidMessage,
    MessageData,
    MessageDecoder,
    MessageTaken,
    Text,
    parse,
    parse_entries,
    parse_listing,
)
from fuzzing import examples
from scripted_engine import frame, frames

BRANCHES = st.integers(0, session_frames.MAX_BRANCHES - 1)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(max_size=10), JSON, max_size=5)


def only(data: bytes) -> tuple[str, bytes]:
    (found,) = frames(data)
    return found


# --- Host to init


@given(branch=BRANCHES, content=OBJECTS, filler=st.integers(0, 200_000))
def test_a_message_can_be_put_together_from_its_pieces(
    branch: int, content: dict[str, Any], filler: int
) -> None:
    content["filler"] = "é" * filler
    pieces = [only(piece) for piece in session_frames.message(branch, content)]
    assert {kind for kind, _ in pieces} == {"m"}
    assert all(payload[:4] == branch.to_bytes(4, "little") for _, payload in pieces)
    assert all(len(payload) <= protocol.PAYLOAD_MAX for _, payload in pieces)
    assert [payload[4:5] for _, payload in pieces] == [b"j"] * (len(pieces) - 1) + [b"J"]
    assert json.loads(b"".join(payload[5:] for _, payload in pieces)) == content


@given(
    branch=BRANCHES,
    path=st.text(max_size=50),
    offset=st.integers(0, (1 << 64) - 1),
    data=st.binary(max_size=50),
)
def test_file_requests_have_their_documented_layout(branch: int, path: str, offset: int, data: bytes) -> None:
    name = path.encode(errors="ignore").decode().encode()
    path = name.decode()
    head = branch.to_bytes(4, "little")
    where = offset.to_bytes(8, "little")
    assert only(session_frames.read_file(branch, path, offset)) == (
        "q",
        head + b"r" + where + session_frames.FILE_PIECE_BYTES.to_bytes(4, "little") + name,
    )
    assert only(session_frames.write_file(branch, path, offset, data, 0o755)) == (
        "q",
        head + b"w" + where + struct.pack("<IH", 0o755, len(name)) + name + data,
    )
    assert only(session_frames.list_files(branch, path, offset)) == ("q", head + b"l" + where + name)
    assert only(session_frames.stat_file(branch, path)) == ("q", head + b"s" + name)
    assert only(session_frames.remove_file(branch, path)) == ("q", head + b"d" + name)


def test_branch_requests_have_their_documented_layout() -> None:
    assert only(session_frames.start(1)) == ("s", b"\1\0\0\0")
    assert only(session_frames.fork(1, 2)) == ("b", b"\1\0\0\0\2\0\0\0")
    assert only(session_frames.signal(1, 9)) == ("n", b"\1\0\0\0\x09")
    assert only(session_frames.forget(1)) == ("x", b"\1\0\0\0")


def test_the_largest_piece_of_a_file_fits_into_a_frame() -> None:
    path = "x" * MAX_PATH_BYTES
    assert len(
        only(session_frames.write_file(63, path, 1 << 40, bytes(session_frames.FILE_PIECE_BYTES)))[1]
    ) <= (protocol.PAYLOAD_MAX)


# --- Init to host


def of(kind: str, payload: bytes) -> protocol.SessionFrame:
    return protocol.SessionFrame(kind.encode(), payload)


def test_events_are_read_from_their_documented_layout() -> None:
    assert parse(of("T", b"\1\0\0\0\2text")) == Text(1, "stderr", b"text")
    assert parse(of("M", b"\1\0\0\0said")) == MessageData(1, b"said")
    assert parse(of("K", b"\1\0\0\0")) == MessageTaken(1)
    assert parse(of("B", struct.pack("<IBBII", 1, 1, 9, 2, 3))) == Ended(1, None, 9, 2, 3)
    assert parse(of("B", struct.pack("<IBBII", 1, 0, 9, 2, 3))) == Ended(1, 9, None, 2, 3)
    assert parse(of("Q", b"\2\0\0\0data")) == Answer(2, b"data")


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("T", b""),
        ("T", b"\0\0\0\0"),
        ("T", b"\0\0\0\0\0"),
        ("T", b"\0\0\0\0\3x"),
        ("M", b"\0\0\0"),
        ("K", b""),
        ("K", b"\0\0\0"),
        ("K", b"\0\0\0\0\0"),
        ("B", b""),
        ("B", bytes(13)),
        ("B", bytes(15)),
        ("Q", b""),
        ("Q", b"\0\0\0"),
    ],
)
def test_a_malformed_frame_is_a_violation(kind: str, payload: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse(of(kind, payload))


@examples(200)
@given(kind=st.sampled_from("TMKBQ"), payload=st.binary(max_size=40))
def test_any_frame_is_an_event_or_a_violation(kind: str, payload: bytes) -> None:
    try:
        event = parse(of(kind, payload))
    except ProtocolViolation:
        return
    assert isinstance(event, Text | MessageData | MessageTaken | Ended | Answer)


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(list(EntryKind)),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, 0o7777),
        st.binary(max_size=255),
    ),
    max_size=10,
)


@given(rest=st.integers(0, (1 << 64) - 1), entries=ENTRIES, cut=st.integers(1, 30))
def test_a_listing_has_its_entries_and_a_cut_one_is_a_violation(
    rest: int, entries: list[tuple[EntryKind, int, int, int, bytes]], cut: int
) -> None:
    data = rest.to_bytes(8, "little") + b"".join(
        struct.pack("<cQQIH", kind.value[0].encode(), size, changed, mode, len(name)) + name
        for kind, size, changed, mode, name in entries
    )
    where, found = parse_listing(data)
    assert where == rest
    assert [(e.kind, e.size, e.changed_ns, e.mode, e.name) for e in found] == entries
    last = len(entries[-1][4]) + 23 if entries else 8
    if cut < last:
        with pytest.raises(ProtocolViolation):
            parse_listing(data[:-cut])


@examples(200)
@given(data=st.binary(max_size=100))
def test_any_bytes_are_a_listing_or_a_violation(data: bytes) -> None:
    for parser in (parse_listing, lambda found: list(parse_entries(found))):
        try:
            parser(data)
        except ProtocolViolation:
            continue


# --- Messages of an interpreter


def said(message: object) -> bytes:
    return frame("J", json.dumps(message).encode())


@given(messages=st.lists(OBJECTS, max_size=5), data=st.data())
def test_messages_are_put_together_however_they_are_cut(
    messages: list[dict[str, Any]], data: st.DataObject
) -> None:
    whole = b"".join(frame("P") + said(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    decoder = MessageDecoder()
    found: list[dict[str, Any]] = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += decoder.feed(whole[start:end])
    assert found == messages


HOSTILE = [
    b"not a frame at all",
    frame("j", b"{}"),
    frame("f", b"/code"),
    struct.pack("<IB", session_frames.MAX_MESSAGE_BYTES + 1, ord("J")),
    struct.pack("<IB", 0xFFFFFFFF, ord("J")),
    frame("J", b""),
    frame("J", b"{"),
    frame("J", b"\xff\xfe"),
    frame("J", b"[]"),
    frame("J", b'"text"'),
    frame("J", b"1"),
    frame("J", b"null"),
    frame("J", b"[" * 1_000_000),
    frame("J", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    frame("J", b'{"a": ' + b"9" * 5000 + b"}"),
    frame("J", b'{"a": 1} {"b": 2}'),
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_bytes_that_are_not_a_message_are_refused(data: bytes) -> None:
    decoder = MessageDecoder()
    assert list(decoder.feed(said({"is": "ready"}))) == [{"is": "ready"}]
    with pytest.raises(InvalidMessage):
        list(decoder.feed(data))


@examples(200)
@given(
    pieces=st.lists(
        st.binary(max_size=30) | st.builds(frame, st.sampled_from("JjPf"), st.binary(max_size=20))
    )
)
def test_any_bytes_are_messages_or_are_refused(pieces: list[bytes]) -> None:
    decoder = MessageDecoder()
    try:
        for piece in pieces:
            assert all(isinstance(message, dict) for message in decoder.feed(piece))
    except InvalidMessage:
        pass


# --- Values in messages, which may be anything


ANYTHING: list[object] = [
    None,
    True,
    1,
    1.5,
    "",
    "text",
    [],
    {},
    {"data": None},
    {"data": []},
    {"data": "x"},
    {"data": {}},
    {"data": {"text/plain": 5}},
    {"data": {"text/plain": None}},
    {"data": {"image/png": "not base64!"}},
    {"data": {"image/png": {"a": []}}},
    {"data": {"text/plain": "\ud800"}},
    {"data": {"\ud800": 1}},
    {"data": {"application/json": math.nan}},
    {"data": {"application/json": [math.inf]}},
    {"data": {"text/plain": "x"}, "metadata": 5},
    {"data": {"text/plain": "x"}, "metadata": {"a": math.nan}},
]


@pytest.mark.parametrize("content", ANYTHING)
def test_a_bundle_is_well_formed_or_none(content: object) -> None:
    check_bundle(content)


@given(content=JSON | st.fixed_dictionaries({"data": JSON, "metadata": JSON}))
def test_any_json_makes_a_bundle_or_none(content: object) -> None:
    check_bundle(content)
    error = error_of(content)
    assert error is None or all(isinstance(each, str) for each in (error.name, error.value, *error.traceback))


def check_bundle(content: object) -> None:
    bundle = bundle_of(content)
    if bundle is None:
        return
    assert bundle_bytes(bundle) >= 0
    for text in (bundle.text, bundle.html, bundle.svg):
        assert text is None or isinstance(text.encode(), bytes)
    for picture in (bundle.png, bundle.jpeg):
        assert picture is None or isinstance(picture, bytes)
    json.dumps([dict(bundle.data), dict(bundle.metadata)], allow_nan=False)
    assert bundle.json == bundle.data.get("application/json")


def test_content_that_is_nested_too_deep_is_dropped() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    bundle = bundle_of({"data": {"application/json": deep, "text/plain": "x"}, "metadata": {"a": deep}})
    assert bundle is not None
    assert (bundle.json, bundle.text) == (None, "x")
    assert error_of({"name": deep, "value": deep, "traceback": [deep, "line"]}) is not None


def test_values_that_are_not_text_become_text_or_nothing() -> None:
    contents: list[object] = ["a", 1, 1.5, None, [], {}, b"x", "\ud800"]
    assert [text_of(content) for content in contents] == ["a", "1", "1.5", "", "", "", "", "?"]
