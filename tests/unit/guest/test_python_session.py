# ruff: noqa: E501 - programs
"""The Python session program, with and without IPython, as init and the host see it."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_harness import GUEST, Client, Gone, Program
from worker_harness import memory_kib

KINDS = ("plain", "ipython")


@pytest.fixture(scope="module")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Interpreters with the .pth file, as in the images; one of them also sees the packages installed here."""
    found = {}
    for kind in KINDS:
        home = tmp_path_factory.mktemp(kind)
        venv.create(home, symlinks=True)
        (packages,) = home.glob("lib/python*/site-packages")
        line = (GUEST / "codeforge_worker.pth").read_text()
        (packages / "codeforge_worker.pth").write_text(line.replace("/opt/codeforge", str(GUEST)))
        if kind == "ipython":
            here = next(path for path in sys.path if path.endswith("site-packages"))
            (packages / "a_more.pth").write_text(f"{here}\n")
        found[kind] = home / "bin" / "python"
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Sessions:
    """Sessions that tests share, each in a directory of its own; one that died is started again."""

    def __init__(self, pythons: dict[str, Path], parent: Path) -> None:
        self._pythons, self._parent = pythons, parent
        self._started: dict[tuple[str, str], Program] = {}

    def __call__(self, kind: str, purpose: str) -> Program:
        program = self._started.get((kind, purpose))
        if program is None or program.process.poll() is not None:
            code = self._parent / f"{kind}-{purpose}-{len(list(self._parent.iterdir()))}"
            code.mkdir()
            program = self._started[kind, purpose] = Program(code, python=self._pythons[kind])
        return program

    def end(self) -> None:
        for program in self._started.values():
            program.__exit__(None, None, None)


@pytest.fixture(scope="module")
def sessions(pythons: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    started = Sessions(pythons, tmp_path_factory.mktemp("shared"))
    yield started
    started.end()


@pytest.fixture
def shared(kind: str, sessions: Sessions) -> Program:
    """A session for tests that leave nothing behind which others would see."""
    return sessions(kind, "shared")


@pytest.fixture
def parent(kind: str, sessions: Sessions) -> Program:
    """A session that can be forked; tests leave it so."""
    return sessions(kind, "parent")


@pytest.fixture
def ipython(sessions: Sessions) -> Program:
    return sessions("ipython", "shared")


@pytest.fixture
def own(kind: str, pythons: dict[str, Path], tmp_path: Path) -> Iterator[Program]:
    """A session of the test's own."""
    with Program(directory(tmp_path, "code"), python=pythons[kind]) as program:
        yield program


@pytest.fixture
def own_ipython(pythons: dict[str, Path], tmp_path: Path) -> Iterator[Program]:
    with Program(directory(tmp_path, "code"), python=pythons["ipython"]) as program:
        yield program


def directory(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


# --- Values


@pytest.mark.parametrize(
    ("code", "text", "json"),
    [
        ("1 + 1", "2", 2),
        ("x = 3\nx", "3", 3),
        ("'a\\nb'", "'a\\nb'", "a\nb"),
        ("True", "True", True),
        ("[1, {'a': None}]", "[1, {'a': None}]", [1, {"a": None}]),
        ("import asyncio\nawait asyncio.sleep(0, 'slept')", "'slept'", "slept"),
        ("[x async for x in (lambda: (_ for _ in ()))()] if 0 else 5", "5", 5),
        ("5 # ;", "5", 5),
        ("'é\u2028'", "'é\\u2028'", "é\u2028"),
    ],
)
def test_plain_data_is_text_and_json(shared: Program, code: str, text: str, json: object) -> None:
    assert shared.run(code).data == {"text/plain": text, "application/json": json}


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("(1, 2)", "(1, 2)"),
        ("{1: 2}", "{1: 2}"),
        ("float('nan')", "nan"),
        ("[float('inf')]", "[inf]"),
        ("x = []\nx.append(x)\nx", "[[...]]"),
        ("10 ** 5000 * 0 + (1 << 20000)\n_ = 1j\n_", "1j"),
        ("b'x'", "b'x'"),
        ("object", "object"),
        ("class Text(str): pass\nText('x')", "'x'"),
    ],
)
def test_what_json_would_change_is_only_text(shared: Program, code: str, text: str) -> None:
    data = shared.run(code).data
    assert data is not None
    assert list(data) == ["text/plain"]
    assert data["text/plain"].removeprefix("<class '").removesuffix("'>") == text


@pytest.mark.parametrize(
    "code", ["", "x = 1", "None", "1;", "1 ; # why", "print()", "# only this", "def f(): 1", "\n\n"]
)
def test_some_cells_have_no_value(shared: Program, code: str) -> None:
    cell = shared.run(code)
    assert (cell.data, cell.error) == (None, None)


