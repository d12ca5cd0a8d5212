"""The audit as a whole: checks of the host, the engine, and sandboxes from outside and from inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from codeforge.audit import (
    container_checks,
    engine_checks,
    host_checks,
    isolation_checks,
    kernel_checks,
    probe_runner,
)
from codeforge.audit.attack_cases import FULL, QUICK, Case
from codeforge.audit.canaries import VARIABLE, Canaries, planted
from codeforge.audit.executor import BUBBLEWRAP, DOCKER, PODMAN, AuditExecutor, python_image_id, until
from codeforge.audit.model import Check, Rule, Verdict
from codeforge.audit.proc_facts import Facts, gather
from codeforge.engines import GVISOR, with_sentry
from codeforge.errors import HostFailure, PostureMismatch, ProtocolViolation, SandboxLost
from codeforge.model import LANGUAGES, PYTHON, Limits

PROGRAMS_AT_ONCE = 2
_SANDBOX = Rule(
    "outside.sandbox",
    "one starts, with the posture that was asked for",
    "NIST 800-190 4.4.3",
    fix="run codeforge doctor: it says what is missing",
)
_NOTHING_LEFT = Rule(
    "outside.nothing-left",
    f"no sandbox of the audit after {isolation_checks.GONE_WITHIN_S:g} s",
    "R19, X14",
)


async def audit(*, full: bool) -> AsyncIterator[Check]:
    """Yield every check as soon as it is answered. With ``full``, include the slow ones."""
    for check in host_checks.look():
        yield check
    executor = AuditExecutor()
    try:
        async with executor:
            with planted() as canaries:
                async for check in _engine_and_sandbox(executor, canaries, full=full):
                    yield check
        yield await _nothing_left(executor)
    except PostureMismatch as error:
        yield _SANDBOX.holds_if(False, str(error))
    except HostFailure as error:
        yield _SANDBOX.unknown(str(error))


async def _engine_and_sandbox(
    executor: AuditExecutor, canaries: Canaries, *, full: bool
) -> AsyncIterator[Check]:
    if executor.kind == BUBBLEWRAP:
        there, image_id = engine_checks.environments([row.name for row in LANGUAGES]), ""
        for check in (*engine_checks.look_at_bubblewrap(), *there.values()):
            yield check
        languages = [name for name, check in there.items() if check.verdict is Verdict.HOLDS]
    else:
        configs = await executor.image_configs()
        if executor.kind != PODMAN:
            for check in engine_checks.look(await executor.version(), await executor.socket_path()):
                yield check
        for check in engine_checks.images(configs, [row.name for row in LANGUAGES]):
            yield check
        languages, image_id = list(configs), python_image_id(configs)
    hidden = {VARIABLE: canaries.neighbour}
    async with executor.held(env_vars=hidden, files={"secret": canaries.neighbour}) as neighbour:
        async with executor.held() as subject:
            for check in look_at(subject, neighbour, image_id, executor.kind):
                yield check
        for check in probe_runner.not_sent(languages):
            yield check
        async for check in _probes(executor, probe_runner.payloads(languages)):
            yield check
        async for check in _cases(executor, QUICK):
            yield check
    if full:
        async for check in _full(executor):
            yield check
    yield isolation_checks.covert_channels()


def look_at(
    subject: dict[str, object], neighbour: dict[str, object] | None, image_id: str, engine: str = DOCKER
) -> list[Check]:
    """Check, from outside, a sandbox whose program waits.

    Args:
        subject: the engine's description of it.
        neighbour: the description of another one that runs at the same time.
        image_id: the id of the language's image; empty if there is none.
        engine: the engine's name.
    """
    peers = user_ids(neighbour, image_id) if neighbour else frozenset()
    facts = gather(subject, image_id, peers, engine=engine)
    limits = Limits().of_sandbox(PYTHON)
    if engine == GVISOR:
        limits = with_sentry(limits)
    # Podman describes containers in other terms than Docker, and bubblewrap does not describe them.
    described = container_checks.look(facts, PYTHON, limits) if engine in (DOCKER, GVISOR) else ()
    return [*described, *kernel_checks.look(facts, limits)]


def user_ids(sandbox: dict[str, object], image_id: str) -> frozenset[str]:
    """Return the user ids of a sandbox's processes."""
    facts: Facts = gather(sandbox, image_id, frozenset())
    asked = facts.inspect["Config"]["User"].partition(":")[0]
    threads = (thread for process in facts.processes for thread in process.threads)
    return frozenset({asked, *(thread["Uid"].split()[0] for thread in threads)})


async def _probes(executor: AuditExecutor, payloads: Iterable[str]) -> AsyncIterator[Check]:
    """Run the programs, a few at once, and judge what they report."""
    gate = asyncio.Semaphore(PROGRAMS_AT_ONCE)

    async def answer(payload: str) -> list[Check]:
        async with gate:
            return list(probe_runner.judge_all(payload, await probe_runner.observe(executor, payload)))

    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(answer(payload)) for payload in payloads]
        for task in asyncio.as_completed(answers):
            for check in await task:
                yield check


async def _cases(executor: AuditExecutor, cases: Iterable[Case]) -> AsyncIterator[Check]:
    for case in cases:
        yield await run_case(executor, case)


async def run_case(executor: AuditExecutor, case: Case) -> Check:
    """Run a hostile program and judge its result."""
    try:
        result = await executor.execute(
            **probe_runner.program(case.payload, *case.arguments),
            timeout=case.timeout_s,
            memory_limit=case.memory,
        )
    except (ProtocolViolation, SandboxLost) as error:  # other programs do not cause this
        return case.rule.holds_if(False, str(error))
    code = f"exit code {result.exit_code}" if result.signal is None else f"signal {result.signal}"
    got = f"{result.status.value}, {code}, {result.execution_time:.1f} s"
    return case.rule.holds_if(case.judge(result), f"{got} {result.stdout[:60]!r}")


async def _full(executor: AuditExecutor) -> AsyncIterator[Check]:
    heartbeat, digest = isolation_checks.Heartbeat(executor), await isolation_checks.image_digest(executor)
    async with heartbeat.beating():
        async for check in _cases(executor, FULL):
            yield check
    yield heartbeat.check()
    for isolation_check in isolation_checks.CHECKS:
        yield await isolation_check(executor)
    yield isolation_checks.image_unchanged(digest, await isolation_checks.image_digest(executor))


async def _nothing_left(closed: AuditExecutor) -> Check:
    async with AuditExecutor() as executor:

        async def nothing() -> bool:
            return not await executor.left_behind_by(closed)

        await until(nothing, isolation_checks.GONE_WITHIN_S)
        left = await executor.left_behind_by(closed)
    return _NOTHING_LEFT.holds_if(not left, ", ".join(left) or "none")


def expected_count(*, full: bool) -> int:
    """Return about how many checks there will be, for a progress bar."""
    return 162 + (len(FULL) + len(isolation_checks.CHECKS) + 2 if full else 0)
