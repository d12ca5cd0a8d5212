"""Answers a prompt: completions, and whether a statement is complete."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_MATCHES = 200
INDENT = "    "


def complete(namespace: dict[str, Any], code: str, at: int) -> tuple[int, int, list[str]]:
    """Where the completions go, and what they are."""
    start = at
    while start and (code[start - 1].isalnum() or code[start - 1] in "_."):
        start -= 1
    word = code[start:at]
    completer = _completer(namespace)
    found: list[str] = []
    try:
        while len(found) < MAX_MATCHES and (match := completer.complete(word, len(found))):
            found.append(match)
    except Exception:  # noqa: BLE001, S110 - the program's attributes may raise anything
        pass
    dot = word.rfind(".") + 1
    return start + dot, at, sorted({match[dot:].rstrip(" :(") for match in found})


def completeness(code: str, flags: int) -> tuple[str, str]:
    """Whether a prompt should ask for more, and how far to indent that. A block ends with an empty line."""
    import codeop

    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= flags
    try:
        compiled = compiler(code, "<prompt>", "exec")
    except (SyntaxError, ValueError, OverflowError):
        return "invalid", ""
    lines = code.split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    indent = last[: len(last) - len(last.lstrip())]
    if compiled is None:
        return "incomplete", indent + INDENT * last.rstrip().endswith(":")
    is_open = len(lines) > 1 and lines[-1].strip() and indent
    return ("incomplete", indent) if is_open else ("complete", "")


def _completer(namespace: dict[str, Any]) -> Any:
    # rlcompleter would load readline, which sets up the terminal.
    readline = sys.modules.get("readline")
    sys.modules["readline"] = None  # type: ignore[assignment]
    try:
        import rlcompleter
    finally:
        del sys.modules["readline"]
        if readline is not None:
            sys.modules["readline"] = readline
    completer = rlcompleter.Completer(namespace)
    completer._callable_postfix = lambda value, word: word  # type: ignore[attr-defined]
    return completer
