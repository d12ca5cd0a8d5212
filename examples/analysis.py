"""A session used like a notebook: load data, plot it, try three models in forked sessions, keep the best one.

    codeforge images build python-data         # or, without Docker: codeforge environments build python-data
    python examples/analysis.py HumanEval.jsonl.gz

The file is OpenAI's HumanEval, https://github.com/openai/human-eval. Without an argument, it is expected in
the directory that CODEFORGE_DATA names, or in the current one.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from codeforge import BlockingCodeExecutor, BlockingSession, CellResult

LOAD = """
import pandas as pd
problems = pd.read_json("HumanEval.jsonl.gz", lines=True)
problems["prompt_length"] = problems.prompt.str.len()
problems["solution_length"] = problems.canonical_solution.str.len()
problems["asserts"] = problems.test.str.count("assert")
problems[["prompt_length", "solution_length", "asserts"]].describe().round(1)
"""

PLOT = """
import matplotlib.pyplot as plt
problems.plot.scatter("prompt_length", "solution_length", alpha=0.5, title="HumanEval: prompt and solution")
problems[["prompt_length", "solution_length"]].corr().iloc[0, 1].round(2)
"""

FEATURES = """
features = problems[["prompt_length", "asserts"]].to_numpy()
target = problems.solution_length.to_numpy()
"""

WAYS = {
    "linear": "from sklearn.linear_model import LinearRegression\nmodel = LinearRegression()",
    "neighbours": "from sklearn.neighbors import KNeighborsRegressor\nmodel = KNeighborsRegressor(12)",
    "forest": "from sklearn.ensemble import RandomForestRegressor\n"
    "model = RandomForestRegressor(60, random_state=0)",
}

SCORE = """
from sklearn.model_selection import cross_val_predict
error = abs(cross_val_predict(model, features, target, cv=5) - target).mean()
open("error.txt", "w").write(f"{error:.1f}")
f"{error:.1f} characters off, on average"
"""

console = Console(soft_wrap=True)


def show(session: BlockingSession, code: str) -> CellResult:
    """Show and run a cell."""
    console.print(Syntax(code.strip(), "python", background_color="default"))
    result = session.run(code)
    if result.error is not None:
        raise SystemExit(str(result.error))
    # Output of a sandbox is untrusted: print it without markup and without control characters.
    for text in (result.stdout, result.value):
        if text:
            console.print(Text("".join(c for c in text if c.isprintable() or c == "\n")))
    console.print(f"[dim]{result.execution_time * 1000:.0f} ms[/dim]\n")
    return result


def main() -> None:
    """Run the example."""
    data = Path(os.environ.get("CODEFORGE_DATA", ".")) / "HumanEval.jsonl.gz"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else data
    out = Path(tempfile.mkdtemp(prefix="codeforge-analysis-"))
    with (
        BlockingCodeExecutor(default_memory_limit="1g", default_cpu_quota=100_000) as executor,
        executor.session("python-data", timeout=120) as session,
    ):
        console.rule("one session")
        session.files.write("HumanEval.jsonl.gz", path)
        show(session, LOAD)
        [figure] = [shown.png for shown in show(session, PLOT).results if shown.png]
        (out / "scatter.png").write_bytes(figure)
        show(session, FEATURES)

        console.rule("three forks")
        began = time.perf_counter()
        branches = dict(zip(WAYS, session.fork(len(WAYS)), strict=True))
        console.print(f"[dim]three forks in {(time.perf_counter() - began) * 1000:.0f} ms[/dim]\n")
        for name, branch in branches.items():
            show(branch, WAYS[name] + SCORE)

        console.rule("the files of each fork")
        errors = {name: float(branch.files.read("error.txt")) for name, branch in branches.items()}
        best = min(errors, key=lambda name: errors[name])
        console.print(f"{errors}: [bold]{best}[/bold] is the best")
        console.print(f"the original session has no model: {session.run('model').error}")
        branches[best].files.download(out)
    console.print(f"the picture and the files of the best fork: {out}")


if __name__ == "__main__":
    main()
