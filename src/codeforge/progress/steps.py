"""Progress of what takes long: pulls, builds and installations tell their steps to a listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """What is going on with which image or environment, in bytes or steps where known."""

    image: str
    text: str
    current: int | None = None
    total: int | None = None


OnStep = Callable[[Step], object]


def silently(step: Step) -> None:
    """Nobody wants to see it."""
