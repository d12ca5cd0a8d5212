"""The 164 solutions of HumanEval: what code models write, run here and by plain Docker."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from codeforge import BlockingCodeExecutor, Status
from contract.corpus import CPU_QUOTA_US, Program, Reference, reference, selected

Problem: TypeAlias = dict[str, str]

PROBLEMS = 164
TIMEOUT_S = 60.0


def data_file() -> Path:
    """Where the problems are: in the folder that CODEFORGE_DATA names, else in ../shared/data."""
    root = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("CODEFORGE_DATA", root.parent / "shared" / "data")) / "HumanEval.jsonl.gz"


def load_problems() -> list[Program]:
    """Every problem's canonical solution with its tests, as one program."""
    path = data_file()
    if not path.is_file():
        reason = f"no {path}: set CODEFORGE_DATA to the folder that has {path.name}"
        if os.environ.get("CODEFORGE_TEST_ENGINE") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        problems: list[Problem] = [json.loads(line) for line in lines]
    return [
        Program(
            language="python",
            name=problem["task_id"],
            path=path,
            code=(
                f"{problem['prompt']}{problem['canonical_solution']}\n{problem['test']}"
                f"\ncheck({problem['entry_point']})\nprint('passed')\n"
            ),
        )
        for problem in problems
    ]


@pytest.fixture(scope="module")
def problems() -> list[Program]:
    """The problems, in their order."""
    return load_problems()


EACH = """
import json, subprocess, sys
for number in range(int(sys.argv[1])):
    done = subprocess.run(["python", f"{number}.py"], capture_output=True)
    print(json.dumps([done.stdout.decode(), done.stderr.decode(), done.returncode]))
"""


def reference_of_all(problems: Sequence[Program]) -> dict[str, Reference]:
    """Their outputs in plain Docker: one container, in which each program has its own interpreter."""
    together = Program(
        language="python",
        name="HumanEval",
        path=data_file(),
        code=EACH,
        args=(str(len(problems)),),
        files={f"{number}.py": problem.code for number, problem in enumerate(problems)},
    )
    done = reference(together)
    assert (done.stderr, done.exit_code) == (b"", 0)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        problem.name: Reference(stdout.encode(), stderr.encode(), exit_code)
        for problem, (stdout, stderr, exit_code) in zip(problems, told, strict=True)
    }


@pytest.fixture(scope="module")
def references(request: pytest.FixtureRequest, problems: list[Program]) -> Mapping[str, Reference]:
    """The references of the selected problems, by their names."""
    return reference_of_all(
        [problems[number] for number in selected(request.session, "number", Path(__file__))]
    )


def test_all_problems_are_there(problems: list[Program]) -> None:
    assert [problem.name for problem in problems] == [f"HumanEval/{number}" for number in range(PROBLEMS)]


@pytest.mark.engine("docker")
@pytest.mark.parametrize("number", range(PROBLEMS))
def test_same_as_plain_docker(
    executor: BlockingCodeExecutor, problems: list[Program], references: Mapping[str, Reference], number: int
) -> None:
    problem = problems[number]
    result = executor.execute(problem.code, problem.language, timeout=TIMEOUT_S, cpu_quota=CPU_QUOTA_US)
    assert result.status is Status.OK, f"{result.error}\n{result.stderr}"
    assert result.exit_code == 0
    assert result.stdout_bytes.splitlines()[-1] == b"passed"
    found = Reference(result.stdout_bytes, result.stderr_bytes, result.exit_code)
    assert found == references[problem.name]