RICH = """
class Rich:
    def _repr_html_(self): return "<b>é</b>"
    def _repr_png_(self): return b"png", {"width": 3}
    def _repr_jpeg_(self): return b"jpeg"
    def _repr_svg_(self): return "<svg/>"
    def _repr_markdown_(self): return "*b*"
    def _repr_latex_(self): return "$b$"
    def _repr_json_(self): return {"b": [1, True]}
    def __repr__(self): return "rich"
Rich()
"""


def test_an_object_is_shown_by_its_own_methods(shared: Program) -> None:
    assert shared.run(RICH).data == {
        "text/plain": "rich",
        "text/html": "<b>é</b>",
        "image/png": base64.b64encode(b"png").decode(),
        "image/jpeg": base64.b64encode(b"jpeg").decode(),
        "image/svg+xml": "<svg/>",
        "text/markdown": "*b*",
        "text/latex": "$b$",
        "application/json": {"b": [1, True]},
    }
    of_class = shared.run("Rich").data
    assert of_class is not None
    assert list(of_class) == ["text/plain"]


def test_an_objects_own_bundle_is_sent_unchanged(shared: Program) -> None:
    cell = shared.run(
        "class Own:\n def _repr_mimebundle_(self, include, exclude): return {'text/plain': 'own', 'application/x+json': {'a': 1}}\nOwn()"
    )
    assert cell.data == {"text/plain": "own", "application/x+json": {"a": 1}}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class A:\n def __repr__(self): raise KeyError('k')\nA()", "KeyError: 'k'"),
        (
            "class A:\n def _repr_html_(self): 1/0\n def __repr__(self): return 'fine'\nA()",
            "ZeroDivisionError",
        ),
    ],
)
def test_a_repr_that_fails_is_reported_on_stderr(shared: Program, code: str, words: str) -> None:
    cell = shared.run(code)
    assert cell.error is None
    assert cell.data is not None
    assert cell.data["text/plain"] in ("fine", "<A: its repr failed>")
    assert words in cell.stderr
    assert str(GUEST) not in cell.stderr


def test_an_object_that_has_every_attribute_is_shown_by_its_repr(shared: Program) -> None:
    assert shared.value("from unittest.mock import MagicMock\nMagicMock(name='m')").startswith(
        "<MagicMock name='m'"
    )


def test_lone_surrogates_are_replaced(shared: Program) -> None:
    cell = shared.run("print('a'); 'x\\ud800y'")
    assert cell.data == {"text/plain": "'x\\ud800y'", "application/json": "x?y"}
    cell = shared.run("raise ValueError('\\ud800')")
    assert cell.error is not None
    assert cell.error["value"] == "?"


def test_code_with_a_lone_surrogate_is_an_error(shared: Program) -> None:
    error = shared.run("x = '\ud800'").error
    assert error is not None
    assert error["name"] == "UnicodeEncodeError"


def test_what_is_too_large_is_reported_instead_of_sent(shared: Program) -> None:
    cell = shared.run(
        "class Big:\n def _repr_png_(self): return bytes(25 << 20)\n def __repr__(self): return 'big'\ndisplay(Big())\nBig()"
    )
    said = {"text/plain": f"<image/png of {(25 << 20) * 4 // 3 + 2} bytes: too much to send>"}
    assert cell.displays[0].keys() == said.keys()
    assert cell.displays[0]["text/plain"].startswith("<image/png of 349525")
    assert cell.data == cell.displays[0]
    cell = shared.run("raise ValueError('x' * (8 << 20))")
    assert cell.error is not None
    assert len(cell.error["value"]) < 1 << 21


# --- State


def test_names_stay_also_after_errors(own: Program) -> None:
    own.run("import math as m\ndef f(n): return n + k\nk = 1")
    assert own.run("k = 2\n1/0").error is not None
    assert own.value("f(1), m.pi > 3, _ if '_' in dir(__builtins__) else 0") == "(3, True, 0)"
    assert own.value("_") == "(3, True, 0)"
    own.run("_ = 'mine'")
    own.run("5")
    assert own.value("_") == "'mine'"


def test_the_namespace_is_that_of_a_program(own: Program) -> None:
    # _dh is IPython's list of directories.
    names = own.run("print(*sorted(name for name in globals() if name != '_dh'))").stdout
    assert names.split() == [
        "__annotations__",
        "__builtins__",
        "__doc__",
        "__loader__",
        "__name__",
        "__package__",
        "__spec__",
    ]
    assert (
        own.value("import sys; __name__, sys.argv, sys.path[0], '__file__' in globals()")
        == "('__main__', [''], '', False)"
    )
    assert own.value("sys.modules['__main__'].__dict__ is globals()") == "True"
    assert (
        own.value(
            "[m for m in sys.modules if m.startswith('python_')], 'CODEFORGE_CONTROL_FD' in __import__('os').environ"
        )
        == "([], False)"
    )
    assert own.value("callable(display)") == "True"


