"""Compares one cold ``execute`` with ``docker run`` with the same flags, interleaved in one run.

    .venv/bin/python benchmarks/cold.py [--rounds 30]

Both start a container for ``print('hello')`` and wait for its output and its end. The executor keeps no warm
sandboxes. The target is a ratio of the medians of at most 0.7.
"""

from __future__ import annotations

import argparse
import asyncio
from functools import partial

from measure import Measured, Target, around, heading, shown

from codeforge import LANGUAGES, CodeExecutor
from codeforge.bench.figures import Table
from codeforge.bench.measure import COLD, DOCKER_RUN, Program, Way, interleaved, references, run_fresh

HELLO = Program(LANGUAGES[0], "print('hello')", b"hello\n")


async def main() -> int:
    """Measure, print the table, and return 0 if the target is reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30, help="how often each is measured (%(default)s)")
    rounds = parser.parse_args().rounds
    print(heading(await around()))
    async with CodeExecutor(max_warm=0) as executor:
        containers = next(way for way in references(HELLO) if way.name == DOCKER_RUN)
        ways = [containers, Way(COLD, partial(run_fresh, executor, HELLO))]
        series = await interleaved(ways, shown(rounds, "measuring"))
    measured = Measured(
        Table("python: print('hello'), from the call to the result", series),
        (Target(COLD, at_most=0.7, versus=DOCKER_RUN),),
    )
    measured.show()
    return 0 if measured.reached else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
