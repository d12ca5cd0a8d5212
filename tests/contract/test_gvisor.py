"""gVisor: the host verifies that the kernel of the sandbox is the Sentry, and accepts no other.

``scripts/gvisor.sh`` registers the runtime.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from codeforge import BlockingCodeExecutor, CodeExecutor, Status, protocol
from codeforge.engines.gvisor import NO_NETWORK, SENTRY_TASKS, GvisorEngine
from codeforge.errors import EngineUnavailable, PostureMismatch, ProtocolViolation, Unsupported
from codeforge.model.languages import PYTHON, Language
from codeforge.model.limits import SandboxLimits
from contract.support import docker
from scripted_engine import exit_frame, frame

pytestmark = [pytest.mark.engine("gvisor"), pytest.mark.core]

END = exit_frame(0, 0, token=bytes(protocol.TOKEN_BYTES)) + frame("Z")
"""What init would send at the end of a successful run, without the token."""

KERNEL = "import platform; print(platform.release(), open('/proc/version').read())"


def test_a_program_sees_a_kernel_that_is_not_the_hosts(executor: BlockingCodeExecutor) -> None:
    result = executor.execute(KERNEL)
    assert result.posture["kernel"] == "gVisor (runsc)"
    assert Path("/proc/sys/kernel/osrelease").read_text().strip() not in result.stdout


def test_the_limits_in_a_result_are_read_on_the_host(executor: BlockingCodeExecutor) -> None:
    posture = executor.execute("", memory_limit="256m", cpu_quota=40_000).posture
    told = {key: posture[key] for key in ("memory_max", "cpu_quota_us", "pids_max", "seccomp")}
    assert told == {
        "memory_max": str(256 << 20),
        "cpu_quota_us": "40000",
        "pids_max": str(PYTHON.pids + SENTRY_TASKS),
        "seccomp": "2",
    }


def test_the_error_for_an_unregistered_runtime_says_what_to_do() -> None:
    with (
        BlockingCodeExecutor(runtime="runsc-unregistered") as executor,
        pytest.raises(EngineUnavailable, match=r"'runsc-unregistered'; it has .*runc.*\n.*daemon\.json"),
    ):
        executor.execute("print(1)")


def test_a_network_is_refused_before_the_launch_if_it_has_none() -> None:
    registered = json.loads(docker("info", "--format", "{{json .Runtimes.runsc}}"))
    code = "import os; print(len(os.listdir('/sys/class/net')))"
    with BlockingCodeExecutor() as executor:
        if NO_NETWORK in registered["runtimeArgs"]:
            with pytest.raises(Unsupported, match="gives a sandbox no network"):
                executor.execute(code, network_enabled=True)
        else:
            assert executor.execute(code, network_enabled=True).output.strip() == "2"


class SilentRunc(GvisorEngine):
    """An engine that leaves the runtime out, as one whose ``runsc`` is a link to runc would."""

    def spec(self, language: Language, limits: SandboxLimits, *, uid: int) -> dict[str, Any]:
        """See ``GvisorEngine.spec``."""
        spec = super().spec(language, limits, uid=uid)
        del spec["HostConfig"]["Runtime"]
        return spec


async def run_on_runc() -> None:
    async with CodeExecutor(engine=SilentRunc(None, "test", runtime="runsc")) as executor:
        await executor.execute("print(1)")


def test_no_code_runs_if_runc_takes_gvisors_place() -> None:
    with pytest.raises(PostureMismatch, match="asked for gVisor, and the sandbox's process is init"):
        asyncio.run(run_on_runc())


@pytest.mark.parametrize("place", ["/code", "/tmp", "/dev/shm"])
def test_what_a_run_writes_cannot_be_executed(executor: BlockingCodeExecutor, place: str) -> None:
    code = f"""
import os
open("{place}/x", "w").write("#!/bin/sh\\n")
os.chmod("{place}/x", 0o755)
os.execv("{place}/x", ["x"])
"""
    result = executor.execute(code)
    assert "PermissionError" in result.stderr


def test_out_of_memory_in_a_child_ends_the_sandbox(executor: BlockingCodeExecutor) -> None:
    eats = "import os\nif os.fork():\n    os.wait()\nb = []\nwhile True:\n    b.append(bytearray(4 << 20))"
    assert executor.execute(eats, memory_limit="128m").status is Status.OUT_OF_MEMORY


SPEAKS_FOR_INIT = f"""
import os
for number in range(64):
    try: os.write(os.open(f"/proc/1/fd/{{number}}", os.O_WRONLY | os.O_NONBLOCK), {END!r})
    except OSError: pass
os._exit(3)
"""


def test_a_program_that_imitates_init_is_not_believed(executor: BlockingCodeExecutor) -> None:
    """This kernel lets it open init's descriptors, but it cannot know the token."""
    with pytest.raises(ProtocolViolation, match="an end of the run that init did not report"):
        executor.execute(SPEAKS_FOR_INIT)
    assert executor.execute("print('well')").output == "well\n"


TOKEN_PLACES = """
import os
for name in ("mem", *(f"fd/{number}" for number in range(64))):
    try:
        place = os.open(f"/proc/1/{name}", os.O_RDONLY | os.O_NONBLOCK)
        print("opened", name, flush=True)
        print(os.read(place, 1 << 20), flush=True)
    except OSError: pass
"""


def test_a_program_does_not_find_the_token(
    executor: BlockingCodeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codeforge.sandboxes.sandbox.new_token", lambda: b"the run's token!")
    result = executor.execute(TOKEN_PLACES)
    assert result.status is Status.OK
    assert "token!" not in result.output
    assert "opened fd/" in result.output
    assert "opened mem" not in result.output


def test_programs_of_a_batch_share_no_sandbox(executor: BlockingCodeExecutor) -> None:
    """It does not show whether sockets are left, so a cleanup between two runs could not be verified."""
    results = list(executor.execute_many(({"code": "print(1)"} for _ in range(3)), max_runs_per_sandbox=3))
    assert len({result.container_id for result in results}) == 3