PICKLED = """
import dataclasses, inspect, pickle, typing
@dataclasses.dataclass
class Point:
    x: "int" = 3
def twice(p: "Point") -> "Point":
    return Point(2 * p.x)
assert pickle.loads(pickle.dumps(Point(4))) == Point(4)
assert pickle.loads(pickle.dumps(twice)) is twice
assert typing.get_type_hints(twice)["p"] is Point
inspect.getsource(twice)
"""


def test_classes_and_functions_of_a_cell_work_as_in_a_file(shared: Program) -> None:
    assert "return Point(2 * p.x)" in shared.value(PICKLED)


def test_processes_can_be_forked_by_multiprocessing(shared: Program) -> None:
    code = "import multiprocessing as mp\ndef square(n): return n * n\nwith mp.get_context('fork').Pool(2) as pool: print(pool.map(square, [1, 2, 3]))"
    assert shared.run(code).stdout == "[1, 4, 9]\n"


def test_a_future_statement_holds_for_later_cells(own: Program) -> None:
    own.run("from __future__ import annotations")
    assert own.value("def f(x: nothing): pass\nf.__annotations__") == "{'x': 'nothing'}"


def test_files_and_the_directory_stay(own: Program) -> None:
    own.run("import os\nos.mkdir('below'); os.chdir('below'); open('a.py', 'w').write('b = 7')")
    assert own.value("import a\na.b") == "7"


def test_the_event_loop_stays_and_asyncio_run_works_beside_it(shared: Program) -> None:
    shared.run(
        "import asyncio\nqueue = asyncio.Queue()\nasync def put(): await queue.put(await asyncio.sleep(0.01, 'late'))\ntask = asyncio.create_task(put())\nawait asyncio.sleep(0)"
    )
    assert shared.value("asyncio.run(asyncio.sleep(0, 'shared'))") == "'shared'"
    assert shared.value("await queue.get()") == "'late'"


# --- Output


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        ("print('a'); print('b', end='')", "a\nb", ""),
        ("import sys; sys.stderr.write('e'); sys.stdout.write('o'); None", "o", "e"),
        ("import subprocess; subprocess.run('echo o; echo e >&2', shell=True); None", "o\n", "e\n"),
        ("import os; os.write(1, b'raw'); None", "raw", ""),
        ("import ctypes; ctypes.CDLL(None).printf(b'from c'); None", "from c", ""),
        (
            "import io, sys; old, sys.stdout = sys.stdout, io.StringIO()\nprint('lost')\nsys.stdout = old",
            "",
            "",
        ),
        ("import sys; old = sys.stdout; sys.stdout = None; sys.stdout = old", "", ""),
        ("print(input())", "", ""),
    ],
)
def test_output_is_there_before_the_answer(shared: Program, code: str, stdout: str, stderr: str) -> None:
    cell = shared.run(code)
    assert (cell.stdout, cell.stderr) == (stdout, stderr)


def test_a_line_arrives_while_the_cell_runs(shared: Program) -> None:
    cell = shared.begin("import time; print('now'); time.sleep(30)")
    shared.wait_for_output("now\n")
    shared.interrupt()
    assert shared.end(cell).error is not None


def test_threads_run_between_cells(shared: Program) -> None:
    shared.run(
        "import threading, time\ndef later():\n  time.sleep(0.05); print('later')\nthreading.Thread(target=later).start()"
    )
    shared.wait_for_output("later\n")
    assert shared.run("1").stdout == "later\n"


def test_displays_arrive_in_order(shared: Program) -> None:
    cell = shared.run(RICH + "display(1, 'a')\ndisplay({'text/html': '<i>'}, raw=True)")
    assert [shown.get("text/html") or shown["text/plain"] for shown in cell.displays] == ["1", "'a'", "<i>"]


def test_warnings_name_their_cell_each_time(shared: Program) -> None:
    for _ in range(2):
        cell = shared.run("import warnings\nwarnings.warn('careful')")
        assert cell.stderr == f"<cell {shared._cells}>:2: UserWarning: careful\n  warnings.warn('careful')\n"
    assert "SyntaxWarning" in shared.run("x = 1\nx is 1").stderr


# --- Errors


def test_a_traceback_shows_the_cells_own_lines(shared: Program) -> None:
    shared.run("def fail(n):\n    raise ValueError(f'no {n}')")
    cell = shared.run("x = 1\nfail(x)")
    assert cell.error is not None
    assert (cell.error["name"], cell.error["value"]) == ("ValueError", "no 1")
    number = shared._cells
    for words in (
        f"<cell {number}>",
        f"<cell {number - 1}>",
        "fail(x)",
        "raise ValueError(f'no {n}')",
        "ValueError: no 1",
    ):
        assert words in cell.traceback
    assert str(GUEST) not in cell.traceback
    assert "events" not in shared.run("import asyncio\nawait asyncio.sleep(0)\nfail(1)").traceback
    assert "\n" not in "".join(cell.error["traceback"])
    assert "\x1b" not in cell.traceback


