"""What people see: messages on stderr, and program output made harmless on a terminal."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, TextIO

# C0 (but newline and tab), DEL, C1, and what reorders or hides text on a line.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    r"\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e01ef]"
)

EXIT_SIGNAL_BASE = 128
"""As shells have it: ended by signal N is 128 + N."""


def harmless(text: str) -> str:
    r"""The text with everything that a terminal might obey written out: ESC becomes ``\x1b``.

    Escape sequences can set the clipboard, the window's title or what is typed next; a carriage
    return can overwrite a line that was read already.
    """
    text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def complain(message: str) -> None:
    """Say on stderr what went wrong; the first line stands out on a terminal."""
    from rich.console import Console  # takes longer to import than a sandbox takes to start
    from rich.markup import escape

    first, _, rest = message.partition("\n")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]Error:[/] {escape(harmless(first))}")
    if rest:
        console.print(escape(harmless(rest)))


def print_json(value: Any) -> None:
    """One JSON document on stdout, indented for a person on a terminal."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


class Passage:
    """Passes a program's output on: harmless on a terminal, byte for byte anywhere else."""

    def __init__(self, to: TextIO) -> None:
        self._raw = to.buffer
        self._terminal = to.isatty()

    def write(self, text: str, data: bytes) -> None:
        """Write one piece, now."""
        if self._terminal:
            data = harmless(text).encode(errors="replace")
        self._raw.write(data)
        self._raw.flush()
