"""The conversation of ``codeforge repl``: runs cells and commands, and prints their results."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path, PurePosixPath

from codeforge.cli.terminal import OutputWriter, one_line, print_error
from codeforge.errors import CodeForgeError, FileError, HostFailure, InvalidRequest, SessionEnded
from codeforge.model import CellEvent, CellResult, CellStatus, MimeBundle, call_listener, result_of
from codeforge.safe_extract import Extractor
from codeforge.sessions import Session

NOTICE_S = 2.0
"""How long an interrupted cell may go on before a note explains the second Ctrl-C."""

PICTURES = {"image/png": ".png", "image/jpeg": ".jpg", "image/svg+xml": ".svg"}
"""MIME types of pictures, with the suffixes of their files."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    "help": ("", "list these commands"),
    "fork": ("", "copy this session as it is now to a new branch"),
    "branches": ("", "list the branches; * marks the current one"),
    "switch": ("N", "switch to branch N"),
    "close": ("N", "close branch N"),
    "restart": ("", "start a new interpreter: variables are lost, files are kept"),
    "files": ("[PATH]", "list the files of this branch, or those below PATH"),
    "get": ("PATH [TO]", "copy a file or a directory to this machine"),
    "put": ("FROM [PATH]", "copy a file of this machine into the session"),
    "save": ("TO", "save the last picture to a file on this machine"),
    "quit": ("", "leave; so does Ctrl-D"),
}
HELP = """\
What you type runs in the sandbox, and the value of its last expression is shown. Enter runs a complete cell
and continues an incomplete one; Alt-Enter runs it as it is. Tab completes. Ctrl-C stops a running cell, or
discards the line.
"""


