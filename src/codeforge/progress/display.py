"""Progress of pulls, builds and batches on stderr: bars on a terminal, otherwise occasional lines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from codeforge.progress.steps import OnStep, Step

LINE_EVERY_S = 10.0
"""Without a terminal, at least this many seconds lie between two lines about one image."""

RATE_OVER_S = 600.0
"""The remaining time is estimated from the last ten minutes: programs may take minutes each."""

OnCount: TypeAlias = Callable[[int, str], object]
"""Takes how many are done, and a few words about them."""


@contextlib.contextmanager
def show_steps(on_step: OnStep | None = None) -> Iterator[OnStep]:
    """A listener for steps: the caller's own if given, else a display on stderr."""
    if on_step is not None:
        yield on_step
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    name, what = TextColumn("{task.fields[image]}"), TextColumn("{task.description}")
    columns = (name, BarColumn(), TimeElapsedColumn(), what)
    with Progress(*columns, console=console) as display:
        yield _Bars(display)


@contextlib.contextmanager
def show_count(total: Callable[[], int], done: int = 0) -> Iterator[OnCount]:
    """A listener for how many of ``total`` are done: it moves a bar on a terminal, and is silent elsewhere.

    Args:
        total: is called only when there is a bar.
        done: how many were done before.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, text: None
        return
    columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, speed_estimate_period=RATE_OVER_S) as display:
        bar = display.add_task("", total=total(), completed=done)
        yield lambda done, text: display.update(bar, completed=done, description=text)


class _Bars:
    """One bar for each image; failures are printed above the bars, whole."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._bars: dict[str, TaskID] = {}

    def __call__(self, step: Step) -> None:
        if step.image not in self._bars:
            self._bars[step.image] = self._display.add_task("", total=None, image=step.image)
        text = "failed" if step.failed else escape(step.text[:60])
        self._display.update(
            self._bars[step.image], description=text, completed=step.current or 0, total=step.total
        )
        if step.failed:
            self._display.console.print(_line(step), markup=False)


class _Lines:
    """Without a terminal: prints the first step of each image, some of the others, and every failure."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._image = ""
        self._next_s = 0.0

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        is_due = step.image != self._image or now >= self._next_s
        if step.failed or (is_due and step.text):
            self._image, self._next_s = step.image, now + LINE_EVERY_S
            self._console.print(_line(step), markup=False, highlight=False, soft_wrap=True)


def _line(step: Step) -> str:
    where = f"step {step.current} of {step.total}: " if step.total else ""
    return f"{step.image}: {where}{'failed: ' if step.failed else ''}{step.text}"
