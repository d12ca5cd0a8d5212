"""The host process is killed with SIGKILL, in every state of a run; nothing that it started survives."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

from codeforge import DockerCodeExecutor
from contract.support import eventually
from faults.conftest import WITHIN_S
from faults.second_daemon import SecondDaemon, grown

pytestmark = pytest.mark.docker

PRELUDE = """
import asyncio, os, sys, time
from codeforge import CodeExecutor
def say(text):
    print("there", flush=True)
async def main():
    async with CodeExecutor(docker_host=os.environ["SECOND_DAEMON"]) as executor:
        await scenario(executor)
"""

STATES = {
    "a stock that nobody uses": """
async def scenario(executor):
    await executor.warm(["python"], count=3)
    say(0)
    await asyncio.sleep(1000)
""",
    "a program that is silent": """
async def scenario(executor):
    await executor.execute("import time; print(1, flush=True); time.sleep(1000)", on_stdout=say)
""",
    "a program that writes": """
async def scenario(executor):
    code = "import time\\nwhile True: print('x' * 1000, flush=True); time.sleep(0.001)"
    await executor.execute(code, on_stdout=say)
""",
    "a program that reads": """
async def scenario(executor):
    async def endless():
        while True:
            yield b"x" * 65536
    code = "import sys\\nwhile sys.stdin.read(1000): print(1, flush=True)"
    await executor.execute(code, stdin=endless(), on_stdout=say)
""",
    "files that are being collected": """
async def scenario(executor):
    from codeforge.sandboxes.run import RunDriver
    def stand_still(*_):
        say(0)
        time.sleep(1000)
    RunDriver._keep_file = stand_still
    await executor.execute("for n in range(10): open(f'{n}', 'wb').write(b'x' * 1_500_000)")
""",
    "a batch that reuses its sandboxes": """
async def scenario(executor):
    def endless():
        while True:
            yield {"code": "print(1)"}
    taken = 0
    async for _ in executor.execute_many(endless(), concurrency=3, max_runs_per_sandbox=20):
        taken += 1
        if taken == 10:
            say(0)
""",
}

HOSTS = 5
BURST = """
async def scenario(executor):
    say(0)
    await asyncio.gather(*(executor.execute("import time; time.sleep(1000)") for _ in range(8)))
"""


def host_process(daemon: SecondDaemon, scenario: str) -> subprocess.Popen[str]:
    """A process that runs the scenario and has reached the point at which it is to be killed."""
    host = subprocess.Popen(
        [sys.executable, "-c", f"{PRELUDE}{scenario}asyncio.run(main())"],
        env={**os.environ, "SECOND_DAEMON": daemon.host},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdout is not None
    assert host.stdout.readline() == "there\n"
    return host


@pytest.fixture(autouse=True)
def _whatever_is_not_started_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeforge.engines.docker.STALE_S", -1.0)


@pytest.mark.parametrize("state", STATES)
def test_nothing_outlives_a_host_process_that_is_killed_with(state: str, daemon: SecondDaemon) -> None:
    before = daemon.holdings()
    with host_process(daemon, STATES[state]) as host:
        assert daemon.sandboxes()
        host.kill()
    _goes_back_to(before, daemon)


def test_nothing_outlives_a_host_process_that_is_killed_while_it_launches(daemon: SecondDaemon) -> None:
    moments = random.Random(1)
    before = daemon.holdings()
    for _ in range(HOSTS):
        with host_process(daemon, BURST) as host:
            time.sleep(moments.uniform(0, 0.8))
            host.kill()
    # The daemon keeps some descriptors of each launch that was interrupted.
    _goes_back_to(before, daemon, spare=8 * HOSTS)


def _goes_back_to(before: dict[str, int], daemon: SecondDaemon, *, spare: int = 8) -> None:
    """Started sandboxes end by themselves; the next executor removes those that were only created."""
    assert eventually(lambda: not daemon.sandboxes("running") and not daemon.cgroups(), WITHIN_S)
    with DockerCodeExecutor(docker_host=daemon.host) as executor:
        assert executor.is_docker_available()
        assert eventually(lambda: not daemon.sandboxes(), WITHIN_S), daemon.docker("ps", "--all")
        assert executor.execute("print(1)").stdout == "1\n"
    assert eventually(lambda: not grown(before, daemon, spare=spare), WITHIN_S), grown(before, daemon)
