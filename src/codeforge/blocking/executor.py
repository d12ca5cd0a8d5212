"""The blocking face: ``CodeExecutor`` for code that does not use asyncio.

One event loop in a background thread does all the work; each method waits there for its async twin.
Callbacks run in the caller's own thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from codeforge.engines import AUTO, ENGINE_VARIABLE
from codeforge.errors import ExecutorClosed, InvalidRequest
from codeforge.executor import DEFAULTS, CodeExecutor, ExecutorOptions, OnText
from codeforge.model import ExecutionRequest, ExecutionResult, Finished, SessionOptions
from codeforge.test_runs import RunnerOptions

if TYPE_CHECKING:
    from codeforge.blocking.session import BlockingSession
    from codeforge.progress import OnStep

T = TypeVar("T")

CANCEL_GRACE_S = 10.0
"""How long a call may take to come back once it is cancelled."""

CLOSE_GRACE_S = 5.0
"""How long calls in other threads may take to come back after ``close``."""


class _LoopThread:
    """An event loop in a daemon thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="codeforge", daemon=True)
        self._thread.start()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of ``work``; if the caller is interrupted (Ctrl-C), ``work`` is cancelled first."""
        ended = threading.Event()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            tasks.append(self.loop.create_task(work))
            tasks[0].add_done_callback(lambda _: ended.set())

        self.loop.call_soon_threadsafe(begin)
        try:
            ended.wait()
        except BaseException:
            self.loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            ended.wait(CANCEL_GRACE_S)
            raise
        try:
            return tasks[0].result()
        except asyncio.CancelledError:  # by close(), in another thread
            raise concurrent.futures.CancelledError from None

    def stop(self) -> None:
        """Let what still runs end, stop the loop and end the thread."""
        asyncio.run_coroutine_threadsafe(_finish_others(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class BlockingCodeExecutor:
    """Runs programs, each in a fresh sandbox. Safe to use from many threads at once.

    Use it as a context manager, or call ``close``; sandboxes end with the process in any case.
    Arguments and methods are those of ``CodeExecutor``, which explains them; these block.

    Example::

        with BlockingCodeExecutor() as executor:
            print(executor.execute("print('Hello!')").output)
    """

    def __init__(
        self,
        default_timeout: float = DEFAULTS.timeout_s,
        default_memory_limit: str | int = "512m",
        default_cpu_quota: int = DEFAULTS.cpu_quota_us,
        **options: Unpack[ExecutorOptions],
    ) -> None:
        self._executor = CodeExecutor(default_timeout, default_memory_limit, default_cpu_quota, **options)
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every run that still goes on, and disconnect. May be called again."""
        with self._lock:
            self._closed, thread, self._thread = True, self._thread, None
        if thread is not None:
            try:
                thread.wait_for(self._executor.close())
            finally:
                thread.stop()

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._closed:
                work.close()
                raise ExecutorClosed("the executor is closed")
            self._thread = self._thread or _LoopThread()
            thread = self._thread
        return thread.wait_for(work)

    def execute(
        self,
        code: str,
        language: str = "python",
        timeout: float | None = None,
        memory_limit: str | int | None = None,
        network_enabled: bool = False,
        env_vars: Mapping[str, str] | None = None,
        *,
        stdin: str | bytes | None = None,
        args: Sequence[str] = (),
        files: Mapping[str, str | bytes] | None = None,
        cpu_quota: int | None = None,
        type_check: bool = True,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
    ) -> ExecutionResult:
        """See ``CodeExecutor.execute``. The callbacks run in the calling thread."""
        request = ExecutionRequest(
            code=code,
            language=language,
            timeout=timeout,
            memory_limit=memory_limit,
            network_enabled=network_enabled,
            env_vars=env_vars,
            stdin=stdin,
            args=args,
            files=files,
            cpu_quota=cpu_quota,
            type_check=type_check,
        )
        if on_stdout is None and on_stderr is None:
            return self._wait_for(self._executor.run(request))
        return self._run_listening(request, {"stdout": on_stdout, "stderr": on_stderr})

    def _run_listening(
        self, request: ExecutionRequest, listeners: Mapping[str, OnText | None]
    ) -> ExecutionResult:
        events = self._executor.events(request)
        try:
            while True:
                event = self._wait_for(_next(events))
                if isinstance(event, Finished):
                    return event.result
                listener = listeners[event.stream]
                if listener is not None and event.text:
                    listener(event.text)
        finally:
            self._wait_for(_close(events))

    def execute_with_tests(
        self, code: str, test_code: str, language: str = "python", timeout: float | None = 60,
        *, module: str = "main", **options: Unpack[RunnerOptions],
    ) -> ExecutionResult:  # fmt: skip
        """See ``CodeExecutor.execute_with_tests``."""
        return self._wait_for(
            self._executor.execute_with_tests(code, test_code, language, timeout, module=module, **options)
        )

    def session(self, language: str = "python", **options: Unpack[SessionOptions]) -> BlockingSession:
        """See ``CodeExecutor.session``. Use it as ``with executor.session() as session``."""
        from codeforge.blocking.session import BlockingSession

        return BlockingSession(self._executor.session(language, **options), self._wait_for, self._iterate)

    def execute_many(
        self,
        requests: Iterable[ExecutionRequest | Mapping[str, Any]],
        *,
        concurrency: int | None = None,
        max_runs_per_sandbox: int = 1,
    ) -> Generator[ExecutionResult, None, None]:
        """See ``CodeExecutor.execute_many``."""
        return self._iterate(
            self._executor.execute_many(
                requests, concurrency=concurrency, max_runs_per_sandbox=max_runs_per_sandbox
            )
        )

    def as_finished(
        self,
        requests: Iterable[ExecutionRequest | Mapping[str, Any]],
        *,
        concurrency: int | None = None,
        max_runs_per_sandbox: int = 1,
    ) -> Generator[tuple[int, ExecutionResult], None, None]:
        """See ``CodeExecutor.as_finished``."""
        return self._iterate(
            self._executor.as_finished(
                requests, concurrency=concurrency, max_runs_per_sandbox=max_runs_per_sandbox
            )
        )

    def _iterate(self, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        try:
            while (item := self._wait_for(_next_or_none(items))) is not None:
                yield item
        finally:
            self._wait_for(_close(items))

    def warm(
        self,
        languages: Iterable[str] | None = None,
        *,
        count: int = 2,
        timeout: float = 60.0,
        sessions: bool = False,
    ) -> None:
        """See ``CodeExecutor.warm``."""
        self._wait_for(self._executor.warm(languages, count=count, timeout=timeout, sessions=sessions))

    def pull_images(
        self, languages: Iterable[str] | None = None, *, on_step: OnStep | None = None
    ) -> dict[str, bool]:
        """See ``CodeExecutor.pull_images``."""
        return self._wait_for(self._executor.pull_images(languages, on_step=on_step))

    def get_available_languages(self) -> list[str]:
        """See ``CodeExecutor.get_available_languages``."""
        return self._executor.get_available_languages()

    def is_docker_available(self) -> bool:
        """Whether an engine answers."""
        return self._wait_for(self._executor.is_docker_available())

    def get_stats(self) -> dict[str, Any]:
        """See ``CodeExecutor.get_stats``."""
        return self._executor.get_stats()


class DockerCodeExecutor(BlockingCodeExecutor):
    """The same on Docker, or on Podman where that is asked for; on nothing else.

    Example::

        with DockerCodeExecutor() as executor:
            print(executor.execute("print('Hello from Docker!')").output)

    Raises:
        InvalidRequest: another engine was asked for, here or in CODEFORGE_ENGINE.
    """

    def __init__(
        self,
        default_timeout: float = DEFAULTS.timeout_s,
        default_memory_limit: str | int = "512m",
        default_cpu_quota: int = DEFAULTS.cpu_quota_us,
        **options: Unpack[ExecutorOptions],
    ) -> None:
        engine = options.get("engine") or os.environ.get(ENGINE_VARIABLE) or "docker"
        if engine == "bubblewrap":
            raise InvalidRequest("DockerCodeExecutor is for docker and podman; use BlockingCodeExecutor")
        options["engine"] = "docker" if engine == AUTO else engine
        super().__init__(default_timeout, default_memory_limit, default_cpu_quota, **options)


async def _finish_others() -> None:
    """Give every other task of this loop, ended by ``close`` already, the time to tell its caller."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, hanging = await asyncio.wait(others, timeout=CLOSE_GRACE_S)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def _next(events: AsyncIterator[T]) -> T:
    return await anext(events)


async def _next_or_none(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()
