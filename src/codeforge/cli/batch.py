"""``codeforge batch``: a file of programs in, a file of results out."""

from __future__ import annotations

import asyncio
import contextlib
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
from codeforge.cli.batch_journal import INVALID, Journal, Line, Scalar, count_lines, read_lines
from codeforge.cli.batch_request import read_id, read_object, read_request
from codeforge.cli.engine import EngineOptions, tell_engine
from codeforge.cli.terminal import EXIT_SIGNAL_BASE, complain, print_json
from codeforge.errors import HostFailure, InvalidRequest
from codeforge.executor import CodeExecutor
from codeforge.model import ExecutionRequest, Status
from codeforge.sandboxes import MAX_SANDBOXES

EXIT_NOT_ALL_OK = 1

HOLD_UP_S = 0.1
"""How long lines with nothing to run may keep the event loop from programs that run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to go about a batch.

    Attributes:
        concurrency: how many programs run at once; ``None`` leaves it to the executor.
        max_runs_per_sandbox: how many programs may run in one sandbox, one after another.
        defaults: fields for lines that say nothing of them.
        resume: go on with the output that is there.
        executor: keyword arguments of ``CodeExecutor``.
    """

    concurrency: int | None
    max_runs_per_sandbox: int
    defaults: Mapping[str, Any]
    resume: bool
    executor: EngineOptions


def perform(source: str, target: Path, options: Options, *, as_json: bool) -> int:
    """Run every line of ``source`` that has no record in ``target`` yet; the exit code."""
    sandboxes = max(options.concurrency or 0, MAX_SANDBOXES)
    executor = CodeExecutor(max_sandboxes=sandboxes, on_engine=tell_engine, **options.executor)
    executor.validate(ExecutionRequest(code="", **options.defaults))
    with _open_input(source) as file, Journal(target) as journal:
        if options.resume:
            journal.recover(read_lines(file))
            file.seek(0)
        elif not journal.empty:
            raise InvalidRequest(
                f"{target} is there already; go on with it by --resume, or name another file"
            )
        batch = _Batch(executor, journal, file, options)
        broke_off = _run(batch, file, target)
        batch.conclude(as_json=as_json, complete=broke_off is None)
    if broke_off is not None:
        return broke_off
    return 0 if set(journal.fates) <= {Status.OK.value} else EXIT_NOT_ALL_OK


def _run(batch: _Batch, file: BinaryIO, target: Path) -> int | None:
    """Run a batch; the exit code if it broke off."""
    try:
        with progress.show_count(lambda: _count(file), batch.done_before) as display:
            stopped_by = asyncio.run(_until_signalled(batch.run(display)))
    except HostFailure as error:
        reason, code = str(error), error.exit_code
    else:
        if stopped_by is None:
            return None
        reason, code = f"stopped by {stopped_by.name}", EXIT_SIGNAL_BASE + stopped_by
    complain(f"{reason}\nWhat has finished is in {target}; the same command with --resume runs the rest.")
    return code


