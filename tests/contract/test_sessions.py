"""Sessions as callers use them: state from cell to cell, stopping a cell, files, and the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codeforge import (
    BlockingCodeExecutor,
    BlockingSession,
    CellStatus,
    FileError,
    InvalidRequest,
    MimeBundle,
    SessionEnded,
)
from codeforge.errors import ExecutorClosed
from codeforge.protocol.session_frames import EntryKind
from contract.support import eventually, sandboxes
from observer import OBSERVER, UNDER_TEST

pytestmark = pytest.mark.engine

MiB = 1 << 20

SessionMaker = Callable[..., BlockingSession]


@pytest.fixture(scope="module")
def maker() -> Iterator[BlockingCodeExecutor]:
    """Makes sessions for many tests, without warm sandboxes."""
    with BlockingCodeExecutor(max_warm=0) as made:
        yield made


@pytest.fixture(scope="module")
def python(maker: BlockingCodeExecutor) -> Iterator[BlockingSession]:
    """A session that its tests leave alive."""
    with maker.session("python") as session:
        yield session


@pytest.fixture(scope="module")
def node(maker: BlockingCodeExecutor) -> Iterator[BlockingSession]:
    with maker.session("javascript") as session:
        yield session


@pytest.fixture(scope="module")
def typescript(maker: BlockingCodeExecutor) -> Iterator[BlockingSession]:
    with maker.session("typescript") as session:
        yield session


@pytest.fixture
def fresh(maker: BlockingCodeExecutor) -> Iterator[SessionMaker]:
    """Makes sessions for one test alone."""
    made = []

    def make(language: str = "python", **options: object) -> BlockingSession:
        session = maker.session(language, **options)  # type: ignore[arg-type]
        made.append(session)
        session.start()
        return session

    yield make
    for session in made:
        session.close()


# --- Cells ------------------------------------------------------------------------------------------------


def test_state_stays_from_cell_to_cell(python: BlockingSession) -> None:
    first = python.run("import math\nx = 20\ndef twice(n):\n    return 2 * n\nprint('one')")
    assert (first.status, first.stdout, first.value, first.success) == (CellStatus.OK, "one\n", None, True)
    second = python.run("print(twice(x)); math.floor(x + 1.5)")
    assert (second.stdout, second.value, second.error) == ("40\n", "21", None)
    assert second.alive
    json.dumps(second.to_dict())


def test_state_stays_in_javascript(node: BlockingSession) -> None:
    assert node.run("const x = 20; let y = 1; function twice(n) { return 2 * n }").status == "ok"
    assert node.run("console.log('one'); twice(x) + y").value == "41"
    assert node.run("const x = 30; x").value == "30"


@pytest.mark.core
def test_state_stays_in_typescript(typescript: BlockingSession) -> None:
    assert (
        typescript.run("interface P { n: number }\nconst p: P = { n: 20 }\nconsole.log(p.n)").stdout == "20\n"
    )
    assert typescript.run("p.n + 1").value == "21"


def test_an_error_has_the_lines_of_the_cell_and_the_session_goes_on(python: BlockingSession) -> None:
    python.run("kept = 1")
    result = python.run("def f():\n    raise ValueError('no')\n\nf()")
    assert (result.status, result.success, result.alive) == (CellStatus.ERROR, False, True)
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ValueError", "no")
    trace = "\n".join(result.error.traceback)
    assert "raise ValueError('no')" in trace
    assert "f()" in trace
    assert "/opt/codeforge" not in trace
    assert python.run("kept").value == "1"
    assert python.run("1 +").error.name == "SyntaxError"  # type: ignore[union-attr]


def test_an_error_in_javascript_has_the_lines_of_the_cell(node: BlockingSession) -> None:
    result = node.run("function f() { throw new TypeError('no') }\nf()")
    assert result.status == "error"
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("TypeError", "no")
    assert "/opt/codeforge" not in str(result.error)
    assert node.run("typeof f").value == "'function'"


def test_top_level_await(python: BlockingSession, node: BlockingSession) -> None:
    assert python.run("import asyncio\nawait asyncio.sleep(0.01, 'slept')").value == "'slept'"
    assert node.run("await new Promise(r => setTimeout(() => r(7), 10))").value == "7"


def test_displays_come_in_order_as_they_happen(python: BlockingSession) -> None:
    python.run(
        "class Shown:\n"
        "    def _repr_html_(self): return '<b>shown</b>'\n"
        "    def _repr_png_(self): return b'\\x89PNG'\n"
    )
    seen: list[MimeBundle] = []
    result = python.run("display(Shown()); display(2); Shown()", on_display=seen.append)
    assert tuple(seen) == result.results
    assert [bundle.html for bundle in seen] == ["<b>shown</b>", None, "<b>shown</b>"]
    assert seen[0].png == b"\x89PNG"
    assert seen[1].text == "2"
    assert result.value is not None
    assert "Shown" in result.value


def test_output_comes_as_it_is_written(python: BlockingSession) -> None:
    received: list[tuple[str, float]] = []
    result = python.run(
        "import sys, time\nprint('a', flush=True); time.sleep(0.3); print('b', file=sys.stderr, flush=True)",
        on_stdout=lambda text: received.append((text, time.monotonic())),
        on_stderr=lambda text: received.append((text, time.monotonic())),
    )
    assert [text for text, _ in received] == ["a\n", "b\n"]
    assert received[1][1] - received[0][1] > 0.2
    assert (result.stdout, result.stderr) == ("a\n", "b\n")


def test_a_cell_has_all_its_output_and_that_of_its_children(python: BlockingSession) -> None:
    size = 300_000
    result = python.run(
        f"import subprocess, sys\nsys.stdout.write('x' * {size})\n"
        "_ = subprocess.run(['sh', '-c', 'echo from a child'])"
    )
    assert result.stdout == "x" * size + "from a child\n"


def test_output_between_cells_belongs_to_the_next_cell(python: BlockingSession) -> None:
    python.run("import threading, time\n_ = threading.Timer(0.1, print, ['between']).start()")
    time.sleep(0.5)
    assert python.run("1").stdout == "between\n"


def test_output_is_limited() -> None:
    with (
        BlockingCodeExecutor(max_warm=0, max_output_bytes=1000) as executor,
        executor.session() as session,
    ):
        result = session.run("print('é' * 1000); 5")
        assert (len(result.stdout.encode()), result.truncated, result.value) == (1000, True, "5")


def test_completions_and_complete_cells(python: BlockingSession, node: BlockingSession) -> None:
    python.run("some_long_name = [1]")
    found = python.complete("some_lo")
    assert (found.start, found.end) == (0, 7)
    assert "some_long_name" in found.matches
    assert any("append" in match for match in python.complete("some_long_name.app").matches)
    assert [python.is_complete(code) for code in ("1 + 1", "def f():", "(")] == [True, False, False]
    node.run("globalThis.someLongName = 1")
    assert "someLongName" in node.complete("someLo").matches
    assert [node.is_complete(code) for code in ("1 + 1", "function f() {")] == [True, False]


def test_unusable_cells_are_refused(python: BlockingSession) -> None:
    for code in ("\ud800", "x" * (16 * MiB + 1), 5):
        with pytest.raises(InvalidRequest):
            python.run(code)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        python.run("1", timeout=-1)
    assert python.run("1").value == "1"
    assert python.run("x = '''" + "é" * (2 * MiB) + "'''\nlen(x)").value == str(2 * MiB)


def test_a_session_starts_with_variables_and_files(fresh: SessionMaker) -> None:
    session = fresh(env_vars={"COLOUR": "blue"}, files={"data/a.txt": "here"})
    assert session.run("import os; os.environ['COLOUR']").value == "'blue'"
    assert session.run("open('data/a.txt').read()").value == "'here'"
    assert session.run("os.getcwd()").value == "'/code'"


def test_variables_that_python_reads_at_its_start_take_effect(fresh: SessionMaker) -> None:
    session = fresh(env_vars={"PYTHONHASHSEED": "0"})
    assert session.run("import sys; sys.flags.hash_randomization").value == "0"


# --- Stopping a cell -------------------------------------------------------------------------------------

LOOPS = {"python": "while True: pass", "javascript": "for (;;) {}"}


@pytest.mark.core
@pytest.mark.parametrize("language", LOOPS)
def test_a_timeout_interrupts_the_cell_and_the_state_stays(
    language: str, python: BlockingSession, node: BlockingSession
) -> None:
    session = python if language == "python" else node
    session.run("var stays = 5" if language == "javascript" else "stays = 5")
    result = session.run(LOOPS[language], timeout=0.5)
    assert result.status == "timeout", result
    assert result.alive, result
    assert result.error is not None
    assert result.error.name == "TimeoutError"
    assert session.run("stays").value == "5"


@pytest.mark.parametrize("language", LOOPS)
def test_interrupt_from_another_thread(language: str, python: BlockingSession, node: BlockingSession) -> None:
    session = python if language == "python" else node
    session.run("var stays = 6" if language == "javascript" else "stays = 6")
    session.interrupt()  # no cell runs: this does nothing
    timer = threading.Timer(0.4, session.interrupt)
    timer.start()
    result = session.run(LOOPS[language], timeout=20)
    assert (result.status, result.alive) == ("interrupted", True), result
    assert result.error is not None
    assert result.error.name == "KeyboardInterrupt"
    assert session.run("stays").value == "6"


def test_a_cell_that_ignores_its_timeout_is_killed_and_restart_keeps_files(fresh: SessionMaker) -> None:
    session = fresh(files={"given.txt": "given"})
    session.run("open('made.txt', 'w').write('made'); x = 1")
    started = time.monotonic()
    result = session.run(
        "import time\nwhile True:\n    try: time.sleep(9)\n    except BaseException: pass", timeout=0.3
    )
    assert time.monotonic() - started < 8
    assert (result.status, result.alive, session.alive) == ("timeout", False, False)
    assert result.error is not None
    assert "restart()" in result.error.value
    with pytest.raises(SessionEnded, match=r"restart\(\)"):
        session.run("x")
    with pytest.raises(SessionEnded):
        session.complete("x")
    with pytest.raises(SessionEnded):
        session.fork()
    assert session.files.read("made.txt") == b"made"
    session.restart()
    assert session.alive
    result = session.run("open('given.txt').read(), open('made.txt').read(), 'x' in globals()")
    assert result.value == "('given', 'made', False)"


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "import os; print('last', flush=True); os._exit(3)"), ("javascript", "process.exit(3)")],
)
def test_a_program_may_exit(fresh: SessionMaker, language: str, code: str) -> None:
    session = fresh(language)
    result = session.run(code)
    assert (result.status, result.alive) == ("ended", False)
    assert result.error is not None
    assert "exit code 3" in result.error.value
    assert result.stdout == ("last\n" if language == "python" else "")
    session.restart()
    assert session.run("1 + 1").value == "2"


def test_systemexit_does_not_end_the_session(python: BlockingSession) -> None:
    result = python.run("import sys; sys.exit(3)")
    assert (result.status, result.alive) == ("error", True)
    assert result.error is not None
    assert result.error.name == "SystemExit"


@pytest.mark.core
def test_out_of_memory_is_reported_once_and_restart_works(fresh: SessionMaker) -> None:
    session = fresh(memory_limit="128m")
    session.run("open('kept.txt', 'w').write('kept')")
    result = session.run("hoard = []\nwhile True: hoard.append(bytearray(b'x' * (1 << 20)))", timeout=30)
    assert (result.status, result.alive) == ("out_of_memory", False), result
    assert result.error is not None
    assert "128" in result.error.value
    with pytest.raises(SessionEnded):
        session.run("1")
    if UNDER_TEST == "gvisor":
        return  # the whole sandbox may end
    session.restart()
    assert session.run("open('kept.txt').read()").value == "'kept'"


def test_a_cell_that_floods_is_stopped(fresh: SessionMaker) -> None:
    session = fresh()
    result = session.run("while True: print('x' * 65536)", timeout=50)
    assert result.status == "output_limit"
    assert result.truncated
    assert len(result.stdout) <= MiB
    if result.alive:
        assert session.run("1").value == "1"


def test_a_program_may_kill_its_own_interpreter(fresh: SessionMaker) -> None:
    session = fresh()
    result = session.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert result.status == "ended"
    assert result.error is not None
    assert "signal 9" in result.error.value


def test_ctrl_c_while_a_session_starts_or_a_file_streams_is_a_keyboard_interrupt() -> None:
    program = """
    import os, signal, threading
    from codeforge import BlockingCodeExecutor
    def soon(seconds): threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGINT]).start()
    for seconds in (0, 0.001, 0.01, 0.03):
        with BlockingCodeExecutor(max_warm=0) as executor, executor.session() as session:
            try:
                soon(seconds)
                session.run("import time; time.sleep(60)", timeout=60)
            except KeyboardInterrupt:
                print("interrupted", session.run("5").value)
    with BlockingCodeExecutor(max_warm=0) as executor, executor.session() as session:
        session.run("f = open('large', 'wb'); f.truncate(1 << 24); f.close()")
        try:
            soon(0.3)
            while True:
                for piece in session.files.stream("large"): pass
        except KeyboardInterrupt:
            print("interrupted", session.run("5").value)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "interrupted 5\n" * 5, done.stderr


