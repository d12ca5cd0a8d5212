"""Which engine: the options that commands share, and saying which it was."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TypedDict

from codeforge.cli.terminal import harmless


class EngineOptions(TypedDict):
    """The keyword arguments of ``CodeExecutor`` that the options are."""

    engine: str | None
    runtime: str | None
    allow_unenforced_limits: bool


def tell_engine(name: str, passed_over: Mapping[str, str]) -> None:
    """Say on stderr which engine ``auto`` chose, where that is not the first: an ``OnChoice``."""
    if passed_over:
        why = "; ".join(f"{other}: {reason.partition(chr(10))[0]}" for other, reason in passed_over.items())
        print(harmless(f"Note: the engine is {name} ({why})"), file=sys.stderr)
