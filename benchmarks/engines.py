"""Compares the engines that this machine has.

    .venv/bin/python benchmarks/engines.py                    # every table, some minutes
    .venv/bin/python benchmarks/engines.py --only command     # one
    .venv/bin/python benchmarks/engines.py --engine docker --engine bubblewrap
    .venv/bin/python benchmarks/engines.py --check            # exit with 1 if a target is missed

Tables, all for Python's print('hello'):
    warm     from the call to the result, with warm sandboxes
    fresh    the same without warm sandboxes: start a sandbox, run, return the result
    callers  fresh sandboxes a second by 8 callers
    command  "codeforge run hello.py" from the start of its process to its end, and a bwrap command

All rows of a table are measured in turn, in one run. An engine that cannot run the program is left out, with
the reason. Podman needs the images, and gVisor must be registered: docs/engines.md.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from measure import (
    Measured,
    Tables,
    Target,
    command_line,
    conclude,
    exit_with,
    heading,
    show_all,
    shown,
)
from programs import HELLO

from codeforge import CodeExecutor, __version__
from codeforge.bench.figures import Table
from codeforge.bench.measure import (
    WARM_TIMEOUT_S,
    Way,
    bare,
    circumstances,
    interleaved,
    load,
    run_command,
    run_fresh,
    runs_per_second,
    within,
)
from codeforge.engines.base import EngineInfo
from codeforge.errors import CodeForgeError
from codeforge.policy import SYSTEM

DOCKER, BUBBLEWRAP, PODMAN, GVISOR = "docker", "bubblewrap", "podman", "gvisor"

ENGINES: Mapping[str, tuple[str, str | None]] = {
    DOCKER: ("docker", None),
    BUBBLEWRAP: ("bubblewrap", None),
    PODMAN: ("podman", None),
    GVISOR: ("docker", "runsc"),
}
"""The engine and the runtime that choose each of them."""

STOCK = 2
"""Warm sandboxes of each engine."""

CALLERS = 8
SLICE_S = 10.0
SLOW = 4
"""Slices of time have this fraction of the rounds."""

BY_HAND, VERSION = "bwrap by hand", "codeforge --version"


def executor_of(name: str, max_warm: int) -> CodeExecutor:
    """Return an executor on that engine."""
    engine, runtime = ENGINES[name]
    return CodeExecutor(engine=engine, runtime=runtime, max_warm=max_warm)


def if_both_measured(engines: Sequence[str], *targets: Target) -> tuple[Target, ...]:
    """Return the targets if both bubblewrap and Docker are measured."""
    return targets if {DOCKER, BUBBLEWRAP} <= set(engines) else ()


@contextlib.asynccontextmanager
async def executors(engines: Sequence[str], max_warm: int) -> AsyncIterator[dict[str, CodeExecutor]]:
    """Open an executor on each engine."""
    async with contextlib.AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(executor_of(name, max_warm)) for name in engines}


async def warm(engines: Sequence[str], rounds: int) -> Tables:
    """Table ``warm``."""
    title = "warm, from the call to the result"
    async with executors(engines, STOCK) as there:

        async def settle() -> None:
            for executor in there.values():
                await executor.warm([HELLO.language.name], timeout=WARM_TIMEOUT_S)

        ways = [Way(name, partial(run_fresh, executor, HELLO)) for name, executor in there.items()]
        table = Table(title, await interleaved(ways, shown(rounds, title), settle=settle))
    target = Target(BUBBLEWRAP, at_most=1.0, versus=DOCKER)
    yield Measured(table, if_both_measured(engines, target))


async def fresh(engines: Sequence[str], rounds: int) -> Tables:
    """Table ``fresh``."""
    title = "cold, from the call to the result"
    async with executors(engines, 0) as there:
        ways = [Way(name, partial(run_fresh, executor, HELLO)) for name, executor in there.items()]
        yield Measured(Table(title, await interleaved(ways, shown(rounds, title))))


async def callers(engines: Sequence[str], rounds: int) -> Tables:
    """Table ``callers``."""
    title = f"fresh sandboxes, {CALLERS} callers, slices of {SLICE_S:g} s"

    async def sustained(name: str) -> float:
        async with executor_of(name, CALLERS) as executor:
            runs = within(SLICE_S, at_least=CALLERS, at_most=1_000_000)
            return await runs_per_second(CALLERS, runs, lambda: run_fresh(executor, HELLO))

    ways = [Way(name, partial(sustained, name), "/s") for name in engines]
    table = Table(title, await interleaved(ways, shown(-(-rounds // SLOW), title), warm_up=False))
    target = Target(BUBBLEWRAP, at_least=5.0, versus=DOCKER)
    yield Measured(table, if_both_measured(engines, target))


async def command(engines: Sequence[str], rounds: int) -> Tables:
    """Table ``command``."""
    title = "codeforge run hello.py, from the start of its process to its end"
    codeforge = str(Path(sys.executable).with_name("codeforge"))
    with tempfile.NamedTemporaryFile(suffix=".py") as file:
        file.write(HELLO.code.encode())
        file.flush()
        program = Path(file.name)
        ways = []
        by_hand = by_hand_command(program)
        if by_hand is not None:
            ways.append(Way(BY_HAND, partial(run_command, by_hand, HELLO.output)))
        # As in a user's shell, where the interpreter caches compiled modules.
        left_out = ("CODEFORGE_RUNTIME", "PYTHONDONTWRITEBYTECODE")
        plain = {key: value for key, value in os.environ.items() if key not in left_out}
        for name in engines:
            engine, runtime = ENGINES[name]
            env = {**plain, "CODEFORGE_ENGINE": engine, **({"CODEFORGE_RUNTIME": runtime} if runtime else {})}
            run = partial(run_command, [codeforge, "run", str(program)], HELLO.output, env)
            ways.append(Way(name, run))
        version = f"codeforge {__version__}\n".encode()
        ways.append(Way(VERSION, partial(run_command, [codeforge, "--version"], version)))
        bare_python = bare(HELLO)
        if bare_python is not None:
            ways.append(Way("python -c, no sandbox", partial(run_command, bare_python, HELLO.output)))
        table = Table(title, await interleaved(ways, shown(rounds, title)))
    targets = [Target(VERSION, at_most=150)]
    if BUBBLEWRAP in engines and by_hand is not None:
        targets.append(Target(BUBBLEWRAP, at_most=3.0, versus=BY_HAND))
    note = f"by hand: {' '.join(by_hand)}" if by_hand is not None else "no bwrap on this machine"
    yield Measured(Table(title, table.series, (note,)), tuple(targets))


def by_hand_command(program: Path) -> list[str] | None:
    """Return the bwrap command that a person would type, with the machine's Python: no limits, no filter."""
    if shutil.which("bwrap") is None:
        return None
    links = [
        word
        for place in map(Path, SYSTEM)
        if place.is_symlink()
        for word in ("--symlink", str(place.readlink()), str(place))
    ]
    options = "--unshare-all --die-with-parent --ro-bind /usr /usr --proc /proc --dev /dev --tmpfs /tmp"
    code = ["--ro-bind", str(program), "/code/hello.py"]
    return ["bwrap", *options.split(), *links, *code, "/usr/bin/python3", "/code/hello.py"]