def test_ctrl_c_in_a_blocking_cell_reaches_the_caller_and_interrupts() -> None:
    program = """
    import os, signal, threading, time
    from codeforge import BlockingCodeExecutor
    with BlockingCodeExecutor(max_warm=0) as executor, executor.session() as session:
        session.run("x = 5")
        threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT]).start()
        began = time.monotonic()
        try:
            session.run("import time; time.sleep(60)", timeout=60)
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - began < 20, session.run("x").value)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "interrupted True 5\n", done.stderr


# --- Restart -----------------------------------------------------------------------------------------------


def test_restart_while_a_cell_runs(fresh: SessionMaker) -> None:
    session = fresh()
    session.run("x = 1")
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.run, "import time; time.sleep(60)", timeout=60)
        time.sleep(0.5)
        session.restart()
        assert running.result(10).status == "ended"
    assert session.run("'x' in globals()").value == "False"


def test_branches_restart_concurrently(fresh: SessionMaker) -> None:
    session = fresh()
    session.run("x = 1; open('f', 'w').write('f')")
    branches = [session, *session.fork(2)]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda branch: branch.restart(), branches))
    for branch in branches:
        assert branch.run("'x' in globals(), open('f').read()").value == "(False, 'f')"


# --- Files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def holder(maker: BlockingCodeExecutor) -> Iterator[BlockingSession]:
    """A session for tests of files; each test uses other names."""
    with maker.session("python") as session:
        yield session


def test_files_are_written_read_listed_and_removed(holder: BlockingSession, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"\0local")
    assert holder.files.write("in/text.txt", "é") == 2
    assert holder.files.write("in/bytes.bin", b"\xff\0") == 2
    assert holder.files.write("in/path.bin", tmp_path / "local") == 6
    assert holder.files.write("in/empty", "") == 0
    assert holder.run("open('in/text.txt').read(), open('in/bytes.bin', 'rb').read()").value == (
        "('é', b'\\xff\\x00')"
    )
    assert holder.files.read("in/path.bin") == b"\0local"
    assert holder.files.read("in/empty") == b""
    names = [entry.path for entry in holder.files.list("in")]
    assert names == ["in/bytes.bin", "in/empty", "in/path.bin", "in/text.txt"]
    holder.files.write("in/text.txt", "a")
    assert holder.files.read("in/text.txt") == b"a"
    assert holder.files.exists("in/empty")
    holder.files.remove("in")
    assert not holder.files.exists("in")


def test_a_directory_is_downloaded(holder: BlockingSession, tmp_path: Path) -> None:
    holder.run(
        "import os\nos.makedirs('out/deep'); open('out/deep/a', 'w').write('a')\n"
        "open('out/b', 'w').write('b'); os.symlink('/etc/passwd', 'out/link'); os.mkfifo('out/pipe')"
    )
    brought = holder.files.download(tmp_path, "out")
    assert {str(path.relative_to(tmp_path)) for path in brought.files} == {"deep/a", "b"}
    assert brought.skipped == {"out/link": "a link", "out/pipe": "not a regular file"}
    assert (tmp_path / "deep" / "a").read_text() == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "deep"]


def test_no_link_is_followed(holder: BlockingSession) -> None:
    holder.run(
        "import os\nos.makedirs('links', exist_ok=True); os.symlink('/etc/passwd', 'links/file')\n"
        "os.symlink('/etc', 'links/folder'); os.symlink('/proc/self/fd/0', 'links/magic'); "
        "os.mkfifo('links/pipe')"
    )
    for name in ("links/file", "links/folder/passwd", "links/magic", "links/pipe"):
        with pytest.raises(FileError) as caught:
            holder.files.read(name)
        assert (caught.value.filename, caught.value.errno != 0) == (name, True)
        assert name in str(caught.value)
        with pytest.raises(FileError):
            holder.files.write(name, "mine")
    with pytest.raises(FileError):
        holder.files.list("links/folder")
    kinds = {entry.path: entry.kind for entry in holder.files.list("links")}
    assert kinds["links/file"] is EntryKind.LINK
    assert kinds["links/pipe"] is EntryKind.OTHER
    holder.files.remove("links")  # removes the links, not their targets
    assert holder.run("os.path.exists('/etc/passwd'), os.path.exists('links')").value == "(True, False)"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".", "a\n", "x" * 256, 5])
def test_unusable_names_are_refused(holder: BlockingSession, name: str) -> None:
    for act in (holder.files.read, holder.files.remove, holder.files.exists):
        with pytest.raises(InvalidRequest):
            act(name)
    with pytest.raises(InvalidRequest):
        holder.files.write(name, "x")
    if name:
        with pytest.raises(InvalidRequest):
            holder.files.list(name)


def test_a_missing_file_is_an_oserror(holder: BlockingSession) -> None:
    for act in (holder.files.read, holder.files.remove, holder.files.list):
        with pytest.raises(OSError, match="No such file"):
            act("nowhere/to/be/seen")
    holder.run("import os; os.makedirs('folder', exist_ok=True)")
    with pytest.raises(FileError):
        holder.files.read("folder")


def test_names_that_are_not_text_are_listed(holder: BlockingSession, tmp_path: Path) -> None:
    holder.run(
        "import os; os.makedirs('odd'); open(b'odd/\\xff', 'w').close(); open('odd/a\\nb', 'w').close()"
    )
    assert {entry.path for entry in holder.files.list("odd")} == {"odd/\\xff", "odd/a\nb"}
    brought = holder.files.download(tmp_path, "odd")
    assert brought.files == ()
    assert len(brought.skipped) == 2
    holder.files.remove("odd")


def test_directories_that_cannot_be_read_are_reported(holder: BlockingSession, tmp_path: Path) -> None:
    holder.run(
        "import os\nfor name in (b'left/open', b'left/closed', b'left/\\xff'):\n"
        "    os.makedirs(name); open(name + b'/file', 'w').close()\nos.chmod('left/closed', 0)"
    )
    brought = holder.files.download(tmp_path, "left")
    assert brought.files == (tmp_path / "open" / "file",)
    assert brought.skipped.keys() == {"left/closed", "left/\\xff"}
    assert brought.skipped["left/\\xff"] == "an unusable name"
    holder.run("os.chmod('left/closed', 0o700)")
    holder.files.remove("left")


def test_many_files_and_deep_directories(holder: BlockingSession, tmp_path: Path) -> None:
    holder.run("import os\nos.makedirs('many')\nfor n in range(3000): open(f'many/{n:0100}', 'w').close()")
    assert len(holder.files.list("many")) == 3000
    holder.files.remove("many")
    holder.run(
        "os.makedirs('deep'); os.chdir('deep')\n"
        "for _ in range(1200): os.mkdir('d'); os.chdir('d')\nos.chdir('/code')"
    )
    entries = holder.files.list("deep", recursive=True)
    assert len(entries) >= 100
    holder.files.download(tmp_path, "deep")
    holder.files.remove("deep")
    assert not holder.files.exists("deep")


def test_files_can_be_used_while_a_cell_runs(holder: BlockingSession) -> None:
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(
            holder.run,
            "import os, time\nopen('state', 'w').write('begun')\n"
            "while not os.path.exists('stop'): time.sleep(0.01)\n'stopped'",
            timeout=30,
        )
        assert eventually(lambda: holder.files.exists("state"), 10)
        assert eventually(lambda: holder.files.read("state") == b"begun", 10)
        holder.files.write("stop", "")
        assert running.result(15).value == "'stopped'"


def test_large_files_take_little_memory_on_the_host(fresh: SessionMaker, tmp_path: Path) -> None:
    size = 50 * MiB
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(size)
    session = fresh(memory_limit="512m")
    tracemalloc.start()
    try:
        assert session.files.write("large", source) == size
        assert sum(map(len, session.files.stream("large"))) == size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MiB
    with pytest.raises(InvalidRequest, match="stream"):
        session.files.read("large", max_bytes=MiB)
    with pytest.raises(InvalidRequest):
        session.files.download(tmp_path / "out", max_bytes=MiB)


def test_a_full_directory_is_reported(fresh: SessionMaker) -> None:
    session = fresh()
    session.run(
        "import os\nwith open('fill', 'wb') as f:\n    try:\n"
        "        while True: f.write(bytes(1 << 20))\n    except OSError: pass"
    )
    with pytest.raises(FileError, match="full"):
        session.files.write("more", bytes(MiB))
    session.files.remove("fill")
    session.files.write("more", bytes(MiB))
    assert session.run("1").value == "1"


# --- The end ----------------------------------------------------------------------------------------------


def test_every_call_on_a_closed_session_fails(fresh: SessionMaker) -> None:
    session = fresh()
    session.close()
    session.close()
    assert session.closed
    assert not session.alive
    for act in (lambda: session.run("1"), session.restart, session.fork, lambda: session.files.read("a")):
        with pytest.raises(SessionEnded, match="closed"):
            act()


def test_an_idle_session_is_closed(maker: BlockingCodeExecutor) -> None:
    with maker.session(idle_timeout=0.5) as session:
        assert session.run("import time; time.sleep(1)\n1").value == "1"  # a running cell counts as use
        assert eventually(lambda: session.closed, 5)
        with pytest.raises(SessionEnded, match="nobody used it"):
            session.run("1")
        assert eventually(lambda: session.container_id not in sandboxes(), 10)


def test_close_with_open_sessions_leaves_nothing() -> None:
    executor = BlockingCodeExecutor(max_warm=0)
    session = executor.session()
    session.run("x = 1")
    assert OBSERVER.of(executor) == {session.container_id}
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.run, "import time; time.sleep(60)", timeout=60)
        time.sleep(0.3)
        executor.close()
        with pytest.raises((SessionEnded, ExecutorClosed)):
            running.result(20)
    assert OBSERVER.of(executor) == set()
    with pytest.raises(Exception, match="closed"):
        session.run("x")


def test_a_killed_host_process_leaves_nothing() -> None:
    program = (
        "from codeforge import BlockingCodeExecutor\n"
        "with BlockingCodeExecutor(max_warm=0) as executor, executor.session() as session:\n"
        "    print(session.container_id, flush=True); session.run('while True: pass')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            sandbox = process.stdout.readline().decode().strip()
            assert sandbox in sandboxes(all_states=False)
        finally:
            process.send_signal(signal.SIGKILL)
    assert eventually(lambda: sandbox not in sandboxes(all_states=False), 15)


def test_two_sessions_do_not_see_each_other(maker: BlockingCodeExecutor) -> None:
    with maker.session() as one, maker.session() as other:
        one.run("x = 1; open('secret', 'w').write('1')")
        assert other.run("import os; 'x' in globals(), os.path.exists('secret')").value == "(False, False)"
        assert one.container_id != other.container_id
        assert one.posture["uid"] != other.posture["uid"]
        seen = other.run("sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[0]")
        assert seen.value == "1"