class Conversation:
    """A session and its branches: runs cells and commands, and prints what they say.

    Args:
        make: returns a new session.
        out: directory for pictures; ``None``: they are not written.

    Attributes:
        session: the current branch.
        at_prompt: whether a person is at a prompt, which Ctrl-C does not leave.
    """

    def __init__(self, make: Callable[[], Session], out: Path | None) -> None:
        self._make = make
        self._out = out
        self.session = make()
        self.at_prompt = False
        self._command: asyncio.Task[None] | None = None
        self._branches = {0: self.session}
        self._number = 0
        self._next = 1
        self._running = False
        self._interrupts = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stdout = OutputWriter(sys.stdout)
        self._stderr = OutputWriter(sys.stderr)
        self._line_is_open = False
        self._picture: tuple[str, bytes] | None = None
        self._pictures = 0

    @property
    def label(self) -> str:
        """The prompt."""
        branch = f":{self._number}" if len(self._branches) > 1 else ""
        return f"{self.session.language.name}{branch}> "

    # --- Cells

    async def run(self, code: str) -> CellResult:
        """Run a cell, print its output, and say how it ended."""
        await self.session.start()  # before that, there is nothing to interrupt
        self._running, self._interrupts = True, 0
        try:
            result = await result_of(self.session.stream(code), self._take)
            self._conclude(result)
            return result
        finally:
            self._running = False

    def _take(self, event: CellEvent) -> None:
        call_listener(event, self._write, functools.partial(self._write, to="stderr"), self._show)

    def interrupt(self) -> bool:
        """Stop the running cell or command; the second time, kill the cell's interpreter.

        Returns:
            whether the interrupt was handled; if not, the caller should exit.
        """
        if self._command is not None:
            self._command.cancel()
        if not self._running:
            return self.at_prompt
        self._interrupts += 1
        self._line_is_open = True  # the terminal printed ^C
        if self._interrupts == 1:
            self._spawn(self.session.interrupt())
            asyncio.get_running_loop().call_later(NOTICE_S, self._notice)
        elif self._interrupts == 2:
            self._spawn(self.session.restart())
        return True

    def _notice(self) -> None:
        if self._running and self._interrupts == 1:
            self.end_line()
            self._write("The cell is still running. Ctrl-C again kills its interpreter.\n", to="stderr")

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _conclude(self, result: CellResult) -> None:
        self.end_line()
        error = result.error
        if error is not None:
            if error.traceback:
                self._write("\n".join(error.traceback) + "\n", to="stderr")
            elif result.status in (CellStatus.ERROR, CellStatus.INTERRUPTED):
                self._write(f"{error}\n", to="stderr")
            if result.status not in (CellStatus.ERROR, CellStatus.INTERRUPTED):
                print_error(error.value.partition(";")[0] + self._advice(result))
        if result.truncated:
            print_error("output was cut off at the limit")

    def _advice(self, result: CellResult) -> str:
        if result.alive:
            return "; the session's variables are kept"
        if self._interrupts > 1:
            return "; a new one was started: variables are lost, files are kept"
        more = "; raise it with --memory" if result.status is CellStatus.OUT_OF_MEMORY else ""
        lost = "The session's variables are lost, its files are kept. :restart starts a new interpreter."
        return f"{more}\n{lost}"

    # --- Printing

    def _write(self, text: str, *, to: str = "stdout") -> None:
        writer = self._stdout if to == "stdout" else self._stderr
        writer.write(text, text.encode(errors="replace"))
        if text:
            self._line_is_open = not text.endswith("\n")

    def end_line(self) -> None:
        """Begin a new line on a terminal if the last output did not end with one."""
        if self._line_is_open and sys.stdout.isatty():
            print(flush=True)
        self._line_is_open = False

    def _show(self, bundle: MimeBundle) -> None:
        """Print the text of what was displayed; for a picture, its type and where it was written."""
        picture = _picture_of(bundle)
        if picture is not None:
            kind, content = self._picture = picture
            where = "; :save TO writes it"
            if self._out is not None:
                self._pictures += 1
                path = self._out / f"picture-{self._pictures}{PICTURES[kind]}"
                where = f": {path}"
                try:
                    _write_file(path, content)
                except OSError as error:
                    where = f": cannot write {path}: {error.strerror}"
            self._write(f"[{kind}, {len(content)} bytes{where}]\n")
        elif bundle.text is not None:
            self._write(f"{bundle.text}\n")
        else:
            self._write(f"[{', '.join(bundle.data)}]\n")

    # --- Commands

    async def command(self, line: str) -> bool:
        """Run a command; return whether to read another one.

        Raises:
            InvalidRequest: there is no such command, or its arguments are wrong.
        """
        try:
            name, *words = shlex.split(line) or ["help"]
        except ValueError as error:
            raise InvalidRequest(f"cannot split the command into words: {error}") from None
        if name == "quit":
            return False
        if name not in COMMANDS:
            raise InvalidRequest(f"there is no command :{name}; :help lists the commands")
        usage = COMMANDS[name][0]
        least, most = len([word for word in usage.split() if word[0] != "["]), len(usage.split())
        if not least <= len(words) <= most:
            raise InvalidRequest(f"usage: :{name} {usage}".rstrip())
        self._command = asyncio.ensure_future(getattr(self, f"_do_{name}")(*words))
        try:
            await self._command
        except asyncio.CancelledError:
            if (here := asyncio.current_task()) is not None and here.cancelling():
                raise
            self._write(f"\n:{name} was interrupted.\n", to="stderr")
        finally:
            self._command = None
        return True

    async def _do_help(self) -> None:
        self._write(HELP)
        for name, (usage, text) in COMMANDS.items():
            self._write(f"  {f':{name} {usage}':20} {text}\n")

    async def _do_fork(self) -> None:
        (copy,) = await self.session.fork()
        number, self._next = self._next, self._next + 1
        self._branches[number] = copy
        self._write(f"Branch {number} is a copy of branch {self._number}; :switch {number} goes there.\n")

    async def _do_branches(self) -> None:
        for number, session in self._branches.items():
            here = "*" if number == self._number else " "
            dead = "" if session.alive else "  no interpreter; :restart starts one"
            self._write(f"{here} {number}{dead}\n")

    async def _do_switch(self, word: str) -> None:
        self._number = self._branch(word)
        self.session = self._branches[self._number]

    async def _do_close(self, word: str) -> None:
        number = self._branch(word)
        if number == self._number:
            raise InvalidRequest("cannot close the current branch; :switch to another one first, or :quit")
        await self._branches.pop(number).close()

    def _branch(self, word: str) -> int:
        if not (word.isdecimal() and int(word) in self._branches):
            raise InvalidRequest(
                f"there is no branch {word}; the branches are {', '.join(map(str, self._branches))}"
            )
        return int(word)

    async def _do_restart(self) -> None:
        try:
            await self.session.restart()
            self._write("Started a new interpreter; the files are kept.\n")
        except (SessionEnded, HostFailure) as error:
            print_error(str(error))
            for session in self._branches.values():
                await session.close()
            self.session = self._make()
            self._branches, self._number = {0: self.session}, 0
            await self.session.start()
            self._write("Started a new sandbox, with the files that the session had at its start.\n")

    async def _do_files(self, path: str = "") -> None:
        for entry in await self.session.files.list(path, recursive=True):
            kind = "" if entry.kind.value == "file" else f"  ({entry.kind.value})"
            self._write(f"{entry.size:>12}  {one_line(entry.path)}{kind}\n")

    async def _do_get(self, path: str, to: str = ".") -> None:
        path = path.rstrip("/")
        try:
            await self.session.files.list(path)
        except FileError as error:
            if error.errno != errno.ENOTDIR:
                raise
            target = _here(to, PurePosixPath(path).name)
            with Extractor(target.parent) as extractor, extractor.create(target.name) as file:
                async for piece in self.session.files.stream(path):
                    file.write(piece)
            self._write(f"{target}\n")
        else:
            done = await self.session.files.download(_here(to) / PurePosixPath(path).name, path)
            for written in done.files:
                self._write(f"{one_line(str(written))}\n")
            for name, why in done.skipped.items():
                self._write(f"Left out: {one_line(name)}, {why}\n", to="stderr")

    async def _do_put(self, source: str, path: str = "") -> None:
        here = _here(source)
        size = await self.session.files.write(path or here.name, here)
        self._write(f"{path or here.name}, {size} bytes\n")

    async def _do_save(self, to: str) -> None:
        if self._picture is None:
            raise InvalidRequest("the session has shown no picture yet")
        kind, content = self._picture
        path = _here(to)
        _write_file(path, content)
        self._write(f"Saved the last picture ({kind}, {len(content)} bytes) to {path}\n")


def _here(word: str, name: str = "") -> Path:
    """Return a path on this machine; if it is a directory, the path of ``name`` in it."""
    path = Path(word).expanduser()
    return path / name if path.is_dir() else path


def _write_file(path: Path, content: bytes) -> None:
    with Extractor(path.parent) as extractor, extractor.create(path.name) as file:
        file.write(content)


def _picture_of(bundle: MimeBundle) -> tuple[str, bytes] | None:
    if bundle.png is not None:
        return "image/png", bundle.png
    if bundle.jpeg is not None:
        return "image/jpeg", bundle.jpeg
    if bundle.svg is not None:
        return "image/svg+xml", bundle.svg.encode(errors="replace")
    return None


async def _quietly(work: Awaitable[None]) -> None:
    """Await work that a signal started. It may fail because the session has ended."""
    with contextlib.suppress(CodeForgeError):
        await work
