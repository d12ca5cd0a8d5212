"""Benchmarks: what they count, what they compare, and how they show it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from codeforge import CodeExecutor, Language
from codeforge.bench import measure as measure_module
from codeforge.bench.figures import Series, Table, figure, times
from codeforge.bench.measure import (
    Program,
    Way,
    bare,
    docker_run,
    interleaved,
    interpreter,
    references,
    run_command,
    runs_per_second,
    until_last,
    within,
)
from codeforge.bench.report import draw, grid
from codeforge.cli.bench import present
from codeforge.errors import HostFailure, ImageNotFound, InvalidRequest
from codeforge.model.languages import JAVASCRIPT, LANGUAGES, PYTHON, TYPESCRIPT
from codeforge.model.limits import Limits
from codeforge.policy import container_spec

ABOUT = {"date": "2026-01-02 03:04 UTC", "codeforge": "1", "docker": "2", "kernel": "3", "cpus": "4"}


def hello(language: Language) -> Program:
    return Program(language, "a program", b"hello\n")


def series(name: str, *values: float, unit: str = "ms") -> Series:
    return Series(name, unit, values)


@pytest.mark.parametrize(
    ("unit", "values", "p95"),
    [
        ("ms", range(1, 101), 95),
        ("ms", range(1, 21), 19),
        ("ms", range(1, 20), 19),
        ("ms", [5], 5),
        ("/s", range(1, 101), 6),
        ("MB/s", [1, 2, 3], 1),
    ],
)
def test_95_percent_of_the_values_are_at_least_as_good_as_p95(
    unit: str, values: list[float], p95: float
) -> None:
    measured = Series("x", unit, tuple(values))
    assert measured.p95 == p95
    good = [value for value in values if (value >= p95 if unit.endswith("/s") else value <= p95)]
    assert len(good) >= 0.95 * len(list(values))


def test_ratios_read_well() -> None:
    base = series("base", 100)
    ratios = {value: times(series("x", value), base) for value in (1, 9.9, 10, 61.4, 100, 999, 1234)}
    assert list(ratios.values()) == ["1/100 of", "1/10 of", "0.10 x", "0.61 x", "1.00 x", "9.99 x", "12 x"]


def test_figures_have_their_units() -> None:
    shown = {unit: figure(series("x", 1, unit=unit), 5.25) for unit in ("ms", "/s", "MB")}
    assert shown == {"ms": "5.2 ms", "/s": "5.2/s", "MB": "5.2 MB"}


def test_a_table_as_text_compares_with_its_first_row() -> None:
    table = Table("t", (series("docker run", 400, 420, 380), series("codeforge, warm", 5, 6, 4)))
    console = Console(width=100)
    with console.capture() as captured:
        console.print(grid(table))
    lines = captured.get().splitlines()
    assert lines[1].split() == ["median", "p95", "docker", "run"]
    assert lines[3].split() == ["codeforge,", "warm", "5.0", "ms", "6.0", "ms", "1/80", "of"]


def test_json_has_every_figure() -> None:
    assert Table("t", (series("a", 1, 3),), ("note",)).to_dict() == {
        "title": "t",
        "series": [{"name": "a", "unit": "ms", "values": (1, 3), "median": 2, "p95": 3}],
        "notes": ["note"],
    }


def test_the_chart_has_the_slowest_on_top_and_names_its_source() -> None:
    rows = (series("docker run", 400, 500), series("codeforge, warm", 5, 6), series("bare python", 15, 16))
    picture = draw(Table("hello", rows), ABOUT)
    assert picture.index(">docker run<") < picture.index(">bare python<") < picture.index(">codeforge, warm<")
    assert "1/82 of docker run" in picture
    assert "2026-01-02, codeforge 1, Docker 2, kernel 3, 4 CPUs, 2 rounds, interleaved" in picture


@pytest.mark.parametrize(("engine", "name"), [("docker", "Docker"), ("podman", "Podman")])
def test_the_chart_names_the_engine(engine: str, name: str) -> None:
    about = {key: value for key, value in ABOUT.items() if key != "docker"} | {engine: "5.4"}
    picture = draw(Table("hello", (series("bare python", 15, 16),)), about)
    assert f"codeforge 1, {name} 5.4, kernel 3" in picture


def test_a_chart_of_one_round_says_so() -> None:
    picture = draw(Table("hello", (series("bare python", 15),)), ABOUT)
    assert ", 1 round<" in picture
    assert "rounds" not in picture
    assert "percentiles" not in picture


def test_ways_are_measured_in_turn_after_a_warm_up_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure_module, "PAUSE_S", 0)
    calls: list[str] = []

    def way(name: str) -> Way:
        async def measure() -> float:
            calls.append(name)
            return len(calls)

        return Way(name, measure)

    async def settle() -> None:
        calls.append("settle")

    found = asyncio.run(interleaved([way("a"), way("b"), way("c")], range(5), settle=settle))
    assert calls[::2] == ["settle"] * 18
    assert calls[1:6:2] == ["a", "b", "c"]
    assert all(sorted(calls[start : start + 6 : 2]) == ["a", "b", "c"] for start in range(1, 36, 6))
    assert [(each.name, len(each.values)) for each in found] == [("a", 5), ("b", 5), ("c", 5)]
    assert min(found[0].values) > 6


def test_rounds_end_when_the_time_is_over_but_not_before_the_least() -> None:
    assert list(within(0, at_least=3, at_most=9)) == [0, 1, 2]
    assert list(within(60, at_least=3, at_most=9)) == list(range(9))


def test_callers_share_the_work() -> None:
    now, most, done = 0, 0, 0

    async def work() -> None:
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        done += 1

    rate = asyncio.run(runs_per_second(4, range(22), work))
    assert (most, done, now) == (4, 22, 0)
    assert 0 < rate <= 4 / 0.001
    assert asyncio.run(until_last(3, work)) >= 1


def test_a_failing_caller_ends_the_others() -> None:
    ended: Counter[str] = Counter()

    async def work() -> None:
        ended["begun"] += 1
        if ended["begun"] == 3:
            raise HostFailure("no more")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended["cancelled"] += 1
            raise

    with pytest.raises(HostFailure, match="no more"):
        asyncio.run(runs_per_second(3, range(10), work))
    assert ended == {"begun": 3, "cancelled": 2}


def test_a_command_is_timed_and_must_print_what_was_expected() -> None:
    command = [sys.executable, "-c", "import sys; print('hello'); print('why', file=sys.stderr)"]
    assert asyncio.run(run_command(command, b"hello\n")) > 0
    with pytest.raises(HostFailure, match=r"did not print what it should\n.*why"):
        asyncio.run(run_command(command, b"goodbye\n"))


def test_the_interpreter_is_the_command_that_a_person_would_type() -> None:
    assert [interpreter(row) for row in LANGUAGES] == ["python", "node", "ts-node"]


@pytest.fixture
def docker_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")


@pytest.mark.usefixtures("docker_command")
@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
def test_docker_run_has_the_flags_of_our_containers(language: Language) -> None:
    spec = container_spec(language, Limits().of_sandbox(language), owner="x", uid=20_000)
    command = docker_run(hello(language))
    assert command is not None
    assert command[-4:-3] == [language.image]
    assert command[-3:] == [interpreter(language), "-c" if language is PYTHON else "-e", "a program"]
    flags = " ".join(command)
    host = spec["HostConfig"]
    # The command cannot express masked paths, or a network that is not even set up.
    for value in (host["Memory"], host["CpuQuota"], host["PidsLimit"], host["ShmSize"], spec["User"]):
        assert f"={value}" in flags
    for path, options in host["Tmpfs"].items():
        assert f"--tmpfs={path}:{options}" in flags
    assert flags.count("--ulimit=") == len(host["Ulimits"])
    assert flags.count("--env=") == len(spec["Env"])
    for flag in ("--rm", "--read-only", "--network=none", "--cap-drop=ALL", "--log-driver=none"):
        assert flag in command


@pytest.mark.usefixtures("docker_command")
def test_the_bare_python_is_this_one() -> None:
    assert bare(hello(PYTHON)) == [sys.executable, "-c", "a program"]
    assert bare(hello(JAVASCRIPT)) == ["/bin/node", "-e", "a program"]
    assert [way.name for way in references(hello(TYPESCRIPT))] == ["docker run", "bare ts-node"]


def test_missing_commands_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    other = Language(name="cobol", image="x", file="x.cob", command=("cobc", "-xj"), smoke="")
    assert [way.name for row in (*LANGUAGES, other) for way in references(hello(row))] == ["bare python"]


class _Images:
    def __init__(self, *there: str) -> None:
        self._there = there

    async def find(self, reference: str) -> str | None:
        return reference if reference in self._there else None


def find_present(names: list[str], *there: str) -> list[str]:
    executor: Any = SimpleNamespace(languages=CodeExecutor().languages, images=_Images(*there))
    return [row.name for row in asyncio.run(present(cast(CodeExecutor, executor), names))]


def test_languages_without_an_image_are_left_out_unless_they_are_named() -> None:
    assert find_present([], PYTHON.image, TYPESCRIPT.image) == ["python", "typescript"]
    assert find_present(["ts"], TYPESCRIPT.image) == ["typescript"]
    for names, there in ((["js"], PYTHON.image), ([], "none")):
        with pytest.raises(ImageNotFound, match="codeforge images pull"):
            find_present(names, there)
    with pytest.raises(InvalidRequest):
        find_present(["cobol"], PYTHON.image)


def test_the_lock_of_the_peers_has_hashes_and_no_registry() -> None:
    lock = Path(__file__).parents[3] / "benchmarks/peers-requirements.lock"
    text = lock.read_text()
    assert "://" not in text
    pinned = [line for line in text.replace("\\\n", "").splitlines() if not line.lstrip().startswith("#")]
    assert len(pinned) > 10
    assert all("==" in line and "--hash=sha256:" in line for line in pinned)
