"""A neighbour that shows how others fare beside an attack, and what an attack may leave of itself."""

from __future__ import annotations

import asyncio
import itertools
import re
import textwrap
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from codeforge import BlockingCodeExecutor, ExecutionRequest, ExecutionResult, Status
from codeforge.sandboxes.run import KILL_GRACE_S
from contract.support import eventually
from observer import OBSERVER, groups_of

BEAT_S = 0.05
MAX_GAP_S = 2.0
"""A machine of two cores that is busy with other things keeps this; one that an attack holds up does not."""

END_GRACE_S = KILL_GRACE_S + 1.0
"""From the deadline to the end, though init, with no memory and no CPU left for it, may not report one."""

GONE_WITHIN_S = 10.0

LOST_BYTES = 1 << 30
"""Of the machine's memory: less than what the attacks of one file take together, more than what others do."""

LONGEST_S = 1000.0

# It wakes up by itself, so a gap is time in which it, init, the engine or this process was held up.
_PROGRAM = f"""
import select, sys
while not select.select([sys.stdin], [], [], {BEAT_S})[0]:
    print("beat", flush=True)
"""


class Heartbeat:
    """A run in a sandbox of its own that prints all the time, until it is told to stop."""

    def __init__(self, executor: BlockingCodeExecutor) -> None:
        self._executor = executor
        self._beats: list[float] = []
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[ExecutionResult] | None = None

    def __enter__(self) -> Self:
        request = ExecutionRequest(code=_PROGRAM, timeout=LONGEST_S, stdin=until(self._stop))
        self._running = self._thread.submit(self._executor._run, request, self._beat, None)
        assert eventually(lambda: bool(self._beats), 60), "it never began"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        assert self._running is not None
        ended = self._running.result(60)
        self._thread.shutdown()
        assert (ended.status, ended.stderr, ended.truncated) == (Status.OK, "", False)

    def _beat(self, text: str) -> None:
        self._beats.append(time.monotonic())

    def longest_gap_s(self, since_s: float) -> float:
        """The longest silence between then and now."""
        heard = [since_s, *(beat for beat in list(self._beats) if beat > since_s), time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(heard))


async def until(stop: threading.Event) -> AsyncIterator[bytes]:
    """A stdin that says nothing, and ends when told to."""
    await asyncio.to_thread(stop.wait)
    yield b""


class Arena:
    """Runs attacks beside one heartbeat, and holds each of them to what every attack must keep to."""

    def __init__(self, executor: BlockingCodeExecutor) -> None:
        self.executor = executor
        self._heartbeat = Heartbeat(executor)

    def __enter__(self) -> Self:
        self._available = available_bytes()
        self._heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._heartbeat.__exit__(kind, error, trace)
        assert eventually(lambda: available_bytes() > self._available - LOST_BYTES, GONE_WITHIN_S)

    def attack(
        self,
        code: str,
        language: str = "python",
        *,
        timeout: float = 3.0,
        memory: str = "64m",
        stdin: bytes | AsyncIterable[bytes] | None = None,
        **options: Any,
    ) -> ExecutionResult:
        """Run it; the result, if it ended in time, its neighbour did well and nothing of it is left."""
        since = time.monotonic()
        request = ExecutionRequest(
            code=textwrap.dedent(code),
            language=language,
            timeout=timeout,
            memory_limit=memory,
            stdin=stdin,
            **options,
        )
        (result,) = self.executor.execute_many([request])
        assert result.execution_time < timeout + END_GRACE_S, result
        assert self._heartbeat.longest_gap_s(since) < MAX_GAP_S, "its neighbour was held up"
        assert eventually(lambda: not left_of(result.container_id), GONE_WITHIN_S), left_of(
            result.container_id
        )
        return result


def available_bytes() -> int:
    """What the machine could give to somebody now."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found[1]) * 1024


def left_of(container_id: str) -> list[str]:
    """What is still there of a sandbox: its container, its control groups (and so its processes)."""
    listed = [container_id] if container_id in OBSERVER.all() else []
    return listed + groups_of(container_id)
