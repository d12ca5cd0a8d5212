"""A neighbour that shows whether an attack disturbs other runs, and what an attack leaves behind."""

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
"""A busy machine with two cores stays below this; one that an attack holds up does not."""

END_GRACE_S = KILL_GRACE_S + 1.0
"""From the deadline to the end, even if init has no memory and no CPU left to report it."""

GONE_WITHIN_S = 10.0

LOST_BYTES = 1 << 30
"""Memory that may be missing afterwards: less than one file's attacks take, more than other programs do."""

LONGEST_S = 1000.0

# It wakes up by itself, so a gap means that it, init, the engine or this process was held up.
_PROGRAM = f"""
import select, sys
while not select.select([sys.stdin], [], [], {BEAT_S})[0]:
    print("beat", flush=True)
"""


class Heartbeat:
    """A run in a sandbox of its own that prints all the time until it is stopped."""

    def __init__(self, executor: BlockingCodeExecutor) -> None:
        self._executor = executor
        self._beats: list[float] = []
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[ExecutionResult] | None = None

    def __enter__(self) -> Self:
        request = ExecutionRequest(code=_PROGRAM, timeout=LONGEST_S, stdin=until(self._stop))
        self._running = self._thread.submit(self._executor._run, request, self._beat, None)
        assert eventually(lambda: bool(self._beats), 60), "the heartbeat did not start"
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
    """A stdin without data that ends when the event is set."""
    await asyncio.to_thread(stop.wait)
    yield b""


class Arena:
    """Runs attacks while a heartbeat runs, and checks what must be true of every attack."""

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
        """Run the attack and return its result.

        Checks that it ended in time, did not hold up its neighbour, and left nothing behind.
        """
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
    """The memory that the machine could give to a program now."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found[1]) * 1024


def left_of(container_id: str) -> list[str]:
    """What remains of a sandbox: its container, and its control groups, which its processes would keep."""
    listed = [container_id] if container_id in OBSERVER.all() else []
    return listed + groups_of(container_id)
