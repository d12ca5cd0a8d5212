"""``codeforge repl`` without its prompt: what it prints about cells and branches of a fake session."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest

from codeforge.cli.conversation import COMMANDS, Conversation
from codeforge.errors import CannotFork, InvalidRequest, SandboxLost, SessionEnded
from codeforge.model.cell_result import CellError, CellOutput, CellResult, CellStatus, MimeBundle
from codeforge.model.languages import LANGUAGES
from codeforge.sessions.session import Session

PNG = base64.b64encode(b"\x89PNG picture").decode()
FakeEvent = CellOutput | MimeBundle | CellResult


class Made:
    """A fake session: each cell has the events that the test gave it."""

    def __init__(self, *events: FakeEvent) -> None:
        self.language = LANGUAGES[0]
        self.events = events
        self.calls: list[str] = []
        self.alive = True
        self.error: Exception | None = None

    async def stream(self, code: str) -> AsyncGenerator[FakeEvent, None]:
        self.calls.append(code)
        for event in self.events:
            yield event

    async def start(self) -> None:
        self.calls.append("start")

    async def close(self) -> None:
        self.calls.append("close")

    async def interrupt(self) -> None:
        self.calls.append("interrupt")

    async def restart(self) -> None:
        self.calls.append("restart")
        if self.error is not None:
            raise self.error

    async def fork(self) -> list[Made]:
        if self.error is not None:
            raise self.error
        return [Made(CellOutput("stdout", "the copy\n"), result())]


def result(status: CellStatus = CellStatus.OK, error: CellError | None = None, **more: bool) -> CellResult:
    return CellResult(status=status, error=error, **more)  # type: ignore[arg-type]


def conversation(*events: FakeEvent, out: Path | None = None) -> tuple[Conversation, list[Made]]:
    made: list[Made] = []

    def make() -> Session:
        made.append(Made(*events))
        return cast(Session, made[-1])

    return Conversation(make, out), made


def said(capfd: pytest.CaptureFixture[str], *events: FakeEvent, out: Path | None = None) -> tuple[str, str]:
    asyncio.run(conversation(*events, out=out)[0].run("1"))
    return capfd.readouterr()


def commands(*lines: str, error: Exception | None = None) -> tuple[Conversation, list[Made]]:
    talk, made = conversation(CellOutput("stdout", "the first\n"), result())
    made[0].error = error

    async def main() -> None:
        for line in lines:
            if line.startswith(":"):
                assert await talk.command(line[1:])
            else:
                await talk.run(line)

    asyncio.run(main())
    return talk, made


def test_output_and_values_are_on_stdout_errors_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    error = CellError("ValueError", "no", ("Traceback:", "ValueError: no"))
    events = (
        CellOutput("stdout", "out\n"),
        CellOutput("stderr", "err\n"),
        MimeBundle({"text/plain": "42"}),
        result(CellStatus.ERROR, error),
    )
    assert said(capfd, *events) == ("out\n42\n", "err\nTraceback:\nValueError: no\n")


def test_in_a_pipe_output_is_as_it_came(capfd: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capfd, CellOutput("stdout", "\x1b[2Jx\r"), MimeBundle({"text/plain": "\u202e"}), result())
    assert out == "\x1b[2Jx\r\u202e\n"


def test_text_that_cannot_be_encoded_is_written_with_replacements(capfd: pytest.CaptureFixture[str]) -> None:
    assert said(capfd, MimeBundle({"text/plain": "\ud800"}), result())[0] == "?\n"


@pytest.mark.parametrize(
    ("status", "alive", "words"),
    [
        (CellStatus.TIMEOUT, True, ["why", "variables are kept"]),
        (CellStatus.TIMEOUT, False, ["why", "variables are lost", "files are kept", ":restart"]),
        (CellStatus.OUT_OF_MEMORY, False, ["why", "--memory", "files are kept", ":restart"]),
        (CellStatus.ENDED, False, ["why", "files are kept", ":restart"]),
    ],
)
def test_a_cell_that_failed_says_why_and_what_to_do(
    capfd: pytest.CaptureFixture[str], status: CellStatus, alive: bool, words: list[str]
) -> None:
    ended = result(status, CellError("E", "why; advice for callers of the library"), alive=alive)
    out, err = said(capfd, ended)
    assert out == ""
    assert [word for word in words if word not in err] == []
    assert "library" not in err


def test_truncated_output_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    assert "cut off" in said(capfd, result(truncated=True))[1]


@pytest.mark.parametrize(
    ("kind", "content", "suffix"),
    [("image/png", PNG, "png"), ("image/jpeg", PNG, "jpg"), ("image/svg+xml", "<svg/>", "svg")],
)
def test_pictures_are_named_and_written_where_out_says(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, kind: str, content: str, suffix: str
) -> None:
    bundle = MimeBundle({kind: content, "text/plain": "<Figure>"})
    out, _ = said(capfd, bundle, result())
    assert re.fullmatch(rf"\[{re.escape(kind)}, \d+ bytes; :save TO writes it\]\n", out)
    out, _ = said(capfd, bundle, bundle, result(), out=tmp_path / "pictures")
    names = [f"picture-1.{suffix}", f"picture-2.{suffix}"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == names
    assert str(tmp_path / "pictures" / names[1]) in out


def test_a_picture_that_cannot_be_written_stops_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    bundle = MimeBundle({"image/png": PNG})
    out, _ = said(capfd, bundle, CellOutput("stdout", "more\n"), result(), out=tmp_path / "file")
    assert "cannot write" in out
    assert out.endswith("more\n")


def test_the_last_picture_can_be_saved_and_says_where(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    talk, _ = conversation(MimeBundle({"image/png": PNG}), result())

    async def main() -> None:
        with pytest.raises(InvalidRequest, match="no picture"):
            await talk.command(f"save {tmp_path / 'x.png'}")
        await talk.run("plot()")
        capfd.readouterr()
        await talk.command(f"save '{tmp_path / 'a b.png'}'")

    asyncio.run(main())
    saved = f"Saved the last picture (image/png, 12 bytes) to {tmp_path / 'a b.png'}\n"
    assert capfd.readouterr() == (saved, "")
    assert (tmp_path / "a b.png").read_bytes() == b"\x89PNG picture"


def test_a_display_without_text_is_shown_by_its_types(capfd: pytest.CaptureFixture[str]) -> None:
    assert said(capfd, MimeBundle({"text/html": "<b>", "x/y": 1}), result())[0] == "[text/html, x/y]\n"


def test_branches_are_forked_switched_to_and_closed(capfd: pytest.CaptureFixture[str]) -> None:
    talk, made = commands(":fork", "x", ":switch 1", "x", ":branches", ":close 0")
    out, _ = capfd.readouterr()
    assert out.splitlines()[1:] == ["the first", "the copy", "  0", "* 1"]
    assert talk.label == "python> "
    assert made[0].calls == ["start", "x", "close"]


def test_the_prompt_names_the_branch_if_there_are_several(capfd: pytest.CaptureFixture[str]) -> None:
    assert commands()[0].label == "python> "
    assert commands(":fork")[0].label == "python:0> "
    assert commands(":fork", ":switch 1")[0].label == "python:1> "


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (":nonsense", "no command :nonsense"),
        (":switch", "usage: :switch N"),
        (":switch 1", "no branch 1; the branches are 0"),
        (":switch -1", "no branch -1"),
        (":switch x", "no branch x"),
        (":switch \u00b2", "no branch"),
        (":close 0", "cannot close the current branch"),
        (":get 'a", "cannot split the command"),
        (":get a b c", "usage: :get PATH"),
        (":help x", "usage: :help"),
        (":__init__", "no command"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(line: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(why)):
        commands(line)


def test_a_fork_that_fails_changes_nothing() -> None:
    with pytest.raises(CannotFork):
        commands(":fork", error=CannotFork("it has threads"))


def test_restart_keeps_the_sandbox_or_starts_another_one(
    capfd: pytest.CaptureFixture[str],
) -> None:
    talk, made = commands(":restart")
    assert made[0].calls == ["restart"]
    assert talk.session is cast(Session, made[0])
    for error in (SessionEnded("the sandbox is gone"), SandboxLost("it broke off")):
        capfd.readouterr()
        talk, made = commands(":restart", error=error)
        assert [each.calls for each in made] == [["restart", "close"], ["start"]]
        assert talk.session is cast(Session, made[1])
        out, err = capfd.readouterr()
        assert str(error) in err
        assert "Started a new sandbox" in out


def test_a_signal_before_the_sandbox_is_ready_is_left_to_the_caller() -> None:
    async def main() -> None:
        talk, made = conversation(result())
        starting = asyncio.Event()
        made[0].start = starting.wait  # type: ignore[assignment, method-assign]
        running = asyncio.create_task(talk.run("1"))
        await asyncio.sleep(0)
        assert not talk.interrupt()
        starting.set()
        assert (await running).success

    asyncio.run(main())


def test_a_signal_ends_only_the_command_and_at_the_prompt_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        talk, made = conversation(result())
        talk.at_prompt = True
        made[0].fork = asyncio.Event().wait  # type: ignore[assignment, method-assign]
        forking = asyncio.create_task(talk.command("fork"))
        await asyncio.sleep(0.01)
        assert talk.interrupt()
        assert await forking
        assert talk.interrupt()  # nothing runs, and the prompt stays
        forking = asyncio.create_task(talk.command("fork"))
        await asyncio.sleep(0.01)
        forking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forking

    asyncio.run(main())
    assert ":fork was interrupted" in capfd.readouterr().err


def test_a_signal_interrupts_a_cell_and_a_second_one_ends_its_interpreter() -> None:
    class Busy(Made):
        async def stream(self, code: str) -> AsyncGenerator[FakeEvent, None]:
            assert talk.interrupt()
            await asyncio.sleep(0)
            assert talk.interrupt()
            assert talk.interrupt()
            await asyncio.sleep(0.01)
            yield result(CellStatus.ENDED, CellError("E", "killed"), alive=False)

    busy = Busy()
    talk = Conversation(lambda: cast(Session, busy), None)

    async def main() -> None:
        assert not talk.interrupt()
        await talk.run("x")
        assert not talk.interrupt()

    asyncio.run(main())
    assert busy.calls == ["start", "interrupt", "restart"]


def test_help_lists_every_command_and_every_command_exists(capfd: pytest.CaptureFixture[str]) -> None:
    commands(":help", ":")
    out, _ = capfd.readouterr()
    for name in COMMANDS:
        assert f"  :{name} " in out
        assert name == "quit" or hasattr(Conversation, f"_do_{name}")
    assert asyncio.run(conversation()[0].command("quit")) is False
