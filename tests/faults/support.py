"""Requests that are accounted for: each gets one answer, and no program is run twice."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeforge import CodeExecutor, ExecutionResult
from codeforge.errors import HostFailure, SandboxLost
from contract.support import eventually
from faults.chaos_proxy import ChaosProxy
from faults.second_daemon import SecondDaemon

ANSWER_WITHIN_S = 30.0
_numbers = itertools.count()

Answer = ExecutionResult | HostFailure


@dataclass
class Stage:
    """What a scenario works with: a daemon, the proxy in front of it, and an executor.

    Attributes:
        answers: the answer for each program, by its source.
    """

    daemon: SecondDaemon
    proxy: ChaosProxy
    executor: CodeExecutor
    answers: dict[str, Answer] = field(default_factory=dict)

    async def ask(self, code: str, *, within_s: float = ANSWER_WITHIN_S, **options: Any) -> Answer:
        """Run a program; within the time there must be a result or a failure of the host.

        Anything else, and a second answer, is an error here.
        """
        own = f"{code}\n# program {next(_numbers)}"
        answer: Answer
        try:
            answer = await asyncio.wait_for(self.executor.execute(own, **options), within_s)
        except HostFailure as failure:
            answer = failure
        assert own not in self.answers
        self.answers[own] = answer
        return answer

    async def start(self, code: str, **options: Any) -> asyncio.Task[Answer]:
        """The same in the background; returns when the program has written something."""
        wrote = asyncio.Event()
        task = asyncio.create_task(self.ask(code, on_stdout=lambda text: wrote.set(), **options))
        writing = asyncio.create_task(wrote.wait())
        await asyncio.wait({task, writing}, return_when=asyncio.FIRST_COMPLETED)
        writing.cancel()
        assert wrote.is_set(), task.result()
        return task

    async def works(self) -> None:
        """Check that a new run succeeds, in this executor and in a new one."""
        async with CodeExecutor(docker_host=self.daemon.host) as other:
            answers = await asyncio.gather(self.ask(HELLO), other.execute(HELLO))
        for answer in answers:
            assert isinstance(answer, ExecutionResult), repr(answer)
            assert answer.stdout == "hello\n"

    async def until(self, condition: Callable[[], bool], within_s: float) -> None:
        """Wait for a condition outside of this process."""
        assert await asyncio.to_thread(eventually, condition, within_s)

    async def outside(self, work: Callable[[], object]) -> None:
        """Run a blocking function in a thread."""
        await asyncio.to_thread(work)


def unless_lost(answer: Answer) -> ExecutionResult | None:
    """The result; ``None`` if the sandbox was reported as lost."""
    if isinstance(answer, SandboxLost):
        return None
    assert isinstance(answer, ExecutionResult), repr(answer)
    return answer


HELLO = "print('hello')"

Scenario = Callable[[Stage], Awaitable[None]]


def play(scenario: Scenario, daemon: SecondDaemon, folder: Path, **options: Any) -> None:
    """Run a scenario, and check what must hold after each: one run each, nothing left in this process."""
    asyncio.run(asyncio.sleep(0))
    before = _descriptors()
    started: Counter[str] = Counter()
    asyncio.run(_play(scenario, daemon, folder, started, options))
    assert [code for code, times in started.items() if times > 1] == []
    assert _descriptors() == before


async def _play(
    scenario: Scenario, daemon: SecondDaemon, folder: Path, started: Counter[str], options: dict[str, Any]
) -> None:
    async with ChaosProxy(folder, daemon.host) as proxy:
        executor = CodeExecutor(docker_host=proxy.host, **options)
        async with executor:
            stage = Stage(daemon, proxy, executor)
            await scenario(stage)
            proxy.faults.clear()
            await stage.works()
        stats = executor.get_stats()
        assert {name: stats[name] for name in ("sandboxes", "leased", "waiting", "launching")} == {
            "sandboxes": 0, "leased": 0, "waiting": 0, "launching": 0,
        }  # fmt: skip
    started.update(proxy.started)
    for code, answer in stage.answers.items():
        assert isinstance(answer, HostFailure) or started[code] == 1, (code, answer)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def _descriptors() -> dict[str, int]:
    """How many resources of each sort this process has."""
    folder = Path("/proc/self/fd")
    kinds = Counter[str]()
    for each in list(folder.iterdir()):
        try:
            kinds[str(each.readlink()).split(":")[0]] += 1
        except FileNotFoundError:  # the folder's own
            continue
    return dict(kinds)
