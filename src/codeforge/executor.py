"""The executor: a request in, a result out. The whole story on one screen is ``CodeExecutor.stream``."""

from __future__ import annotations

import asyncio
import codecs
import collections
import contextlib
import itertools
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

from codeforge import test_runs
from codeforge.engines import (
    RUNTIME_VARIABLE,
    Engine,
    EngineInfo,
    EngineSettings,
    FirstThatAnswers,
    OnChoice,
    engine_name,
    make_engine,
)
from codeforge.errors import EngineUnavailable, ExecutorClosed, InvalidRequest, SandboxLost
from codeforge.fan_out import fan_out
from codeforge.model import (
    IDLE_TIMEOUT_S,
    LANGUAGES,
    MAX_MEMORY_BYTES,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
    Event,
    ExecutionRequest,
    ExecutionResult,
    Finished,
    Language,
    LanguageTable,
    Limits,
    Output,
    RequestOptions,
    Run,
    StreamName,
    as_request,
    parse_memory,
    parse_size,
    require_int,
    require_number,
    resolve,
    resolve_session,
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
    from codeforge.environments import EnvironmentMaker
    from codeforge.images import ImageStore
    from codeforge.progress import OnStep
    from codeforge.sessions import Session, SessionRegistry

DEFAULTS = Limits()

T = TypeVar("T")

OnText = Callable[[str], object]


class ExecutorOptions(TypedDict, total=False):
    """The keyword arguments of ``CodeExecutor`` after the three defaults."""

    images: Mapping[str, str] | None
    languages: Iterable[Language]
    engine: str | None
    runtime: str | None
    docker_host: str | None
    allow_unenforced_limits: bool
    on_engine: OnChoice | None
    max_output_bytes: int
    max_files_bytes: int
    max_sandboxes: int
    max_warm: int
    warm_memory: str | int
    max_waiting: int
    session_memory: str | int | None


class CodeExecutor:
    """Runs programs, each in a fresh sandbox. For asyncio; ``BlockingCodeExecutor`` is the blocking face.

    Use it as ``async with CodeExecutor() as executor``; nothing is started before the first run.
    An instance belongs to the event loop that first uses it.

    Args:
        default_timeout: seconds, for requests that say nothing.
        default_memory_limit: in Docker's notation.
        default_cpu_quota: microseconds of CPU in each 100 ms; 50000 is half a core.
        images: language name to image reference, where it is not the language's own.
        languages: the rows this executor knows; add yours to ``codeforge.LANGUAGES``.
        engine: ``docker``, ``podman``, ``bubblewrap``, or ``auto``: the first of these that answers.
            Default: what CODEFORGE_ENGINE says, else ``auto``.
        runtime: Docker's OCI runtime, such as ``runsc`` (gVisor). Default: what CODEFORGE_RUNTIME says,
            else the daemon's own.
        docker_host: address of Docker or Podman (``unix:///...``); default: as their commands find it.
        allow_unenforced_limits: let bubblewrap run programs where this machine gives it no way to limit
            memory, CPU and processes. Else that is an error.
        on_engine: called with the name of the engine that ``auto`` chose, and with those it passed over
            and why.
        max_output_bytes: how much of stdout, and of stderr, is kept.
        max_files_bytes: how much of what a run wrote under /code is brought out.
        max_sandboxes: how many may be there at once; more callers wait their turn.
        max_warm: how many of those are at most kept ready for runs to come; 0: none.
        warm_memory: what the ready ones may hold of the machine's memory, in Docker's notation.
        max_waiting: how many callers may wait their turn; one more is refused with ``Busy``.
        session_memory: what the memory limits of all sessions may come to, in Docker's notation; one more
            session is refused with ``Busy``. Default: three quarters of the machine's memory.

    Raises:
        InvalidRequest: one of these is not usable.

    Attributes:
        languages: the rows it knows.
        owner: what its sandboxes are labelled with.
    """

    def __init__(
        self,
        default_timeout: float = DEFAULTS.timeout_s,
        default_memory_limit: str | int = DEFAULTS.memory_bytes,
        default_cpu_quota: int = DEFAULTS.cpu_quota_us,
        *,
        images: Mapping[str, str] | None = None,
        languages: Iterable[Language] = LANGUAGES,
        engine: str | None = None,
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
        self.owner = uuid.uuid4().hex
        runtime = runtime or os.environ.get(RUNTIME_VARIABLE)
        settings = EngineSettings(
            engine=engine_name(engine, docker_host=docker_host, runtime=runtime),
            owner=self.owner,
            docker_host=docker_host,
            runtime=runtime,
            allow_unenforced_limits=allow_unenforced_limits,
        )
        self._engine = self._make_engine(settings, on_engine)
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
        self._counts: collections.Counter[str] = collections.Counter()
        self._run_s = 0.0
        self._closed = False

    def _make_engine(self, settings: EngineSettings, on_choice: OnChoice | None) -> Engine:
        """The audit's executor has one that can be weakened, to see its checks fail."""
        return make_engine(settings, on_choice)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every run that still goes on, and disconnect. May be called again."""
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
        stdin: str | bytes | AsyncIterable[bytes] | None = None,
        args: Sequence[str] = (),
        files: Mapping[str, str | bytes] | None = None,
        cpu_quota: int | None = None,
        type_check: bool = True,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
    ) -> ExecutionResult:
        """Run a program. The arguments are those of ``ExecutionRequest``.

        ``on_stdout`` and ``on_stderr`` are called with pieces of text as the program writes them.

        Raises:
            InvalidRequest: the request cannot be run; nothing was started.
            HostFailure: the engine or the sandbox failed; says nothing about the program.
        """
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
        return await self.run(request, on_stdout=on_stdout, on_stderr=on_stderr)

    async def run(
        self,
        request: ExecutionRequest,
        *,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
    ) -> ExecutionResult:
        """The same as ``execute``, for a request that is a value already."""
        listeners = {"stdout": on_stdout, "stderr": on_stderr}
        async with contextlib.aclosing(self.events(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.result
                listener = listeners[event.stream]
                if listener is not None and event.text:
                    listener(event.text)
        raise ExecutorClosed("the executor was closed during the run")

    def stream(
        self, code: str, language: str = "python", **options: Unpack[RequestOptions]
    ) -> AsyncGenerator[Event, None]:
        """Run a program, and yield ``Output`` events as it writes, then ``Finished`` with the result.

        Leave the loop early and the run is ended (``contextlib.aclosing`` makes that prompt).
        """
        return self.events(ExecutionRequest(code=code, language=language, **options))

    def events(self, request: ExecutionRequest) -> AsyncGenerator[Event, None]:
        """The same as ``stream``, for a request that is a value already."""
        run = resolve(request, self.languages, self._defaults)
        return self._perform(run, SandboxKind.of(run))

    async def _perform(self, run: Run, kind: SandboxKind) -> AsyncGenerator[Event, None]:
        text = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        named = bool(named_steps(run, run.language.preload_named))
        async with (
            self._pool.lease(kind, named=named) as sandbox,
            contextlib.aclosing(sandbox.run(run)) as pieces,
        ):
            async for piece in self._until_closed(pieces):
                if isinstance(piece, ExecutionResult):
                    self._count(run, piece)
                    for name in _STREAMS:
                        rest = text[name].decode(b"", final=True)
                        if rest:
                            yield Output(name, rest, b"")
                    yield Finished(piece)
                else:
                    name, data = piece
                    yield Output(name, text[name].decode(data), data)

    async def _until_closed(self, pieces: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        try:
            async for piece in pieces:
                yield piece
        except SandboxLost:
            if self._closed:
                raise ExecutorClosed("the executor was closed during the run") from None
            raise

    def session(
        self,
        language: str = "python",
        *,
        timeout: float | None = None,
        memory_limit: str | int | None = None,
        cpu_quota: int | None = None,
        network_enabled: bool = False,
        env_vars: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | None = None,
        idle_timeout: float | None = IDLE_TIMEOUT_S,
    ) -> Session:
        """A live interpreter in a sandbox of its own, which keeps its state from cell to cell.

        Use it as ``async with executor.session() as session``.

        Args:
            language: name or alias of a language that has sessions.
            timeout: seconds for each cell that says nothing.
            memory_limit: of the sandbox, as for a run.
            cpu_quota: likewise.
            network_enabled: likewise.
            env_vars: environment variables, on top of the image's.
            files: relative path to content; what lies in the session's directory at the start.
            idle_timeout: seconds without use after which it is closed; ``None``: never.

        Raises:
            InvalidRequest: there can be no such session.
        """
        request = ExecutionRequest(
            code="",
            language=language,
            timeout=timeout,
            memory_limit=memory_limit,
            network_enabled=network_enabled,
            env_vars=env_vars,
            cpu_quota=cpu_quota,
            files=files,
        )
        if idle_timeout is not None:
            require_number("idle_timeout", idle_timeout, MIN_TIMEOUT_S, MAX_TIMEOUT_S, "seconds")
        run = resolve_session(request, self.languages, self._defaults)
        # Not above: most runs need none of it, and a command is to start soon.
        from codeforge.sessions import Session, SessionGroup, SessionRegistry

        if self._sessions is None:
            self._sessions = SessionRegistry(self._pool, self._session_memory)
        return Session(SessionGroup(self._sessions, run, idle_timeout))

    async def execute_with_tests(
        self, code: str, test_code: str, language: str = "python", timeout: float | None = 60,
        *, module: str = "main", **options: Unpack[test_runs.RunnerOptions],
    ) -> ExecutionResult:  # fmt: skip
        """Run tests against code: ``code`` is the module ``module``, ``test_code`` lies beside it.

        pytest runs the tests of Python, jest those of JavaScript and TypeScript; import what you
        test by the module's name (``from main import add``, ``require('./main')``). The result's
        ``tests`` has each test's outcome, as the runner inside the sandbox reported it.

        Raises:
            InvalidRequest: also when the language has no test runner.
            HostFailure: the engine or the sandbox failed.
        """
        request = ExecutionRequest(code=code, language=language, timeout=timeout, **options)
        row = self.languages.find(language)
        run = test_runs.resolve_tests(request, row, self._defaults, test_code=test_code, module=module)
        return test_runs.with_outcomes(await self._result(run, SandboxKind.of(run)), row)

    async def _result(self, run: Run, kind: SandboxKind) -> ExecutionResult:
        async with contextlib.aclosing(self._perform(run, kind)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.result
        raise ExecutorClosed("the executor was closed during the run")

    async def execute_many(
        self,
        requests: Iterable[ExecutionRequest | Mapping[str, Any]],
        *,
        concurrency: int | None = None,
        max_runs_per_sandbox: int = 1,
    ) -> AsyncGenerator[ExecutionResult, None]:
        """Run many programs, ``concurrency`` at once; results come in the order of the requests.

        Takes requests as it goes, at most ``concurrency`` ahead of the result that is due, so an
        endless iterable is fine.

        Args:
            requests: each an ``ExecutionRequest`` or a mapping with its fields.
            concurrency: how many at once; default: twice the number of CPUs.
            max_runs_per_sandbox: above 1, runs of this call share sandboxes, one after another, with
                everything of a run removed and verified before the next one. Much faster; what it
                promises, and what it does not, is in docs/security.md.

        Raises:
            InvalidRequest: when such a request's turn comes.
            HostFailure: the engine or a sandbox failed.
        """
        many = self._many(requests, concurrency, max_runs_per_sandbox, ordered=True)
        async with contextlib.aclosing(many) as results:
            async for _, result in results:
                yield result

    async def as_finished(
        self,
        requests: Iterable[ExecutionRequest | Mapping[str, Any]],
        *,
        concurrency: int | None = None,
        max_runs_per_sandbox: int = 1,
    ) -> AsyncGenerator[tuple[int, ExecutionResult], None]:
        """The same as ``execute_many``, in the order in which the programs end.

        Yields each result with the index of its request, counted from 0.
        """
        many = self._many(requests, concurrency, max_runs_per_sandbox, ordered=False)
        async with contextlib.aclosing(many) as results:
            async for numbered in results:
                yield numbered

    async def _many(
        self,
        requests: Iterable[ExecutionRequest | Mapping[str, Any]],
        concurrency: int | None,
        max_runs: int,
        *,
        ordered: bool,
    ) -> AsyncGenerator[tuple[int, ExecutionResult], None]:
        width = 2 * (os.cpu_count() or 1) if concurrency is None else concurrency
        require_int("concurrency", width, 1, 10_000)
        require_int("max_runs_per_sandbox", max_runs, 1, 1_000_000)
        batch = next(self._batches)

        async def run(request: ExecutionRequest | Mapping[str, Any]) -> ExecutionResult:
            run = resolve(as_request(request), self.languages, self._defaults)
            return await self._result(run, SandboxKind.of(run, batch=batch, max_runs=max_runs))

        try:
            async with contextlib.aclosing(fan_out(run, requests, width, ordered=ordered)) as results:
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
        """Have sandboxes ready for runs to come, with the default limits, and keep it so.

        Without this the first run of a kind starts cold, and the stock grows with use.

        Args:
            languages: names; default: all.
            count: how many of each; together at most ``max_warm``.
            timeout: seconds until they must be there, with all preloaded.
            sessions: for sessions to come, instead of runs.

        Raises:
            InvalidRequest: that many may not be kept.
            TimeoutError: they were not there in time; they still come.
            HostFailure: one could not be launched.
        """
        rows = self.languages.pick(languages)
        require_int("count", count, 1, 10_000)
        limits = self._defaults.of_sandbox()
        kinds = [SandboxKind(language=row, limits=limits, session=sessions) for row in rows]
        for kind in kinds:
            self._pool.keep(kind, count)
        async with asyncio.timeout(timeout):
            for kind in kinds:
                await self._pool.until_warm(kind, count)

    def validate(self, request: ExecutionRequest) -> None:
        """Check a request as ``run`` would, and run nothing.

        Raises:
            InvalidRequest: it cannot be run.
        """
        resolve(request, self.languages, self._defaults)

    async def engine(self) -> Engine:
        """The engine that launches this executor's sandboxes; ``auto`` has chosen then.

        Raises:
            EngineUnavailable: none answers, or this user may not talk to it.
        """
        await self._engine.start()
        return await self._engine.chosen() if isinstance(self._engine, FirstThatAnswers) else self._engine

    @property
    def images(self) -> ImageStore:
        """The images of this executor's languages, on its engine.

        Raises:
            InvalidRequest: its engine has none, or ``auto`` has not chosen yet (``await engine()``).
        """
        from codeforge.engines import DockerEngine
        from codeforge.images import ImageStore

        engine = self._engine.choice if isinstance(self._engine, FirstThatAnswers) else self._engine
        if not isinstance(engine, DockerEngine):
            raise InvalidRequest(f"images are Docker's and Podman's; the engine is {self._engine.name}")
        return ImageStore(engine)

    async def provisions(self) -> ImageStore | EnvironmentMaker:
        """What has the interpreters and packages: images, or bubblewrap's environments.

        Raises:
            EngineUnavailable: no engine answers, or this user may not talk to it.
        """
        if (await self.engine()).name != "bubblewrap":
            return self.images
        from codeforge.environments import EnvironmentMaker

        return EnvironmentMaker()

    async def pull_images(
        self, languages: Iterable[str] | None = None, *, on_step: OnStep | None = None
    ) -> dict[str, bool]:
        """Have ready what these languages (default: all) need: pull their images, or build our own.

        Where bubblewrap is the engine, that is their environments.

        Returns:
            language name to whether it is there now. Why not is told to ``on_step``, or shown on stderr,
            with a progress bar where that is a terminal.
        """
        from codeforge import progress

        rows = self.languages.pick(languages)
        store = await self.provisions()
        with progress.show_steps(on_step) as report:
            return {row.name: await store.provide(row, report) for row in rows}

    async def engine_info(self) -> EngineInfo:
        """What the engine says of itself.

        Raises:
            EngineUnavailable: no engine answers, or this user may not talk to it.
        """
        return await self._engine.info()

    def get_available_languages(self) -> list[str]:
        """Names of the languages that ``execute`` takes."""
        return self.languages.names

    async def is_docker_available(self) -> bool:
        """Whether an engine answers."""
        try:
            await self._engine.start()
        except EngineUnavailable:
            return False
        return True

    def get_stats(self) -> dict[str, Any]:
        """Counts since the start: runs, by status and by language, seconds of runs; and the pool's."""
        by: dict[str, dict[str, int]] = {"status": {}, "language": {}}
        for key, count in self._counts.items():
            group, _, name = key.partition(":")
            by[group][name] = count
        return {
            "runs": sum(by["status"].values()),
            "by_status": by["status"],
            "by_language": by["language"],
            "run_seconds": self._run_s,
            "sessions": 0 if self._sessions is None else len(self._sessions),
            **self._pool.stats(),
        }

    def _count(self, run: Run, result: ExecutionResult) -> None:
        self._counts[f"status:{result.status.value}"] += 1
        self._counts[f"language:{run.language.name}"] += 1
        self._run_s += result.execution_time


def machine_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_STREAMS: tuple[StreamName, StreamName] = ("stdout", "stderr")
