"""The executor does what ``docker run IMAGE python /code/main.py`` does, byte for byte.

See ``corpus.py`` for the programs and for the exact command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeforge import LANGUAGES, BlockingCodeExecutor
from contract.corpus import CPU_QUOTA_US, Program, Reference, References, load_corpus, selected
from contract.support import shared_executor

CORPUS = load_corpus()

TIMEOUT_S = 60.0
LEAST_PROGRAMS = 60
LEAST_OF_EACH_LANGUAGE = 15
SIGNAL_BASE = 128
"""A program that signal n ended has, to a shell and to Docker, the exit code 128 + n."""


@pytest.fixture(scope="module")
def executor() -> Iterator[BlockingCodeExecutor]:
    """An executor with warm sandboxes on every engine: a preloaded interpreter must not show."""
    with shared_executor(warm=True) as warm:
        yield warm


@pytest.fixture(scope="module")
def references(request: pytest.FixtureRequest) -> Iterator[References]:
    """The references of the selected programs, begun at once and made while tests run."""
    with References(selected(request.session, "program", Path(__file__))) as made:
        yield made


def run_here(executor: BlockingCodeExecutor, program: Program) -> Reference:
    """What the executor makes of a program, told as Docker would."""
    result = executor.execute(
        code=program.code,
        language=program.language,
        timeout=TIMEOUT_S,
        stdin=program.stdin,
        args=program.args,
        env_vars=program.env,
        files=program.files,
        cpu_quota=CPU_QUOTA_US,
    )
    assert not result.truncated, "more output than is kept: nothing to compare"
    ended_by = result.exit_code if result.signal is None else SIGNAL_BASE + result.signal
    assert ended_by is not None, f"neither exit code nor signal: {result.status}"
    return Reference(result.stdout_bytes, result.stderr_bytes, ended_by)


@pytest.mark.engine("docker")
@pytest.mark.parametrize("program", CORPUS, ids=lambda program: program.id)
def test_same_as_plain_docker(
    executor: BlockingCodeExecutor, references: References, program: Program
) -> None:
    found, wanted = run_here(executor, program), references.of(program)
    assert found.stderr.decode(errors="backslashreplace") == wanted.stderr.decode(errors="backslashreplace")
    assert found.stdout.decode(errors="backslashreplace") == wanted.stdout.decode(errors="backslashreplace")
    assert found == wanted


def test_the_corpus_is_large_enough_to_mean_something() -> None:
    counts = Counter(program.language for program in CORPUS)
    assert sum(counts.values()) >= LEAST_PROGRAMS
    assert {row.name: True for row in LANGUAGES} == {
        name: count >= LEAST_OF_EACH_LANGUAGE for name, count in counts.items()
    }


def test_programs_have_names_of_their_own() -> None:
    assert len({program.id for program in CORPUS}) == len(CORPUS)
