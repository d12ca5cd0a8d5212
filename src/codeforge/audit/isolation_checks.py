"""What needs more than one run to be seen: leftovers, shared budgets, two leases of one sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

from codeforge.audit.attack_cases import said
from codeforge.audit.executor import AuditExecutor, until
from codeforge.audit.model import Check, Rule, Severity
from codeforge.audit.probe_runner import beside, source
from codeforge.model import ExecutionResult, Output

MANY = 12
SILENCE_S = 5.0
"""What a neighbour's sign of life may be late, on a machine that is busy; it is sent every 50 ms."""
GONE_S = 10.0
LEAST_PIPE_BYTES = 65536
DIGEST_CHARS = 64

_LEFTOVERS = Rule("inside.leftovers", "nothing of an earlier run", "F11, R23")
_BUDGET = Rule("inside.user-budget", "one run takes its user's; another has its own", "R27")
_RANDOM = Rule("inside.randomness", "no two runs have the same", "X15")
_LEASES = Rule("inside.leases", "each sandbox has one run", "X13, F11")
_CANCEL = Rule("inside.cancel", f"its sandbox is gone within {GONE_S:g} s", "X14")
_SILENCE = Rule("inside.neighbour", f"never silent for {SILENCE_S:g} s", "R01, R16; NIST 800-190 4.4.3")
_IMAGE = Rule("inside.image-unchanged", "a fresh sandbox sees the same files after the attacks", "P25")
_LOCKS = Rule(
    "inside.covert-channels", "not promised on a shared kernel", "F12", Severity.INFO,
    "run the engine in a virtual machine where runs must not signal each other",
)  # fmt: skip


async def run(executor: AuditExecutor, what: str, *more: str, payload: str = "endings.py") -> ExecutionResult:
    """One of the programs with more than one face."""
    return await executor.execute(source(payload), args=(what, *more), files=beside(payload), timeout=30)


async def leftovers(executor: AuditExecutor) -> Check:
    """A run that leaves marks, and one that looks for them."""
    mark = f"mark-{secrets.token_hex(8)}"
    left = await run(executor, "leave_marks", mark)
    if left.stdout != "marked\n":
        return _LEFTOVERS.unknown(left.error or "the first run could not leave any")
    found = (await run(executor, "find_marks", mark)).stdout.strip()
    return _LEFTOVERS.holds_if(found == "nothing", found)


async def user_budget(executor: AuditExecutor) -> Check:
    """One run takes what the kernel counts by user, another one wants some."""
    taker = executor.stream(
        source("resources.py"),
        args=("take_user_budget",),
        files=beside("resources.py"),
        stdin=_nothing(),
        timeout=60,
    )
    async with contextlib.aclosing(taker) as events:
        async for event in events:
            if isinstance(event, Output):
                break
        found = dict(said(await run(executor, "use_user_budget", payload="resources.py")))
    pipe = found.get("pipe", "0")
    holds = found.get("inotify") == "allowed" and int(pipe) >= LEAST_PIPE_BYTES
    return _BUDGET.holds_if(holds, f"inotify {found.get('inotify')}, pipes of {pipe} bytes")


async def randomness(executor: AuditExecutor) -> Check:
    """Two runs at once, and what their sources give first."""
    results = await asyncio.gather(*(run(executor, "randomness") for _ in range(2)))
    words = [word for result in results for word in result.stdout.split()]
    return _RANDOM.holds_if(len(words) == len(set(words)) == 6, f"{len(set(words))} of {len(words)} differ")


async def leases(executor: AuditExecutor) -> Check:
    """Many runs at once."""
    results = await asyncio.gather(*(executor.execute("print(1)") for _ in range(MANY)))
    names = {result.container_id for result in results}
    return _LEASES.holds_if(len(names) == MANY, f"{len(names)} sandboxes for {MANY} runs")


async def cancel(executor: AuditExecutor) -> Check:
    """A caller who goes away."""
    before = await executor.sandboxes()
    running = asyncio.ensure_future(run(executor, "ignore_signals"))

    async def there() -> bool:
        return bool(await executor.sandboxes() - before)

    async def gone() -> bool:
        return not await there()

    came = await until(there, GONE_S)
    running.cancel()
    await asyncio.wait({running})
    started = time.monotonic()
    if not came:
        return _CANCEL.unknown("the run was not there in time to be cancelled")
    return _CANCEL.holds_if(await until(gone, GONE_S), f"{time.monotonic() - started:.1f} s")


async def image_digest(executor: AuditExecutor) -> str:
    """Of the files of the image, as a fresh sandbox sees them."""
    return (await run(executor, "hash_image")).stdout.strip()


def image_unchanged(before: str, after: str) -> Check:
    """Whether all the attacks in between have left it as it was: page cache and layers are shared."""
    if len(before) != DIGEST_CHARS or len(after) != DIGEST_CHARS:
        return _IMAGE.unknown("it could not be told")
    return _IMAGE.holds_if(before == after, f"{before[:12]} before, {after[:12]} after")


PairCheck: TypeAlias = Callable[[AuditExecutor], Coroutine[Any, Any, Check]]
PAIRS: tuple[PairCheck, ...] = (leftovers, user_budget, randomness, leases, cancel)


async def covert_channels(executor: AuditExecutor) -> Check:
    """Said, so that nobody takes silence for a promise."""
    return _LOCKS.not_available("the kernel's locks and caches are shared; nothing here closes them")


class Heartbeat:
    """A run that gives signs of life beside others; knows its longest silence."""

    def __init__(self, executor: AuditExecutor) -> None:
        self._executor = executor
        self._longest_s = 0.0
        self._beats = 0

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Let it run."""
        task = asyncio.ensure_future(self._listen())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _listen(self) -> None:
        last: float | None = None
        beats = self._executor.stream(
            source("resources.py"), args=("heartbeat",), files=beside("resources.py"), timeout=600
        )
        async with contextlib.aclosing(beats) as events:
            async for _ in events:
                now = time.monotonic()
                self._longest_s = max(self._longest_s, now - (last or now))
                last, self._beats = now, self._beats + 1

    def check(self) -> Check:
        """Whether it was let live."""
        if not self._beats:
            return _SILENCE.unknown("it did not come to life")
        return _SILENCE.holds_if(self._longest_s < SILENCE_S, f"at most {self._longest_s:.2f} s")


async def _nothing() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""
