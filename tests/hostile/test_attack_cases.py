"""The audit's attack cases: their results and evidence, and a neighbour that must not be disturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from codeforge import LANGUAGES, BlockingCodeExecutor, ExecutionResult, KillReason, Status
from codeforge.audit.attack_cases import FULL, QUICK, Case, facts
from codeforge.audit.catalogue import ids_in
from codeforge.audit.probe_runner import program
from hostile.heartbeat import Arena
from observer import UNDER_TEST

MIB = 1 << 20
PIDS = {row.name: row.pids for row in LANGUAGES}
FLOOD = 64 * MIB
CORE = {"inside.artifacts", "inside.swapped-names"}
REPEATS = {"inside.swapped-names": 6}
"""How often a race is run."""


@pytest.fixture(scope="module")
def arena(executor: BlockingCodeExecutor) -> Iterator[Arena]:
    with Arena(executor) as arena:
        yield arena


def counted(result: ExecutionResult, count: int) -> bool:
    return facts(result).get("count") == str(count)


def is_no_out_of_memory(result: ExecutionResult) -> bool:
    return (result.evidence.oom_event, result.evidence.oom_kills) == (False, 0)


def is_flood(result: ExecutionResult) -> bool:
    ended = (result.status, result.evidence.killed) == (Status.OUTPUT_LIMIT, KillReason.FLOOD)
    written = max(result.evidence.stdout_bytes, result.evidence.stderr_bytes)
    return ended and written > FLOOD and max(len(result.stdout_bytes), len(result.stderr_bytes)) == MIB


# What the engine's evidence must show, beyond what the audit asks for.
ALSO: dict[str, Callable[[ExecutionResult], bool]] = {
    "inside.fork-bomb": lambda r: counted(r, PIDS["python"] - 2) and r.evidence.pids_refused == 1,
    "inside.thread-bomb": lambda r: counted(r, PIDS["python"] - 2) and r.evidence.pids_refused == 1,
    "inside.memory-bomb": lambda r: (
        r.evidence.oom_event and r.evidence.oom_kills >= 1 and r.memory_used <= 128 * MIB
    ),
    "inside.child-memory-bomb": lambda r: (
        (r.exit_code, facts(r).get("child"), r.evidence.oom_kills) == (0, "-9", 1)
    ),
    "inside.forged-oom": is_no_out_of_memory,
    "inside.forged-kill": is_no_out_of_memory,
    "inside.descriptors": lambda r: counted(r, 1024 - 3),
    "inside.zombies": lambda r: r.evidence.pids_refused == 0,
    "inside.timeout": lambda r: r.signal == 9,
    "inside.stop-everybody": lambda r: r.evidence.killed is KillReason.DEADLINE,
    "inside.flood": is_flood,
}


def as_parameter(case: Case) -> object:
    marks = [pytest.mark.catalogue(*ids_in(case.rule.reference))]
    marks += [pytest.mark.core] if case.rule.id in CORE else []
    return pytest.param(case, id=case.rule.id.removeprefix("inside."), marks=marks)


@pytest.mark.parametrize("case", [as_parameter(each) for each in QUICK + FULL])
def test_the_result_of_each_attack_is_as_required(arena: Arena, case: Case) -> None:
    for _ in range(REPEATS.get(case.rule.id, 1)):
        request = program(case.payload, *case.arguments)
        result = arena.attack(**request, timeout=case.timeout_s, memory=case.memory)
        assert case.judge(result), result
        assert case.rule.id not in ALSO or UNDER_TEST == "gvisor" or ALSO[case.rule.id](result), result


def test_every_additional_requirement_names_a_case() -> None:
    assert ALSO.keys() | CORE | REPEATS.keys() <= {case.rule.id for case in QUICK + FULL}
