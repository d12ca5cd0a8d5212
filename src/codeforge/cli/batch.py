"""``codeforge batch``: runs a file of programs and writes a file of results."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from codeforge import progress
from codeforge.cli.batch_journal import INVALID, Journal, Line, Records, Scalar, count_lines, read_lines
from codeforge.cli.batch_request import read_id, read_object, read_request
from codeforge.cli.engine import EngineOptions, print_engine_note
from codeforge.cli.terminal import EXIT_BROKEN_PIPE, EXIT_SIGNAL_BASE, discard_stdout, print_error, print_json
from codeforge.errors import HostFailure, InvalidRequest
from codeforge.executor import CodeExecutor
from codeforge.model import ExecutionRequest, Run, Status
from codeforge.sandboxes import MAX_SANDBOXES

EXIT_NOT_ALL_OK = 1

MAX_BLOCKING_S = 0.1
"""How long lines without a program to run may block the event loop, which running programs need."""

STDIN_OR_STDOUT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a batch.

    Attributes:
        concurrency: how many programs run at once; ``None``: the executor's default.
        max_runs_per_sandbox: how many programs may run in one sandbox, one after another.
        defaults: fields for lines without them.
        resume: whether to continue an output that exists.
        executor: keyword arguments of ``CodeExecutor``.
    """

    concurrency: int | None
    max_runs_per_sandbox: int
    defaults: Mapping[str, Any]
    resume: bool
    executor: EngineOptions


def perform(source: str, target: Path, options: Options, *, as_json: bool) -> int:
    """Run every line of ``source`` that has no record in ``target`` yet. Return the exit code."""
    if str(target) == STDIN_OR_STDOUT:
        if options.resume:
            raise InvalidRequest("--resume continues a file: name it as OUT, instead of -")
        if as_json:
            raise InvalidRequest("--json prints on stdout, and so does OUT -: name a file as OUT")
    sandboxes = max(options.concurrency or 0, MAX_SANDBOXES)
    executor = CodeExecutor(max_sandboxes=sandboxes, on_engine=print_engine_note, **options.executor)
    executor.validate(ExecutionRequest(code="", **options.defaults))
    with _open_input(source) as file, _open_output(target, file, resume=options.resume) as records:
        batch = _Batch(executor, records, file, options)
        failed = _run(batch, file, target)
        if failed != EXIT_BROKEN_PIPE:
            batch.conclude(as_json=as_json, complete=failed is None)
    if failed is not None:
        return failed
    return 0 if set(records.fates) <= {Status.OK.value} else EXIT_NOT_ALL_OK


def _run(batch: _Batch, file: BinaryIO, target: Path) -> int | None:
    """Run a batch. Return the exit code if it did not get to its end."""
    to_stdout = str(target) == STDIN_OR_STDOUT
    try:
        with contextlib.ExitStack() as stack:
            display: progress.OnCount = _show_nothing
            if not (to_stdout and sys.stdout.isatty()):  # there a bar would mix with the records
                shown = progress.show_count(lambda: _count(file), batch.done_before)
                display = stack.enter_context(shown)
            stopped_by = asyncio.run(_until_signalled(batch.run(display)))
    except BrokenPipeError:
        discard_stdout()
        return EXIT_BROKEN_PIPE
    except HostFailure as error:
        reason, code = str(error), error.exit_code
    else:
        if stopped_by is None:
            return None
        reason, code = f"stopped by {stopped_by.name}", EXIT_SIGNAL_BASE + stopped_by
    advice = f"\nWhat has finished is in {target}; the same command with --resume runs the rest."
    print_error(reason if to_stdout else reason + advice)
    return code


def _show_nothing(done: int, text: str) -> None:
    pass


def _open_output(target: Path, source: BinaryIO, *, resume: bool) -> Records:
    """Open the output; to resume, find out which lines of the source are done.

    Raises:
        InvalidRequest: it cannot be written, or does not belong to the source.
    """
    if str(target) == STDIN_OR_STDOUT:
        if sys.stdout is None:
            raise InvalidRequest("stdout is closed: name a file as OUT, instead of -")
        return Records("stdout", sys.stdout.buffer)
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Journal(target))
        if resume:
            journal.recover(read_lines(source))
            source.seek(0)
        elif not journal.empty:
            raise InvalidRequest(f"{target} exists already; continue it with --resume, or name another file")
        stack.pop_all()
    return journal


