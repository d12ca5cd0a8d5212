"""The prompt of ``codeforge repl``, with a fake session."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, strategies as st
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import ColorDepth, DummyOutput

from codeforge.cli import prompt as module
from codeforge.cli.conversation import COMMANDS
from codeforge.cli.prompt import Prompt, history_file, indentation, usable
from codeforge.errors import SessionEnded
from codeforge.model.cell_result import Completions
from codeforge.model.languages import LANGUAGES
from codeforge.sessions.session import Session

PYTHON = next(row for row in LANGUAGES if row.name == "python")


class Answers:
    """A fake session: a cell is complete unless it ends with a colon or its last line is indented."""

    def __init__(self) -> None:
        self.matches: tuple[str, ...] = ()
        self.asked: list[str] = []
        self.delay_s = 0.0
        self.error: Exception | None = None

    async def is_complete(self, code: str) -> bool:
        self.asked.append(code)
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        last = code.rpartition("\n")[2]
        return not code.endswith(":") and not (last.strip() and last.startswith(" "))

    async def complete(self, code: str, at: int) -> Completions:
        self.asked.append(code)
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return Completions(code.rfind(".") + 1, at, self.matches)


@asynccontextmanager
async def at_prompt(history: Path | None = None) -> AsyncIterator[tuple[PipeInput, Prompt, Answers]]:
    answers = Answers()
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys, Prompt(PYTHON, lambda: cast(Session, answers), COMMANDS, history), answers


def typed(
    keys: str, prepare: Callable[[Answers], object] = lambda _: None, times: int = 1
) -> list[str | None]:
    """Return what the prompt reads from keys that are typed without a pause."""

    async def main() -> list[str | None]:
        async with at_prompt() as (pipe, prompt, answers):
            prepare(answers)
            pipe.send_text(keys)
            return [await asyncio.wait_for(prompt.read("> "), 30) for _ in range(times)]

    return asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("that did not come true")


def test_a_complete_line_is_a_cell() -> None:
    assert typed("x = 1\r") == ["x = 1"]


def test_an_incomplete_cell_continues_on_an_indented_line() -> None:
    assert typed("def f():\rreturn 1\r\r") == ["def f():\n    return 1"]


def test_backspace_removes_one_indentation_and_tab_adds_one() -> None:
    assert typed("if x:\rif y:\ra\r\x7fb\r\r") == ["if x:\n    if y:\n        a\n    b"]
    assert typed("if x:\r\tb\r\r") == ["if x:\n        b"]


def test_keys_typed_while_the_session_is_asked_wait_for_its_answer() -> None:
    def slow(answers: Answers) -> None:
        answers.delay_s = 0.1

    assert typed("x = 1\rdef f():\rreturn 1\r\ry\r", slow, times=3) == [
        "x = 1",
        "def f():\n    return 1",
        "y",
    ]


def test_ctrl_c_while_the_session_is_asked_discards_the_line() -> None:
    async def main() -> None:
        async with at_prompt() as (pipe, prompt, answers):
            answers.delay_s = 30
            reading = asyncio.ensure_future(prompt.read("> "))
            pipe.send_text("slow\r")
            await until(lambda: bool(answers.asked))
            pipe.send_text("\x03")
            await asyncio.sleep(0.1)
            answers.delay_s = 0
            pipe.send_text("x\r")
            assert await asyncio.wait_for(reading, 10) == "x"

    asyncio.run(main())


def test_the_prompt_does_not_wait_for_a_session_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.05)

    def silent(answers: Answers) -> None:
        answers.delay_s = 60

    assert typed("def f():\r", silent) == ["def f():"]
    assert typed("x.\t1\r", silent) == ["x.1"]


def test_a_cell_of_a_session_that_has_ended_is_run_to_report_it() -> None:
    def dead(answers: Answers) -> None:
        answers.error = SessionEnded("no interpreter")

    assert typed("def f():\r", dead) == ["def f():"]
    assert typed("x.\t1\r", dead) == ["x.1"]


def test_ctrl_c_discards_the_line_and_ctrl_d_leaves() -> None:
    assert typed("abc\x03x\r\x04", times=2) == ["x", None]


def test_alt_enter_runs_the_cell_as_it_is() -> None:
    assert typed("def f():\x1b\r") == ["def f():"]


def test_enter_within_a_cell_breaks_the_line() -> None:
    up, home, end = "\x1b[A", "\x01", "\x05"
    assert typed(f"if x:\ry{up}{end}\rz\x1b[B{home}{end}\r\r") == ["if x:\n    z\n    y"]


def test_pasted_lines_are_one_cell() -> None:
    assert typed("\x1b[200~def f():\n    return 1\n\x1b[201~\r") == ["def f():\n    return 1"]


def test_the_session_completes_and_a_single_match_is_inserted() -> None:
    async def main() -> None:
        async with at_prompt() as (pipe, prompt, answers):
            answers.matches = ("sqrt",)
            reading = asyncio.ensure_future(prompt.read("> "))
            pipe.send_text("math.sq\t")
            await until(lambda: prompt._prompts.default_buffer.text == "math.sqrt")
            pipe.send_text("(4)\r")
            assert await asyncio.wait_for(reading, 10) == "math.sqrt(4)"

    asyncio.run(main())


def test_a_late_completion_does_not_change_what_was_entered() -> None:
    def late(answers: Answers) -> None:
        answers.matches, answers.delay_s = ("sqrt",), 0.1

    assert typed("math.sq\t(4)\r", late) == ["math.sq(4)"]


def test_enter_accepts_the_chosen_completion_and_runs_nothing() -> None:
    async def main() -> None:
        async with at_prompt() as (pipe, prompt, answers):
            answers.matches = ("alpha", "beta")
            buffer = prompt._prompts.default_buffer
            reading = asyncio.ensure_future(prompt.read("> "))
            pipe.send_text("x.\t")
            await until(lambda: buffer.complete_state is not None)
            pipe.send_text("\t\t\r")
            await until(lambda: buffer.text == "x.beta" and buffer.complete_state is None)
            assert not reading.done()
            pipe.send_text("\r")
            assert await asyncio.wait_for(reading, 10) == "x.beta"

    asyncio.run(main())


def test_commands_are_completed_without_asking_the_session() -> None:
    asked: list[Answers] = []
    assert typed(":bra\t\r", asked.append) == [":branches"]
    assert asked[0].asked == []


@pytest.mark.parametrize(
    "match", ["\x1b]0;evil\x07", "a\nb", "a\rb", "\u202eevil", "\u200b", "\x9b2J", "", "\ud800"]
)
def test_a_completion_with_control_or_invisible_characters_is_dropped(match: str) -> None:
    found = list(usable(Completions(0, 1, (match, "fine")), "x", 1))
    assert found == ["fine"] if match else ["", "fine"]


def test_a_completion_cannot_turn_a_cell_into_a_command() -> None:
    said = Completions(0, 1, (":put ~/.ssh/id_rsa", "  :quit", "x1"))
    assert list(usable(said, "x", 1)) == ["x1"]
    assert list(usable(Completions(0, 1, ("",)), "x:quit", 1)) == []
    assert list(usable(Completions(-5, 1, ("y",)), "x", 1)) == []


@given(st.text(max_size=9), st.integers(-9, 99), st.integers(0, 9), st.lists(st.text(max_size=9)))
def test_whatever_a_session_answers_completions_are_plain_text_in_a_cell(
    text: str, start: int, at: int, matches: list[str]
) -> None:
    at = min(at, len(text))
    for match in usable(Completions(start, at, tuple(matches)), text, at):
        assert match.isprintable()
        assert not (text[: min(start, at)] + match + text[at:]).lstrip().startswith(":")


def test_the_number_of_completions_is_limited() -> None:
    said = Completions(0, 0, tuple(map("n{}".format, range(100_000))))
    assert len(list(usable(said, "", 0))) == module.MAX_COMPLETIONS


@pytest.mark.parametrize(
    ("line", "indent"),
    [("x", 0), ("def f():", 4), ("  x", 2), ("  if x: ", 6), ("f(", 4), ("function f() {", 4), ("", 0)],
)
def test_the_next_line_is_indented_like_the_last_and_deeper_after_an_opening(line: str, indent: int) -> None:
    assert indentation(line) == " " * indent


# --- History


def lines_of(file: Path, keys: str) -> None:
    async def main() -> None:
        async with at_prompt(file) as (pipe, prompt, _):
            pipe.send_text(keys)
            await asyncio.wait_for(prompt.read("> "), 30)

    asyncio.run(main())


def test_only_its_owner_can_read_the_history(tmp_path: Path) -> None:
    file = tmp_path / "state/ai-codeforge/history-python"
    lines_of(file, "secret = 1\r")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "+secret = 1\n" in file.read_text()
    file.chmod(0o644)
    lines_of(file, "x\r")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("\x1b[A\r", "y"),
        ("\x1b[A\x1b[A\r\r", "def f():\n    return 2"),
        ("\x12x =\r\r", "x = 1"),  # Ctrl-R
    ],
    ids=["up", "twice", "searched"],
)
def test_the_history_is_read_back(tmp_path: Path, keys: str, found: str) -> None:
    async def main() -> str | None:
        async with at_prompt(tmp_path / "history") as (pipe, prompt, _):
            reading = asyncio.ensure_future(prompt.read("> "))
            await asyncio.sleep(0.5)
            pipe.send_text(keys)
            return await asyncio.wait_for(reading, 30)

    lines_of(tmp_path / "history", "x = 1\r")
    lines_of(tmp_path / "history", "def f():\rreturn 2\r\r")
    lines_of(tmp_path / "history", "y\r")
    assert asyncio.run(main()) == found


def test_a_history_that_cannot_be_saved_is_in_memory_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lines_of(tmp_path / "file/history", "x = 1\r")
    assert (tmp_path / "file").read_text() == ""


def test_a_history_that_is_too_large_loses_its_older_half(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_text("".join(f"\n# date\n+line {n}\n" for n in range(100_000)))
    lines_of(file, "x = 1\r")
    assert file.stat().st_size < module.MAX_HISTORY_BYTES
    assert file.read_text().startswith("\n# date\n+line ")
    assert file.read_text().endswith("+x = 1\n")
    assert "+line 99999\n" in file.read_text()


def test_the_history_is_in_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert history_file(PYTHON) == Path("/state/ai-codeforge/history-python")
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", unset)
        monkeypatch.setenv("HOME", "/home/me")
        assert history_file(PYTHON) == Path("/home/me/.local/state/ai-codeforge/history-python")


@pytest.mark.parametrize(("value", "depth"), [("1", ColorDepth.DEPTH_1_BIT), ("", None)])
def test_no_color_turns_colors_off(
    monkeypatch: pytest.MonkeyPatch, value: str, depth: ColorDepth | None
) -> None:
    monkeypatch.setenv("NO_COLOR", value)

    async def main() -> ColorDepth | None:
        async with at_prompt() as (_, prompt, _):
            return prompt._prompts.color_depth  # what prompt_toolkit was given

    assert asyncio.run(main()) == depth
