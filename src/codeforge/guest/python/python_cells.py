"""Executes cells in one namespace, as Python's prompt does, with top-level await."""

from __future__ import annotations
import __future__

import ast
import builtins
import io
import linecache
import os
import sys
import traceback
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from types import CodeType, FrameType, TracebackType
    from typing import Any, TypeVar

    from codeforge.guest.python.python_channel import Channel, Interrupts
    from codeforge.guest.python.python_display import (
        GUEST_DIR,
        Bundle,
        describe,
        sendable,
        show_error,
        with_json,
        with_text,
    )
    from codeforge.guest.python.python_prompt import complete, completeness

    T = TypeVar("T")
else:
    from python_display import GUEST_DIR, describe, sendable, show_error, with_json, with_text
    from python_prompt import complete, completeness

CO_COROUTINE = 0x80
FUTURE_FLAGS = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
ERROR_CHARACTERS = 1 << 20
"""An error's text and its traceback are cut to this length: people read them."""


def _close_figures() -> None:
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")


class Cells:
    """Runs cells in their namespace."""

    def __init__(self, channel: Channel, interrupts: Interrupts) -> None:
        self._channel = channel
        self._interrupts = interrupts
        interrupts.instead = self._cancel_instead
        self._cell = 0
        self._flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._was_interrupted = False
        self.main = types.ModuleType("__main__")
        self.main.__dict__.update(__builtins__=builtins, __annotations__={})
        self._prepare()

    # --- What IPython does differently (python_ipython.py)

    def _prepare(self) -> None:
        """Set up the namespace and the builtins."""
        sys.modules["__main__"] = self.main
        builtins.display = self.display  # type: ignore[attr-defined]

    def _transform(self, code: str) -> str:
        """Translate the code to Python."""
        return code

    def _transform_tree(self, tree: ast.Module) -> ast.Module:
        return tree

    def _before(self, code: str) -> None:
        """Called just before a cell runs."""

    def _after(self) -> None:
        """Called just after a cell: shows and closes the open figures."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        for number in pyplot.get_fignums() if pyplot else ():
            picture = io.BytesIO()
            figure = pyplot.figure(number)  # type: ignore[union-attr]
            try:
                figure.savefig(picture, format="png", bbox_inches="tight")
                self.send_display(with_text(figure, {"image/png": picture.getvalue()}), {})
            except Exception:  # noqa: BLE001 - other figures can be drawn
                show_error()
            finally:
                pyplot.close(figure)  # type: ignore[union-attr]

    def _describe(self, value: object) -> Bundle:
        return describe(value)

    def _format(self, error: BaseException, trace: TracebackType | None) -> list[str]:
        """The error's traceback, from the user's first frame on."""
        shown = traceback.TracebackException(type(error), error, trace)
        if trace is None and isinstance(error, SyntaxError):
            return list(shown.format_exception_only())
        return list(shown.format())

    # --- Running

    def run(self, cell: int, code: str) -> dict[str, Any]:
        """Run a cell; returns the message about its end."""
        self._cell = cell
        self._interrupts.start()
        self._channel.send({"is": "begun", "cell": cell})
        value, said = None, None
        error: dict[str, Any] | None = None
        try:
            value = self._interrupts.allow(lambda: self._execute(f"<cell {cell}>", code))
            self._leave_if_forked(None)
            self._interrupts.allow(self._show_figures)
            if value is not None:
                said = self._interrupts.allow(lambda: sendable(with_json(value, self._describe(value))))
        except BaseException as raised:  # noqa: BLE001 - any exception is the cell's result
            error = self._explain(raised)
            self._leave_if_forked(raised)
            # An interrupted cell has no time to draw, and its figures must not appear in the next one.
            stopped = isinstance(raised, KeyboardInterrupt)
            self._try(_close_figures if stopped else self._show_figures, None)
        if said is not None:
            builtins._ = value  # type: ignore[attr-defined]
        self._try(flush, None)
        self._interrupts.end()
        shown = None if said is None else {"data": said[0], "metadata": said[1]}
        return {"is": "done", "cell": cell, "value": shown, "error": error}

    def _leave_if_forked(self, error: BaseException | None) -> None:
        """End a process that the cell forked, as a program ends, if it gets here."""
        if self._channel.is_ours:
            return
        code = 0
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            error = error if isinstance(error.code, str) else None
        elif error is not None:
            code = 1
        if error is not None:
            sys.excepthook(type(error), error, sys.last_traceback)
        flush()
        os._exit(code)

    def _try(self, work: Callable[[], T], otherwise: T) -> T:
        """The result of the work, or of `otherwise` if the program's code raises or memory runs out."""
        try:
            return self._interrupts.allow(work)
        except BaseException:  # noqa: BLE001 - the cell has its result already
            return otherwise

    def _show_figures(self) -> None:
        try:
            self._after()
        except Exception:  # noqa: BLE001 - the program's code may raise anything
            show_error()

    def _execute(self, name: str, code: str) -> object:
        """Run the code; returns the value of its last expression, unless a semicolon follows that."""
        namespace = self.main.__dict__
        namespace.pop("__warningregistry__", None)  # each cell warns anew
        source = self._transform(code)
        lines = io.StringIO(source, newline=None).readlines()
        linecache.cache[name] = len(source), None, lines, name
        tree: ast.Module = compile(source, name, "exec", self._flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        is_quiet = bool(tree.body) and _rest_of(lines, tree.body[-1]).startswith(";")
        tree = self._transform_tree(tree)
        last = tree.body[-1] if tree.body else None
        self._before(code)
        if isinstance(last, ast.Expr):
            tree.body.pop()
        # Both are compiled before anything runs: with a syntax error in the last line, no line runs.
        body = self._compile(tree, name, "exec")
        end = self._compile(ast.Expression(last.value), name, "eval") if isinstance(last, ast.Expr) else None
        parts = (body, end) if end else (body,)
        # If one part awaits, the loop runs all: create_task works before the last line's await.
        if any(part.co_flags & CO_COROUTINE for part in parts):
            value = self._wait_for(_run_each(parts, namespace))
        else:
            for part in parts:
                value = eval(part, namespace)  # noqa: S307 - running the user's code is the point
        return value if end and not is_quiet else None

    def _compile(self, tree: ast.Module | ast.Expression, name: str, mode: str) -> CodeType:
        code: CodeType = compile(tree, name, mode, self._flags, dont_inherit=True)
        self._flags |= code.co_flags & FUTURE_FLAGS
        return code

    # --- Awaiting

    def _wait_for(self, coroutine: Coroutine[Any, Any, object]) -> object:
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)  # asyncio.run unsets it
        self._task = self._loop.create_task(coroutine)
        self._was_interrupted = False
        try:
            return self._loop.run_until_complete(self._task)
        except asyncio.CancelledError as error:
            if self._was_interrupted:
                raise KeyboardInterrupt().with_traceback(error.__traceback__) from None
            raise
        finally:
            task, self._task = self._task, None
            if not task.done():  # the cell's own code was interrupted, or stopped the loop
                task.cancel()

    def _cancel_instead(self, frame: FrameType | None) -> bool:
        """Cancel the cell's task if the loop itself is running, which an exception would break."""
        if self._task is None or self._loop is None:
            return False
        while frame is not None and self.is_loops(frame):
            if frame.f_code.co_name in ("_run_once", "run_forever", "run_until_complete"):
                break
            frame = frame.f_back
        else:
            return False  # the user's code is running
        self._was_interrupted = True
        self._loop.call_soon_threadsafe(self._task.cancel)
        return True

    def is_loops(self, frame: FrameType) -> bool:
        """Whether the frame belongs to asyncio, or to what asyncio waits in."""
        return _package_of(frame) in ("asyncio", "selectors")

    # --- Showing

    def send_display(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Send something to be shown now."""
        data, metadata = sendable((data, metadata))
        self._channel.send({"is": "display", "cell": self._cell, "data": data, "metadata": metadata})

    def display(self, *values: Any, raw: bool = False, metadata: Any = None, **_: object) -> None:
        """Show values, each by the richest of its representations.

        With ``raw=True`` the values are dictionaries from MIME type to data.
        """
        for value in values:
            data, more = (dict(value), {}) if raw else self._describe(value)
            self.send_display(data, {**more, **(metadata or {})})

    def _explain(self, error: BaseException) -> dict[str, Any]:
        trace = error.__traceback__
        while trace is not None and self.is_loops(trace.tb_frame) | _is_guests(trace):
            trace = trace.tb_next
        error.__traceback__ = trace
        each: BaseException | None = error
        seen: set[int] = set()
        while each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = _without_guest(each.__traceback__)
            each = each.__cause__ or each.__context__
        trace = error.__traceback__
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
        name = str(type.__dict__["__name__"].__get__(type(error)))  # the metaclass may redefine it
        text = self._try(lambda: str(error), f"<{name}: its str failed>")
        short = [f"{name}: {text}"]
        plain = self._try(lambda: [*traceback.format_tb(trace), *short], short)
        lines = self._try(lambda: self._format(error, trace), plain)
        whole = "\n".join(line.removesuffix("\n") for line in lines)
        return {
            "name": name,
            "value": _cut(text),
            "traceback": _cut(whole.rstrip("\n")).split("\n"),
        }

    # --- At a prompt

    def complete(self, code: str, at: int) -> tuple[int, int, list[str]]:
        """Where the completions go, and what they are."""
        return complete(self.main.__dict__, code, at)

    def completeness(self, code: str) -> tuple[str, str]:
        """Whether a prompt should ask for more, and how far to indent that."""
        return completeness(code, self._flags)

    # --- Branching (python_branch.py)

    def be_quiet(self) -> None:
        """End the threads of asyncio.to_thread, which are idle because no cell is running."""
        executor: Any = getattr(self._loop, "_default_executor", None)
        if executor is not None:
            executor.shutdown(wait=True)
            self._loop._default_executor = None  # type: ignore[union-attr]

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that cells with `await` share, if there has been one."""
        return self._loop

    def forget_loop(self) -> None:
        """Have the next `await` make a new loop."""
        self._loop = None


async def _run_each(parts: tuple[CodeType, ...], namespace: dict[str, Any]) -> object:
    for part in parts:
        value = eval(part, namespace)  # noqa: S307 - running the user's code is the point
        if part.co_flags & CO_COROUTINE:
            value = await value
    return value


def flush() -> None:
    """Flush all buffers, including the C library's."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    for stream in streams:
        try:  # noqa: SIM105 - contextlib is the program's
            stream.flush()
        except Exception:  # noqa: BLE001, S110 - a stream of the program's may raise anything
            pass
    try:  # noqa: SIM105 - contextlib is the program's
        sys.modules["ctypes"].CDLL(None).fflush(None)
    except Exception:  # noqa: BLE001, S110 - without ctypes hardly any library writes by itself
        pass


def _rest_of(lines: list[str], node: ast.stmt) -> str:
    """The text after a statement in its last line."""
    line = lines[(node.end_lineno or 1) - 1] if lines else ""
    return line.encode(errors="replace")[node.end_col_offset or 0 :].decode(errors="replace").lstrip()


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _is_guests(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith(GUEST_DIR)


def _without_guest(trace: TracebackType | None) -> TracebackType | None:
    """The same traceback without the frames of this program."""
    kept: list[TracebackType] = []
    while trace is not None:
        if not _is_guests(trace):
            kept.append(trace)
        trace = trace.tb_next
    following = None
    while kept:
        kept[-1].tb_next = following
        following = kept.pop()
    return following


def _cut(text: str) -> str:
    return text if len(text) <= ERROR_CHARACTERS else f"{text[:ERROR_CHARACTERS]}..."