@contextlib.contextmanager
def _open_input(source: str) -> Iterator[BinaryIO]:
    """Open the input as a file that can be read twice. A pipe is first copied to a temporary file.

    Otherwise, programs would have to wait for the process that writes to the pipe.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(source))
            if source == STDIN_OR_STDOUT or not file.seekable():
                pipe, file = file, stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(pipe, file)
                file.seek(0)
        except OSError as error:
            raise InvalidRequest(f"cannot read {source}: {error.strerror}") from error
        yield file


def _opened(source: str) -> BinaryIO:
    return open(0, "rb", closefd=False) if source == STDIN_OR_STDOUT else Path(source).open("rb")


def _count(file: BinaryIO) -> int:
    try:
        return count_lines(file)
    finally:
        file.seek(0)


async def _until_signalled(work: Coroutine[Any, Any, None]) -> signal.Signals | None:
    """Wait for the work. Return the signal that ended it early, if one did."""
    task = asyncio.create_task(work)
    caught: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        caught.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as it is under nohup
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not caught:
            raise
        return caught[0]
    return None


class _Batch:
    """A running batch.

    Attributes:
        done_before: how many lines have a record from earlier batches.
    """

    def __init__(self, executor: CodeExecutor, records: Records, file: BinaryIO, options: Options) -> None:
        self._executor = executor
        self._records = records
        self._lines = read_lines(file)
        self._options = options
        self._running: dict[int, tuple[Line, Scalar]] = {}
        self._over = False
        self._display: progress.OnCount = _show_nothing
        self._start_s = time.monotonic()
        self._runs = 0
        self.done_before = records.fates.total()

    async def run(self, display: progress.OnCount) -> None:
        """Run the lines without a record, and write the record of each one when it ends.

        Raises:
            HostFailure: the engine or a sandbox failed, or the output could not be written.
            BrokenPipeError: the reader of the output has gone.
        """
        self._display = display
        async with self._executor:
            while not self._over:
                results = self._executor.as_finished(
                    self._next_runs(),
                    concurrency=self._options.concurrency,
                    max_runs_per_sandbox=self._options.max_runs_per_sandbox,
                )
                async with contextlib.aclosing(results):
                    async for index, result in results:
                        self._runs += 1
                        line = {key: value for key, value in result.to_dict().items() if key != "posture"}
                        self._record(*self._running.pop(index), line)

    def _next_runs(self) -> Iterator[Run]:
        """Yield the next runs, up to a long series of lines that have nothing to run.

        Such lines are processed without a pause, so the event loop can neither enforce a deadline nor
        handle a signal. A long series of them ends this iterator, and the caller starts another one once
        no program is running.
        """
        numbers = itertools.count()
        busy_since_s = time.monotonic()
        for line in self._lines:
            prepared = self._prepare(line)
            if prepared is not None:
                identity, run = prepared
                self._running[next(numbers)] = (line._replace(data=None), identity)
                yield run
                busy_since_s = time.monotonic()
            elif time.monotonic() - busy_since_s > MAX_BLOCKING_S:
                return
        self._over = True

    def _prepare(self, line: Line) -> tuple[Scalar, Run] | None:
        """Return the id and the run of a line, or ``None`` if there is nothing to run.

        If the line is invalid, record why.
        """
        if line.blank or line in self._records:
            return None
        identity: Scalar = None
        try:
            fields = read_object(line)
            identity = read_id(fields)
            run = self._executor.validate(read_request(fields, self._options.defaults))
        except InvalidRequest as error:
            self._record(line, identity, {"error": {"type": type(error).__name__, "message": str(error)}})
            return None
        return identity, run

    def _record(self, line: Line, identity: Scalar, outcome: Mapping[str, object]) -> None:
        self._records.append(line, identity, outcome)
        fates = self._records.fates
        done, ok = fates.total(), fates[Status.OK.value]
        self._display(done, f"{ok} ok, {done - ok} failed; {self._rate:.1f} runs/s")

    @property
    def _rate(self) -> float:
        return self._runs / max(time.monotonic() - self._start_s, 0.001)

    def conclude(self, *, as_json: bool, complete: bool) -> None:
        """Print the summary: a line on stderr, or JSON on stdout."""
        fates, seconds = self._records.fates, time.monotonic() - self._start_s
        known = [*(status.value for status in Status), INVALID]
        counts = {fate: fates[fate] for fate in known if fates[fate]}
        if as_json:
            summary = {"complete": complete, "lines": fates.total(), "lines_before": self.done_before}
            speed = {"runs": self._runs, "runs_per_second": self._rate, "seconds": seconds}
            print_json({**summary, "by_fate": counts, **speed})
            return
        before = f" ({self.done_before} done before)" if self.done_before else ""
        totals = ", ".join(f"{count} {fate}" for fate, count in counts.items()) or "nothing done"
        lines = f"{fates.total()} line{'s' if fates.total() != 1 else ''}"
        text = f"{lines}{before}: {totals}; {self._rate:.1f} runs/s; {seconds:.0f} s"
        print(text, file=sys.stderr)
