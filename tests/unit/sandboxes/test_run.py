"""One run as the host drives it, in virtual time, with events that a test makes up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from codeforge import protocol
from codeforge.errors import InvalidRequest, ProtocolViolation, SandboxLost
from codeforge.model.languages import PYTHON, LanguageTable
from codeforge.model.limits import Limits, MiB
from codeforge.model.request import ExecutionRequest, resolve
from codeforge.model.result import ExecutionResult, KillReason, Status
from codeforge.sandboxes.run import COLLECT_GRACE_S, KILL_GRACE_S, RunDriver
from codeforge.sandboxes.verdict import OOM_EVENT_WAIT_S
from scripted_engine import frames
from virtual_time import run, settle

LIMITS = Limits(timeout_s=10.0, output_bytes=100)
TOKEN = bytes(protocol.TOKEN_BYTES)
EXITED = protocol.Exited(0, None, cpu_s=0.5, memory_peak_bytes=4096, oom_kills=0, pids_refused=0)
KILLED = protocol.Exited(None, 9, cpu_s=0.5, memory_peak_bytes=4096, oom_kills=0, pids_refused=0)
OOM = protocol.Exited(None, 9, cpu_s=0.5, memory_peak_bytes=4096, oom_kills=1, pids_refused=0)


class RecordingChannel:
    """A channel that records what the host does; ``oom`` is what the engine reports."""

    id = "sandbox"

    def __init__(self) -> None:
        self.sent = b""
        self.destroyed_at: list[float] = []
        self.oom = False
        self.oom_waits: list[float] = []

    @property
    def kinds(self) -> str:
        return "".join(kind for kind, _ in frames(self.sent))

    async def read(self) -> bytes:
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        self.sent += data

    async def oom_event(self, wait_s: float) -> bool:
        self.oom_waits.append(wait_s)
        return self.oom

    async def destroy(self, *, ended: bool = False) -> None:
        self.destroyed_at.append(asyncio.get_running_loop().time())


async def started(channel: RecordingChannel, stdin: bytes | AsyncIterator[bytes] = b"") -> RunDriver:
    request = ExecutionRequest(code="pass", language="python", stdin=stdin)
    driver = RunDriver(channel, {}, resolve(request, LanguageTable([PYTHON]), LIMITS))
    await driver.start(token=TOKEN, keep=False)
    return driver


async def finished(driver: RunDriver, *events: protocol.Event) -> ExecutionResult:
    for event in events:
        driver.handle(event)
    result = await driver.result()
    driver.stop()
    await settle()
    return result


def test_a_run_that_ends_has_what_init_reported() -> None:
    async def scenario() -> None:
        channel = RecordingChannel()
        driver = await started(channel)
        assert driver.handle(protocol.Wrote("stdout", b"out")) == ("stdout", b"out")
        result = await finished(
            driver,
            protocol.Wrote("stderr", b"err"),
            EXITED,
            protocol.FileOut(b"a.txt", b"a"),
            protocol.FileOut(b"../b", b"b"),
            protocol.FileOut(b"\xff", b"c"),
            protocol.Skipped(b"link", protocol.SkipReason.NOT_REGULAR),
            protocol.Done(),
        )
        assert (result.status, result.stdout, result.stderr) == (Status.OK, "out", "err")
        assert (dict(result.files), result.truncated) == ({"a.txt": b"a"}, False)
        assert dict(result.files_skipped) == {
            "../b": "unusable_name",
            "\\xff": "unusable_name",
            "link": "not_regular",
        }
        assert (channel.oom_waits, channel.destroyed_at) == ([], [])

    run(scenario())


def test_output_that_init_did_not_cut_is_cut_and_counted_by_the_host() -> None:
    async def scenario() -> None:
        channel = RecordingChannel()
        driver = await started(channel)
        assert driver.handle(protocol.Wrote("stdout", b"x" * 150)) == ("stdout", b"x" * 100)
        result = await finished(driver, EXITED, protocol.Done())
        assert (len(result.stdout), result.truncated, result.evidence.stdout_bytes) == (100, True, 150)

    run(scenario())


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_flood_is_killed_once_whether_init_cuts_it_or_not(is_cut: bool) -> None:
    async def scenario() -> None:
        channel = RecordingChannel()
        driver = await started(channel)
        for _ in range(LIMITS.flood_bytes // MiB + 10):
            driver.handle(protocol.Dropped("stderr", MiB) if is_cut else protocol.Wrote("stderr", bytes(MiB)))
        await settle()
        assert channel.kinds.count("k") == 1
        result = await finished(driver, KILLED, protocol.Done())
        assert (result.status, result.evidence.killed) == (Status.OUTPUT_LIMIT, KillReason.FLOOD)

    run(scenario())


def test_output_up_to_the_flood_limit_is_no_flood() -> None:
    async def scenario() -> None:
        channel = RecordingChannel()
        driver = await started(channel)
        driver.handle(protocol.Wrote("stdout", bytes(100)))
        driver.handle(protocol.Dropped("stdout", LIMITS.flood_bytes - 100))
        await settle()
        assert "k" not in channel.kinds
        driver.handle(protocol.Dropped("stdout", 1))
        await settle()
        assert "k" in channel.kinds
        driver.stop()

    run(scenario())


def test_the_deadline_kills_and_a_silent_init_loses_its_container() -> None:
    async def scenario() -> None:
        channel = RecordingChannel()
        driver = await started(channel)
        await asyncio.sleep(LIMITS.timeout_s + 1)
        assert (channel.kinds[-1], channel.destroyed_at) == ("k", [])
        await asyncio.sleep(100)
        assert channel.destroyed_at == [LIMITS.timeout_s + KILL_GRACE_S]
        result = await finished(driver)
        assert (result.status, result.exit_code, result.evidence.exited) == (Status.TIMEOUT, None, None)

    run(scenario())


def test_files_that_do_not_come_end_the_container() -> None:
    async def scenario() -> None:
        channel = RecordingChannel()
        driver = await started(channel)
        driver.handle(EXITED)
        await asyncio.sleep(1000)
        assert channel.destroyed_at == [COLLECT_GRACE_S]
        assert "k" not in channel.kinds
        driver.stop()

    run(scenario())


@pytest.mark.parametrize("oom", [True, False])
def test_the_engine_is_asked_about_memory_only_if_the_kernel_counted_a_kill(oom: bool) -> None:
    async def scenario() -> None:
        channel = RecordingChannel()
        channel.oom = oom
        result = await finished(await started(channel), OOM, protocol.Done())
        assert channel.oom_waits == [OOM_EVENT_WAIT_S]
        assert result.status is (Status.OUT_OF_MEMORY if oom else Status.KILLED)

    run(scenario())


def test_a_sandbox_that_ends_unexpectedly_has_no_result_unless_memory_ran_out() -> None:
    async def scenario() -> None:
        channel = RecordingChannel()
        driver = await started(channel)
        with pytest.raises(SandboxLost, match="ended unexpectedly"):
            await driver.result()
        channel.oom = True
        assert (await finished(driver)).status is Status.OUT_OF_MEMORY

    run(scenario())


def test_stdin_is_sent_within_the_window() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"x" * (protocol.STDIN_WINDOW + 10)

    async def scenario() -> None:
        channel = RecordingChannel()
        driver = await started(channel, source())
        await settle()
        sent = [payload for kind, payload in frames(channel.sent) if kind == "i"]
        assert [len(payload) for payload in sent] == [protocol.STDIN_WINDOW]
        driver.handle(protocol.Acknowledged(4))
        await settle()
        driver.handle(protocol.Acknowledged(100))
        await settle()
        sent = [payload for kind, payload in frames(channel.sent) if kind == "i"]
        assert [len(payload) for payload in sent] == [protocol.STDIN_WINDOW, 4, 6, 0]
        driver.stop()

    run(scenario())


def test_a_source_of_stdin_that_fails_ends_the_run_with_its_error() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"x"
        raise ZeroDivisionError

    async def scenario() -> None:
        channel = RecordingChannel()
        driver = await started(channel, source())
        await settle()
        assert channel.destroyed_at == [0.0]
        with pytest.raises(ZeroDivisionError):
            await driver.result()
        driver.stop()

    run(scenario())


def test_a_source_of_stdin_must_yield_bytes() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield "text"  # type: ignore[misc]

    async def scenario() -> None:
        driver = await started(RecordingChannel(), source())
        await settle()
        with pytest.raises(InvalidRequest, match="bytes, not str"):
            await driver.result()
        driver.stop()

    run(scenario())


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (protocol.Failed("no memory"), SandboxLost),
        (protocol.Ready({}), ProtocolViolation),
        (protocol.SessionFrame(b"T", b""), ProtocolViolation),
    ],
)
def test_an_event_that_has_no_place_in_a_run_is_an_error(
    event: protocol.Event, error: type[Exception]
) -> None:
    async def scenario() -> None:
        driver = await started(RecordingChannel())
        with pytest.raises(error):
            driver.handle(event)
        driver.stop()

    run(scenario())
