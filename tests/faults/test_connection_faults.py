"""The connection to the daemon loses, delays, cuts and repeats messages."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from codeforge import ExecutionResult, Status
from codeforge.errors import HostFailure
from faults.chaos_proxy import Harm
from faults.second_daemon import SecondDaemon
from faults.support import HELLO, Stage, play

pytestmark = pytest.mark.docker

CREATE = r"POST /containers/create.*"
ATTACH = r"POST /containers/[^/]+/attach.*"
START = r"POST /containers/[^/]+/start.*"
REMOVE = r"DELETE /containers/.*"
EVENTS = r"GET /events.*"
VERSION = r"GET /version.*"

BRIEF = "import time; print('started', flush=True); time.sleep(1); print('ended')"
SLEEP = "import time; print('started', flush=True); time.sleep(60)"
HUNGRY = "x = bytearray(1 << 30)"


@pytest.mark.parametrize("harm", [Harm.REFUSE, Harm.LOSE, Harm.LOSE_ANSWER, Harm.TRUNCATE])
@pytest.mark.parametrize("call", [CREATE, ATTACH, START], ids=["create", "attach", "start"])
def test_a_failed_launch_fails_its_own_caller_alone(
    harm: Harm, call: str, daemon: SecondDaemon, tmp_path: Path
) -> None:
    async def scenario(stage: Stage) -> None:
        assert isinstance(await stage.ask(HELLO), ExecutionResult)
        fault = stage.proxy.harm(harm, call, times=2)
        answers = await asyncio.gather(*(stage.ask(HELLO) for _ in range(4)))
        assert fault.met == 2
        failures = [answer for answer in answers if isinstance(answer, HostFailure)]
        assert len(failures) <= 2
        assert all(answer.stdout == "hello\n" for answer in answers if isinstance(answer, ExecutionResult))
        if harm is Harm.REFUSE:
            assert all("harm is done" in str(failure) for failure in failures)
            assert len(failures) == 2

    play(scenario, daemon, tmp_path, max_warm=0)


def test_a_slow_daemon_fails_no_run(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        fault = stage.proxy.harm(Harm.DELAY, CREATE, times=4, delay_s=5.0)
        answers = await asyncio.gather(*(stage.ask(HELLO) for _ in range(4)))
        assert all(isinstance(answer, ExecutionResult) for answer in answers), answers
        assert fault.met == 4

    play(scenario, daemon, tmp_path, max_warm=0)


@pytest.mark.parametrize("harm", [Harm.REFUSE, Harm.LOSE, Harm.TRUNCATE, Harm.SILENCE])
def test_a_failed_first_call_is_an_engine_failure(
    harm: Harm, daemon: SecondDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeforge.engines.docker.API_TIMEOUT_S", 2.0)

    async def scenario(stage: Stage) -> None:
        stage.proxy.harm(harm, VERSION, times=3)
        assert isinstance(await stage.ask(HELLO), HostFailure)

    play(scenario, daemon, tmp_path)


@pytest.mark.parametrize("call", [CREATE, ATTACH, START], ids=["create", "attach", "start"])
def test_a_call_without_an_answer_times_out(
    call: str, daemon: SecondDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeforge.engines.docker.API_TIMEOUT_S", 2.0)

    async def scenario(stage: Stage) -> None:
        stage.proxy.harm(Harm.SILENCE, call, times=1)
        answer = await stage.ask(HELLO)
        # Output often arrives before the daemon answers the start call.
        assert isinstance(answer, HostFailure) or call == START
        await stage.until(lambda: not stage.executor.get_stats()["sandboxes"], 10)

    play(scenario, daemon, tmp_path, max_warm=0)


@pytest.mark.parametrize("harm", [Harm.REFUSE, Harm.LOSE, Harm.SILENCE, Harm.DELAY])
def test_a_failed_removal_leaves_nothing(
    harm: Harm, daemon: SecondDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeforge.engines.docker.API_TIMEOUT_S", 2.0)

    async def scenario(stage: Stage) -> None:
        fault = stage.proxy.harm(harm, REMOVE, times=4, delay_s=1.0)
        async with contextlib.aclosing(stage.executor.stream(SLEEP)) as events:
            await anext(events)
        await stage.until(lambda: fault.met > 0, 10)
        await stage.until(lambda: not daemon.sandboxes(), 10)

    play(scenario, daemon, tmp_path, max_warm=0)


def test_a_sandbox_that_sent_nothing_is_launched_once_more(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        fault = stage.proxy.harm(Harm.HALF_CLOSE, ATTACH, times=1, after=0)
        answer = await stage.ask("print('there')")
        assert fault.met == 1
        assert isinstance(answer, ExecutionResult)
        assert answer.stdout == "there\n"
        await stage.until(lambda: not daemon.sandboxes("running"), 10)

    play(scenario, daemon, tmp_path, max_warm=0)


@pytest.mark.parametrize("harm", [Harm.HALF_CLOSE, Harm.MUTE])
@pytest.mark.parametrize("after", [0, 2000])
def test_a_stream_that_breaks_is_never_a_success(
    harm: Harm, after: int, daemon: SecondDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeforge.sandboxes.sandbox.START_TIMEOUT_S", 3.0)

    async def scenario(stage: Stage) -> None:
        # Twice: a sandbox that sent nothing is launched once more.
        stage.proxy.harm(harm, ATTACH, times=2 if after == 0 else 1, after=after)
        answer = await stage.ask(f"print('y' * 5000); {BRIEF}", timeout=2)
        if isinstance(answer, ExecutionResult):
            assert harm is Harm.MUTE
            assert answer.status is Status.TIMEOUT
        await stage.until(lambda: not daemon.sandboxes("running"), 10)

    play(scenario, daemon, tmp_path, max_warm=0)


@pytest.mark.parametrize("harm", [Harm.DUPLICATE, Harm.TRUNCATE, Harm.LOSE, Harm.REFUSE, Harm.SILENCE])
def test_lost_and_repeated_events_change_no_verdict(harm: Harm, daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.proxy.harm(harm, EVENTS, times=2)
        began = time.monotonic()
        answers = [await stage.ask(HELLO) for _ in range(3)]
        assert [answer.stdout for answer in answers if isinstance(answer, ExecutionResult)] == ["hello\n"] * 3
        assert time.monotonic() - began < 10
        if harm is not Harm.SILENCE:
            hungry = await stage.ask(HUNGRY, memory_limit="64m")
            assert isinstance(hungry, ExecutionResult)
            assert hungry.status is Status.OUT_OF_MEMORY

    play(scenario, daemon, tmp_path)


def test_sandboxes_are_removed_without_any_event(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.proxy.harm(Harm.SILENCE, EVENTS)
        for _ in range(3):
            assert isinstance(await stage.ask(HELLO), ExecutionResult)
        await stage.until(lambda: not daemon.sandboxes(), 10)
        await stage.until(lambda: not stage.executor.get_stats()["sandboxes"], 10)

    play(scenario, daemon, tmp_path, max_warm=0)


def test_under_faults_of_every_sort_each_request_is_answered_once(
    daemon: SecondDaemon, tmp_path: Path
) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(40):
            harm = (Harm.LOSE, Harm.REFUSE, Harm.LOSE_ANSWER, Harm.TRUNCATE, Harm.HALF_CLOSE)[number % 5]
            stage.proxy.harm(harm, (CREATE, ATTACH, START, REMOVE, EVENTS)[number // 5 % 5], times=1)
        answers = await asyncio.gather(*(stage.ask(f"print({n})", within_s=60) for n in range(60)))
        for number, answer in enumerate(answers):
            assert isinstance(answer, HostFailure) or answer.stdout == f"{number}\n"
        assert any(isinstance(answer, HostFailure) for answer in answers)
        assert sum(isinstance(answer, ExecutionResult) for answer in answers) >= 20

    play(scenario, daemon, tmp_path, max_sandboxes=6)