def test_a_traceback_without_ipython_is_pythons(pythons: dict[str, Path], tmp_path: Path) -> None:
    with Program(tmp_path, python=pythons["plain"]) as program:
        assert program.run("def f():\n    return 1/0\nf()").traceback.splitlines() == [
            "Traceback (most recent call last):",
            '  File "<cell 1>", line 3, in <module>',
            "    f()",
            '  File "<cell 1>", line 2, in f',
            "    return 1/0",
            "           ~^~",
            "ZeroDivisionError: division by zero",
        ]


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("import sys; sys.exit()", "SystemExit", ""),
        ("def f(n): return f(n + 1)\nf(0)", "RecursionError", "maximum recursion depth exceeded"),
        ("x = bytes(1 << 60)", "MemoryError", ""),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise GeneratorExit", "GeneratorExit", ""),
        ("x = '\\0'; eval('\\0')", "SyntaxError", None),
        ("class Odd(Exception):\n  def __str__(self): 1/0\nraise Odd", "Odd", "<Odd: its str failed>"),
        (
            "raise ExceptionGroup('two', [ValueError(1), KeyError(2)])",
            "ExceptionGroup",
            "two (2 sub-exceptions)",
        ),
        ("import asyncio\nraise asyncio.CancelledError", "CancelledError", ""),
        ("await nothing", "NameError", "name 'nothing' is not defined"),
        ("return 5", "SyntaxError", None),
        ("x = 1\n  y = 2", "IndentationError", None),
        ("try:\n  1/0\nexcept Exception as e:\n  raise KeyError('then') from e", "KeyError", "'then'"),
        ("int('9' * 5000)", "ValueError", None),
        ("(" * 300 + ")" * 300, "SyntaxError", None),
        (
            "class M(type):\n  def __repr__(c): 1/0\nclass E(Exception, metaclass=M): pass\nraise E('e')",
            "E",
            "e",
        ),
    ],
)
def test_every_error_is_a_result(shared: Program, code: str, name: str, value: str | None) -> None:
    cell = shared.run(code)
    assert cell.error is not None
    assert cell.error["name"] == name
    if value is not None:
        assert cell.error["value"] == value
    assert str(GUEST) not in cell.traceback
    assert cell.traceback
    assert shared.value("1 + 1") == "2"


def test_an_error_whose_class_has_no_name_is_a_result(shared: Program) -> None:
    cell = shared.run(
        "class Meta(type):\n    __name__ = property(lambda c: 1 / 0)\n"
        "class E(Exception, metaclass=Meta): pass\nkept = 1\nraise E('why')"
    )
    assert cell.error is not None
    assert (cell.error["name"], cell.error["value"]) == ("E", "why")
    assert shared.value("kept") == "1"


def test_a_syntax_error_shows_where(shared: Program) -> None:
    cell = shared.run("y = 1\nx = = 3")
    assert cell.error is not None
    number = shared._cells
    assert cell.traceback.splitlines()[-4:] == [
        f'  File "<cell {number}>", line 2',
        "    x = = 3",
        "        ^",
        "SyntaxError: invalid syntax",
    ]


def test_with_a_syntax_error_in_the_last_line_no_line_runs(shared: Program) -> None:
    assert shared.run("print('ran')\nx = = 3").stdout == ""


def test_the_last_error_for_the_debugger_is_the_cells(shared: Program) -> None:
    shared.run("1/0")
    assert (
        shared.value("import sys; sys.last_value, sys.last_traceback.tb_frame.f_code.co_name")
        == "(ZeroDivisionError('division by zero'), '<module>')"
    )


# --- Interrupts


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import asyncio\nawait asyncio.sleep(60)",
        "import asyncio, time\nasync def f(): time.sleep(60)\nawait f()",
        "import asyncio\nasyncio.run(asyncio.sleep(60))",
        "import subprocess; subprocess.run(['sleep', '60'])",
        "import threading; threading.Event().wait()",
        "class Endless:\n  def __repr__(self):\n    while True: pass\nEndless()",
        "class Endless:\n  def _repr_html_(self):\n    while True: pass\ndisplay(Endless())",
        "while True: display(1)",
        "while True: print(end='')",
        "import time\ntry: time.sleep(60)\nfinally: kept = 'finally'",
    ],
)
def test_a_signal_interrupts_the_cell(shared: Program, code: str) -> None:
    shared.run("kept = 'kept'")
    cell = shared.begin(f"print('begun', flush=True)\n{code}")
    shared.wait_for_output("begun\n")
    time.sleep(0.05)  # for what comes after
    shared.interrupt()
    end = shared.end(cell)
    assert end.error is not None
    assert end.error["name"] == "KeyboardInterrupt"
    assert str(GUEST) not in end.traceback
    assert "kept" in shared.value("kept") or "finally" in shared.value("kept")