@contextlib.contextmanager
def _open_input(source: str) -> Iterator[BinaryIO]:
    """The input as a file that can be read twice: what cannot, a pipe, is copied to the disk first.

    Reading a pipe as it goes would make running programs wait for whoever writes it.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(source))
            if source == "-" or not file.seekable():
                pipe, file = file, stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(pipe, file)
                file.seek(0)
        except OSError as error:
            raise InvalidRequest(f"cannot read {source}: {error.strerror}") from error
        yield file


def _opened(source: str) -> BinaryIO:
    return open(0, "rb", closefd=False) if source == "-" else Path(source).open("rb")


def _count(file: BinaryIO) -> int:
    try:
        return count_lines(file)
    finally:
        file.seek(0)


async def _until_signalled(work: Coroutine[Any, Any, None]) -> signal.Signals | None:
    """Wait for the work; the signal that ended it early, if one did."""
    task = asyncio.create_task(work)
    caught: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        caught.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup, or in a script's background
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not caught:
            raise
        return caught[0]
    return None


class _Batch:
    """One batch while it goes on."""

    def __init__(self, executor: CodeExecutor, journal: Journal, file: BinaryIO, options: Options) -> None:
        self._executor = executor
        self._journal = journal
        self._lines = read_lines(file)
        self._options = options
        self._running: dict[int, tuple[Line, Scalar]] = {}
        self._over = False
        self._display: progress.OnCount = lambda done, text: None
        self._start_s = time.monotonic()
        self._runs = 0
        self.done_before = journal.fates.total()

    async def run(self, display: progress.OnCount) -> None:
        """Run what is not done yet, and record each line as it ends.

        Raises:
            HostFailure: the engine or a sandbox failed, or the output could not be written.
        """
        self._display = display
        async with self._executor:
            while not self._over:
                results = self._executor.as_finished(
                    self._stretch(),
                    concurrency=self._options.concurrency,
                    max_runs_per_sandbox=self._options.max_runs_per_sandbox,
                )
                async with contextlib.aclosing(results):
                    async for index, result in results:
                        self._runs += 1
                        line = {key: value for key, value in result.to_dict().items() if key != "posture"}
                        self._record(*self._running.pop(index), line)

    def _stretch(self) -> Iterator[ExecutionRequest]:
        """Requests, up to where too many lines in a row have nothing to run.

        Such lines are dealt with in one go, in which no deadline is kept and no signal is heard. So
        a long row of them ends the stretch; the next begins once nothing is running any more.
        """
        numbers = iter(range(sys.maxsize))
        busy_since_s = time.monotonic()
        for line in self._lines:
            request = self._prepare(line)
            if request is not None:
                identity, program = request
                self._running[next(numbers)] = (line._replace(data=None), identity)
                yield program
                busy_since_s = time.monotonic()
            elif time.monotonic() - busy_since_s > HOLD_UP_S:
                return
        self._over = True

    def _prepare(self, line: Line) -> tuple[Scalar, ExecutionRequest] | None:
        """The id and the request of a line; ``None`` if there is nothing to run, which is recorded."""
        if line.blank or line in self._journal:
            return None
        identity: Scalar = None
        try:
            fields = read_object(line)
            identity = read_id(fields)
            request = read_request(fields, self._options.defaults)
            self._executor.validate(request)
        except InvalidRequest as error:
            self._record(line, identity, {"error": {"type": type(error).__name__, "message": str(error)}})
            return None
        return identity, request

    def _record(self, line: Line, identity: Scalar, outcome: Mapping[str, Any]) -> None:
        self._journal.append(line, identity, outcome)
        fates = self._journal.fates
        done, ok = fates.total(), fates[Status.OK.value]
        self._display(done, f"{ok} ok, {done - ok} failed; {self._rate:.1f} runs/s")

    @property
    def _rate(self) -> float:
        return self._runs / max(time.monotonic() - self._start_s, 0.001)

    def conclude(self, *, as_json: bool, complete: bool) -> None:
        """Say what it all came to: in words on stderr, or as JSON on stdout."""
        fates, seconds = self._journal.fates, time.monotonic() - self._start_s
        known = [*(status.value for status in Status), INVALID]
        counts = {fate: fates[fate] for fate in known if fates[fate]}
        if as_json:
            summary = {"complete": complete, "lines": fates.total(), "lines_before": self.done_before}
            speed = {"runs": self._runs, "runs_per_second": self._rate, "seconds": seconds}
            print_json({**summary, "by_fate": counts, **speed})
            return
        before = f" ({self.done_before} done before)" if self.done_before else ""
        told = ", ".join(f"{count} {fate}" for fate, count in counts.items()) or "nothing done"
        lines = f"{fates.total()} line{'s' if fates.total() != 1 else ''}"
        text = f"{lines}{before}: {told}; {self._rate:.1f} runs/s; {seconds:.0f} s"
        print(text, file=sys.stderr)
