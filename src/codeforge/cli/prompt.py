"""The prompt of ``codeforge repl``: reads cells and commands from a person.

While the person types, it asks the session in the sandbox for completions, and whether a cell is complete.
The answers are untrusted: it drops completions that contain control characters or line breaks, or that would
turn a cell into a command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.lexers import Lexer, PygmentsLexer
from prompt_toolkit.output import ColorDepth
from pygments.lexers import find_lexer_class_for_filename

from codeforge.cli.terminal import harmless
from codeforge.errors import CodeForgeError
from codeforge.model import Completions, Language
from codeforge.sessions import Session

ANSWER_TIMEOUT_S = 2.0
"""How long the prompt waits for the session. Without an answer it completes nothing, and runs the cell."""

MAX_COMPLETIONS = 500
MAX_HISTORY_BYTES = 1 << 20
INDENT = "    "
COMMAND = ":"
"""The first character of a command. No cell starts with it, nor does an IPython magic."""

T = TypeVar("T")


class Prompt:
    """Reads cells and commands.

    Args:
        language: the language of the cells.
        session: returns the current session.
        commands: the names of the commands, for completion.
        history: the file of the history; ``None``: it is not saved.
    """

    def __init__(
        self,
        language: Language,
        session: Callable[[], Session],
        commands: Iterable[str],
        history: Path | None,
    ) -> None:
        self._session = session
        self._held: list[KeyPress] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._prompts: PromptSession[str] = PromptSession(
            lexer=_lexer(language),
            history=_history(history),
            completer=SessionCompleter(session, commands),
            complete_while_typing=False,
            multiline=True,
            key_bindings=self._bindings(),
            prompt_continuation=_continuation,
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        )

    async def read(self, label: str) -> str | None:
        """Return what was typed, or ``None`` for Ctrl-D. Ctrl-C discards the line and asks again."""
        while True:
            try:
                return await self._prompts.prompt_async([("bold", label)], handle_sigint=False)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None

    # --- Keys

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        held = Condition(lambda: self._held is not None)

        @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER))  # not while the history is searched
        def _(event: KeyPressEvent) -> None:
            menu = event.current_buffer.complete_state
            if menu is not None and menu.current_completion is not None:
                event.current_buffer.complete_state = None  # keeps the chosen completion
                return
            self._held = []
            self._asking = event.app.create_background_task(self._enter(event))

        @bindings.add(Keys.Any, filter=held, eager=True)
        def _(event: KeyPressEvent) -> None:
            if event.key_sequence[0].key is Keys.ControlC and self._asking is not None:
                self._asking.cancel()
                event.app.exit(exception=KeyboardInterrupt(), style="class:aborting")
            elif self._held is not None:
                self._held.extend(event.key_sequence)

        @bindings.add("tab", filter=Condition(self._at_indentation))
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text(INDENT)

        @bindings.add("backspace", filter=Condition(self._at_indentation))
        def _(event: KeyPressEvent) -> None:
            width = event.current_buffer.document.cursor_position_col
            event.current_buffer.delete_before_cursor((width - 1) % len(INDENT) + 1 if width else 1)

        return bindings

    def _at_indentation(self) -> bool:
        document = self._prompts.default_buffer.document
        before = document.current_line_before_cursor
        return not before.strip() and "\n" in document.text_before_cursor

    async def _enter(self, event: KeyPressEvent) -> None:
        """Run the cell if it is complete, else add a line. Keys that arrive meanwhile are held back."""
        buffer = event.current_buffer
        document = buffer.document
        try:
            complete = await self._is_complete(document)
        finally:
            held, self._held = self._held or [], None
        buffer.document = document  # undo a completion that arrived late
        event.app.key_processor.feed_multiple(held)  # if the cell is complete, they go to the next prompt
        if complete:
            buffer.text = buffer.text.rstrip()
            buffer.validate_and_handle()
        else:
            _break_line(buffer)
            event.app.key_processor.process_keys()

    async def _is_complete(self, document: Document) -> bool:
        text = document.text
        if "\n" in document.text_after_cursor:
            return False
        if not text.strip() or text.lstrip().startswith(COMMAND):
            return True
        answer = await answered(self._session().is_complete(text))
        return True if answer is None else answer


async def answered(asked: Awaitable[T]) -> T | None:
    """Return the session's answer, or ``None`` if it does not answer in time."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await asked
    except (TimeoutError, CodeForgeError):
        return None


def _break_line(buffer: Buffer) -> None:
    buffer.insert_text("\n" + indentation(buffer.document.current_line_before_cursor))


def indentation(line: str) -> str:
    """Return the indentation of the line after ``line``."""
    indent = line[: len(line) - len(line.lstrip())]
    return indent + INDENT * line.rstrip().endswith((":", "{", "[", "("))


def _continuation(width: int, number: int, wraps: int) -> StyleAndTextTuples:
    return [("", "... ".rjust(width))]


def _lexer(language: Language) -> Lexer | None:
    found = find_lexer_class_for_filename(f"cell{language.suffix}")
    return None if found is None else PygmentsLexer(found)


# --- Completion


class SessionCompleter(Completer):
    """Completes commands, and with the session's answers also cells."""

    def __init__(self, session: Callable[[], Session], commands: Iterable[str]) -> None:
        self._session = session
        self._commands = sorted(commands)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return nothing: completions need the session's answer."""
        return ()

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Yield the commands, or ask the session."""
        text, at = document.text, document.cursor_position
        if text.lstrip().startswith(COMMAND):
            typed = document.text_before_cursor.lstrip()
            for name in self._commands:
                if f"{COMMAND}{name}".startswith(typed):
                    yield Completion(f"{COMMAND}{name}", -len(typed))
            return
        found = await answered(self._session().complete(text, at))
        if found is not None:
            for match in usable(found, text, at):
                yield Completion(match, min(found.start, at) - at)


def usable(found: Completions, text: str, at: int) -> Iterator[str]:
    """Yield the completions that are safe to show and to insert."""
    start = min(found.start, at)
    if start < 0:
        return
    for match in found.matches[:MAX_COMPLETIONS]:
        becomes = text[:start] + match + text[at:]
        if match.isprintable() and harmless(match) == match and not becomes.lstrip().startswith(COMMAND):
            yield match


# --- History


def history_file(language: Language) -> Path:
    """Return the path of a language's history."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if state.startswith("/") else Path.home() / ".local/state"
    return folder / "ai-codeforge" / f"history-{language.name}"


class _Lines(FileHistory):
    def store_string(self, string: str) -> None:
        """Append a line, if the disk has room. A terminal in another encoding may send what is not UTF-8."""
        with contextlib.suppress(OSError):
            super().store_string(string.encode(errors="replace").decode())


def _history(file: Path | None) -> History:
    if file is None:
        return InMemoryHistory()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as lines:
            os.fchmod(descriptor, 0o600)
            _shorten(lines.fileno())
    except OSError:  # no home directory, or a full disk
        return InMemoryHistory()
    return _Lines(file)


def _shorten(descriptor: int) -> None:
    """Drop the older half of a history that is too large."""
    size = os.fstat(descriptor).st_size
    if size > MAX_HISTORY_BYTES:
        rest = os.pread(descriptor, MAX_HISTORY_BYTES // 2, size - MAX_HISTORY_BYTES // 2)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, rest[rest.find(b"\n# ") :], 0)
