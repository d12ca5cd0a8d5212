"""The audit's probes: what its programs observe in a sandbox, with a secret of the host's and a neighbour."""

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
"""What some of the attacks would change on the host, if they worked."""

CORE = ("network.py", "filesystem.py")
"""Programs that run on every engine in every run of the tests."""

FAMILIES = {
    "inside.vsock": ("AF_VSOCK", 40, socket.SOCK_STREAM),
    "inside.crypto-sockets": ("AF_ALG", 38, socket.SOCK_SEQPACKET),
}
"""Socket families that this kernel must have, for a refusal to be the filter's."""

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
    """What each program reported, by its file name; and the host's tables before and after."""

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
def test_every_answer_is_in_order(observed: Observed, probe: Probe) -> None:
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
def test_the_attacks_leave_the_hosts_tables_as_they_were(observed: Observed) -> None:
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
    """The same attacks in a sandbox that is used again; the next run in it must be well."""
    program = probe_runner.program("other_process.py", *TARGETS[request.param])
    attack, after = run_in_turn(program, "report('well')")
    assert answer(after) == "well"
    assert after.container_id == attack.container_id
    return probe_runner.parse(attack)


@pytest.mark.parametrize("probe", [as_parameter(each) for each in OF_OTHER_PROCESSES])
def test_the_template_of_a_reused_sandbox_is_as_far_away_as_init(
    observed_in_reused_sandbox: Answers, probe: Probe
) -> None:
    check = probe_runner.judge(probe, observed_in_reused_sandbox)
    assert check.verdict is Verdict.HOLDS, check.got


def search(executor: BlockingCodeExecutor, **files: str) -> str:
    """The canaries that a search of all files finds, but for those of the distribution."""
    program = probe_runner.program("filesystem.py", "everywhere", *DISTRIBUTION)
    program["files"].update(files)
    told = answer(executor.execute(**program, timeout=120, cpu_quota=200_000))
    return str(told["canaries"])


@pytest.mark.catalogue("F10")
def test_no_file_at_all_has_a_secret_of_the_host_or_of_another_run() -> None:
    async def scenario() -> str:
        async with AuditExecutor() as executor:
            with planted() as canaries:
                hidden = {VARIABLE: canaries.neighbour}
                async with executor.held(env_vars=hidden, files={"secret": canaries.neighbour}):
                    with BlockingCodeExecutor(max_warm=0) as other:
                        return await asyncio.to_thread(search, other)

    assert asyncio.run(scenario()) == "none"


@pytest.mark.catalogue("F10")
def test_the_search_finds_a_secret_that_is_there(executor: BlockingCodeExecutor) -> None:
    secret = token()
    assert search(executor, **{"notes.txt": f"key={secret}"}) == secret
