"""The executor for code that does not use asyncio: a thin layer over ``CodeExecutor``.

One event loop in a background thread does all the work; each method waits there for its asynchronous
counterpart. Callbacks run in the caller's thread.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from codeforge.blocking.loop_thread import LoopThread
from codeforge.engines import AUTO, ENGINE_VARIABLE
from codeforge.errors import InvalidRequest
from codeforge.executor import CodeExecutor
from codeforge.executor_options import DEFAULTS, AnyRequest, ExecutorOptions
from codeforge.model import (
    IDLE_TIMEOUT_S,
    ExecuteOptions,
    ExecutionRequest,
    ExecutionResult,
    OnText,
    RunnerOptions,
    SessionOptions,
    call_listener,
    check_options,
    wait_for_result,
)

if TYPE_CHECKING:
    from codeforge.blocking.session import BlockingSession
    from codeforge.progress import OnStep


class BlockingCodeExecutor:
    """Runs programs, each in a fresh sandbox. Safe to use from many threads at once.

    Use it as a context manager, or call ``close``; sandboxes end with the process in any case. Its arguments
    and methods are those of ``CodeExecutor``, but the methods block.

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
        self._loop = LoopThread()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """See ``CodeExecutor.close``."""
        self._loop.close(self._executor.close())

    def execute(
        self,
        code: str,
        language: str = "python",
        timeout: float | None = None,
        memory_limit: str | int | None = None,
        network_enabled: bool = False,
        env_vars: Mapping[str, str] | None = None,
        *,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        **options: Unpack[ExecuteOptions],
    ) -> ExecutionResult:
        """See ``CodeExecutor.execute``. The callbacks run in the calling thread."""
        check_options("execute", options, ExecuteOptions.__optional_keys__)
        request = ExecutionRequest(
            code, language, timeout, memory_limit, network_enabled, env_vars, **options
        )
        return self._run(request, on_stdout, on_stderr)

    def _run(
        self, request: ExecutionRequest, on_stdout: OnText | None, on_stderr: OnText | None
    ) -> ExecutionResult:
        if on_stdout is None and on_stderr is None:
            return self._loop.wait_for(self._executor.run(request))
        events = self._loop.iterate(self._executor.events(request))
        return wait_for_result(events, lambda event: call_listener(event, on_stdout, on_stderr))

    def execute_with_tests(
        self,
        code: str,
        test_code: str,
        language: str = "python",
        timeout: float | None = 60,
        *,
        module: str = "main",
        **options: Unpack[RunnerOptions],
    ) -> ExecutionResult:
        """See ``CodeExecutor.execute_with_tests``."""
        return self._loop.wait_for(
            self._executor.execute_with_tests(code, test_code, language, timeout, module=module, **options)
        )

    def session(
        self,
        language: str = "python",
        *,
        idle_timeout: float | None = IDLE_TIMEOUT_S,
        **options: Unpack[SessionOptions],
    ) -> BlockingSession:
        """See ``CodeExecutor.session``. Use it as ``with executor.session() as session``."""
        from codeforge.blocking.session import BlockingSession

        session = self._executor.session(language, idle_timeout=idle_timeout, **options)
        return BlockingSession(session, self._loop)

    def execute_many(
        self, requests: Iterable[AnyRequest], *, concurrency: int | None = None, max_runs_per_sandbox: int = 1
    ) -> Generator[ExecutionResult, None, None]:
        """See ``CodeExecutor.execute_many``."""
        return self._loop.iterate(
            self._executor.execute_many(
                requests, concurrency=concurrency, max_runs_per_sandbox=max_runs_per_sandbox
            )
        )

    def as_finished(
        self, requests: Iterable[AnyRequest], *, concurrency: int | None = None, max_runs_per_sandbox: int = 1
    ) -> Generator[tuple[int, ExecutionResult], None, None]:
        """See ``CodeExecutor.as_finished``."""
        return self._loop.iterate(
            self._executor.as_finished(
                requests, concurrency=concurrency, max_runs_per_sandbox=max_runs_per_sandbox
            )
        )

    def warm(
        self,
        languages: Iterable[str] | None = None,
        *,
        count: int = 2,
        timeout: float = 60.0,
        sessions: bool = False,
    ) -> None:
        """See ``CodeExecutor.warm``."""
        self._loop.wait_for(self._executor.warm(languages, count=count, timeout=timeout, sessions=sessions))

    def pull_images(
        self, languages: Iterable[str] | None = None, *, on_step: OnStep | None = None
    ) -> dict[str, bool]:
        """See ``CodeExecutor.pull_images``."""
        return self._loop.wait_for(self._executor.pull_images(languages, on_step=on_step))

    def get_available_languages(self) -> list[str]:
        """See ``CodeExecutor.get_available_languages``."""
        return self._executor.get_available_languages()

    def is_docker_available(self) -> bool:
        """See ``CodeExecutor.is_docker_available``."""
        return self._loop.wait_for(self._executor.is_docker_available())

    def get_stats(self) -> dict[str, Any]:
        """See ``CodeExecutor.get_stats``."""
        return self._executor.get_stats()


class DockerCodeExecutor(BlockingCodeExecutor):
    """A ``BlockingCodeExecutor`` on Docker, or on Podman if ``engine`` or CODEFORGE_ENGINE says so.

    Example::

        with DockerCodeExecutor() as executor:
            print(executor.execute("print('Hello from Docker!')").output)

    Raises:
        InvalidRequest: ``engine`` or CODEFORGE_ENGINE is bubblewrap.
    """

    def __init__(
        self,
        default_timeout: float = DEFAULTS.timeout_s,
        default_memory_limit: str | int = "512m",
        default_cpu_quota: int = DEFAULTS.cpu_quota_us,
        **options: Unpack[ExecutorOptions],
    ) -> None:
        engine = options.get("engine") or os.environ.get(ENGINE_VARIABLE) or "docker"
        if "bubblewrap" in (engine, getattr(engine, "name", None)):
            raise InvalidRequest("DockerCodeExecutor is for docker and podman; use BlockingCodeExecutor")
        options["engine"] = "docker" if engine == AUTO else engine
        super().__init__(default_timeout, default_memory_limit, default_cpu_quota, **options)