def test_tasks_survive_an_interrupt_of_the_loop(shared: Program) -> None:
    shared.run(
        "import asyncio\nasync def later(): return await asyncio.sleep(0.1, 'done')\ntask = asyncio.create_task(later())\nawait asyncio.sleep(0)"
    )
    cell = shared.begin("await asyncio.sleep(60)")
    time.sleep(0.05)
    shared.interrupt()
    assert shared.end(cell).error is not None
    assert shared.value("await task") == "'done'"


def test_a_signal_while_nothing_runs_is_ignored(shared: Program) -> None:
    for _ in range(3):
        shared.interrupt()
    time.sleep(0.05)
    assert shared.value("1 + 1") == "2"


def test_a_signal_around_a_cells_end_interrupts_that_cell_or_is_ignored(shared: Program) -> None:
    for n in range(40):
        cell = shared.begin("import time; time.sleep(0.001); n = 0")
        time.sleep(0.0004 * (n % 10))
        shared.interrupt()
        end = shared.end(cell)
        assert end.error is None or end.error["name"] == "KeyboardInterrupt"
        assert shared.value(f"{n}") == str(n)


# --- What ends, or must not end, the program


def test_a_child_that_returns_from_the_cell_exits(shared: Program) -> None:
    cell = shared.run(
        "import os\nif os.fork():\n  print('parent', os.waitstatus_to_exitcode(os.wait()[1]))\nelse:\n  print('child'); display('child')"
    )
    assert cell.stdout in ("child\nparent 0\n",)
    assert cell.displays == []
    assert shared.run("if not os.fork(): 1/0\nprint(os.waitstatus_to_exitcode(os.wait()[1]))").stdout == "1\n"
    assert (
        shared.run(
            "if not os.fork(): raise SystemExit(4)\nprint(os.waitstatus_to_exitcode(os.wait()[1]))"
        ).stdout
        == "4\n"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(3)",
        "import os; os.close(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_a_program_that_kills_itself_ends_the_session(own: Program, code: str) -> None:
    with pytest.raises(Gone):
        own.run(code)
    own.process.wait(10)


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.close(1); os.close(2)",
        "import sys; sys.stdout.close()",
        "import sys; del sys.stdout",
        "import sys; sys.stdout = 5",
        "import builtins; del builtins.display",
    ],
)
def test_a_session_survives_what_a_cell_does_to_the_streams(own: Program, code: str) -> None:
    own.run(code)
    assert own.value("1 + 1") == "2"


def test_the_end_of_the_stream_ends_the_program(own: Program) -> None:
    own.run("import atexit; atexit.register(print, 'never')")
    own.close()
    assert own.process.wait(10) == 0


def test_a_message_may_come_in_pieces(own: Program) -> None:
    message = b'{"do": "run", "cell": 1, "code": "5"}'
    own.send_frame(b"j", message[:10])
    own.send_frame(b"j", message[10:20])
    own.send_frame(b"J", message[20:])
    assert own.receive() == {"is": "begun", "cell": 1}
    assert own.end(1).data == {"text/plain": "5", "application/json": 5}


# --- At a prompt


@pytest.mark.parametrize(
    ("code", "at", "start", "matches"),
    [
        ("numbers.app", 11, 8, ["append"]),
        ("x = numbers.ind + 1", 15, 12, ["index"]),
        ("numb", 4, 0, ["numbers"]),
        ("é = numb", 8, 4, ["numbers"]),
        ("whil", 4, 0, ["while"]),
        ("nothing.at.all", 14, 11, []),
    ],
)
def test_completions(shared: Program, code: str, at: int, start: int, matches: list[str]) -> None:
    shared.run("numbers = [1]")
    found = shared.ask({"do": "complete", "code": code, "at": at})
    assert found["is"] == "completions"
    if matches:
        assert (found["start"], found["end"], found["matches"]) == (start, at, matches)
    assert found["matches"] == matches


@pytest.mark.parametrize(
    ("code", "status", "indent"),
    [
        ("1 + 1", "complete", ""),
        ("for x in y:", "incomplete", "    "),
        ("for x in y:\n    print(x)", "incomplete", "    "),
        ("for x in y:\n    print(x)\n", "complete", ""),
        ("f(1,", "incomplete", None),
        ("x = = 1", "invalid", ""),
        ("await x", "complete", ""),
    ],
)
def test_completeness(shared: Program, code: str, status: str, indent: str | None) -> None:
    found = shared.ask({"do": "is_complete", "code": code})
    assert (found["is"], found["status"]) == ("completeness", status)
    if indent is not None:
        assert found["indent"] == indent


