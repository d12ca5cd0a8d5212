"""Progress of pulls, builds and batches, shown on stderr: on a terminal a bar, else only what matters."""

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

SIGN_OF_LIFE_S = 10.0

RATE_OVER_S = 600.0
"""How far back the time that is left is estimated from: programs may take minutes each."""

OnCount: TypeAlias = Callable[[int, str], object]
"""Takes how many are done, and what to say of them."""


@contextlib.contextmanager
def show_steps(on_step: OnStep | None = None) -> Iterator[OnStep]:
    """Something to tell steps to: the caller's own listener, or a display on stderr."""
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
    """Something to tell to how many of ``total`` are done, ``done`` of them before: a bar on a terminal.

    ``total`` is only called for a bar.
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
    def __init__(self, display: Progress) -> None:
        self._display = display
        self._bars: dict[str, TaskID] = {}

    def __call__(self, step: Step) -> None:
        if step.image not in self._bars:
            self._bars[step.image] = self._display.add_task("", total=None, image=step.image)
        text = escape(step.text[:60])
        self._display.update(
            self._bars[step.image], description=text, completed=step.current or 0, total=step.total
        )
        if step.text.startswith("failed"):
            self._display.console.print(f"{step.image}: {step.text}", markup=False)


class _Lines:
    """Without a terminal: a sign of life now and then, and every failure."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._image = ""
        self._next_s = 0.0

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if step.image != self._image or now >= self._next_s or step.text.startswith("failed"):
            self._image, self._next_s = step.image, now + SIGN_OF_LIFE_S
            where = f"step {step.current} of {step.total}: " if step.total else ""
            text = f"{step.image}: {where}{step.text}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
