"""A tour: programs in each language, and what happens to programs that misbehave."""

from __future__ import annotations

import time

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

from codeforge import LANGUAGES, BlockingCodeExecutor

PROGRAMS = [
    (
        "python",
        "Python, with numpy and pandas",
        """\
import pandas as pd
frame = pd.DataFrame({"city": ["Oslo", "Rome", "Oslo"], "sales": [3, 5, 4]})
print(frame.groupby("city").sales.sum())
""",
    ),
    (
        "javascript",
        "JavaScript: an ES module, detected as one",
        """\
import _ from 'lodash'
const [a, b] = await Promise.all([Promise.resolve(6), Promise.resolve(7)])
console.log(_.chunk(['fresh', 'container', 'per', 'run'], 2), a * b)
""",
    ),
    (
        "typescript",
        "TypeScript, type-checked before it runs",
        """\
interface Point { x: number; y: number }
const length = ({ x, y }: Point): number => Math.hypot(x, y)
console.log(length({ x: 3, y: 4 }))
""",
    ),
    (
        "typescript",
        "... which finds mistakes",
        "const answer: number = 'forty-two'\n",
    ),
    (
        "python",
        "No network, and a read-only root file system",
        """\
import socket
try:
    socket.create_connection(("1.1.1.1", 80), timeout=2)
except OSError as error:
    print("network:", error)
try:
    open("/etc/planted", "w")
except OSError as error:
    print("root file system:", error)
""",
    ),
    (
        "python",
        "A fork bomb that then sleeps for a minute, with a timeout of two seconds",
        """\
import os, time
children = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        children += 1
except OSError as error:
    print(children, "processes, then:", error, flush=True)
time.sleep(60)
""",
    ),
]


def main() -> None:
    """Show and run every program."""
    console = Console(highlight=False)
    with BlockingCodeExecutor() as executor:
        for language, title, code in PROGRAMS:
            console.print(Panel(Syntax(code.rstrip(), language), title=title, title_align="left"))
            timeout = 2 if "time.sleep(60)" in code else 30
            result = executor.execute(code, language, timeout=timeout)
            console.print(Text(result.output.rstrip()), end="\n" if result.output else "")
            if result.error:
                shown = next((line for line in result.error.splitlines() if "error TS" in line), result.error)
                console.print(Text(shown.splitlines()[0], style="red"))
            console.print(
                f"[dim]{result.status}, exit code {result.exit_code}, "
                f"{result.execution_time * 1000:.0f} ms, {result.memory_used / 1e6:.0f} MB, "
                f"sandbox {result.container_id[:12]}, used once[/]\n"
            )
        show_warm(console, executor)


def show_warm(console: Console, executor: BlockingCodeExecutor) -> None:
    """Run a program in each language in sandboxes that are started and preloaded beforehand."""
    with console.status("warming sandboxes ..."):
        executor.warm(count=1)
    for row in LANGUAGES:
        start = time.perf_counter()
        result = executor.execute(row.smoke, row.name)
        elapsed_ms = (time.perf_counter() - start) * 1000
        console.print(
            f"warm {row.name}: {result.output.strip()!r} after {elapsed_ms:.0f} ms, sandbox included"
        )


if __name__ == "__main__":
    main()
