"""Compares two checkouts: is this version as fast as another?

    .venv/bin/python benchmarks/versions.py ../other-checkout
    CODEFORGE_ENGINE=bubblewrap .venv/bin/python benchmarks/versions.py ../other-checkout --rounds 60

Each checkout needs its own .venv. Both run in turn, in one run, through the public API:

    warm      print('hello') in a warm sandbox, from the call to the result
    launch    the same without warm sandboxes (max_warm=0)
    cell      a cell in a session that is open
    reused    runs a second of one batch by 8 callers in reused sandboxes
    start     `codeforge --version`, the whole command
    command   `codeforge run hello.py`, the whole command

Every figure is a median, followed by the 95th percentile; the last column is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import track

HERE = Path(__file__).parents[1]
BATCH = 400
"""Runs in one batch: some seconds, of which the launches are a small part."""

# Runs in the other checkout too, whatever its version: the public API, and nothing of this folder.
CHILD = """
import sys, time
from codeforge import BlockingCodeExecutor
HELLO = "print('hello')"
with BlockingCodeExecutor() as warm, BlockingCodeExecutor(max_warm=0) as cold:
    session = cold.session()
    session.run("1")
    def timed(work):
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1000
    def one_warm():
        warm.warm(["python"], count=2)
        return timed(lambda: warm.execute(HELLO))
    def reused():
        requests = ({"code": HELLO} for _ in range(%(batch)d))
        batch = lambda: list(cold.execute_many(requests, concurrency=8, max_runs_per_sandbox=%(batch)d))
        return %(batch)d / timed(batch) * 1000
    measures = {"warm": one_warm, "launch": lambda: timed(lambda: cold.execute(HELLO)),
                "cell": lambda: timed(lambda: session.run("1 + 1")), "reused": reused}
    for line in sys.stdin:
        print(measures[line.strip()](), flush=True)
    session.close()
"""

LABELS = {
    "warm": "warm hello, ms",
    "launch": "hello, no warm sandbox, ms",
    "cell": "a session's cell, ms",
    "reused": "reused runs a second",
    "start": "codeforge --version, ms",
    "command": "codeforge run hello.py, ms",
}
SELDOM = {"reused": 5, "command": 3}
"""Slow figures are measured in one of this many rounds."""


class Version:
    """One checkout, and a process of it that measures on request."""

    def __init__(self, checkout: Path, stack: contextlib.ExitStack, hello: Path) -> None:
        self.checkout = checkout
        self._bin = checkout / ".venv/bin"
        self._hello = hello
        command = [str(self._bin / "python"), "-c", CHILD % {"batch": BATCH}]
        child = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout)
        )
        assert child.stdin
        assert child.stdout
        self._ask: IO[str] = child.stdin
        self._answer: IO[str] = child.stdout
        stack.callback(child.stdin.close)

    @property
    def name(self) -> str:
        """The checkout's commit, as ``git describe`` names it."""
        git = ["git", "-C", str(self.checkout), "describe", "--always", "--dirty"]
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()

    def measure(self, what: str) -> float:
        """Return one figure."""
        if what == "start":
            return self._command("--version")
        if what == "command":
            return self._command("run", str(self._hello))
        self._ask.write(f"{what}\n")
        self._ask.flush()
        answer = self._answer.readline()
        if not answer:
            raise SystemExit(f"Error: the measuring process of {self.checkout} ended; see its error above")
        return float(answer)

    def _command(self, *arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([str(self._bin / "codeforge"), *arguments], check=True, capture_output=True)
        return (time.perf_counter() - start) * 1000


def p95(values: list[float], better: Callable[[list[float]], float]) -> float:
    """Return the value that 95 % of the values reach; ``better`` is ``min`` or ``max``."""
    ordered = sorted(values, reverse=better is max)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]


def lines(found: dict[str, tuple[list[float], list[float]]]) -> Iterator[str]:
    """Yield the rows of the table."""
    for what, (ours, others) in found.items():
        better = max if what == "reused" else min
        one, other = statistics.median(ours), statistics.median(others)
        figures = [f"{one:8.2f} ({p95(ours, better):8.2f})", f"{other:8.2f} ({p95(others, better):8.2f})"]
        yield "   ".join([f"{LABELS[what]:<28}", *figures, f"{one / other:5.3f} x", f"n={len(ours)}"])


def main() -> None:
    """Measure, print the table, and write the JSON file if asked to."""
    title, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=title, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="the other checkout, with its .venv")
    parser.add_argument("--rounds", type=int, default=30, help="how often each is measured (%(default)s)")
    parser.add_argument("--only", action="append", choices=list(LABELS), metavar="FIGURE", help="repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    asked = parser.parse_args()
    if not (asked.other / ".venv/bin/codeforge").is_file():
        parser.error(f"{asked.other} has no .venv: run `make check` in it")
    figures = asked.only or list(LABELS)
    found: dict[str, tuple[list[float], list[float]]] = {what: ([], []) for what in figures}
    before = os.getloadavg()[0]
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        hello = Path(folder) / "hello.py"
        hello.write_text("print('hello')\n")
        versions = [Version(path.resolve(), stack, hello) for path in (HERE, asked.other)]
        for version in versions:
            for what in figures:
                version.measure(what)  # warm up
        for number in track(
            range(asked.rounds), "measuring", console=console, disable=not console.is_terminal
        ):
            for what in figures:
                if number % SELDOM.get(what, 1) == 0:
                    order = (0, 1) if number // SELDOM.get(what, 1) % 2 else (1, 0)
                    for index in order:
                        found[what][index].append(versions[index].measure(what))
        names = [version.name for version in versions]
    engine = os.environ.get("CODEFORGE_ENGINE", "auto")
    print(f"this: {names[0]}; other: {names[1]}; engine {engine}; Python {sys.version.split()[0]};", end=" ")
    print(f"{os.cpu_count()} CPUs; load {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    print(f"{'median (p95)':<28}   {'this':>19}   {'other':>19}   this / other")
    for line in lines(found):
        print(line)
    if asked.json:
        document = {"this": names[0], "other": names[1], "engine": engine, "figures": found}
        asked.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
