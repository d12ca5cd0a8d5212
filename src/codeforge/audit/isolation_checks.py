"""Isolation checks: what only several runs together show, such as leftovers and shared budgets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

from codeforge.audit.attack_cases import facts
from codeforge.audit.executor import AuditExecutor, silent_stdin, until
from codeforge.audit.model import Check, Rule, Severity
from codeforge.audit.probe_runner import program
from codeforge.model import ExecutionResult, Output, Status

MANY = 12
LONGEST_SILENCE_S = 5.0
"""How long a run that prints every 50 ms may be silent on a busy machine."""
GONE_WITHIN_S = 10.0
DIGEST_CHARS = 64

_LEFTOVERS = Rule("inside.leftovers", "nothing of an earlier run", "F11, R23")
_BUDGET = Rule("inside.user-budget", "one run takes its user's; another has its own", "R27")
_RANDOM = Rule("inside.randomness", "no two runs have the same", "X15")
_LEASES = Rule("inside.leases", "each sandbox has one run", "X13, F11")
_CANCEL = Rule("inside.cancel", f"its sandbox is gone within {GONE_WITHIN_S:g} s", "X14")
_SILENCE = Rule(
    "inside.neighbour", f"never silent for {LONGEST_SILENCE_S:g} s", "R01, R16; NIST 800-190 4.4.3"
)
_IMAGE = Rule("inside.image-unchanged", "a fresh sandbox sees the same files after the attacks", "P25")
_COVERT_CHANNELS = Rule(
    "inside.covert-channels",
    "not promised on a shared kernel",
    "F12",
    Severity.INFO,
    "run the engine in a virtual machine where runs must not signal each other",
)


async def run(executor: AuditExecutor, payload: str, *arguments: str) -> ExecutionResult:
    """Run one of the audit's programs with these arguments."""
    return await executor.execute(**program(payload, *arguments), timeout=30)


async def leftovers(executor: AuditExecutor) -> Check:
    """One run leaves marks wherever it can, and another looks for them."""
    mark = f"mark-{secrets.token_hex(8)}"
    left = await run(executor, "leftovers.py", "leave", mark)
    if left.status is not Status.OK:
        return _LEFTOVERS.unknown(left.error or "the first run could not leave any")
    looked = await run(executor, "leftovers.py", "find", mark)
    found = json.loads(looked.stdout)["found"] if looked.status is Status.OK else None
    if found is None:
        return _LEFTOVERS.unknown(looked.error or "the second run could not look")
    return _LEFTOVERS.holds_if(not found, ", ".join(found) or "nothing")


async def user_budget(executor: AuditExecutor) -> Check:
    """One run takes everything that the kernel counts by user. Another beside it must get as much."""
    taker = executor.stream(**program("resources.py", "take_user_budget"), stdin=silent_stdin(), timeout=60)
    text = ""
    async with contextlib.aclosing(taker) as events:
        async for event in events:
            if isinstance(event, Output):
                text += event.text
                if "\n" in text:
                    break
        second = dict(facts(await run(executor, "resources.py", "take_user_budget")))
    try:
        first = dict(json.loads(text))
    except ValueError:
        return _BUDGET.unknown("the first run did not report what it took")
    users = {first.pop("uid", None), second.pop("uid", None)}
    got = f"{second.get('instances')} inotify instances, {second.get('all_pages')} pages in pipes"
    return _BUDGET.holds_if(len(users) == 2 and first == second, got)


async def randomness(executor: AuditExecutor) -> Check:
    """Two runs at the same time draw the first value of each source of randomness."""
    results = await asyncio.gather(*(run(executor, "endings.py", "randomness") for _ in range(2)))
    try:
        first, second = (json.loads(result.stdout) for result in results)
    except ValueError:
        return _RANDOM.unknown("a run did not report what it drew")
    same = sum(one == other for one, other in zip(first, second, strict=True))
    return _RANDOM.holds_if(same == 0, f"{same} of {len(first)} sources gave the same")


async def leases(executor: AuditExecutor) -> Check:
    """Many runs at the same time each get their own sandbox."""
    results = await asyncio.gather(*(executor.execute("print(1)") for _ in range(MANY)))
    names = {result.container_id for result in results}
    return _LEASES.holds_if(len(names) == MANY, f"{len(names)} sandboxes for {MANY} runs")


async def cancel(executor: AuditExecutor) -> Check:
    """A caller is cancelled during its run."""
    before = await executor.sandboxes()
    running = asyncio.ensure_future(run(executor, "endings.py", "ignore_signals"))

    async def has_come() -> bool:
        return bool(await executor.sandboxes() - before)

    async def is_gone() -> bool:
        return not await has_come()

    came = await until(has_come, GONE_WITHIN_S)
    running.cancel()
    await asyncio.wait({running})
    started = time.monotonic()
    if not came:
        return _CANCEL.unknown("the run did not start in time to be cancelled")
    return _CANCEL.holds_if(await until(is_gone, GONE_WITHIN_S), f"{time.monotonic() - started:.1f} s")


async def image_digest(executor: AuditExecutor) -> str:
    """Return a hash of the image's files, as a fresh sandbox sees them."""
    return (await run(executor, "endings.py", "hash_image")).stdout.strip()


def image_unchanged(before: str, after: str) -> Check:
    """Check that the attacks did not change the image: runs share its layers and the page cache."""
    if len(before) != DIGEST_CHARS or len(after) != DIGEST_CHARS:
        return _IMAGE.unknown("a run could not hash the files")
    return _IMAGE.holds_if(before == after, f"{before[:12]} before, {after[:12]} after")


IsolationCheck: TypeAlias = Callable[[AuditExecutor], Coroutine[Any, Any, Check]]
CHECKS: tuple[IsolationCheck, ...] = (leftovers, user_budget, randomness, leases, cancel)


def covert_channels() -> Check:
    """Return a check that is always NOT-AVAILABLE. Without it, silence could be read as a promise."""
    return _COVERT_CHANNELS.not_available(
        "the kernel's locks and caches are shared; nothing here closes them"
    )


class Heartbeat:
    """A run that prints all the time while others run. It records its longest silence."""

    def __init__(self, executor: AuditExecutor) -> None:
        self._executor = executor
        self._longest_s = 0.0
        self._beats = 0

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Run it during the block."""
        task = asyncio.ensure_future(self._listen())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _listen(self) -> None:
        last: float | None = None
        beats = self._executor.stream(**program("resources.py", "heartbeat"), timeout=600)
        async with contextlib.aclosing(beats) as events:
            async for _ in events:
                now = time.monotonic()
                self._longest_s = max(self._longest_s, now - (last or now))
                last, self._beats = now, self._beats + 1

    def check(self) -> Check:
        """Check that it was never silent for long."""
        if not self._beats:
            return _SILENCE.unknown("it gave no sign of life")
        return _SILENCE.holds_if(self._longest_s < LONGEST_SILENCE_S, f"at most {self._longest_s:.2f} s")
