"""Files that a run leaves, under any names and however deep: what reaches a caller is bounded and true, and
no path leads out of the directory that it is joined to.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import struct
from collections.abc import Callable
from pathlib import PurePosixPath

import pytest
from hypothesis import event, given, strategies as st

from codeforge import protocol
from codeforge.errors import InvalidRequest
from codeforge.model.languages import JAVASCRIPT, LanguageTable
from codeforge.model.limits import Limits
from codeforge.model.request import MAX_PATH_BYTES, MAX_PATH_DEPTH, ExecutionRequest, check_path, resolve
from codeforge.model.result import ExecutionResult
from codeforge.protocol.frames import MAX_FILES_OUT, SkipReason
from codeforge.sandboxes.kind import SandboxKind
from codeforge.sandboxes.sandbox import Sandbox
from fuzzing import examples
from init_harness import TOKEN, Init, Outcome, PythonProgram, Starter, frame
from scripted_engine import ScriptedEngine, exit_frame
from virtual_time import run

pytestmark = pytest.mark.usefixtures("known_token")

# --- Names --------------------------------------------------------------------------------------------

ODD = st.sampled_from(
    [
        "..", ".", "", "...", "..\\..", "C:", "~", "-rf", " ", "\n", "\r", "\t", "\x1b[2J", "\x7f", "\x85",
        "\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "a", "A", "\u00e9", "e\u0301", "n" * 255, "n" * 256,
        "\N{FULLWIDTH FULL STOP}" * 2, "\N{FRACTION SLASH}", "\N{LATIN SMALL LIGATURE FI}", "CON", "a\0b",
    ]
)  # fmt: skip
PARTS = ODD | st.text(max_size=8) | st.text("./\\~-", max_size=6)
TEXTS = st.lists(PARTS, min_size=1, max_size=20).map("/".join) | st.text(max_size=20)
RAW = st.one_of(
    TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=20),
    st.sampled_from([b"/etc/passwd", b"../../x", b"\xff", b"caf\xe9", b"a/\xc3", b"\xed\xa0\x80", b"/" * 40]),
    st.binary(min_size=1, max_size=3).map(lambda part: part * 1500),
)


def stays_below(path: str) -> bool:
    """Whether a joined path stays in its directory, checked in another way than the code does."""
    whole = os.path.normpath(os.path.join("/base/of/files", path))  # noqa: PTH118 - callers join paths so
    pure = PurePosixPath("/base/of/files") / path
    return (
        whole.startswith("/base/of/files/")
        and str(pure) == whole
        and pure.relative_to("/base/of/files") == PurePosixPath(path)
    )


def usable(path: str) -> bool:
    try:
        check_path(path)
    except InvalidRequest:
        return False
    return True


@examples(100)
@given(TEXTS)
def test_an_accepted_path_stays_below_the_directory_it_is_joined_to(path: str) -> None:
    if not usable(path):
        event("refused")
        return
    event("accepted")
    assert stays_below(path)
    data = path.encode()
    assert len(data) <= MAX_PATH_BYTES
    assert path.count("/") < MAX_PATH_DEPTH
    assert not set(path) & set(map(chr, (*range(32), *range(127, 160))))
    assert all(0 < len(part) <= 255 for part in data.split(b"/"))
    assert data.decode() == path


PLAIN = st.text(st.characters(codec="utf-8", categories=["L", "N", "S"]), min_size=1, max_size=20)


@examples(50)
@given(st.lists(PLAIN, min_size=1, max_size=MAX_PATH_DEPTH))
def test_a_plain_path_is_accepted(parts: list[str]) -> None:
    assert usable("/".join(parts))


def left_by_init(frames: bytes) -> ExecutionResult:
    """The result of a run at whose end init sends these frames."""
    language = dataclasses.replace(JAVASCRIPT, preload=())
    kind = SandboxKind(language=language, limits=Limits().of_sandbox(language))
    request = ExecutionRequest(code="x", language=kind.language.name)

    async def scenario() -> ExecutionResult:
        engine = ScriptedEngine()
        engine.answers = False
        sandbox = await Sandbox.launch(engine, kind, 20_000)
        engine.sandboxes[0].say(exit_frame() + frames + frame(b"Z"))
        try:
            *_, result = [
                piece
                async for piece in sandbox.run(resolve(request, LanguageTable([kind.language]), Limits()))
            ]
        finally:
            await sandbox.destroy()
        assert isinstance(result, ExecutionResult)
        return result

    return run(scenario())


SENT = RAW.filter(lambda path: 0 < len(path) <= protocol.MAX_PATH_OUT)
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from([0, *SkipReason]),
        SENT,
        st.binary(max_size=20),
    ),
    max_size=12,
)


@examples(100)
@given(ENTRIES)
def test_names_that_reach_a_caller_are_safe_to_join_and_to_print_as_json(
    entries: list[tuple[int, bytes, bytes]],
) -> None:
    frames, names = b"", set()
    for reason, path, data in entries:
        if reason:
            frames += frame(b"S", bytes([reason]) + path)
        else:
            frames += frame(b"F", struct.pack("<I", 0o644) + path) + frame(b"D", data)
            names.add(path)
    result = left_by_init(frames)
    for kept in result.files:
        assert stays_below(kept)
        assert usable(kept)
        assert kept.encode() in names
    for name in result.files_skipped:
        name.encode()  # no lone surrogates
    for path in names:  # nothing is lost silently
        text = path.decode("utf-8", "backslashreplace")
        assert text in result.files or text in result.files_skipped
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["files"].keys() == result.files.keys()


@pytest.mark.parametrize("names", [("a", "A"), ("\u00e9", "e\u0301"), ("fi", "\N{LATIN SMALL LIGATURE FI}")])
def test_names_that_only_look_the_same_stay_apart(names: tuple[str, str]) -> None:
    frames = [
        frame(b"F", struct.pack("<I", 0o644) + name.encode()) + frame(b"D", name.encode()) for name in names
    ]
    assert left_by_init(b"".join(frames)).files == {name: name.encode() for name in names}


# --- Trees --------------------------------------------------------------------------------------------

BUILD = r"""
import json, os, socket, sys
def no_wait(path, flags):  # a fifo of that name would wait for a reader
    return os.open(path, flags | os.O_NONBLOCK)
