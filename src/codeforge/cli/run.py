"""``codeforge run``: run one program and pass its output on while it runs."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from codeforge.cli.engine import print_engine_note
from codeforge.cli.terminal import (
    EXIT_BROKEN_PIPE,
    EXIT_SIGNAL_BASE,
    OutputWriter,
    discard_stdout,
    one_line,
    print_error,
    print_json,
)
from codeforge.errors import HostFailure, InvalidRequest
from codeforge.executor import CodeExecutor
from codeforge.model import (
    LANGUAGES,
    ExecutionRequest,
    ExecutionResult,
    MiB,
    Output,
    Status,
    parse_size,
    result_of,
)
from codeforge.safe_extract import Extractor

_SUFFIXES = {row.suffix: row.name for row in LANGUAGES} | {".mjs": "javascript", ".cjs": "javascript"}

EXIT_TIMEOUT = 124
EXIT_OUTPUT_LIMIT = 123
EXIT_OUT_OF_MEMORY = 137


def run(
    program: str,
    arguments: list[str] | None = None,
    *,
    language: str | None = None,
    timeout: float | None = None,
    memory: str | None = None,
    cpu_quota: int | None = None,
    network: bool = False,
    env: list[str] | None = None,
    file: list[str] | None = None,
    out: Path | None = None,
    stdin: BinaryIO | None = None,
    type_check: bool = True,
    max_output: str = "1m",
    engine: str | None = None,
    runtime: str | None = None,
    allow_unenforced_limits: bool = False,
    as_json: bool = False,
) -> int:
    """Run a program and pass its output on. Return the exit code; the arguments are the command's options."""
    folder = None if out is None else open_out(out)
    name = language_of(program, language)
    code = read_program(program)
    source = stdin or (sys.stdin if program != "-" else None)  # sys.stdin is None if it is closed
    descriptor = None if source is None else source.fileno()
    request = ExecutionRequest(
        code,
        name,
        timeout,
        memory,
        network,
        read_variables(env or []),
        stdin=None if descriptor is None else stdin_pieces(descriptor),
        args=arguments or [],
        files=read_files(file or []),
        cpu_quota=cpu_quota,
        type_check=type_check,
    )
    executor = CodeExecutor(
        engine=engine,
        runtime=runtime,
        allow_unenforced_limits=allow_unenforced_limits,
        on_engine=print_engine_note,
        max_output_bytes=parse_size(max_output, "--max-output", 0, 1024 * MiB),
        max_warm=0,
    )
    return asyncio.run(_perform(executor, request, folder, as_json=as_json))


def exit_code(result: ExecutionResult) -> int:
    """Return the exit code for a result; docs/cli.md has the table."""
    match result.status:
        case Status.TIMEOUT:
            return EXIT_TIMEOUT
        case Status.OUT_OF_MEMORY:
            return EXIT_OUT_OF_MEMORY
        case Status.OUTPUT_LIMIT:
            return EXIT_OUTPUT_LIMIT
        case Status.KILLED:
            return EXIT_SIGNAL_BASE + (result.signal or 9)
        case Status.OK | Status.ERROR:
            return result.exit_code or 0


def read_program(name: str) -> str:
    """Read the program's source from a file, or for ``-`` from stdin.

    Raises:
        InvalidRequest: it cannot be read, or is not UTF-8.
    """
    try:
        data = _read_stdin() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is not UTF-8 text: {error}") from error


def _read_stdin() -> bytes:
    return sys.stdin.buffer.read() if sys.stdin else b""  # None if stdin is closed


def language_of(name: str, asked: str | None) -> str:
    """Return ``asked``, or if that is ``None`` the language of the file's suffix.

    Raises:
        InvalidRequest: no language has that suffix.
    """
    if asked is not None:
        return asked
    if name == "-":
        return "python"
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InvalidRequest(
            f"cannot tell the language of {name}; say it with --language ({', '.join(_SUFFIXES)} are known)"
        )
    return _SUFFIXES[suffix]


def read_files(specs: list[str]) -> dict[str, str | bytes]:
    """Read the files of ``--file``: ``PATH``, or ``PATH:NAME`` for another name in the sandbox.

    Raises:
        InvalidRequest: a file cannot be read.
    """
    files: dict[str, str | bytes] = {}
    for spec in specs:
        source, _, name = spec.partition(":")
        path = PurePosixPath(source)
        inside = not path.is_absolute() and ".." not in path.parts
        name = name or (str(path) if inside else path.name)
        try:
            files[name] = Path(source).read_bytes()
        except OSError as error:
            raise InvalidRequest(f"--file: cannot read {source}: {error.strerror}") from error
    return files


