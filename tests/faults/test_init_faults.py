"""An init that ends, hangs or sends garbage, in every state of the protocol."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import scripted_engine
from codeforge import ExecutionResult, Status
from codeforge.errors import EngineError, HostFailure, PostureMismatch, ProtocolViolation, SandboxLost
from codeforge.model.languages import LANGUAGES, Language
from codeforge.model.limits import Limits
from codeforge.policy import container_spec
from faults import init_script
from faults.second_daemon import SecondDaemon
from faults.support import Answer, Stage, play
from scripted_engine import exit_frame, frame

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("known_token")]

PYTHON = LANGUAGES[0]
IMAGE = "codeforge-scripted-init"
GRACE_S = 1.0


def _say(data: bytes) -> str:
    return f"say {data.hex()}"


def _ready() -> str:
    row = dataclasses.replace(PYTHON, worker=False, image=IMAGE)
    spec = container_spec(row, Limits().of_sandbox(row), owner="", uid=int(init_script.UID_ASKED[4:]))
    return _say(frame("R", scripted_engine.posture(spec)))


EXIT = exit_frame()
OUTPUT = frame("O", b"x" * 4000)
A_FILE = frame("F", bytes(4) + b"name") + frame("D", b"half of it")

STATES: dict[str, tuple[str, ...]] = {
    "before READY": (),
    "before GO": (_ready(),),
    "after GO": (_ready(), "await g"),
    "while it writes": (_ready(), "await g", _say(OUTPUT)),
    "in the middle of a frame": (_ready(), "await g", _say(OUTPUT[:100])),
    "after EXIT": (_ready(), "await g", _say(EXIT)),
    "while it sends a file": (_ready(), "await g", _say(EXIT + A_FILE)),
    "after DONE": (_ready(), "await g", _say(OUTPUT + EXIT + frame("Z"))),
}
FAULTS = {
    "exits": "exit",
    "aborts": "abort",
    "hangs": "hang",
    "deafens": "deafen",
    "babbles": f"babble {'ff' * 1000}",
    "repeats": f"babble {frame('R', b'protocol=1').hex()}",
    "floods": f"babble {OUTPUT.hex()}",
}
BABBLERS = ("babbles", "repeats", "floods")
BEFORE_EXIT = ("before GO", "after GO", "while it writes", "in the middle of a frame")


def _is_true(state: str, fault: str, answer: Answer) -> bool:
    """Whether a caller may get this result or error from such an init."""
    if state == "after DONE":
        # Whether more arrives after the last frame depends on where it was cut.
        fine = isinstance(answer, ExecutionResult) and answer.status is Status.OK
        return fine or (fault in BABBLERS and isinstance(answer, ProtocolViolation))
    if isinstance(answer, ExecutionResult):
        # Decided by the host's own clock and counts, and only for a program that had not ended.
        silent = fault in ("hangs", "deafens") and answer.status is Status.TIMEOUT
        endless = fault == "floods" and answer.status in (Status.OUTPUT_LIMIT, Status.TIMEOUT)
        return state in BEFORE_EXIT and (silent or endless)
    if fault in ("exits", "aborts"):
        return isinstance(answer, SandboxLost)
    if fault in ("hangs", "deafens"):
        return isinstance(answer, SandboxLost | EngineError)
    weak = (state, fault) == ("before READY", "repeats") and isinstance(answer, PostureMismatch)
    return weak or isinstance(answer, ProtocolViolation)


@pytest.fixture
def _image(daemon: SecondDaemon, tmp_path: Path) -> Iterator[None]:
    init = tmp_path / "init"
    shutil.copy(init_script.__file__, init)
    init.chmod(0o755)
    daemon.docker("create", "--name=scripted", PYTHON.image)
    daemon.docker("cp", str(init), "scripted:/opt/codeforge/init")
    daemon.docker("commit", "scripted", IMAGE)
    daemon.docker("rm", "scripted")
    yield
    daemon.docker("rmi", IMAGE)


def _row(name: str, script: tuple[str, ...]) -> Language:
    env = {**PYTHON.env, "SCRIPT": "\n".join(script)}
    return dataclasses.replace(PYTHON, name=name, aliases=(), image=IMAGE, worker=False, preload=(), env=env)


@pytest.mark.usefixtures("_image")
@pytest.mark.parametrize("state", STATES)
def test_the_caller_gets_no_false_result_whatever_init_does(
    state: str, daemon: SecondDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for grace in ("sandboxes.run.KILL_GRACE_S", "sandboxes.run.COLLECT_GRACE_S"):
        monkeypatch.setattr(f"codeforge.{grace}", GRACE_S)
    monkeypatch.setattr("codeforge.sandboxes.sandbox.START_TIMEOUT_S", 5.0)

    async def scenario(stage: Stage) -> None:
        answers = await asyncio.gather(*(stage.ask("", language=fault, timeout=2) for fault in FAULTS))
        told = dict(zip(FAULTS, answers, strict=True))
        lies = {fault: answer for fault, answer in told.items() if not _is_true(state, fault, answer)}
        assert not lies

    rows = [_row(name, (*STATES[state], fault)) for name, fault in FAULTS.items()]
    play(scenario, daemon, tmp_path, languages=[*LANGUAGES, *rows], max_warm=0)


@pytest.mark.usefixtures("_image")
def test_losing_the_stock_again_and_again_is_reported(daemon: SecondDaemon, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        with pytest.raises(HostFailure):
            await stage.executor.warm(["exits"], count=2)
        before = stage.executor.get_stats()["launched"]
        await asyncio.sleep(3)
        # It is tried again ever more rarely.
        assert stage.executor.get_stats()["launched"] - before <= 8

    rows = [_row("exits", (_ready(), "exit"))]
    play(scenario, daemon, tmp_path, languages=[*LANGUAGES, *rows])