async def usable(engines: Sequence[str]) -> AsyncIterator[tuple[str, EngineInfo | str]]:
    """Run the program on each engine, and yield the engine's information, or why it cannot run it."""
    for name in engines:
        async with executor_of(name, 0) as executor:
            try:
                await run_fresh(executor, HELLO)
                yield name, await executor.engine_info()
            except CodeForgeError as error:
                yield name, str(error).partition("\n")[0]


TABLES: Mapping[str, Callable[[Sequence[str], int], Tables]] = {
    "warm": warm,
    "fresh": fresh,
    "callers": callers,
    "command": command,
}


async def main() -> int:
    """Measure the tables that were asked for."""
    parser = command_line(__doc__, TABLES, "slices")
    parser.add_argument(
        "--engine", action="append", choices=ENGINES, metavar="ENGINE", help="one engine; repeatable"
    )
    asked = parser.parse_args()
    engines: list[str] = []
    about: dict[str, str] = {}
    async for name, said in usable(asked.engine or list(ENGINES)):
        if isinstance(said, str):
            print(f"left out: {name}: {said}")
            continue
        engines.append(name)
        about = about or circumstances(said)
        about[name] = said.version if name != GVISOR else "by Docker"
    about["load before"] = load()
    print(heading(about))
    rounds = max(asked.rounds, 1)
    found = await show_all({name: partial(TABLES[name], engines, rounds) for name in asked.only or TABLES})
    return conclude(asked, found, about)


if __name__ == "__main__":
    exit_with(main)