DEEP = {
    "a long sum": "x = " + "+".join(["1"] * 3000),
    "many brackets": "(" * 5000,
    "many signs": "x = " + "-" * 5000 + "1",
    "many functions": "lambda: " * 3100 + "1",
}


@pytest.mark.parametrize("code", DEEP.values(), ids=DEEP)
def test_code_that_is_nested_too_deep_does_not_end_the_session(shared: Program, code: str) -> None:
    shared.run("kept = 1")
    found = shared.ask({"do": "is_complete", "code": code})
    assert found["status"] in ("complete", "incomplete", "invalid")
    assert shared.ask({"do": "complete", "code": code, "at": len(code)})["is"] == "completions"
    shared.run(code)
    assert shared.value("kept") == "1"


@pytest.mark.parametrize("name", ["__getattr__", "__dir__"])
def test_attributes_that_raise_systemexit_have_no_completions(shared: Program, name: str) -> None:
    shared.run(f"class C:\n    def {name}(self, *names): raise SystemExit\nobj = C(); kept = 1")
    assert shared.ask({"do": "complete", "code": "obj.x.y", "at": 7})["matches"] == []
    assert shared.value("kept") == "1"


# --- Waiting


def test_a_session_waits_as_a_worker_and_preloads(
    kind: str, pythons: dict[str, Path], tmp_path: Path
) -> None:
    steps = ["json random decimal"] + ["IPython.core.interactiveshell matplotlib.pyplot"] * (
        kind == "ipython"
    )
    with Program(tmp_path, python=pythons[kind], wait=True) as program:
        program.start(*steps)
        assert (
            program.value(
                "import os, sys; os.environ['GREETING'], 'decimal' in sys.modules, sys.argv, sys.path[0]"
            )
            == "('hello', False, [''], '')"
        )
        assert program.value("import decimal; str(decimal.Decimal(1) / 8)") == "'0.125'"
        if kind == "ipython":
            cell = program.run("import matplotlib.pyplot as plt; plt.plot([1, 2]); None")
            assert [shown["text/plain"] for shown in cell.displays] == ["<Figure size 640x480 with 1 Axes>"]


def test_a_file_that_hides_a_preloaded_module_is_imported(pythons: dict[str, Path], tmp_path: Path) -> None:
    with Program(tmp_path, python=pythons["plain"], wait=True) as program:
        (tmp_path / "decimal.py").write_text("mine = 1\n")
        program.start("decimal")
        assert program.value("import decimal; decimal.mine") == "1"


# --- Branches


def test_a_branch_is_independent(own: Program, tmp_path: Path) -> None:
    own.run("import os, random, sys\nx = [1]; os.mkdir('below'); os.chdir('below')")
    target = directory(tmp_path, "branch")
    directory(target, "below")
    branch = own.fork(target)
    branch.run("x.append('branch'); print(os.getcwd())")
    own.run("x.append('parent')")
    assert (own.value("x"), branch.value("x")) == ("[1, 'parent']", "[1, 'branch']")
    assert branch.value("os.getcwd()") == repr(str(target / "below"))
    assert own.value("random.random()") != branch.value("random.random()")
    assert branch.value("os.getsid(0) == os.getpid()") == "True"
    assert own.run("print('p')").stdout == "p\n"
    assert branch.run("print('b'); display('shown')").stdout == "b\n"
    twig = branch.fork(directory(tmp_path, "twig"))
    assert twig.value("x") == "[1, 'branch']"
    branch.close()
    own.close()
    assert twig.value("x + [2]") == "[1, 'branch', 2]"
    twig.close()


def test_a_branch_becomes_a_child_of_init_and_leaves_no_zombie(parent: Program, tmp_path: Path) -> None:
    branch = parent.fork(directory(tmp_path, "branch"))
    pid = int(branch.value("import os; os.getpid()"))
    assert Path(f"/proc/{pid}/stat").read_text().split()[3] != str(parent.process.pid)
    assert Path(f"/proc/{parent.process.pid}/task/{parent.process.pid}/children").read_text() == ""
    branch.close()


def test_buffered_output_is_written_once(own: Program, tmp_path: Path) -> None:
    own.run("import sys, threading")
    own.send(
        {
            "do": "run",
            "cell": 2,
            "code": "sys.stdout.reconfigure(line_buffering=False); import atexit; atexit.register(lambda: 0)",
        }
    )
    assert own.receive()["is"] == "begun"
    own.end(2)
    own._cells = 2
    branch = own.fork(directory(tmp_path, "branch"))
    assert branch.run("print('one')").stdout == "one\n"
    assert own.run("print('two')").stdout == "two\n"
    branch.close()


