"""On a terminal and in a file of records, output is plain text without effect."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

CODEFORGE = [sys.executable, "-m", "codeforge"]

SEQUENCES = {
    "title": "\x1b]0;evil\x07",
    "link": "\x1b]8;;http://evil/\x1b\\text\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "clear": "\x1b[2J\x1b[H\x1b[3J",
    "report": "\x1b[6n\x1b[c\x1b[>q",
    "device control": '\x1bP$q"p\x1b\\\x1bPtmux;\x1b\x1b]0;evil\x07\x1b\\',
    "application": "\x1b_evil\x1b\\\x1b^evil\x1b\\\x1bXevil\x1b\\",
    "8 bit": "\x9b2J\x9d0;evil\x9c\x90evil\x9c",
    "reset": "\x1bc\x1b[!p\x1b[?1049h\x0e\x0f",
    "overwritten": "rm -rf /\rls      \x08\x08\x0b\x0c",
    "all": "".join(map(chr, range(0xA0))),
}
HIDDEN = {
    "bidirectional": "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
    "zero width": "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff",
    "separators": "\u2028\u2029",
    "tags": "\U000e0001" + "".join(chr(0xE0000 + code) for code in range(0x20, 0x80)),
}
ALL = SEQUENCES | HIDDEN


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: our end and the command's end."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def shown(program: str, *, stderr: bool = False) -> tuple[str, int]:
    """A program's output as a person sees it, and the exit code of the command."""
    command = [*CODEFORGE, "run", "-"]
    with terminal() as (ours, theirs):
        out, err = (subprocess.DEVNULL, theirs) if stderr else (theirs, subprocess.DEVNULL)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=err) as process:
            assert process.stdin is not None
            process.stdin.write(program.encode())
            process.stdin.close()
            os.close(theirs)
            pieces = []
            with contextlib.suppress(OSError):  # raised when the other end is closed
                while piece := os.read(ours, 65536):
                    pieces.append(piece)
        return b"".join(pieces).decode(), process.returncode


def does_something(text: str) -> set[str]:
    """Characters that a terminal may obey, or that hide or reorder other characters."""
    plain = text.replace("\r\n", "\n")  # the terminal's own line ending
    kinds = {"Cc", "Cf", "Zl", "Zp"}
    return {c for c in plain if unicodedata.category(c) in kinds and c not in "\n\t"}


@pytest.mark.catalogue("O03", "O04")
@pytest.mark.parametrize("stderr", [False, True], ids=["stdout", "stderr"])
def test_no_control_sequence_reaches_the_terminal(stderr: bool) -> None:
    lines = [f"{name}:{text}" for name, text in ALL.items()]
    stream = "sys.stderr" if stderr else "sys.stdout"
    program = f"import sys\nfor line in {lines!r}: print(line, file={stream})"
    text, _ = shown(program, stderr=stderr)
    assert does_something(text) == set()
    assert text.count(":") >= len(ALL)
    assert "\\x1b]52;c;ZXZpbA==\\x07" in text
    assert "\\u202e" in text
    assert "\\U000e0041" in text


@pytest.mark.catalogue("O03")
def test_no_control_sequence_in_pieces_reaches_the_terminal() -> None:
    program = """
import os, time
for byte in "\\x1b]0;evil\\x07\\x9b2J\\u202e".encode() + b"\\x9b2J\\r" + b"x\\r\\n":
    os.write(1, bytes([byte]))
    time.sleep(0.01)
"""
    text, _ = shown(program)
    assert does_something(text) == set()
    assert text.startswith("\\x1b]0;evil\\x07\\x9b2J\\u202e\ufffd2J\\r")


@pytest.mark.catalogue("O03")
def test_a_verdict_quotes_no_control_sequence() -> None:
    name = "\x1b]0;evil\x07\u202e"
    program = f"raise type({name!r}, (Exception,), {{}})({name!r})"
    text, code = shown(program, stderr=True)
    assert code == 1
    assert does_something(text) == set()
    assert "\\x1b]0;evil\\x07" in text
    killed, code = shown(
        f"import os, sys; print({name!r}, file=sys.stderr, flush=True); os.abort()", stderr=True
    )
    assert code == 134
    assert does_something(re.sub(r"\x1b\[[0-9;]*m", "", killed)) == set()  # the command's own colours
    assert "SIGABRT" in killed


@pytest.mark.catalogue("O03")
def test_output_into_a_pipe_is_unchanged() -> None:
    whole = "".join(ALL.values()).encode()
    program = f"import os; os.write(1, {whole!r}); os.write(2, {whole!r})"
    done = subprocess.run([*CODEFORGE, "run", "-"], input=program.encode(), capture_output=True, timeout=60)
    assert done.stdout == done.stderr == whole


@pytest.mark.catalogue("O03")
def test_a_program_has_no_terminal() -> None:
    """Not even if the command has one: a program cannot type into it."""
    program = """
import fcntl, os, termios
reported = [os.isatty(fd) for fd in range(3)]
for path in ("/dev/tty", "/dev/console"):
    try: os.open(path, os.O_RDWR); reported.append(path)
    except OSError as error: reported.append(error.errno)
for call in (termios.TIOCSTI, 0x541C):  # TIOCLINUX
    try: fcntl.ioctl(0, call, b"x"); reported.append("ok")
    except OSError as error: reported.append(error.errno)
print(reported)
"""
    text, _ = shown(program)
    assert text.strip() == "[False, False, False, 6, 2, 1, 1]"


FAKE = {"line": 1, "id": "fake", "digest": "0" * 16, "status": "ok"}
INJECTION = f"\n{json.dumps(FAKE)}\n\r{json.dumps(FAKE)}\u2028{json.dumps(FAKE)}\x85\x0c\x1b[2J"


@pytest.mark.catalogue("O07")
def test_a_record_stays_on_one_line_whatever_it_contains(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    programs = [
        {"id": INJECTION, "code": f"print({INJECTION!r})"},
        {
            "id": "error",
            "code": f"import sys; print({INJECTION!r}, file=sys.stderr); sys.exit({INJECTION!r})",
        },
        {"id": "name", "code": f"open('a' + {INJECTION!r}.replace('/', '_')[:100], 'w')"},
        {"id": "not python", "code": INJECTION},
        {"id": "invalid", "code": "1", "language": INJECTION},
        {"id": "unknown", "code": "1", INJECTION: 1},
    ]
    source.write_text("".join(json.dumps(program) + "\n" for program in programs) + f'{{"x{INJECTION!r}\n')
    command = [*CODEFORGE, "batch", str(source), str(out)]
    done = subprocess.run(command, capture_output=True, timeout=120)
    lines = out.read_bytes().split(b"\n")
    assert lines.pop() == b""
    records = [json.loads(line) for line in lines]
    assert sorted(record["line"] for record in records) == list(range(1, 8))
    assert all(line.isascii() and all(byte >= 0x20 for byte in line) for line in lines)
    assert "fake" not in [record["id"] for record in records]
    assert INJECTION in [record["id"] for record in records]
    assert does_something(done.stderr.decode()) == set()


@pytest.mark.catalogue("O07")
def test_json_of_one_run_is_one_document() -> None:
    program = f"import sys; print({INJECTION!r}); sys.exit({INJECTION!r})"
    command = [*CODEFORGE, "run", "-", "--json"]
    done = subprocess.run(command, input=program.encode(), capture_output=True, timeout=60)
    (line,) = done.stdout.decode().splitlines()
    assert json.loads(line)["stdout"] == INJECTION.encode().decode() + "\n"
