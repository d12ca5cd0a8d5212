"""The engine options that commands share, and the note that says which engine was chosen."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from codeforge.cli.terminal import harmless

NOTE_INTERVAL_S = 24 * 3600
"""How long the note about an engine is not repeated."""

verbose = False
"""Whether ``codeforge --verbose`` asked for the whole note every time."""


class EngineOptions(TypedDict):
    """The keyword arguments of ``CodeExecutor`` that the engine options set."""

    engine: str | None
    runtime: str | None
    allow_unenforced_limits: bool


def print_engine_note(name: str, passed_over: Mapping[str, str]) -> None:
    """Print which engine ``auto`` chose on stderr, unless it is the first one. This is an ``OnChoice``.

    The note is one line, once a day. With ``--verbose`` it is printed every time, with the reasons.
    """
    if verbose:
        reasons = "".join(f"\n  {other}: {_first_line(reason)}" for other, reason in passed_over.items())
        print(harmless(f"Note: the engine is {name}{reasons}"), file=sys.stderr)
    elif passed_over and _is_due(_cache_dir() / f"noted-{name}"):
        print(
            f"Note: the engine is {name}: no {' or '.join(passed_over)} here. CODEFORGE_ENGINE chooses one.",
            file=sys.stderr,
        )


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _cache_dir() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path.home() / ".cache") / "ai-codeforge"


def _is_due(stamp: Path) -> bool:
    """Return whether ``stamp`` was not touched within ``NOTE_INTERVAL_S``, and touch it.

    If it cannot be touched, as in a read-only home directory, the note is due every time.
    """
    with contextlib.suppress(OSError):
        if 0 <= time.time() - stamp.stat().st_mtime < NOTE_INTERVAL_S:
            return False
    with contextlib.suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    return True
