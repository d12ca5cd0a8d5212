"""Runs HumanEval's 164 problems with their own solutions and tests in sandboxes.

    .venv/bin/python benchmarks/humaneval.py [--concurrency 4] [--data HumanEval.jsonl.gz]

The data is HumanEval.jsonl.gz in the folder that CODEFORGE_DATA names, unless --data names a file.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import time
from pathlib import Path

from measure import around, heading
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from codeforge import CodeExecutor, ExecutionRequest
from codeforge.bench.figures import Series

DATA = Path(os.environ.get("CODEFORGE_DATA", ".")) / "HumanEval.jsonl.gz"


def load(path: Path) -> list[tuple[str, ExecutionRequest]]:
    """Return each problem's name, and the program that checks its canonical solution."""
    with gzip.open(path, "rt") as lines:
        problems = [json.loads(line) for line in lines]
    return [
        (
            problem["task_id"],
            ExecutionRequest(
                code=f"{problem['prompt']}{problem['canonical_solution']}\n{problem['test']}\n"
                f"check({problem['entry_point']})\n",
                timeout=60,
            ),
        )
        for problem in problems
    ]


async def main() -> int:
    """Run them all, print the results, and return 0 if all passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--concurrency", type=int, default=4, help="how many run at the same time (%(default)s)"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="the problems (%(default)s)")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        parser.error(f"{arguments.data} does not exist; name the data's file with --data")
    problems = load(arguments.data)
    print(heading(await around()))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results = []
    start = time.perf_counter()
    async with CodeExecutor() as executor:
        with Progress(*columns) as progress:
            bar = progress.add_task("HumanEval", total=len(problems))
            requests = [request for _, request in problems]
            async for result in executor.execute_many(requests, concurrency=arguments.concurrency):
                results.append(result)
                progress.advance(bar)
    elapsed = time.perf_counter() - start
    failed = [
        (name, result) for (name, _), result in zip(problems, results, strict=True) if not result.success
    ]
    for name, result in failed:
        print(f"{name}: {result.error}")
    times = Series("run", "ms", tuple(result.execution_time * 1000 for result in results))
    print(f"{len(results) - len(failed)} of {len(results)} passed")
    print(f"per run, from the program's start to its end: p50 {times.median:.0f} ms, p95 {times.p95:.0f} ms")
    print(
        f"all, {arguments.concurrency} at a time: {elapsed:.1f} s, "
        f"{len(results) / elapsed:.1f} fresh containers a second"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
