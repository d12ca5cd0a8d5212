"""The audit on this machine: no check of a sandbox fails, and weakened sandboxes are caught."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from codeforge.audit import run
from codeforge.audit.executor import AuditExecutor
from codeforge.audit.model import Check, Layer, Verdict
from codeforge.audit.mutations import MUTATIONS, Mutation
from codeforge.audit.run import expected_count
from codeforge.audit.selftest import Outcome, self_test, without_init
from codeforge.errors import EngineUnavailable
from codeforge.policy import LABEL
from contract.support import docker, eventually
from hostile.cases import DIFFERENT_ON_GVISOR
from observer import UNDER_TEST

CODEFORGE = [sys.executable, "-m", "codeforge"]
LEAST = {"docker": 120, "gvisor": 120, "podman": 80, "bubblewrap": 80}
"""The least number of checks of a sandbox; Podman and bubblewrap have no ``spec-`` checks."""

FIELDS = {"id", "layer", "verdict", "expected", "got", "severity", "fix", "reference"}
PROMPT_S = 15.0

# One of each kind; codeforge audit --self-test has all of them.
QUICK_MUTATIONS = {
    "capabilities kept", "the engine's seccomp profile off", "new privileges allowed", "one user for all",
    "a network", "no limit of memory", "programs in /tmp and /code", "nothing masked", "a folder of the host",
    "the engine's ulimits",
}  # fmt: skip

# Prints the label of its containers, then goes on as the command would.
TELLING = """
import sys
from codeforge.audit import run

class Telling(run.AuditExecutor):
    def __init__(self):
        super().__init__()
        print(self.owner, flush=True)

run.AuditExecutor = Telling
sys.argv = ["codeforge", "audit", "--full", "--json"]
from codeforge.cli import main
main()
"""


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """The quick audit's report, as a script reads it."""
    done = subprocess.run([*CODEFORGE, "audit", "--json"], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    return said | {"returncode": done.returncode}


def of_sandboxes(report: dict[str, Any]) -> list[dict[str, str]]:
    return [check for check in report["checks"] if check["layer"] in (Layer.OUTSIDE, Layer.INSIDE)]


@pytest.mark.engine
@pytest.mark.core
def test_no_check_of_a_sandbox_fails(report: dict[str, Any]) -> None:
    found = {check["id"]: check for check in of_sandboxes(report) if check["verdict"] in ("FAILS", "UNKNOWN")}
    known = DIFFERENT_ON_GVISOR if UNDER_TEST == "gvisor" else set()
    assert found.keys() <= known, found


@pytest.mark.engine
@pytest.mark.core
def test_it_has_checks_from_all_four_layers(report: dict[str, Any]) -> None:
    assert {check["layer"] for check in report["checks"]} == {layer.value for layer in Layer}
    assert len(of_sandboxes(report)) > LEAST[UNDER_TEST]
    assert UNDER_TEST != "docker" or abs(len(report["checks"]) - expected_count(full=False)) < 10


@pytest.mark.engine
@pytest.mark.core
def test_only_known_checks_are_not_available(report: dict[str, Any]) -> None:
    hidden = {each["id"] for each in of_sandboxes(report) if each["verdict"] == "NOT-AVAILABLE"}
    if os.geteuid() != 0 or UNDER_TEST == "gvisor":  # the host's kernel does not see its programs
        hidden = {name for name in hidden if not name.startswith("outside.kernel-")}
    allowed = {"outside.kernel-user-namespace", "outside.kernel-devices", "inside.covert-channels"}
    assert hidden <= allowed


@pytest.mark.engine
@pytest.mark.core
def test_the_document_has_its_fields(report: dict[str, Any]) -> None:
    for check in report["checks"]:
        assert check.keys() == FIELDS
        assert check["verdict"] in {verdict.value for verdict in Verdict}
        assert check["id"].startswith(f"{check['layer']}.")
        assert check["reference"]
        assert check["fix"] or check["verdict"] == "HOLDS"
    ids = [check["id"] for check in report["checks"]]
    assert len(ids) == len(set(ids))
    assert sum(report["counts"].values()) == len(ids)


@pytest.mark.engine
@pytest.mark.core
def test_the_exit_code_follows_the_findings(report: dict[str, Any]) -> None:
    high = [
        check
        for check in report["checks"]
        if check["verdict"] == "FAILS" and (check["severity"] == "high" or check in of_sandboxes(report))
    ]
    assert report["returncode"] == (1 if high else 0)


@pytest.mark.engine("docker")
def test_without_an_engine_the_audit_exits_with_2() -> None:
    environment = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    done = subprocess.run([*CODEFORGE, "audit"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "Docker is not available" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.engine("docker")
def test_the_self_test_without_an_engine_says_so() -> None:
    environment = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    command = [*CODEFORGE, "audit", "--self-test"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Docker is not available" in done.stderr


@pytest.mark.engine("docker")
def test_help_has_examples() -> None:
    done = subprocess.run([*CODEFORGE, "audit", "--help"], capture_output=True, text=True)
    assert "codeforge audit --self-test" in done.stdout


async def first_of(mutation: Mutation) -> Outcome:
    async with contextlib.aclosing(self_test([mutation])) as found:
        return await anext(found)


@pytest.mark.engine("docker")
@pytest.mark.parametrize(
    "mutation", [pytest.param(m, id=m.name) for m in MUTATIONS if m.name in QUICK_MUTATIONS]
)
def test_a_weakened_sandbox_is_caught(mutation: Mutation) -> None:
    first = asyncio.run(first_of(mutation))
    assert first.missed == ()
    assert first.caught


@pytest.mark.engine("docker")
def test_attacks_that_init_refuses_succeed_without_it() -> None:
    assert asyncio.run(without_init()).missed == ()


@pytest.mark.engine("docker")
def test_a_mutation_that_no_check_notices_is_missed() -> None:
    harmless = Mutation("nothing", lambda spec: None, ("outside.spec-network",), posture=True)
    first = asyncio.run(first_of(harmless))
    assert not first.caught
    assert first.caught_by == ()
    assert len(first.missed) == 2


@pytest.mark.engine("docker")
def test_a_weakened_engine_is_found_by_the_audit_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """End to end: the posture check refuses the sandbox, and the audit reports that."""

    def weakened() -> AuditExecutor:
        return AuditExecutor(lambda spec: spec["HostConfig"].update(PidsLimit=0))

    async def found() -> list[Check]:
        return [check async for check in run.audit(full=False)]

    monkeypatch.setattr(run, "AuditExecutor", weakened)
    failed = [check for check in asyncio.run(found()) if check.id == "outside.sandbox"]
    assert [check.verdict for check in failed] == [Verdict.FAILS]
    assert "pids_max" in failed[0].got


@pytest.mark.engine("docker")
def test_interrupting_it_leaves_nothing_behind(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", TELLING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert running.stdout is not None
    owner = running.stdout.readline().strip()

    def left() -> list[str]:
        return docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={owner}").split()

    try:
        assert eventually(lambda: len(left()) > 1, within_s=PROMPT_S)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=PROMPT_S)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "Traceback" not in told
    assert eventually(lambda: left() == [], within_s=PROMPT_S)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engine("docker")
def test_no_engine_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(EngineUnavailable):
        asyncio.run(first_of(MUTATIONS[0]))
