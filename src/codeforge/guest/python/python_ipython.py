"""Cells run by IPython, with its magics, formatters, tracebacks and completions, and matplotlib's figures.

Without anything that outlives a cell: no history file, no thread, no terminal.
"""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from typing import Any

from IPython.core.completer import provisionalcompleter, rectify_completions
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell
from traitlets.config import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from types import TracebackType

    from codeforge.guest.python.python_cells import Cells, flush
    from codeforge.guest.python.python_display import NO_REPR, Bundle, with_text
    from codeforge.guest.python.python_prompt import MAX_MATCHES
else:
    from python_cells import Cells, flush
    from python_display import NO_REPR, with_text
    from python_prompt import MAX_MATCHES

BACKEND = "module://matplotlib_inline.backend_inline"
new_info: Any = ExecutionInfo
new_result: Any = ExecutionResult
NOT_NEEDED = (
    "In",
    "Out",
    "_ih",
    "_oh",
    "_",
    "__",
    "___",
    "__builtin__",
    "open",
    "exit",
    "quit",
    "get_ipython",
)
"""Names that IPython puts into the namespace: histories that are not kept, and what builtins has."""


class Publisher(DisplayPublisher):
    """Sends what is displayed."""

    cells: Any = None

    def publish(self, data: Any, metadata: Any = None, *_: object, **__: object) -> None:
        """Send a bundle to the host."""
        self.cells.send_display(data, metadata or {})

    def clear_output(self, wait: bool = False) -> None:
        """Do nothing: what was sent cannot be taken back."""


class Shell(InteractiveShell):
    """IPython's shell, without its files."""

    display_pub_class = Publisher

    def system(self, cmd: str) -> None:
        """Run `!cmd` in a shell until it ends or is interrupted."""
        expand: Any = self.var_expand
        command: str = expand(cmd, depth=1)
        flush()
        self.user_ns["_exit_code"] = subprocess.call(command, shell=True)  # noqa: S602 - the user asked for a shell

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        """Make no directory."""

    def init_profile_dir(self, profile_dir: Any) -> None:
        """Make no directory."""

    def init_virtualenv(self) -> None:
        """Do nothing: the interpreter is that of the environment."""

    def enable_gui(self, gui: Any = None) -> None:
        """Do nothing: there is no display."""

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        sys.stderr.write("\n".join(stb) + "\n")


class IPythonCells(Cells):
    """Runs cells with IPython."""

    def _prepare(self) -> None:
        self._info: Any = None
        config = Config()
        config.HistoryManager.enabled = False
        config.HistoryManager.hist_file = ":memory:"
        config.IPCompleter.use_jedi = False
        config.InteractiveShell.update(colors="nocolor", cache_size=0)
        self.shell: Any = Shell.instance(config=config, user_module=self.main, user_ns=self.main.__dict__)
        for name in NOT_NEEDED:
            self.main.__dict__.pop(name, None)
        self.shell.db = {}
        Publisher.cells = self
        builtins.get_ipython = self.shell.get_ipython  # type: ignore[attr-defined]
        os.environ.setdefault("MPLBACKEND", BACKEND)

    def _transform(self, code: str) -> str:
        transformed: str = self.shell.transform_cell(code)
        return transformed

    def _transform_tree(self, tree: ast.Module) -> ast.Module:
        transformed: ast.Module = self.shell.transform_ast(tree)
        return transformed

    def _before(self, code: str) -> None:
        self._info = new_info(code, False, False, True, None)
        self.shell.events.trigger("pre_execute")
        self.shell.events.trigger("pre_run_cell", self._info)

    def _after(self) -> None:
        self.shell.events.trigger("post_execute")
        self.shell.events.trigger("post_run_cell", new_result(self._info))

    def _describe(self, value: object) -> Bundle:
        data, metadata = self.shell.display_formatter.format(value)
        if not data:  # the error was shown
            data = {"text/plain": NO_REPR.format(type(value).__name__)}
        return (data if "text/plain" in data else with_text(value, data)), metadata

    def _format(self, error: BaseException, trace: TracebackType | None) -> list[str]:
        if trace is None:
            return super()._format(error, trace)
        try:
            lines: list[str] = self.shell.InteractiveTB.structured_traceback(
                type(error), error, trace, tb_offset=0
            )
        except Exception:  # noqa: BLE001 - it calls the program's code
            return super()._format(error, trace)
        return [line for line in "\n".join(lines).split("\n") if set(line) != {"-"}]

    def complete(self, code: str, at: int) -> tuple[int, int, list[str]]:
        """Where the completions go, and what they are."""
        with provisionalcompleter():
            found = list(rectify_completions(code, self.shell.Completer.completions(code, at)))
        matches = list(dict.fromkeys(item.text for item in found[:MAX_MATCHES]))
        start, end = (found[0].start, found[0].end) if found else (at, at)
        if start < end and code[start] == "." and all(match[:1] == "." for match in matches):
            return start + 1, end, [match[1:] for match in matches]
        return start, end, matches

    def completeness(self, code: str) -> tuple[str, str]:
        """Whether a prompt should ask for more, and how far to indent that."""
        status, indent = self.shell.input_transformer_manager.check_complete(code)
        return status, " " * (indent or 0)

    def be_quiet(self) -> None:
        """Also end the thread of `%%bash` and similar magics."""
        scripts = self.shell.magics_manager.registry.get("ScriptMagics")
        if scripts is not None and hasattr(scripts, "stop_event_loop"):
            scripts.stop_event_loop()
        super().be_quiet()
