"""The self-test: launches weakened sandboxes, and reports whether the checks that must fail there do."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from codeforge.audit import probe_runner
from codeforge.audit.canaries import planted
from codeforge.audit.executor import AuditExecutor, Weaken, python_image_id
from codeforge.audit.model import Check, Verdict
from codeforge.audit.mutations import WITHOUT_INIT, Mutation
from codeforge.audit.probes import PROBES
from codeforge.audit.run import look_at
from codeforge.errors import HostFailure, PostureMismatch
from codeforge.model import PYTHON, Limits
from codeforge.policy import USER_IDS

POSTURE = "posture check"
LAUNCH = "launch refused"
NO_INIT = "no init of ours, new privileges allowed"
WAIT_S = 60.0

# Process 1 as in most images: dumpable, with the run's user id and without a filter.
_ORDINARY_PROCESS_1 = """
import json, os, pathlib, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
for name, text in json.loads(sys.stdin.readline()).items():
    path = pathlib.Path("/code", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
done = subprocess.run([sys.executable, "/code/main.py"], capture_output=True, text=True, timeout=50)
print(done.stdout or done.stderr, flush=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the audit made of one weakened sandbox.

    Attributes:
        name: the mutation's name.
        caught_by: the checks that failed, as they must.
        missed: the checks that must fail and did not, with their answers.
        blind: the checks that are not available on this machine or to this user.
    """

    name: str
    caught_by: tuple[str, ...]
    missed: tuple[str, ...]
    blind: tuple[str, ...] = ()

    @property
    def caught(self) -> bool:
        """Whether at least one check failed, and every check that must fail did."""
        return bool(self.caught_by) and not self.missed


async def self_test(mutations: Iterable[Mutation]) -> AsyncGenerator[Outcome, None]:
    """Try each mutation, one after another, and finally a sandbox without our init."""
    async with AuditExecutor() as unharmed:
        socket = await unharmed.socket_path() or "/var/run/docker.sock"
        image_id = python_image_id(await unharmed.image_configs())
    with planted() as canaries:
        places = {"{folder}": str(canaries.folder), "{socket}": socket}
        for mutation in mutations:
            yield await try_mutation(mutation, image_id, places)
    yield await without_init()


async def try_mutation(mutation: Mutation, image_id: str, places: Mapping[str, str]) -> Outcome:
    """Launch the weakened sandbox with the posture check, then without it, and see what catches it."""
    caught: list[str] = []
    missed: list[str] = []

    def weaken(spec: dict[str, Any]) -> None:
        mutation.weaken(spec)
        binds = spec["HostConfig"].get("Binds")
        for mark, path in places.items() if binds else ():
            spec["HostConfig"]["Binds"] = [bind.replace(mark, path) for bind in spec["HostConfig"]["Binds"]]

    if mutation.posture:
        refusal = await _refusal(weaken)
        (caught if refusal is None else missed).append(f"{POSTURE}{f': {refusal}' if refusal else ''}")
    if not mutation.runs:
        return Outcome(name=mutation.name, caught_by=tuple(caught), missed=tuple(missed))
    try:
        checks = await _checks(weaken, mutation.caught_by, image_id)
    except HostFailure as error:
        checks = {}
        missed.append(f"{LAUNCH}: {error}")
    blind: list[str] = []
    for name in mutation.caught_by:
        check = checks.get(name)
        if check is None:
            missed.append(f"{name}: was not checked")
        elif check.verdict is Verdict.FAILS:
            caught.append(name)
        elif check.verdict is Verdict.NOT_AVAILABLE:
            blind.append(name)
        else:
            missed.append(f"{name}: {check.verdict.value} {check.got}")
    return Outcome(name=mutation.name, caught_by=tuple(caught), missed=tuple(missed), blind=tuple(blind))


async def _refusal(weaken: Weaken) -> str | None:
    """Return ``None`` if the posture check refused the sandbox, as it must; else what happened."""
    async with AuditExecutor(_fresh(weaken)) as executor:
        try:
            result = await executor.execute("print(1)")
        except PostureMismatch:
            return None
        except HostFailure as error:
            return str(error)
    return f"the program ran: {result.status.value}"


async def _checks(weaken: Weaken, wanted: Iterable[str], image_id: str) -> dict[str, Check]:
    """Return the audit's checks of a weakened sandbox, by id. The posture check is off."""
    payloads = {probe.payload for probe in PROBES if probe.rule.id in set(wanted)}
    async with AuditExecutor(_fresh(weaken), unchecked=True) as executor:
        async with executor.held() as neighbour, executor.held() as subject:
            checks = look_at(subject, neighbour, image_id)
        for payload in payloads:
            checks += probe_runner.judge_all(payload, await probe_runner.observe(executor, payload))
    return {check.id: check for check in checks}


def _fresh(weaken: Weaken) -> Weaken:
    """Return ``weaken`` with a copy of the settings, so that sandboxes do not share a mutation's lists."""

    def weaken_copy(spec: dict[str, Any]) -> None:
        weaken(spec)
        spec["HostConfig"] = copy.deepcopy(spec["HostConfig"])

    return weaken_copy


async def without_init() -> Outcome:
    """Run the programs in sandboxes whose process 1 is not init, which the posture check would refuse."""
    checks: dict[str, Check] = {}
    for payload in {probe.payload for probe in PROBES if probe.rule.id in WITHOUT_INIT}:
        try:
            observed = await _observe_without_init(payload)
        except (HostFailure, TimeoutError) as error:
            observed = str(error)
        checks |= {check.id: check for check in probe_runner.judge_all(payload, observed)}
    failed = tuple(name for name in WITHOUT_INIT if checks[name].verdict is Verdict.FAILS)
    others = (checks[name] for name in WITHOUT_INIT if name not in failed)
    missed = tuple(f"{check.id}: {check.verdict.value} {check.got}" for check in others)
    return Outcome(name=NO_INIT, caught_by=failed, missed=missed)


async def _observe_without_init(payload: str) -> Mapping[str, str] | str:
    files = {"main.py": probe_runner.source(payload), **probe_runner.files_beside(payload)}
    async with AuditExecutor() as executor, asyncio.timeout(WAIT_S):
        spec = executor.docker.spec(PYTHON, Limits().of_sandbox(PYTHON), uid=USER_IDS[0])
        spec["Entrypoint"] = ["python", "-c", _ORDINARY_PROCESS_1]
        spec["HostConfig"]["SecurityOpt"] = []
        channel = await executor.launch(spec)
        try:
            await channel.write(json.dumps(files).encode() + b"\n")
            text = b""
            with contextlib.suppress(HostFailure):
                while data := await channel.read():
                    text += data
        finally:
            await channel.destroy()
    printed = text.decode(errors="replace")
    return probe_runner.parse_text(printed) or f"{PurePosixPath(payload).name} printed {printed[-300:]!r}"
