"""The engine is killed, stopped, starved or loses its image while runs go on."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codeforge import CodeExecutor, ExecutionResult, Status
from codeforge.errors import EngineError, HostFailure, ImageNotFound, SandboxLost
from codeforge.model.languages import LANGUAGES
from faults.second_daemon import SecondDaemon
from faults.support import HELLO, Stage, play, unless_lost

pytestmark = pytest.mark.docker

SLEEP = "import time; print('started', flush=True); time.sleep(60)"
BRIEF = "import time; print('started', flush=True); time.sleep(1); print('ended')"
IMAGE = LANGUAGES[0].image


def test_killing_the_daemon_loses_the_runs_and_nothing_else(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.executor.warm(["python"], count=2)
        running = [await stage.start(SLEEP) for _ in range(2)]
        waiting = [asyncio.create_task(stage.ask(HELLO)) for _ in range(6)]
        await stage.outside(daemon.kill)
        for run in running:
            assert isinstance(await run, SandboxLost)
        for answer in await asyncio.gather(*waiting):
            assert isinstance(answer, HostFailure) or answer.stdout == "hello\n"
        assert isinstance(await stage.ask(HELLO), HostFailure)
        await stage.outside(daemon.start)

    play(scenario, daemon, tmp_path)


def test_killing_the_daemon_while_an_executor_closes(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        other = CodeExecutor(docker_host=stage.proxy.host)
        await other.warm(["python"], count=3)
        await stage.outside(daemon.kill)
        began = time.monotonic()
        await asyncio.wait_for(other.close(), 20)
        assert time.monotonic() - began < 10
        await stage.outside(daemon.start)

    play(scenario, daemon, tmp_path)


@pytest.mark.parametrize("victim", ["containerd", "containerd-shim"])
def test_killing_a_process_below_the_daemon(victim: str, daemon: SecondDaemon, tmp_path: Path) -> None:
    """A run may survive this; in any case its result must be true."""

    async def scenario(stage: Stage) -> None:
        await stage.executor.warm(["python"], count=2)
        brief = await stage.start(BRIEF)
        sleeping = await stage.start(SLEEP, timeout=5)
        assert daemon.signal(victim, signal.SIGKILL)
        result = unless_lost(await brief)
        assert result is None or result.stdout == "started\nended\n"
        result = unless_lost(await sleeping)
        assert result is None or result.status is Status.TIMEOUT
        await stage.until(lambda: daemon.runs(IMAGE), 20)

    play(scenario, daemon, tmp_path)


def _stop_for(daemon: SecondDaemon, seconds: float) -> Callable[[], None]:
    def stop() -> None:
        daemon.stop()
        time.sleep(seconds)
        daemon.resume()

    return stop


def test_a_stopped_daemon_delays_runs_and_loses_none(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        brief = await stage.start(BRIEF, timeout=60, within_s=60)
        late = asyncio.create_task(stage.ask(HELLO, memory_limit="256m", timeout=60, within_s=60))
        await stage.outside(_stop_for(daemon, 30))
        for answer, text in ((await brief, "started\nended\n"), (await late, "hello\n")):
            assert isinstance(answer, ExecutionResult)
            assert answer.stdout == text

    play(scenario, daemon, tmp_path)


def test_a_deadline_that_passes_while_the_daemon_is_stopped_is_no_success(
    daemon: SecondDaemon, tmp_path: Path
) -> None:
    """The program may have ended in time; the host's clock decides, or the sandbox counts as lost."""

    async def scenario(stage: Stage) -> None:
        run = await stage.start(BRIEF, timeout=2)
        await stage.outside(_stop_for(daemon, 7))
        result = unless_lost(await run)
        assert result is None or result.status is Status.TIMEOUT

    play(scenario, daemon, tmp_path)


def test_on_a_full_disk_launches_fail_and_runs_go_on(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        running = await stage.start(BRIEF)
        await stage.outside(lambda: daemon.set_room("0"))
        refused = await asyncio.gather(*(stage.ask(HELLO) for _ in range(4)))
        for answer in refused:
            assert isinstance(answer, EngineError)
            assert "no space left" in str(answer)
        answer = await running
        assert isinstance(answer, ExecutionResult)
        assert answer.stdout == "started\nended\n"
        await stage.outside(lambda: daemon.set_room("4g"))

    play(scenario, daemon, tmp_path, max_warm=0)


def test_removing_an_image_fails_launches_but_not_runs(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        running = await stage.start(BRIEF)
        await stage.outside(lambda: daemon.docker("tag", IMAGE, "kept:here"))
        try:
            await stage.outside(lambda: daemon.docker("rmi", IMAGE))
            assert isinstance(await stage.ask(HELLO), ImageNotFound)
            answer = await running
            assert isinstance(answer, ExecutionResult)
            assert answer.stdout == "started\nended\n"
        finally:
            await stage.outside(lambda: daemon.docker("tag", "kept:here", IMAGE))

    play(scenario, daemon, tmp_path, max_warm=0)
