"""``codeforge repl`` at a terminal (in tmux), and without one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.support import eventually, sandboxes

CODEFORGE = [sys.executable, "-m", "codeforge"]
PATIENCE_S = 60.0

pytestmark = pytest.mark.engine


class Terminal:
    """A terminal that runs the prompt, and a person who types when it is ready."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._tmux = ("tmux", "-f", "/dev/null", "-S", str(folder / "socket"))
        self.folder = folder
        command = shlex.join([*CODEFORGE, "repl", *arguments])
        where = ["-c", str(folder), "-x", "120", "-y", "2000"]
        self._run("new-session", "-d", *where, f"{command}; echo left with $?; sleep 600")

    def _run(self, *words: str) -> str:
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state"), "TERM": "xterm-256color"}
        env.pop("TMUX", None)
        done = subprocess.run(
            [*self._tmux, *words], env=env, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout

    @property
    def lines(self) -> list[str]:
        """The lines on the screen."""
        return self._run("capture-pane", "-p").rstrip("\n").split("\n")

    def until(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the screen fulfils a condition; return its lines."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(lines := self.lines):
            assert time.monotonic() < deadline, "\n".join(lines)
            time.sleep(0.05)
        return lines

    def press(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def type(self, text: str) -> None:
        self._run("send-keys", "-l", text)

    def prompt(self) -> list[str]:
        """Wait for an empty prompt; return the lines on the screen."""
        return self.until(lambda lines: lines[-1].endswith(">") and " " not in lines[-1])

    def __call__(self, text: str) -> list[str]:
        """Type a line and wait for the next prompt; return the lines in between."""
        self.prompt()
        self.type(text)
        return self.enter(text)

    def enter(self, end: str) -> list[str]:
        """Press Enter behind a line that ends with ``end``; return the lines up to the next prompt."""
        before = len(self.until(lambda lines: "".join(lines[-2:]).endswith(end[-60:])))
        self.press("Enter")
        self.until(lambda lines: len(lines) > before)
        return self.prompt()[before:-1]

    def close(self) -> None:
        self._run("kill-server")


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []
    with tempfile.TemporaryDirectory() as folder:

        def make(*arguments: str) -> Terminal:
            made.append(Terminal(Path(folder), *arguments))
            return made[-1]

        try:
            yield make
        finally:
            for each in made:
                each.close()


def test_a_person_types_cells_and_sees_their_results(terminal: Callable[..., Terminal]) -> None:
    python = terminal()
    assert "python in a sandbox" in python.prompt()[0]
    assert python("x = 6 * 7") == []
    assert python("x") == ["42"]
    assert python("print('no end', end='')") == ["no end"]
    assert python("1 / 0")[-1] == "ZeroDivisionError: division by zero"

    python.type("def double(n):")
    python.press("Enter")
    python.until(lambda lines: lines[-1].strip() == "...")
    python.type("return n * 2")
    python.press("Enter")
    python.until(lambda lines: lines[-1].strip() == "..." and "return" in lines[-2])
    python.press("Enter")
    assert python("double(x)") == ["84"]

    python("import math")
    python.type("math.isq")
    python.press("Tab")
    python.until(lambda lines: lines[-1].endswith("math.isqrt"))
    python.type("(x)")
    assert python.enter("math.isqrt(x)") == ["6"]

    python.type("half a line")
    python.press("C-c")
    python.until(lambda lines: lines[-1] == "python>")
    assert python("x") == ["42"]

    python.press("C-d")
    python.until(lambda lines: lines[-1] == "left with 0")
    history = python.folder / "state/ai-codeforge/history-python"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "+x = 6 * 7\n" in history.read_text()


def test_ctrl_c_stops_a_cell_and_the_session_keeps_its_state(terminal: Callable[..., Terminal]) -> None:
    before = sandboxes()
    python = terminal()
    python("x = 5")
    python.type("print('now'); exec('while True: pass')")
    python.press("Enter")
    python.until(lambda lines: "now" in lines)
    python.press("C-c")
    assert "KeyboardInterrupt" in python.prompt()[-2]
    assert python("x") == ["5"]

    stubborn = "def stubborn():\n while 1:\n  try: time.sleep(9)\n  except BaseException: pass"
    python(f"import time; exec({stubborn!r})")
    python.type("print('here'); stubborn()")
    python.press("Enter")
    python.until(lambda lines: "here" in lines)
    python.press("C-c")
    python.until(lambda lines: "still running" in lines[-1])
    python.press("C-c")
    python.prompt()
    assert python("'x' in globals()") == ["False"]
    python.press("C-d")
    python.until(lambda lines: lines[-1] == "left with 0")
    assert eventually(lambda: sandboxes() <= before, 10)


def test_branches_are_independent(terminal: Callable[..., Terminal]) -> None:
    python = terminal()
    python("x = 1")
    assert python(":fork") == ["Branch 1 is a copy of branch 0; :switch 1 goes there."]
    python("x = 2")
    python(":switch 1")
    assert python("x") == ["1"]
    python(":switch 0")
    assert python("x") == ["2"]
    assert python(":branches") == ["* 0", "  1"]
    python(":close 1")
    assert python(":switch 1") == ["Error: there is no branch 1; the branches are 0"]
    python.type(":quit")
    python.press("Enter")
    python.until(lambda lines: lines[-1] == "left with 0")


def test_after_an_interpreter_ended_restart_starts_one_that_finds_the_files(
    terminal: Callable[..., Terminal],
) -> None:
    python = terminal("--memory", "128m")
    python("size = open('kept.txt', 'w').write('kept')")
    shown = python("import os; os._exit(3)")
    assert shown[0] == "Error: the interpreter ended with exit code 3"
    assert ":restart" in shown[1]
    assert ":restart" in python("1")[0]
    assert python(":restart") == ["Started a new interpreter; the files are kept."]
    assert python("open('kept.txt').read()") == ["'kept'"]
    shown = python("b = bytearray(1 << 30)")
    assert "out of memory at 128m" in shown[0] or "MemoryError" in shown[-1]
    python(":restart")
    assert python("6 * 7") == ["42"]


def test_files_go_in_and_come_out(terminal: Callable[..., Terminal]) -> None:
    python = terminal("--out", "pictures")
    (python.folder / "in.txt").write_text("from here")
    (python.folder / "link").symlink_to("/nowhere")
    assert python(":put in.txt d/in.txt") == ["d/in.txt, 9 bytes"]
    assert python("open('d/in.txt').read()") == ["'from here'"]
    python("import os; os.symlink('/etc/passwd', 'd/link'); _ = open('out.txt', 'w').write('from there')")
    assert [line.split()[1] for line in python(":files")] == ["d", "d/in.txt", "d/link", "out.txt"]
    assert python(":get out.txt") == ["out.txt"]
    assert (python.folder / "out.txt").read_text() == "from there"
    python(":get out.txt link")
    assert (python.folder / "link").read_text() == "from there"
    assert not (python.folder / "link").is_symlink()
    assert python(":get d") == ["d/in.txt", "Left out: d/link, a link"]
    assert [path.name for path in (python.folder / "d").iterdir()] == ["in.txt"]
    assert python(":get nowhere") == ["Error: nowhere: No such file or directory"]
    assert python(":get d/link") != []
    assert not (python.folder / "passwd").exists()

    assert "[image/png, 3 bytes" in python("display({'image/png': 'YWJj', 'text/plain': 'abc'}, raw=True)")[0]
    assert (python.folder / "pictures/picture-1.png").read_bytes() == b"abc"


EVIL = "\x1b]0;evil\x07\x1b[2J\x9b2J\rover\u202e\u200b"


def test_no_control_sequence_reaches_the_terminal(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """Neither by stdout, stderr, values, tracebacks, displays, names of files nor completions."""
    with tempfile.NamedTemporaryFile() as recorded:
        python = terminal()
        python.prompt()
        python._run("pipe-pane", "-o", f"cat >> {recorded.name}")
        python(f"e = {EVIL!a}")
        for line in (
            "import sys; print(e); print(e, file=sys.stderr)",
            "display({'text/plain': e}, raw=True)",
            "display({e: e}, raw=True)",
            "type('R', (), {'__repr__': lambda self: e})()",
            "raise type(e, (Exception,), {})(e)",
            "_ = open(e.replace('/', ''), 'w')",
            ":files",
        ):
            shown = " ".join(python(line))
            assert "\\x1b]0;evil\\x07" in shown or line.startswith("_"), shown
        python("globals()['abc' + e] = 1")
        python("sys.modules['__main__'].__dict__['abcd' + e] = 1")
        python.type("abc")
        python.press("Tab")
        python.press("C-c")
        python.press("C-d")
        python.until(lambda lines: lines[-1] == "left with 0")
        text = Path(recorded.name).read_bytes().decode(errors="replace")
    assert "\x1b]0;" not in text
    assert "\x1b[2J" not in text
    assert not {c for c in text if unicodedata.category(c) == "Cf" or c in "\x07\x9b"}


def test_javascript_too(terminal: Callable[..., Terminal]) -> None:
    node = terminal("javascript")
    node("const box = {alpha: 6}")
    node.type("function double(n) {")
    node.press("Enter")
    node.until(lambda lines: lines[-1].strip() == "...")
    node.type("return n * 2")
    node.press("Enter")
    node.until(lambda lines: lines[-1].strip() == "...")
    node.type("}")
    node.press("Enter")
    node.type("box.al")
    node.until(lambda lines: lines[-1].endswith("box.al"))
    node.press("Tab")
    assert node.enter("box.alpha") == ["6"]
    assert node("double(box.alpha)") == ["12"]
    assert "Error: no" in " ".join(node("throw new Error('no')"))
    node.type("console.log('now'); while (true) {}")
    node.press("Enter")
    node.until(lambda lines: "now" in lines)
    node.press("C-c")
    assert node("double(1)") == ["2"]
    assert "cannot be forked" in node(":fork")[0]
    node.press("C-d")
    node.until(lambda lines: lines[-1] == "left with 0")


# --- Without a terminal


def piped(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CODEFORGE, "repl", *arguments], input=code, capture_output=True, text=True, timeout=PATIENCE_S
    )


def test_without_a_terminal_stdin_is_one_cell() -> None:
    done = piped(
        "import sys\nprint('out')\nprint('err', file=sys.stderr)\n\ndef f():\n\n    return 6 * 7\nf()\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("out\n42\n", "err\n", 0)
    done = piped("console.log(1); [2]", "js")
    assert (done.stdout, done.stderr, done.returncode) == ("1\n[ 2 ]\n", "", 0)


@pytest.mark.parametrize(
    ("code", "options", "said"),
    [
        ("1 / 0", [], "ZeroDivisionError"),
        ("if", [], "SyntaxError"),
        ("import time; time.sleep(60)", ["--timeout", "1"], "timed out after 1 s"),
        ("import os; os._exit(0)", [], "the interpreter ended with exit code 0"),
    ],
)
def test_a_cell_that_does_not_run_to_its_end_exits_with_1(code: str, options: list[str], said: str) -> None:
    done = piped(code, *options)
    assert (done.stdout, done.returncode) == ("", 1)
    assert said in done.stderr


def test_options_work_as_in_codeforge_run(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("beside")
    code = "import os; print(os.environ['A'], open('b').read(), open('/proc/self/limits').read()[:4])"
    done = piped(code, "--env", "A=1=2", "--file", f"{tmp_path / 'in.txt'}:b", "--memory", "256m")
    assert (done.stdout, done.stderr) == ("1=2 beside Limi\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cobol"], "unknown language 'cobol'"),
        (["--memory", "x"], "'512m'"),
        (["--file", "/no"], "cannot read"),
    ],
)
def test_mistakes_exit_with_2(arguments: list[str], said: str) -> None:
    done = piped("1", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("group", [False, True], ids=["it alone", "as a terminal's Ctrl-C"])
def test_ctrl_c_interrupts_the_cell_from_stdin(group: bool) -> None:
    with subprocess.Popen(
        [*CODEFORGE, "repl"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("print('now', flush=True)\nwhile True: pass\n")
        process.stdin.close()
        assert process.stdout.readline() == "now\n"
        if group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr is not None
        assert "KeyboardInterrupt" in process.stderr.read()
