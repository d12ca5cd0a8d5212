"""Compares warm, fresh and reused sandboxes with other ways to run the same programs.

    .venv/bin/python benchmarks/warm.py                               # every table, some minutes
    .venv/bin/python benchmarks/warm.py --only hello --only callers   # some
    .venv/bin/python benchmarks/warm.py --rounds 40 --json warm.json --chart hello.svg
    .venv/bin/python benchmarks/warm.py --check                       # exit with 1 if a target is missed

Tables:
    hello       Python, print('hello'), from the call to the result
    pandas      Python, numpy and pandas, a groupby
    javascript  console.log('hello')
    typescript  30 lines with Node's types, type-checked
    callers     runs a second by 8 callers: fresh sandboxes, and reused ones
    callers-js  the same for JavaScript
    burst       20 callers at the same time on a new executor
    memory      the memory of an idle warm sandbox (needs root, and the engine on this machine)
    flood       memory of the host process while a program writes as fast as it can
    peers       hello, the groupby and 10 MB of output, with the libraries in peers-requirements.in

All rows of a table are measured in turn, in one run. "Warm" means that sandboxes are ready and preloaded,
as for a caller who pauses between runs. Every figure waits until they are, and does not include that time.
Limits are the defaults; docker run has the same flags as our containers. p95: 95 % are at least as good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from host import flood, memory
from measure import (
    Measured,
    Tables,
    Target,
    around,
    command_line,
    conclude,
    exit_with,
    heading,
    show_all,
    shown,
)
from programs import CONSOLE_LOG, GROUPBY, HELLO, OUTPUT_10MB, THIRTY_LINES
from references import PEERS_LOCK, bare_python, node_version, peers, versions_in

from codeforge import CodeExecutor
from codeforge.bench.figures import Table
from codeforge.bench.measure import (
    COLD,
    DOCKER_RUN,
    FRESH,
    REUSED,
    WARM,
    Program,
    Way,
    compare_with_warm,
    interleaved,
    load,
    references,
    run_fresh,
    sustained,
    until_last,
)
from codeforge.bench.report import draw

CALLERS = 8
BURST = 20
SLICE_S = 10.0
SLOW = 5
"""Tables whose figures take seconds have this fraction of the rounds."""

MAX_OUTPUT_BYTES = 16 << 20


def containers(program: Program) -> Way:
    """Return ``docker run`` of the program."""
    way = next((way for way in references(program) if way.name == DOCKER_RUN), None)
    if way is None:
        raise SystemExit("Error: these tables need the docker command")
    return way


async def compare(program: Program, title: str, others: Sequence[Way], rounds: int) -> Table:
    """Measure milliseconds from the call to the result: other ways, and our warm sandboxes."""
    async with CodeExecutor(max_output_bytes=MAX_OUTPUT_BYTES) as executor:
        return Table(title, await compare_with_warm(program, others, shown(rounds, title), executor))


async def hello(rounds: int) -> Tables:
    """Table ``hello``."""
    others = [containers(HELLO), bare_python(HELLO)]
    table = await compare(HELLO, "python: print('hello')", others, rounds)
    docker = Target(WARM, at_most=1 / 40, versus=DOCKER_RUN)
    yield Measured(table, (Target(WARM, at_most=0.4, versus="bare python"), docker))


async def pandas(rounds: int) -> Tables:
    """Table ``pandas``."""
    others = [containers(GROUPBY), bare_python(GROUPBY)]
    table = await compare(GROUPBY, "python: numpy and pandas, a groupby", others, rounds)
    yield Measured(table, (Target(WARM, at_most=1 / 20, versus="bare python"),))


async def javascript(rounds: int) -> Tables:
    """Table ``javascript``."""
    others = list(references(CONSOLE_LOG))
    table = await compare(CONSOLE_LOG, "javascript: console.log('hello')", others, rounds)
    targets = [Target(WARM, at_most=0.25, versus=way.name) for way in others if way.name != DOCKER_RUN]
    yield Measured(table, tuple(targets))


async def typescript(rounds: int) -> Tables:
    """Table ``typescript``."""
    title = "typescript: 30 lines with Node's types, type-checked"
    table = await compare(THIRTY_LINES, title, [containers(THIRTY_LINES)], slow(rounds))
    yield Measured(table, (Target(WARM, at_most=1 / 8, versus=DOCKER_RUN),))


async def callers(rounds: int) -> Tables:
    """Table ``callers``."""
    table = await many(HELLO, rounds)
    yield Measured(
        table,
        (
            Target(FRESH, at_least=1.5, versus=DOCKER_RUN),
            Target(REUSED, at_least=300),
            Target(REUSED, at_least=50, versus=DOCKER_RUN),
        ),
    )


async def callers_js(rounds: int) -> Tables:
    """Table ``callers-js``."""
    yield Measured(await many(CONSOLE_LOG, rounds), (Target(REUSED, at_least=40),))


async def many(program: Program, rounds: int) -> Table:
    """Measure runs a second, in slices of time."""
    title = f"{program.language.name}: hello, {CALLERS} callers, slices of {SLICE_S:g} s"
    ways = list(sustained(program, CALLERS, SLICE_S))
    return Table(title, await interleaved(ways, shown(slow(rounds), title), warm_up=False))


async def burst(rounds: int) -> Tables:
    """Table ``burst``."""
    title = f"python: hello, {BURST} callers at once, until the last has its result"
    docker = containers(HELLO)

    async def cold() -> float:
        async with CodeExecutor() as executor:
            return await until_last(BURST, partial(run_fresh, executor, HELLO))

    ways = [Way(DOCKER_RUN, partial(until_last, BURST, docker.measure)), Way(COLD, cold)]
    table = Table(title, await interleaved(ways, shown(slow(rounds), title)))
    yield Measured(table, (Target(COLD, at_most=1.0, versus=DOCKER_RUN),))


async def with_peers(rounds: int) -> Tables:
    """Table ``peers``, one for each program."""
    versions = peer_versions()
    notes = (
        f"epicbox {versions['epicbox']}: no CPU quota, Docker's capabilities, a writable file system",
        f"llm-sandbox {versions['llm-sandbox']}: limits as ours, but user root and a writable file system; "
        "its pool runs programs in containers that others have used",
    )
    async with peers() as there, CodeExecutor(max_warm=0, max_output_bytes=MAX_OUTPUT_BYTES) as cold:
        for program, title, share in (
            (HELLO, "print('hello') in Python, from the call to the result", 1),
            (GROUPBY, "numpy and pandas in Python, from the call to the result", SLOW),
            (OUTPUT_10MB, "10 MB of output in Python, from the call to the result", SLOW),
        ):
            others = [
                containers(program),
                bare_python(program),
                *(Way(name, partial(peer.run, program)) for name, peer in there.items()),
                Way(COLD, partial(run_fresh, cold, program)),
            ]
            table = await compare(program, title, others, -(-rounds // share))
            yield Measured(Table(table.title, table.series, notes))


def peer_versions() -> dict[str, str]:
    """Return the versions that the peers are locked to."""
    return versions_in(PEERS_LOCK, "epicbox", "llm-sandbox")


def slow(rounds: int) -> int:
    """Return how many of the rounds a slow table has."""
    return -(-rounds // SLOW)


TABLES: Mapping[str, Callable[[int], Tables]] = {
    "hello": hello,
    "pandas": pandas,
    "javascript": javascript,
    "typescript": typescript,
    "callers": callers,
    "callers-js": callers_js,
    "burst": burst,
    "memory": memory,
    "flood": flood,
    "peers": with_peers,
}


async def main() -> int:
    """Measure the tables that were asked for."""
    parser = command_line(__doc__, TABLES, "slow ones")
    parser.add_argument(
        "--chart",
        type=Path,
        metavar="FILE.svg",
        help="draw a chart of table peers, or else hello",
    )
    asked = parser.parse_args()
    about = {**await around(), "node": node_version(), **peer_versions()}
    print(heading(about))
    rounds = max(asked.rounds, 1)
    found = await show_all({name: partial(TABLES[name], rounds) for name in asked.only or TABLES})
    about["load after"] = load()
    pictured = found.get("peers") or found.get("hello")
    if asked.chart is not None and pictured is not None:
        asked.chart.write_text(draw(pictured[0].table, about))
    return conclude(asked, found, about)


if __name__ == "__main__":
    exit_with(main)
