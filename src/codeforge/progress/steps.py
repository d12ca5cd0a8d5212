"""Progress of what takes long: pulls, builds and installations report their steps to a listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One report of progress.

    Attributes:
        image: the image or environment that it is about.
        text: what is happening; may be empty when only the numbers have changed.
        current: bytes or steps done, where known.
        total: of how many, where known.
        failed: whether the work has failed; ``text`` then says why.
    """

    image: str
    text: str
    current: int | None = None
    total: int | None = None
    failed: bool = False


OnStep = Callable[[Step], object]


def silently(step: Step) -> None:
    """A listener that ignores every step."""
