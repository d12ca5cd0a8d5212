"""The executor takes requests and returns results. ``CodeExecutor._perform`` performs one run."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from codeforge import test_runs
from codeforge.engines import Engine, EngineInfo, OnChoice, Provisions, engine_for
from codeforge.errors import EngineUnavailable, ExecutorClosed, InvalidRequest, SandboxLost
from codeforge.executor_options import DEFAULTS, AnyRequest, machine_memory
from codeforge.fan_out import fan_out
from codeforge.model import (
    IDLE_TIMEOUT_S,
    LANGUAGES,
    MAX_MEMORY_BYTES,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
    Event,
    ExecuteOptions,
    ExecutionRequest,
    ExecutionResult,
    Finished,
    Language,
    LanguageTable,
    Limits,
    OnText,
    OutputDecoder,
    RequestOptions,
    Run,
    RunnerOptions,
    RunStats,
    SessionOptions,
    as_request,
    call_listener,
    check_options,
    parse_memory,
    parse_size,
    require_int,
    require_number,
    resolve,
    resolve_session,
    result_of,
)
from codeforge.sandboxes import (
    MAX_SANDBOXES,
    MAX_WAITING,
    MAX_WARM,
    WARM_MEMORY_BYTES,
    Pool,
    SandboxKind,
    named_steps,
)

if TYPE_CHECKING:
    from codeforge.images import ImageStore
    from codeforge.progress import OnStep
    from codeforge.sessions import Session, SessionRegistry


class CodeExecutor:
    """Runs programs, each in a fresh sandbox. ``BlockingCodeExecutor`` is the same without asyncio.

    Use it as ``async with CodeExecutor() as executor``. Nothing is started before the first run. An instance
    belongs to the event loop that first uses it.

    Args:
        default_timeout: seconds, for requests without a timeout.
        default_memory_limit: in Docker's notation or in bytes.
        default_cpu_quota: microseconds of CPU in each 100 ms; 50000 is half a core.

    ``ExecutorOptions`` explains the keyword arguments.

    Raises:
        InvalidRequest: an argument is not valid.

    Attributes:
        languages: the languages that it runs.
        owner: the label of its sandboxes.
    """

    def __init__(
        self,
        default_timeout: float = DEFAULTS.timeout_s,
        default_memory_limit: str | int = DEFAULTS.memory_bytes,
        default_cpu_quota: int = DEFAULTS.cpu_quota_us,
        *,
        images: Mapping[str, str] | None = None,
        languages: Iterable[Language] = LANGUAGES,
        engine: str | Engine | None = None,
        runtime: str | None = None,
        docker_host: str | None = None,
        allow_unenforced_limits: bool = False,
        on_engine: OnChoice | None = None,
        max_output_bytes: int = DEFAULTS.output_bytes,
        max_files_bytes: int = DEFAULTS.files_bytes,
        max_sandboxes: int = MAX_SANDBOXES,
        max_warm: int = MAX_WARM,
        warm_memory: str | int = WARM_MEMORY_BYTES,
        max_waiting: int = MAX_WAITING,
        session_memory: str | int | None = None,
    ) -> None:
        self._defaults = Limits(
            timeout_s=default_timeout,
            memory_bytes=parse_memory(default_memory_limit),
            cpu_quota_us=default_cpu_quota,
            output_bytes=max_output_bytes,
            files_bytes=max_files_bytes,
        )
        if docker_host is not None and not isinstance(docker_host, str):
            raise InvalidRequest(f"docker_host must be an address, not {type(docker_host).__name__}")
        self.languages = LanguageTable(languages).with_images(images or {})
        self._engine = engine_for(
            engine,
            docker_host=docker_host,
            runtime=runtime,
            allow_unenforced_limits=allow_unenforced_limits,
            on_choice=on_engine,
        )
        self.owner = self._engine.owner
        require_int("max_sandboxes", max_sandboxes, 1, 10_000)
        require_int("max_warm", max_warm, 0, 10_000)
        require_int("max_waiting", max_waiting, 0, 10_000_000)
        self._pool = Pool(
            self._engine,
            max_sandboxes=max_sandboxes,
            max_warm=max_warm,
            warm_memory_bytes=parse_size(warm_memory, "warm_memory", 0, MAX_MEMORY_BYTES),
            max_waiting=max_waiting,
        )
        memory = machine_memory() * 3 // 4 if session_memory is None else session_memory
        self._session_memory = parse_size(memory, "session_memory", 0, MAX_MEMORY_BYTES)
        self._sessions: SessionRegistry | None = None
        self._batches = itertools.count()
        self._stats = RunStats()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all runs and sessions, and disconnect from the engine. Further calls do nothing."""
        if not self._closed:
            self._closed = True
            if self._sessions is not None:
                await self._sessions.close()
            await self._pool.close()

    async def execute(
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
        """Run a program.

        ``on_stdout`` and ``on_stderr`` are called with pieces of text while the program writes. All other
        arguments are fields of ``ExecutionRequest``; the options are ``stdin``, ``args``, ``files``,
        ``cpu_quota`` and ``type_check``.

        Raises:
            InvalidRequest: the request is not valid; nothing was started.
            HostFailure: the engine or the sandbox failed; this says nothing about the program.
        """
        check_options("execute", options, ExecuteOptions.__optional_keys__)
        request = ExecutionRequest(
            code, language, timeout, memory_limit, network_enabled, env_vars, **options
        )
        return await self.run(request, on_stdout=on_stdout, on_stderr=on_stderr)

    async def run(
        self, request: ExecutionRequest, *, on_stdout: OnText | None = None, on_stderr: OnText | None = None
    ) -> ExecutionResult:
        """Run a program as ``execute`` does, from an ``ExecutionRequest``."""
        return await result_of(self.events(request), lambda event: call_listener(event, on_stdout, on_stderr))

    def stream(
        self, code: str, language: str = "python", **options: Unpack[RequestOptions]
    ) -> AsyncGenerator[Event, None]:
        """Run a program: yield ``Output`` events while it writes, then one ``Finished`` with the result.

        The options are the fields of ``ExecutionRequest``. Leaving the loop early ends the run; with
        ``contextlib.aclosing`` it ends at once.
        """
        check_options("stream", options, RequestOptions.__optional_keys__)
        return self.events(ExecutionRequest(code, language, **options))

    def events(self, request: ExecutionRequest) -> AsyncGenerator[Event, None]:
        """Run a program as ``stream`` does, from an ``ExecutionRequest``."""
        run = self.validate(request)
        return self._perform(run, SandboxKind.of(run))

    async def _perform(self, run: Run, kind: SandboxKind) -> AsyncGenerator[Event, None]:
        decoder = OutputDecoder()
        named = bool(named_steps(run, run.language.preload_named))
        try:
            async with (
                self._pool.lease(kind, named=named) as sandbox,
                contextlib.aclosing(sandbox.run(run)) as pieces,
            ):
                async for piece in pieces:
                    if isinstance(piece, ExecutionResult):
                        self._stats.add(run.language.name, piece)
                        for event in decoder.finish():
                            yield event
                        yield Finished(piece)
                    else:
                        yield decoder.decode(*piece)
        except SandboxLost:
            if self._closed:
                raise ExecutorClosed from None
            raise

    def session(
        self,
        language: str = "python",
        *,
        idle_timeout: float | None = IDLE_TIMEOUT_S,
        **options: Unpack[SessionOptions],
    ) -> Session:
        """Return a live interpreter in its own sandbox, which keeps its state from cell to cell.

        Use it as ``async with executor.session() as session``.

        Args:
            language: name or alias of a language that has sessions.
            idle_timeout: seconds without use after which the session is closed; ``None``: never.
            options: fields of ``ExecutionRequest``: ``timeout`` (the default of each cell), ``memory_limit``,
                ``cpu_quota``, ``network_enabled``, ``env_vars``, and ``files`` (the initial content of the
                session's directory).

        Raises:
            InvalidRequest: the language has no sessions, or an argument is not valid.
        """
        check_options("session", options, SessionOptions.__optional_keys__)
        if idle_timeout is not None:
            require_number("idle_timeout", idle_timeout, MIN_TIMEOUT_S, MAX_TIMEOUT_S, "seconds")
        run = resolve_session(ExecutionRequest("", language, **options), self.languages, self._defaults)
        # Imported here because most runs need no sessions, and a command should start quickly.
        from codeforge.sessions import Session, SessionGroup, SessionRegistry

        if self._sessions is None:
            self._sessions = SessionRegistry(self._pool, self._session_memory)
        return Session(SessionGroup(self._sessions, run, idle_timeout))

    async def execute_with_tests(
        self,
        code: str,
        test_code: str,
        language: str = "python",
        timeout: float | None = 60,
        *,
        module: str = "main",
        **options: Unpack[RunnerOptions],
    ) -> ExecutionResult:
        """Run tests: ``code`` becomes the module named ``module``, and ``test_code`` is placed beside it.

        pytest runs the tests of Python, jest those of JavaScript and TypeScript. Tests import the code by the
        module's name (``from main import add``, ``require('./main')``). The result's ``tests`` are what the
        test runner inside the sandbox reported. The options are fields of ``ExecutionRequest``; ``args`` are
        the test runner's arguments.

        Raises:
            InvalidRequest: the request is not valid, or the language has no test runner.
            HostFailure: the engine or the sandbox failed.
        """
        check_options("execute_with_tests", options, RunnerOptions.__optional_keys__)
        request = ExecutionRequest(code, language, timeout, **options)
        row = self.languages.find(language)
        run = test_runs.resolve_tests(request, row, self._defaults, test_code=test_code, module=module)
        return test_runs.with_outcomes(await result_of(self._perform(run, SandboxKind.of(run))), row)

    async def execute_many(
        self, requests: Iterable[AnyRequest], *, concurrency: int | None = None, max_runs_per_sandbox: int = 1
    ) -> AsyncGenerator[ExecutionResult, None]:
        """Run many programs, ``concurrency`` at once; yield results in the order of the requests.

        Requests are taken one by one, at most ``concurrency`` ahead of the next result. The iterable may be
        endless.

        Args:
            requests: each an ``ExecutionRequest``, or a mapping with its fields.
            concurrency: how many run at once; default: twice the number of CPUs.
            max_runs_per_sandbox: if above 1, runs of this call share sandboxes, one after another. Everything
                of a run is removed, and the removal is verified, before the next one starts. This is much
                faster; docs/security.md says what it guarantees and what it does not.

        Raises:
            InvalidRequest: a request is not valid; raised when its turn comes.
            HostFailure: the engine or a sandbox failed.
        """
        many = self._many(requests, concurrency, max_runs_per_sandbox, ordered=True)
        async with contextlib.aclosing(many) as results:
            async for _, result in results:
                yield result

    def as_finished(
        self, requests: Iterable[AnyRequest], *, concurrency: int | None = None, max_runs_per_sandbox: int = 1
    ) -> AsyncGenerator[tuple[int, ExecutionResult], None]:
        """Run many programs as ``execute_many`` does, but yield results in the order in which they end.

        Each result comes with the index of its request, counted from 0.
        """
        return self._many(requests, concurrency, max_runs_per_sandbox, ordered=False)

    async def _many(
        self, requests: Iterable[AnyRequest], concurrency: int | None, max_runs: int, *, ordered: bool
    ) -> AsyncGenerator[tuple[int, ExecutionResult], None]:
        width = 2 * (os.cpu_count() or 1) if concurrency is None else concurrency
        require_int("concurrency", width, 1, 10_000)
        require_int("max_runs_per_sandbox", max_runs, 1, 1_000_000)
        batch = next(self._batches)

        async def perform(request: AnyRequest) -> ExecutionResult:
            run = request if isinstance(request, Run) else self.validate(as_request(request))
            return await result_of(self._perform(run, SandboxKind.of(run, batch=batch, max_runs=max_runs)))

        try:
            async with contextlib.aclosing(fan_out(perform, requests, width, ordered=ordered)) as results:
                async for numbered in results:
                    yield numbered
        finally:
            self._pool.forget_batch(batch)

    async def warm(
        self,
        languages: Iterable[str] | None = None,
        *,
        count: int = 2,
        timeout: float = 60.0,
        sessions: bool = False,
    ) -> None:
        """Start sandboxes with the default limits ahead of the runs that need them, and keep that many ready.

        Without this, the first run of a kind starts cold, and the stock grows with use.

        Args:
            languages: names; default: all except optional ones.
            count: sandboxes of each language; all together at most ``max_warm``.
            timeout: seconds until all must be ready, with everything preloaded.
            sessions: warm sandboxes for sessions instead of runs.

        Raises:
            InvalidRequest: ``max_warm`` or ``warm_memory`` does not allow that many.
            TimeoutError: they were not ready in time; they still become ready later.
            HostFailure: a sandbox could not be started.
        """
        rows = self.languages.pick(languages)
        require_int("count", count, 1, 10_000)
        kinds = [
            SandboxKind(language=row, limits=self._defaults.of_sandbox(row), session=sessions) for row in rows
        ]
        for kind in kinds:
            self._pool.keep(kind, count)
        async with asyncio.timeout(timeout):
            for kind in kinds:
                await self._pool.until_warm(kind, count)

    def validate(self, request: ExecutionRequest) -> Run:
        """Check a request as ``run`` does, but run nothing.

        Returns:
            the validated request. ``execute_many`` and ``as_finished`` of this executor accept it in place of
            the request, and do not check it again.

        Raises:
            InvalidRequest: the request is not valid.
        """
        return resolve(request, self.languages, self._defaults)

    async def engine(self) -> Engine:
        """Start the engine and return it; ``auto`` chooses one first.

        Raises:
            EngineUnavailable: no engine answers, or this user may not use it.
        """
        await self._engine.start()
        return self._engine

    @property
    def images(self) -> ImageStore:
        """The images of this executor's languages, on its engine.

        Raises:
            InvalidRequest: the engine has no images, or ``auto`` has not chosen one yet (``await engine()``).
        """
        return self._engine.images

    async def provisions(self) -> Provisions:
        """Return what provides interpreters and packages: images, or bubblewrap's environments.

        Raises:
            EngineUnavailable: no engine answers, or this user may not use it.
        """
        return await self._engine.provisions()

    async def pull_images(
        self, languages: Iterable[str] | None = None, *, on_step: OnStep | None = None
    ) -> dict[str, bool]:
        """Pull or build the images that these languages need; with bubblewrap, build their environments.

        Args:
            languages: names; default: all except optional ones.
            on_step: called with each step; default: steps are shown on stderr, with a progress bar if that
                is a terminal.

        Returns:
            language name to whether its image is present now. The last step says why it is not.
        """
        from codeforge import progress

        rows = self.languages.pick(languages)
        store = await self.provisions()
        with progress.show_steps(on_step) as report:
            return {row.name: await store.provide(row, report) for row in rows}

    async def engine_info(self) -> EngineInfo:
        """Return the engine's versions and abilities.

        Raises:
            EngineUnavailable: no engine answers, or this user may not use it.
        """
        return await self._engine.info()

    def get_available_languages(self) -> list[str]:
        """Return the names of the languages, without optional ones."""
        return self.languages.names

    async def is_docker_available(self) -> bool:
        """Return whether an engine answers."""
        try:
            await self._engine.start()
        except EngineUnavailable:
            return False
        return True

    def get_stats(self) -> dict[str, Any]:
        """Return how many runs there were, by status and by language, and the state of the pool."""
        sessions = 0 if self._sessions is None else len(self._sessions)
        return {**self._stats.to_dict(), "sessions": sessions, **self._pool.stats()}
