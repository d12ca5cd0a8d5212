"""Messages on stderr, and program output that is made harmless on a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, TextIO

# C0 except newline and tab, DEL, C1, and characters that reorder or hide text.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    r"\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e01ef]"
)

EXIT_SIGNAL_BASE = 128
"""Shells report a process that signal N ended as 128 + N."""

EXIT_BROKEN_PIPE = 141
"""As if SIGPIPE had ended the command."""


def harmless(text: str) -> str:
    r"""Return the text with every control character as an escape: ESC becomes ``\x1b``.

    A terminal obeys escape sequences, which can set the clipboard, the window's title or what is typed
    next. A carriage return can overwrite a line that has been read.
    """
    text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Make a name from a sandbox harmless, and write line breaks as escapes."""
    return harmless(text.replace("\r", "\\r")).replace("\n", "\\n")


def print_error(message: str) -> None:
    """Print an error on stderr. On a terminal, its first line stands out."""
    from rich.console import Console  # importing it takes longer than starting a sandbox
    from rich.markup import escape

    first, _, rest = message.partition("\n")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]Error:[/] {escape(harmless(first))}")
    if rest:
        console.print(escape(harmless(rest)))


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, indented if that is a terminal."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def discard_stdout() -> None:
    """Send stdout to /dev/null once its reader has gone, so that flushing the buffers at exit cannot fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())


class OutputWriter:
    """Passes a program's output on: harmless on a terminal, byte for byte elsewhere."""

    def __init__(self, to: TextIO) -> None:
        self._raw = to.buffer
        self._terminal = to.isatty()

    def write(self, text: str, data: bytes) -> None:
        """Write one piece, and flush."""
        if self._terminal:
            data = harmless(text).encode(errors="replace")
        self._raw.write(data)
        self._raw.flush()
