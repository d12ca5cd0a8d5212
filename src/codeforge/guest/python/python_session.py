"""The program of a session: runs cells in one namespace, and can be forked.

The interpreter executes this file, `python /opt/codeforge/python_session.py`, after python_worker.py
has waited. Frames arrive on descriptor 3 (docs/protocol.md, "Sessions"): messages in JSON, and FORK.
The user's namespace becomes `__main__`; users see no name, module or frame of this program.

python_channel.py: frames, and when SIGINT interrupts. python_cells.py: runs a cell. python_ipython.py:
runs it with IPython, where that is installed. python_display.py: MIME bundles. python_prompt.py:
completions. python_branch.py: FORK.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from codeforge.guest.python.python_branch import Branching
    from codeforge.guest.python.python_cells import Cells
    from codeforge.guest.python.python_channel import FORK, PIECE, Channel, Interrupts
else:
    from python_branch import Branching
    from python_cells import Cells
    from python_channel import FORK, PIECE, Channel, Interrupts


class Session:
    """Answers messages, one after another."""

    def __init__(self) -> None:
        interrupts = Interrupts()
        signal.signal(signal.SIGINT, interrupts.handle)
        self._channel = Channel(interrupts)
        self._cells = _new_cells(self._channel, interrupts)
        self._branching = Branching(self._channel, self._cells)

    def serve(self) -> None:
        """Answer until the stream ends."""
        self._channel.send({"is": "ready"})
        pieces = []
        while True:
            kind, payload, fds = self._channel.receive()
            if kind == FORK:
                self._channel.send(self._branching.fork(os.fsdecode(payload), fds))
                continue
            pieces.append(payload)
            if kind != PIECE:
                message = json.loads(b"".join(pieces))
                pieces.clear()
                self._channel.send(getattr(self, f"_{message.pop('do')}")(**message))

    def _run(self, cell: int, code: str) -> object:
        return self._cells.run(cell, code)

    def _complete(self, request: int, code: str, at: int) -> object:
        start, end, matches = at, at, list[str]()
        # The program's attributes may raise, and its code may be nested too deeply.
        with suppress(BaseException):
            start, end, matches = self._cells.complete(code, at)
        found = {"start": start, "end": end, "matches": matches}
        return {"is": "completions", "request": request, **found}

    def _is_complete(self, request: int, code: str) -> object:
        status, indent = "invalid", ""
        with suppress(BaseException):  # the same
            status, indent = self._cells.completeness(code)
        return {"is": "completeness", "request": request, "status": status, "indent": indent}


def _new_cells(channel: Channel, interrupts: Interrupts) -> Cells:
    """Cells run by IPython, if a version that this works with is installed."""
    if importlib.util.find_spec("IPython") is not None:
        try:
            if TYPE_CHECKING:
                from codeforge.guest.python.python_ipython import IPythonCells
            else:
                from python_ipython import IPythonCells
            return IPythonCells(channel, interrupts)
        except Exception:  # noqa: BLE001, S110 - another version may raise anything
            pass
    return Cells(channel, interrupts)


def _main() -> None:
    session = Session()
    folder = os.path.dirname(__file__)  # noqa: PTH120 - pathlib is the program's
    for name, module in list(sys.modules.items()):
        if name.startswith("python_") and (getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
            del sys.modules[name]
    sys.path[0] = ""
    sys.path_importer_cache.pop(folder, None)
    sys.argv[:] = [""]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    gc.collect()
    gc.freeze()
    session.serve()


_main()
