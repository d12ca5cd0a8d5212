"""``codeforge bench`` and the benchmarks, as a person uses them. No test checks a speed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from defusedxml import ElementTree

from contract.support import docker, eventually, sandboxes

BENCH = [sys.executable, "-m", "codeforge", "bench"]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS = ["docker run", "bare python", "codeforge, cold", "codeforge, warm"]


def bench(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BENCH, *arguments], capture_output=True, text=True, timeout=300, env={**os.environ, **env}
    )


@pytest.mark.engine("docker")
def test_bench_measures_every_way_and_draws_a_chart(tmp_path: Path) -> None:
    picture = tmp_path / "hello.svg"
    done = bench("python", "--seconds", "1", "--json", "--chart", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert {"date", "codeforge", "docker", "kernel", "load_before"} <= document["circumstances"].keys()
    latency, throughput = document["tables"]
    assert [row["name"] for row in latency["series"]] == ROWS
    assert all(row["values"] and min(row["values"]) > 0 for row in latency["series"])
    assert {row["unit"] for row in throughput["series"]} == {"/s"}
    drawn = "".join(ElementTree.fromstring(picture.read_text()).itertext())
    assert all(row in drawn for row in ROWS)


def containers() -> set[str]:
    return set(docker("ps", "--quiet", "--all", "--no-trunc").split())


@pytest.mark.engine("docker")
def test_ctrl_c_leaves_no_container_and_no_file(tmp_path: Path) -> None:
    before = containers()
    picture = tmp_path / "hello.svg"
    command = [*BENCH, "python", "--chart", str(picture)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert eventually(lambda: bool(sandboxes() - before), within_s=60)
        made = containers() - before
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in errors
    assert not picture.exists()
    assert eventually(lambda: not made & containers(), within_s=60)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--chart", "hello.png"], "must be an .svg file"),
        (["--chart", "/no/such/folder/hello.svg"], "in an existing folder"),
        (["--seconds", "0"], "--seconds must be between"),
        (["--seconds", "nan"], "--seconds must be between"),
    ],
)
def test_bad_options_are_reported_before_anything_is_measured(arguments: list[str], said: str) -> None:
    done = bench(*arguments, DOCKER_HOST="unix:///nonexistent")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.engine("docker")
def test_without_an_engine_bench_says_so() -> None:
    done = bench(DOCKER_HOST="unix:///nonexistent")
    assert done.returncode == 69
    assert "Docker is not available" in done.stderr


@pytest.mark.parametrize("script", ["warm.py", "cold.py", "humaneval.py"])
def test_every_benchmark_has_a_help_text(script: str) -> None:
    command = [sys.executable, str(BENCHMARKS / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert f"benchmarks/{script}" in done.stdout


@pytest.mark.engine("docker")
def test_a_benchmark_prints_figures_and_targets_and_writes_them_to_a_file(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "warm.py"), "--only", "burst", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--json", str(figures)], capture_output=True, text=True, timeout=300, check=True
    )
    assert " x docker run, target at most 1 x: " in done.stdout
    (table,) = json.loads(figures.read_text())["tables"]["burst"]
    assert [row["name"] for row in table["series"]] == ["docker run", "codeforge, cold"]
    assert isinstance(table["targets"][0]["reached"], bool)