@pytest.mark.parametrize(
    ("code", "words", "cure"),
    [
        (
            "import threading, time\nstop = threading.Event()\nthreading.Thread(target=stop.wait, name='waiter').start()",
            "threads are running (waiter)",
            "stop.set()",
        ),
        (
            "import subprocess\nchild = subprocess.Popen(['sleep', '60'])",
            " sleep)",
            "child.kill(); child.wait()",
        ),
        (
            "import socket\npair = socket.socketpair()",
            "sockets are open (descriptor ",
            "[end.close() for end in pair]",
        ),
        (
            "import asyncio\ntask = asyncio.create_task(asyncio.sleep(60), name='sleeper')\nawait asyncio.sleep(0)",
            "asyncio tasks are pending (sleeper)",
            "task.cancel(); await asyncio.sleep(0)",
        ),
        ("import asyncio\nawait asyncio.to_thread(print)", None, "1"),
    ],
)
def test_what_prevents_a_fork_is_reported(
    parent: Program, tmp_path: Path, code: str, words: str | None, cure: str
) -> None:
    parent.run(code)
    why = parent.obstacle(directory(tmp_path, "first"))
    if words is None:
        assert why is None
    else:
        assert why is not None
        assert words in why
        assert "first" in why
    parent.run(cure)
    branch = parent.fork(directory(tmp_path, "branch"))
    assert branch.value("1 + 1") == "2"
    branch.close()


def test_a_thread_that_python_has_forgotten_may_end_before_a_fork(parent: Program, tmp_path: Path) -> None:
    parent.run("import _thread, time\n_thread.start_new_thread(time.sleep, (0.4,))")
    branch = parent.fork(directory(tmp_path, "branch"))
    assert branch.value("1 + 1") == "2"
    branch.close()


def test_both_can_await_after_a_fork(parent: Program, tmp_path: Path) -> None:
    parent.run("import asyncio\nawait asyncio.sleep(0)")
    branch = parent.fork(directory(tmp_path, "branch"))
    for session in (parent, branch, parent):
        cell = session.begin("await asyncio.sleep(0.1); await asyncio.to_thread(lambda: 7)")
        assert session.end(cell).data == {"text/plain": "7", "application/json": 7}
    twig = branch.fork(directory(tmp_path, "twig"))
    assert twig.value("await asyncio.sleep(0.01, 'twig')") == "'twig'"
    twig.close()
    branch.close()


@pytest.mark.parametrize(
    "code",
    [
        "open('{0}/a')",
        "open('{0}/b', 'w')",
        "import os; os.listdir('{0}')",
        "import os; os.remove('{0}/a')",
        "import os; os.rename('a', '{0}/c')",
        "import os; os.mkdir('{0}/d')",
        "import os; os.chdir('{0}')",
        "import pathlib; pathlib.Path('{0}/a').read_text()",
        "import shutil; shutil.rmtree('{0}')",
        "open(b'{0}/a')",
    ],
)
def test_a_branch_cannot_open_the_parents_files(parent: Program, tmp_path: Path, code: str) -> None:
    parent.run("open('a', 'w').close()")
    (target := directory(tmp_path, "branch")).joinpath("a").touch()
    branch = parent.fork(target)
    error = branch.run(code.format(parent.directory)).error
    assert error is not None
    assert error["name"] == "PermissionError"
    assert "its working directory" in error["value"]
    assert branch.run(code.format(target)).error is None
    assert parent.run(f"open({str(parent.directory / 'a')!r}).close()").error is None
    branch.close()


def test_a_branch_can_be_interrupted(parent: Program, tmp_path: Path) -> None:
    branch = parent.fork(directory(tmp_path, "branch"))
    pid = int(branch.value("import os; os.getpid()"))
    cell = branch.begin("print('begun', flush=True)\nwhile True: pass")
    branch.wait_for_output("begun\n")
    os.kill(pid, signal.SIGINT)
    error = branch.end(cell).error
    assert error is not None
    assert error["name"] == "KeyboardInterrupt"
    branch.close()


def test_branches_share_memory(own: Program, tmp_path: Path) -> None:
    own.run("big = bytearray(b'x') * (100 << 20)")
    before = memory_kib(own.process.pid)["Pss"]
    targets = [directory(tmp_path, f"branch{n}") for n in range(10)]
    branches: list[Client] = [own.fork(target) for target in targets]
    pids = [own.process.pid, *map(process_in, targets)]
    assert sum(memory_kib(pid)["Pss"] for pid in pids) < 1.3 * before
    for branch in branches:
        branch.close()


def process_in(where: Path) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == where:
                return int(process.name)
    raise AssertionError(f"no process runs in {where}")


# --- IPython's own


