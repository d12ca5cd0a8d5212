"""The executor: a request in, a result out. The whole story on one screen is ``CodeExecutor.stream``."""

from __future__ import annotations

import asyncio
import codecs
import collections
import contextlib
import dataclasses
import itertools
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

from codeforge import progress, testing
from codeforge.engines.connection import EngineInfo
from codeforge.engines.docker import DockerEngine
from codeforge.errors import EngineUnavailable, ExecutorClosed, InvalidRequest, SandboxLost
from codeforge.images.store import ImageStore, OnStep
from codeforge.languages import LANGUAGES, Language, LanguageTable
from codeforge.limits import Limits, parse_memory, require_int
from codeforge.pool import MAX_SANDBOXES, Pool
from codeforge.request import ExecutionRequest, Run, resolve
from codeforge.result import Event, ExecutionResult, Finished, Output, StreamName

DEFAULTS = Limits()

T = TypeVar("T")

OnText = Callable[[str], object]


class RequestOptions(TypedDict, total=False):
    """The fields of ``ExecutionRequest`` after ``code`` and ``language``."""

    timeout: float | None
    memory_limit: str | int | None
    network_enabled: bool
    env_vars: Mapping[str, str] | None
    stdin: str | bytes | AsyncIterable[bytes] | None
    args: Sequence[str]
    files: Mapping[str, str | bytes] | None
    cpu_quota: int | None
    type_check: bool


class CodeExecutor:
    """Runs programs, each in a fresh sandbox. For asyncio; ``DockerCodeExecutor`` is the blocking face.

    Use it as ``async with CodeExecutor() as executor``; nothing is started before the first run.
    An instance belongs to the event loop that first uses it.

    Args:
        default_timeout: seconds, for requests that say nothing.
        default_memory_limit: in Docker's notation.
        default_cpu_quota: microseconds of CPU in each 100 ms; 50000 is half a core.
        images: language name to image reference, where it is not the language's own.
        languages: the rows this executor knows; add yours to ``codeforge.LANGUAGES``.
        docker_host: address of the engine (``unix:///...``); default: as the docker command finds it.
        max_output_bytes: how much of stdout, and of stderr, is kept.
        max_files_bytes: how much of what a run wrote under /code is brought out.
        max_sandboxes: how many may run at once; more callers wait their turn.

    Raises:
        InvalidRequest: one of these is not usable.
    """

    def __init__(
        self,
        default_timeout: float = DEFAULTS.timeout_s,
        default_memory_limit: str | int = DEFAULTS.memory_bytes,
        default_cpu_quota: int = DEFAULTS.cpu_quota_us,
        *,
        images: Mapping[str, str] | None = None,
        languages: Iterable[Language] = LANGUAGES,
        docker_host: str | None = None,
        max_output_bytes: int = DEFAULTS.output_bytes,
        max_files_bytes: int = DEFAULTS.files_bytes,
        max_sandboxes: int = MAX_SANDBOXES,
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
        self.languages = _with_images(LanguageTable(languages), images or {})
        owner = uuid.uuid4().hex
        self._engine = DockerEngine(docker_host, owner)
        self._pool = Pool(self._engine, owner=owner, max_sandboxes=max_sandboxes)
        self._counts: collections.Counter[str] = collections.Counter()
        self._run_s = 0.0
        self._closed = False

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

    async def events(self, request: ExecutionRequest) -> AsyncGenerator[Event, None]:
        """The same as ``stream``, for a request that is a value already."""
        run = resolve(request, self.languages, self._defaults)
        async with contextlib.aclosing(self._perform(run)) as events:
            async for event in events:
                yield event

    async def _perform(self, run: Run) -> AsyncGenerator[Event, None]:
        text = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        async with (
            self._pool.lease(run.language, run.limits) as sandbox,
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

    async def execute_with_tests(
        self, code: str, test_code: str, language: str = "python", timeout: float | None = 60,
        *, module: str = "main", **options: Unpack[testing.RunnerOptions],
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
        run = testing.resolve_tests(request, row, self._defaults, test_code=test_code, module=module)
        async with contextlib.aclosing(self._perform(run)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return testing.with_outcomes(event.result, row)
        raise ExecutorClosed("the executor was closed during the run")

    async def execute_many(
        self, requests: Iterable[ExecutionRequest | Mapping[str, Any]], *, concurrency: int | None = None
    ) -> AsyncGenerator[ExecutionResult, None]:
        """Run many programs, ``concurrency`` at once; results come in the order of the requests.

        Takes requests as it goes, at most ``concurrency`` ahead of the result that is due, so an
        endless iterable is fine. ``concurrency`` defaults to twice the number of CPUs.
        """
        width = _concurrency(concurrency)
        waiting: collections.deque[asyncio.Task[ExecutionResult]] = collections.deque()
        source = iter(requests)
        try:
            while True:
                for request in itertools.islice(source, width - len(waiting)):
                    waiting.append(asyncio.create_task(self.run(_as_request(request))))
                if not waiting:
                    return
                yield await waiting[0]
                waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    @property
    def images(self) -> ImageStore:
        """The images of this executor's languages, on its engine."""
        return ImageStore(self._engine)

    async def pull_images(
        self, languages: Iterable[str] | None = None, *, on_step: OnStep | None = None
    ) -> dict[str, bool]:
        """Have the images of these languages (default: all) ready: pull them, or build our own.

        Returns:
            language name to whether its image is there now. Why not is told to ``on_step``, or shown
            on stderr, with a progress bar where that is a terminal.
        """
        if isinstance(languages, str):
            raise InvalidRequest(f"languages must be a list of names, such as [{languages!r}]")
        rows = [self.languages.find(name) for name in languages] if languages is not None else self.languages
        with progress.steps(on_step) as report:
            return {row.name: await self.images.provide(row, report) for row in rows}

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
            await self._engine.client()
        except EngineUnavailable:
            return False
        return True

    def get_stats(self) -> dict[str, Any]:
        """Counts since the start: runs, by status and by language, seconds of runs, sandboxes now."""
        by: dict[str, dict[str, int]] = {"status": {}, "language": {}}
        for key, count in self._counts.items():
            group, _, name = key.partition(":")
            by[group][name] = count
        return {
            "runs": sum(by["status"].values()),
            "by_status": by["status"],
            "by_language": by["language"],
            "run_seconds": self._run_s,
            "sandboxes": self._pool.leased,
        }

    def _count(self, run: Run, result: ExecutionResult) -> None:
        self._counts[f"status:{result.status.value}"] += 1
        self._counts[f"language:{run.language.name}"] += 1
        self._run_s += result.execution_time


_STREAMS: tuple[StreamName, StreamName] = ("stdout", "stderr")


def _with_images(table: LanguageTable, images: Mapping[str, str]) -> LanguageTable:
    named = {table.find(name).name: image for name, image in images.items()}
    return LanguageTable(dataclasses.replace(row, image=named.get(row.name, row.image)) for row in table)


def _concurrency(asked: int | None) -> int:
    if asked is None:
        return 2 * (os.cpu_count() or 1)
    require_int("concurrency", asked, 1, 10_000)
    return asked


def _as_request(request: ExecutionRequest | Mapping[str, Any]) -> ExecutionRequest:
    if isinstance(request, ExecutionRequest):
        return request
    known = {field.name for field in dataclasses.fields(ExecutionRequest)}
    if not isinstance(request, Mapping) or "code" not in request or not known.issuperset(request):
        raise InvalidRequest(
            f"a request is an ExecutionRequest or a mapping with 'code' and any of {', '.join(sorted(known))}"
        )
    return ExecutionRequest(**request)