def read_variables(specs: list[str]) -> dict[str, str]:
    """Read the variables of ``--env``: ``KEY=VALUE``, or ``KEY`` for the value that it has in this process.

    Raises:
        InvalidRequest: ``KEY`` is not set in this process.
    """
    variables: dict[str, str] = {}
    for spec in specs:
        key, equals, value = spec.partition("=")
        if not equals and key not in os.environ:
            raise InvalidRequest(f"--env: {key} is not set here; write {key}=VALUE")
        variables[key] = value if equals else os.environ[key]
    return variables


async def stdin_pieces(fd: int) -> AsyncIterator[bytes]:
    """Yield what arrives on a descriptor. It uses no thread, which would have to end before the process."""
    loop = asyncio.get_running_loop()
    while True:
        ready = loop.create_future()
        try:
            # One callback for each piece: a second one for the same bytes would find nothing to read and
            # block the whole loop.
            loop.add_reader(fd, _once, loop, fd, ready)
        except PermissionError:  # epoll does not accept regular files; they are always ready
            ready.set_result(None)
        try:
            await ready
        finally:
            loop.remove_reader(fd)
        piece = os.read(fd, 1 << 16)
        if not piece:
            return
        yield piece


def _once(loop: asyncio.AbstractEventLoop, fd: int, ready: asyncio.Future[None]) -> None:
    loop.remove_reader(fd)
    ready.set_result(None)


async def _perform(
    executor: CodeExecutor, request: ExecutionRequest, folder: OutFolder | None, *, as_json: bool
) -> int:
    try:
        return await _pass_on(executor, request, folder, as_json=as_json)
    except BrokenPipeError:
        discard_stdout()
        return EXIT_BROKEN_PIPE


async def _pass_on(
    executor: CodeExecutor, request: ExecutionRequest, folder: OutFolder | None, *, as_json: bool
) -> int:
    writers = {"stdout": OutputWriter(sys.stdout), "stderr": OutputWriter(sys.stderr)}

    def write(event: Output) -> None:
        if not as_json:
            writers[event.stream].write(event.text, event.data)

    async with executor:
        return _conclude(await result_of(executor.events(request), write), folder, as_json=as_json)


def _conclude(result: ExecutionResult, folder: OutFolder | None, *, as_json: bool) -> int:
    document = result.to_dict() if as_json else {}
    if folder is not None:
        document["written"], skipped = folder.write(result)
        document["files_skipped"] = skipped
        if not as_json:
            _report_files(document["written"], skipped)
    if as_json:
        print_json(document)
    elif result.status not in (Status.OK, Status.ERROR) and result.error is not None:
        # The error of a killed program quotes its stderr, which was already passed on.
        quotes_stderr = result.status is Status.KILLED
        print_error(result.error.partition(":\n")[0] if quotes_stderr else result.error)
    if result.truncated and not as_json:
        print_error("output was cut off at the limit; raise it with --max-output")
    return exit_code(result)


# --- Files in the result


class OutFolder:
    """The directory of ``--out``. Nothing is written outside of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._extractor = Extractor(path)

    def write(self, result: ExecutionResult) -> tuple[list[str], dict[str, str]]:
        """Write the result's files.

        Returns:
            the paths of the written files, and the names of the others with the reasons.

        Raises:
            CannotWrite: writing failed.
        """
        written: list[str] = []
        skipped = dict(result.files_skipped)
        with self._extractor:
            for name, content in sorted(result.files.items()):
                try:
                    with self._extractor.create(name) as file:
                        file.write(content)
                except OSError as error:
                    if error.errno not in _IN_THE_WAY:
                        raise CannotWrite(f"cannot write {self._path / name}: {error.strerror}") from error
                    skipped[name] = "in_the_way"
                else:
                    written.append(str(self._path / name))
        return written, skipped


class CannotWrite(HostFailure):
    """A file of a result cannot be written on this machine."""


_IN_THE_WAY = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
"""A directory has the file's name, or a link or a file has the name of one of its directories."""


def open_out(path: Path) -> OutFolder:
    """Create the directory of ``--out``, before anything runs.

    Raises:
        InvalidRequest: it cannot be created.
    """
    try:
        return OutFolder(path)
    except OSError as error:
        raise InvalidRequest(f"--out: cannot write to {path}: {error.strerror}") from error


def _report_files(written: list[str], skipped: Mapping[str, str]) -> None:
    for path in written:
        print(f"Wrote {one_line(path)}", file=sys.stderr)
    for name, why in skipped.items():
        print(f"Left out {one_line(name)}: {why.replace('_', ' ')}", file=sys.stderr)