def test_magics_are_there(own_ipython: Program, tmp_path: Path) -> None:
    assert "loop" in own_ipython.run("%timeit -n1 -r1 1").stdout
    assert own_ipython.run("!echo $((1 + 1)); echo e >&2").stdout == "2\n"
    assert own_ipython.value("found = !echo a\nfound[0]") == "'a'"
    assert own_ipython.run("%%bash\necho from bash").stdout == "from bash\n"
    assert own_ipython.obstacle(directory(tmp_path, "first")) is None
    assert own_ipython.value("%%time\n5") == "5"
    assert "Docstring" in own_ipython.run("len?").stdout
    assert own_ipython.run("%cd /").error is None
    assert own_ipython.value("%pwd") == "'/'"
    error = own_ipython.run("%no_such_magic").error
    assert error is None or error["name"] == "UsageError"


def test_a_shell_command_is_interrupted_like_any_cell(ipython: Program, tmp_path: Path) -> None:
    cell = ipython.begin("print('a', end='')\n!echo b; sleep 60")
    ipython.wait_for_output("ab\n")
    os.killpg(ipython.process.pid, signal.SIGINT)
    end = ipython.end(cell)
    assert end.error is not None
    assert end.error["name"] == "KeyboardInterrupt"
    assert end.stdout == "ab\n"
    assert ipython.obstacle(directory(tmp_path, "branch")) is None
    assert ipython.value("x = 5\n!exit $((x + 3)) {x}\n_exit_code") == "3"


def test_ipython_writes_no_files_and_has_no_thread(own_ipython: Program, tmp_path: Path) -> None:
    assert own_ipython.value("import os; len(os.listdir('/proc/self/task')), os.listdir()") == "(1, [])"
    assert (
        own_ipython.value(
            "[fd for fd in os.listdir('/proc/self/fd') if 'sqlite' in os.path.realpath(f'/proc/self/fd/{fd}')]"
        )
        == "[]"
    )
    assert own_ipython.value("import sys; 'sqlite3' in sys.modules") == "False"


FIGURES = "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.figure(); plt.plot([3]);"


def test_every_open_figure_is_shown_at_the_cells_end(ipython: Program) -> None:
    shown = ipython.run(FIGURES).displays
    assert [list(data) for data in shown] == [["text/plain", "image/png"]] * 2
    assert base64.b64decode(shown[0]["image/png"]).startswith(b"\x89PNG")
    assert ipython.run("1").displays == []
    assert len(ipython.run("plt.plot([1]); plt.show(); print('after')").displays) == 1
    cell = ipython.run("plt.plot([1])\n1/0")
    assert len(cell.displays) == 1
    assert cell.error is not None
    assert ipython.run("fig, ax = plt.subplots(); plt.close(fig); fig").data is not None


def test_figures_of_an_interrupted_cell_are_not_shown_by_the_next(ipython: Program) -> None:
    ipython.run("import time, matplotlib.pyplot as plt")
    cell = ipython.begin("plt.plot([1]); print('drawn', flush=True); time.sleep(60)")
    ipython.wait_for_output("drawn\n")
    ipython.interrupt()
    assert ipython.end(cell).error is not None
    assert ipython.run("1").displays == []


PYPLOT = """
import sys, types
class Figure:
    def __init__(self, ok): self.ok = ok
    def savefig(self, file, **options): file.write(b'PNG' if self.ok else 1 / 0)
plt = types.ModuleType('matplotlib.pyplot')
figures = {1: Figure(False), 2: Figure(True)}
plt.get_fignums = lambda: list(figures)
plt.figure = figures.get
plt.close = lambda figure: [figures.pop(n) for n, each in list(figures.items()) if figure in ('all', each)]
sys.modules['matplotlib.pyplot'] = plt
"""


def test_a_figure_that_cannot_be_drawn_does_not_prevent_the_others(
    pythons: dict[str, Path], tmp_path: Path
) -> None:
    with Program(tmp_path, python=pythons["plain"]) as program:
        cell = program.run(PYPLOT)
        assert ("ZeroDivisionError" in cell.stderr, len(cell.displays)) == (True, 1)
        cell = program.run("1")
        assert (cell.stderr, cell.displays) == ("", [])


def test_figures_are_shown_in_a_branch_too(ipython: Program, tmp_path: Path) -> None:
    ipython.run(FIGURES)
    branch = ipython.fork(directory(tmp_path, "branch"))
    assert len(branch.run(FIGURES).displays) == 2
    branch.close()


def test_ipythons_displays_are_sent_as_messages(ipython: Program) -> None:
    cell = ipython.run(
        "from IPython.display import HTML, Markdown, clear_output\ndisplay(HTML('<b>')); clear_output()\nMarkdown('*a*')"
    )
    assert cell.displays[0]["text/html"] == "<b>"
    assert cell.data is not None
    assert cell.data["text/markdown"] == "*a*"
    assert (cell.stdout, cell.stderr) == ("", "")
