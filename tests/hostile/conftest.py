"""Fixtures of the hostile tests: run an attack, watch it from outside, and sum up what was shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from codeforge import BlockingCodeExecutor, ExecutionRequest, ExecutionResult, Status
from contract.support import SHARED, eventually, shared_executor
from hostile.cases import MARK, tally
from hostile.payloads import payload
from observer import OBSERVER, UNDER_TEST, processes_of
from selection import TEST_ALL

HERE = Path(__file__).parent

AMPLE = {"timeout": 90, "cpu_quota": 100_000}
"""Time and CPU for programs whose duration does not matter, on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each test's cases into its reports; all but the catalogue's own tests need an engine."""
    for item in items:
        if item.path.is_relative_to(HERE):
            if item.path.stem != "test_catalogue":
                item.add_marker(pytest.mark.engine)
            ids = {case for mark in item.iter_markers(MARK) for case in mark.args}
            item.user_properties += [(MARK, case) for case in sorted(ids)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which cases of the catalogue were shown, and why the others were not."""
    reports = [
        report
        for group in terminalreporter.stats.values()
        for report in group
        if isinstance(report, pytest.TestReport) and any(name == MARK for name, _ in report.user_properties)
    ]
    if reports:
        terminalreporter.section(f"hostile programs on {UNDER_TEST}")
        for line in tally(reports).lines(UNDER_TEST):
            terminalreporter.write_line(line)


class Attack(Protocol):
    """Runs a program, which must succeed, and returns the JSON in its last line of stdout."""

    def __call__(self, code: str, language: str = "python", **options: Any) -> Any: ...


def answer(result: ExecutionResult) -> Any:
    """The JSON in the last line of stdout of a run that succeeded."""
    assert result.status is Status.OK, f"{result.error}\n{result.stdout}\n{result.stderr}"
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def executor() -> Iterator[BlockingCodeExecutor]:
    """One executor for all attacks. On bubblewrap it keeps warm sandboxes: attacks meet preloaded workers."""
    with shared_executor(warm=UNDER_TEST == "bubblewrap" or TEST_ALL) as shared:
        yield shared


@pytest.fixture(scope="session")
def run(executor: BlockingCodeExecutor) -> Attack:
    """Runs an attack in a sandbox of its own, and returns what it reports."""

    def attack(code: str, language: str = "python", **options: Any) -> Any:
        code = payload(code) if language == "python" else code
        return answer(executor.execute(code, language, **AMPLE | options))

    return attack


Batch = Callable[..., list[ExecutionResult]]


@pytest.fixture(scope="session")
def run_in_turn(executor: BlockingCodeExecutor) -> Batch:
    """Runs Python programs, or requests for such, one after another in one reused sandbox."""

    def batch(*programs: str | Mapping[str, Any], **options: Any) -> list[ExecutionResult]:
        requests = [
            {**({"code": payload(each)} if isinstance(each, str) else each), **AMPLE, **options}
            for each in programs
        ]
        return list(executor.execute_many(requests, concurrency=1, max_runs_per_sandbox=len(programs)))

    return batch


@dataclass(frozen=True)
class Watched:
    """A sandbox while its program waits.

    Attributes:
        container: its id.
        inspected: the engine's description of it; empty where the engine has none.
        first: the id of its first process on this machine.
        reported: what the program has reported.
    """

    container: str
    inspected: dict[str, Any]
    first: int
    reported: Any

    @property
    def init(self) -> Path:
        """The host's /proc of the sandbox's first process."""
        return Path("/proc") / str(self.first)

    @property
    def processes(self) -> list[Path]:
        """The host's /proc of all its processes, the first one first."""
        return [Path("/proc") / str(pid) for pid in processes_of(self.first)]


Watch = Callable[..., AbstractContextManager[Watched]]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Holds a program that reports once and then reads stdin, while the test looks at it from outside."""
    with BlockingCodeExecutor(max_warm=0) as executor:
        SHARED.append(executor)

        @contextlib.contextmanager
        def watched(
            program: str | Mapping[str, Any], language: str = "python", **options: Any
        ) -> Iterator[Watched]:
            if isinstance(program, str):
                code = payload(program) if language == "python" else program
                program = {"code": code, "language": language}
            before = OBSERVER.of(executor, running=True)
            output: list[str] = []
            release = threading.Event()

            async def stdin() -> AsyncIterator[bytes]:
                await asyncio.to_thread(release.wait)
                yield b"\n"

            with ThreadPoolExecutor(1) as threads:
                request = ExecutionRequest(**{**program, "stdin": stdin(), **AMPLE, **options})
                running = threads.submit(executor._run, request, output.append, None)
                try:
                    assert eventually(lambda: "\n" in "".join(output) or running.done(), 90)
                    assert not running.done(), running.result().stderr
                    (mine,) = OBSERVER.of(executor, running=True) - before
                    first, inspected = OBSERVER.init(mine), OBSERVER.inspect(mine)
                    yield Watched(mine, inspected, first, json.loads("".join(output)))
                finally:
                    release.set()
                assert running.result(timeout=30).status is Status.OK, running.result().error

        yield watched
