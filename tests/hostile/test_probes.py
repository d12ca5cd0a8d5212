"""The audit's probes: what its programs observe, with secrets planted on the host and in another run."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from codeforge import BlockingCodeExecutor
from codeforge.audit import probe_runner
from codeforge.audit.canaries import VARIABLE, planted, token
from codeforge.audit.catalogue import ids_in
from codeforge.audit.executor import AuditExecutor
from codeforge.audit.model import Verdict
from codeforge.audit.probes import PAYLOADS, PROBES, Probe
from hostile.cases import DIFFERENT_ON_GVISOR, not_shown
from hostile.conftest import Batch, answer
from observer import DISTRIBUTION, UNDER_TEST

Answers = Mapping[str, str] | str

HOST_TABLES = (
    *(f"/proc/sysvipc/{kind}" for kind in ("shm", "sem", "msg")),
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
)
"""Files of the host that some of the attacks would change if they succeeded."""

CORE = ("network.py", "filesystem.py")
"""Programs whose probes are tested on every engine."""

FAMILIES = {
    "inside.vsock": ("AF_VSOCK", 40, socket.SOCK_STREAM),
    "inside.crypto-sockets": ("AF_ALG", 38, socket.SOCK_SEQPACKET),
}
"""Socket families: only if this kernel has them does the filter refuse them."""

VARIABLES = {
    "PATH",
    "LANG",
    "HOME",
    "HOSTNAME",
    "PWD",
    "LC_CTYPE",
    "PYTHONDONTWRITEBYTECODE",
    "PYTEST_ADDOPTS",
}


@dataclass(frozen=True)
class Observed:
    """What each program reported, by file name, and the host's tables before and after."""

    answers: Mapping[str, Answers]
    before: list[str]
    after: list[str]


def host_tables() -> list[str]:
    return [Path(path).read_text() for path in HOST_TABLES]


async def observe_all() -> dict[str, Answers]:
    async with AuditExecutor() as executor:
        with planted() as canaries:
            hidden = {VARIABLE: canaries.neighbour}
            async with executor.held(env_vars=hidden, files={"secret": canaries.neighbour}):
                return {payload: await probe_runner.observe(executor, payload) for payload in PAYLOADS}


@pytest.fixture(scope="module")
def observed() -> Observed:
    before = host_tables()
    answers = asyncio.run(observe_all())
    return Observed(answers, before, host_tables())


def as_parameter(probe: Probe) -> object:
    marks = [pytest.mark.catalogue(*ids_in(probe.rule.reference))]
    marks += [pytest.mark.core] if probe.payload in CORE else []
    return pytest.param(probe, id=probe.rule.id.removeprefix("inside."), marks=marks)


@pytest.mark.parametrize("probe", [as_parameter(each) for each in PROBES])
def test_every_attack_gets_an_accepted_answer(observed: Observed, probe: Probe) -> None:
    if UNDER_TEST == "gvisor" and probe.rule.id in DIFFERENT_ON_GVISOR:
        not_shown("gVisor's kernel does this differently: docs/engines.md")
    check = probe_runner.judge(probe, observed.answers[probe.payload])
    assert check.verdict is Verdict.HOLDS, check.got
    if probe.rule.id in FAMILIES:
        name, family, kind = FAMILIES[probe.rule.id]
        if not host_has(family, kind):
            not_shown(f"this kernel has no {name} that the filter could refuse")


def host_has(family: int, kind: socket.SocketKind) -> bool:
    try:
        socket.socket(family, kind).close()
    except OSError:
        return False
    return True


@pytest.mark.catalogue("P10", "P20", "R23")
def test_the_attacks_do_not_change_the_hosts_tables(observed: Observed) -> None:
    assert observed.after == observed.before


@pytest.mark.catalogue("F01", "F10")
@pytest.mark.core
def test_the_search_looks_at_every_file(observed: Observed) -> None:
    answers = observed.answers["filesystem.py"]
    assert not isinstance(answers, str)
    assert int(answers["entries looked at"]) > 1000
    found = {name for name in answers["environment"].split(", ") if not re.match("OPENBLAS|OMP", name)}
    assert found <= VARIABLES


TARGETS = {"init": (), "template": ("parent",)}
OF_OTHER_PROCESSES = [probe for probe in PROBES if probe.payload == "other_process.py"]


@pytest.fixture(scope="module", params=TARGETS)
def observed_in_reused_sandbox(request: pytest.FixtureRequest, run_in_turn: Batch) -> Answers:
    """The same attacks in a reused sandbox; the next run in it must succeed."""
    program = probe_runner.program("other_process.py", *TARGETS[request.param])
    attack, after = run_in_turn(program, "report('well')")
    assert answer(after) == "well"
    assert after.container_id == attack.container_id
    return probe_runner.parse(attack)


@pytest.mark.parametrize("probe", [as_parameter(each) for each in OF_OTHER_PROCESSES])
def test_init_and_template_of_a_reused_sandbox_are_out_of_reach(
    observed_in_reused_sandbox: Answers, probe: Probe
) -> None:
    check = probe_runner.judge(probe, observed_in_reused_sandbox)
    assert check.verdict is Verdict.HOLDS, check.got


def search(executor: BlockingCodeExecutor, **files: str) -> str:
    """The canaries that a search of all files but the distribution's finds."""
    program = probe_runner.program("filesystem.py", "everywhere", *DISTRIBUTION)
    program["files"].update(files)
    reported = answer(executor.execute(**program, timeout=120, cpu_quota=200_000))
    return str(reported["canaries"])


@pytest.mark.catalogue("F10")
def test_no_file_contains_a_secret_of_the_host_or_of_another_run() -> None:
    async def scenario() -> str:
        async with AuditExecutor() as executor:
            with planted() as canaries:
                hidden = {VARIABLE: canaries.neighbour}
                async with executor.held(env_vars=hidden, files={"secret": canaries.neighbour}):
                    with BlockingCodeExecutor(max_warm=0) as other:
                        return await asyncio.to_thread(search, other)

    assert asyncio.run(scenario()) == "none"


@pytest.mark.catalogue("F10")
def test_the_search_finds_a_secret_in_a_file(executor: BlockingCodeExecutor) -> None:
    secret = token()
    assert search(executor, **{"notes.txt": f"key={secret}"}) == secret