def made(op, path, extra):
    if op == 'file':
        with open(path, 'wb', opener=no_wait) as f: f.write(b'x' * extra)
    elif op == 'sparse':
        with open(path, 'wb', opener=no_wait) as f: f.truncate(1 << extra)
    elif op == 'dir': os.makedirs(path)
    elif op == 'deep':
        os.makedirs(path); os.chdir(path)
        for _ in range(extra):
            os.mkdir(b'd'); os.chdir(b'd')
            open(b'f', 'w').close()
        os.chdir(b'/code')
    elif op == 'link': os.symlink([b'..', b'/', b'/etc/passwd', b'.', path, b'input'][extra % 6], path)
    elif op == 'hard': os.link([b'input', b'a'][extra % 2], path)
    elif op == 'fifo': os.mkfifo(path)
    elif op == 'socket': socket.socket(socket.AF_UNIX).bind(path)
    elif op == 'many':
        os.makedirs(path)
        for n in range(extra * 60): open(path + b'/%d' % n, 'w').close()
    elif op == 'mode': os.chmod(path, [0, 0o400, 0o100, 0o7777][extra % 4])
    elif op == 'rename': os.rename([b'input', b'a'][extra % 2], path)
for op, path, extra in json.loads(sys.argv[1]):
    try: made(op, bytes.fromhex(path), extra)
    except (OSError, ValueError): pass
"""
NAME_BYTES = st.one_of(
    st.sampled_from([b"a", b"b", b"a/b", b"A", b"\xff", b"\n", b"-", b"..", b"n" * 255, "\u202ex".encode()]),
    st.binary(min_size=1, max_size=6),
)
OPS = st.sampled_from(
    ["file", "file", "sparse", "dir", "deep", "link", "hard", "fifo", "socket", "many", "mode", "rename"]
)
TREES = st.lists(st.tuples(OPS, NAME_BYTES, st.integers(0, 40)), min_size=1, max_size=15)
FILES_BYTES = 1 << 20
LEFTOVERS = 1000


def build(start: Callable[[], Init], py: PythonProgram, tree: list[tuple[str, bytes, int]]) -> Outcome:
    """What init sends when a run has built such a tree."""
    said = json.dumps([(op, path.hex(), extra) for op, path, extra in tree])
    limits = frame(b"l", struct.pack("<QQII", 1 << 20, FILES_BYTES, LEFTOVERS, 30_000))
    with start() as init:
        init.send(
            limits,
            protocol.command([*py(BUILD), said], {}, "/code"),
            protocol.file("input", b"input"),
            protocol.file("kept", b"kept"),
            protocol.go(token=TOKEN),
        )
        return init.finish()


@examples(15)
@given(tree=TREES)
def test_any_tree_ends_in_a_result_within_its_bounds(
    start: Starter, py: PythonProgram, tree: list[tuple[str, bytes, int]]
) -> None:
    outcome = build(start, py, tree)
    assert (outcome.done, outcome.status, outcome.failed) == (True, 0, None)
    assert outcome.exit.exit_code == 0, outcome.stderr
    assert sum(len(file.data) for file in outcome.files.values()) <= FILES_BYTES
    assert len(outcome.files) + len(outcome.skipped) <= LEFTOVERS + 1
    assert LEFTOVERS <= MAX_FILES_OUT
    for path, file in outcome.files.items():
        parts = path.split(b"/")
        assert not {b"", b".", b".."} & set(parts)
        assert len(path) < 4096
        assert len(parts) <= 33
        assert stat.S_IMODE(outcome.modes[path]) & ~0o777 == 0
        assert path != b"kept"
        # Each is a file of this tree, never one of the host's or one behind a link.
        assert set(file.data) in ({0}, {ord("x")}, set()) or file.data == b"input"
    assert not outcome.files.keys() & outcome.skipped.keys()
    if outcome.skipped:
        event("something is skipped")


LIMITS = st.tuples(st.sampled_from([0, 1, 100, 5000]), st.integers(0, 12))


@examples(10)
@given(limits=LIMITS, sizes=st.lists(st.sampled_from([0, 1, 99, 100, 101, 4999, 70_000]), max_size=14))
def test_any_limits_are_kept_and_what_they_cut_is_reported(
    start: Starter, py: PythonProgram, limits: tuple[int, int], sizes: list[int]
) -> None:
    most_bytes, most_names = limits
    said = json.dumps([("file", str(n).encode().hex(), size) for n, size in enumerate(sizes)])
    with start() as init:
        init.send(
            frame(b"l", struct.pack("<QQII", 1000, most_bytes, most_names, 30_000)),
            protocol.command([*py(BUILD), said], {}, "/code"),
            protocol.go(token=TOKEN),
        )
        outcome = init.finish()
    assert outcome.done
    assert sum(len(file.data) for file in outcome.files.values()) <= most_bytes
    assert len(outcome.files) + len(outcome.skipped) == min(len(sizes), most_names + 1)
    reasons = list(outcome.skipped.values())
    assert reasons.count(SkipReason.TOO_MANY) == (len(sizes) > most_names)
    assert set(reasons) <= {SkipReason.TOO_MANY, SkipReason.TOO_LARGE}
