"""A session's program shares a process with what reports its results: it may forge those, nothing else.

Whatever it does, results are well-formed, the host raises only its own errors, and every cell ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from codeforge import (
    BlockingCodeExecutor,
    BlockingSession,
    CellResult,
    CodeForgeError,
    InvalidRequest,
    SessionEnded,
)
from contract.support import eventually

pytestmark = pytest.mark.engine

CHANNEL = """
import json, os, struct
def forge(message, kind=b"J"):
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    data = struct.pack("<I", len(data)) + kind + data
    while data: data = data[os.write(3, data):]
def raw(data):
    while data: data = data[os.write(3, data):]
"""


@pytest.fixture(scope="module")
def executor() -> Iterator[BlockingCodeExecutor]:
    with BlockingCodeExecutor(max_warm=0) as made:
        yield made


@pytest.fixture
def session(executor: BlockingCodeExecutor) -> Iterator[BlockingSession]:
    with executor.session(memory_limit="256m") as made:
        made.run(CHANNEL)
        yield made


def well_formed(result: CellResult) -> CellResult:
    json.dumps(result.to_dict(), allow_nan=False)
    for text in (result.stdout, result.stderr, result.value, str(result.error)):
        assert text is None or isinstance(text.encode(), bytes)
    for bundle in result.results:
        assert bundle.text is None or isinstance(bundle.text, str)
        assert bundle.png is None or isinstance(bundle.png, bytes)
    return result


def goes_on(session: BlockingSession) -> None:
    """Check that the session is usable after a restart."""
    session.restart()
    assert session.run("1 + 1").value == "2"


FORGERIES = [
    "forge({'is': 'done', 'cell': CELL, 'value': {'data': {'text/plain': 'forged'}}, 'error': None})",
    "forge({'is': 'done', 'cell': CELL, 'value': {'data': {'text/plain': 5, 'image/png': [1]}}})",
    "forge({'is': 'done', 'cell': CELL, 'error': {'name': None, 'value': {}, 'traceback': 'x'}})",
    "forge({'is': 'done', 'cell': CELL + 1}); forge({'is': 'begun', 'cell': CELL + 1})",
    "forge({'is': 'ready'}); forge({'is': 'forked'}); forge({'is': 'not_forked', 'why': 5})",
    "[forge({'request': n, 'matches': 5}) for n in range(10)]",
    "forge({'is': 'display', 'cell': CELL, 'data': {'text/html': None, 'application/json': {'a': [1e400]}}})",
    "forge({'is': 'display', 'cell': CELL, 'data': {'text/plain': '\\ud800'}, 'metadata': {'\\udfff': 1}})",
    "forge(b'{\"is\": \"display\", \"cell\": %d, \"data\": {\"a\": NaN, \"b\": -Infinity}}' % CELL)",
    "forge(b'{\"is\": \"display\", \"cell\": %d, \"data\": {\"a\": ' % CELL + b'[' * 99 + b']' * 99 + b'}}')",
    "[forge({'is': 'display', 'cell': CELL, 'data': {'text/plain': 'x' * 4000000}}) for _ in range(12)]",
    "forge(b'', b'P')",
]  # fmt: skip
FATAL = [
    "forge(b'[' * 1000000)",
    "forge(b'{')",
    "forge(b'\\xff\\xfe')",
    "forge([1, 2])",
    "forge(b'{\"a\": ' + b'9' * 5000 + b'}')",
    "raw(struct.pack('<I', 0xffffffff) + b'J')",
    "raw(struct.pack('<I', (32 << 20) + 1) + b'J')",
    "forge({}, b'!')",
    "raw(b'garbage that is no frame')",
]


@pytest.mark.parametrize("forgery", FORGERIES, ids=range(len(FORGERIES)))
def test_forged_messages_lead_to_well_formed_results(session: BlockingSession, forgery: str) -> None:
    number = session.run("import sys; f = sys._getframe(); f.f_code.co_filename").value
    assert number is not None
    cell = int("".join(filter(str.isdigit, number))) + 1
    well_formed(session.run(f"CELL = {cell}\n{forgery}\nprint('after')", timeout=20))
    for code in ("1", "2"):
        well_formed(session.run(code, timeout=10))
    goes_on(session)


@pytest.mark.parametrize("forgery", FATAL, ids=range(len(FATAL)))
def test_a_malformed_message_ends_the_interpreter_and_nothing_else(
    session: BlockingSession, forgery: str
) -> None:
    result = well_formed(session.run(f"{forgery}\nimport time; time.sleep(30)", timeout=20))
    assert (result.status, result.alive) == ("ended", False)
    goes_on(session)


def test_endless_messages_are_stopped_at_the_deadline(session: BlockingSession) -> None:
    began = time.monotonic()
    result = well_formed(
        session.run(
            "while True: forge({'is': 'display', 'cell': 2, 'data': {'text/plain': 'x' * 100000}})", timeout=3
        )
    )
    assert time.monotonic() - began < 15
    assert result.status == "timeout"
    goes_on(session)


def test_a_message_that_never_ends_is_stopped_at_the_deadline(session: BlockingSession) -> None:
    result = well_formed(
        session.run("raw(struct.pack('<I', 32 << 20) + b'J')\nwhile True: raw(b' ' * 1000)", timeout=3)
    )
    assert not result.alive
    goes_on(session)


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.close(3)",
        "import os; os.dup2(1, 3)",
        "import os; os.closerange(0, 100)",
        "import os; [os.close(n) for n in (0, 1, 2)]",
        "import os; os.kill(-1, 9)",
        "import os; os.killpg(0, 9)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import os\nif os.fork() == 0: pass",
        "import os\nif os.fork(): os._exit(0)",
        "import os; os.setsid() if 0 else os.setpgid(0, 0); os.fork() or os.execvp('sleep', ['sleep', '60'])",
        "import os; os.execvp('sleep', ['sleep', '60'])",
        "import sys; sys.stdout = sys.stderr = sys.stdin = None",
        "import builtins; builtins.compile = builtins.exec = builtins.eval = None",
        "import sys; sys.modules.clear()",
        "import sys; sys.setrecursionlimit(20)",
        "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'serve' in o: o.clear()",
        "import threading, time\nthreading.Thread(target=time.sleep, args=[99]).start()",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "import sys; sys.settrace(lambda *a: 1 / 0)",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_a_cell_that_damages_its_interpreter_ends(session: BlockingSession, code: str) -> None:
    began = time.monotonic()
    well_formed(session.run(code, timeout=3))
    with suppress(SessionEnded):
        well_formed(session.run("1", timeout=3))
    with suppress(InvalidRequest):  # it is not a HostFailure
        for copy in session.fork():
            copy.close()
    session.files.write("f", "f")
    assert session.files.read("f") == b"f"
    goes_on(session)
    assert time.monotonic() - began < 45


def test_a_fork_bomb_is_bounded_and_the_session_goes_on(session: BlockingSession) -> None:
    result = well_formed(
        session.run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", timeout=3)
    )
    assert not result.success
    assert session.files.list() == []
    session.close()


def test_writable_folders_are_filled_and_the_session_goes_on(session: BlockingSession) -> None:
    result = session.run(
        "import os\n"
        "for place in ('/code', '/tmp', '/dev/shm'):\n"
        "    try:\n"
        "        for n in range(100_000): open(f'{place}/{n}', 'wb').write(bytes(1 << 16))\n"
        "    except OSError: pass",
        timeout=30,
    )
    well_formed(result)
    with pytest.raises(CodeForgeError):
        session.files.write("more", bytes(1 << 20))
    with pytest.raises(CodeForgeError):
        session.fork()
    goes_on(session)
    for entry in session.files.list():
        session.files.remove(entry.path)
    session.files.write("more", "x")


def test_init_is_out_of_reach(session: BlockingSession) -> None:
    result = session.run(
        "import os, signal\n"
        "def tried(act):\n"
        "    try: return repr(act())\n"
        "    except OSError as error: return type(error).__name__\n"
        "for n in (2, 9, 15, 17, 19): tried(lambda: os.kill(1, n))\n"
        "[tried(lambda: open('/proc/1/mem', 'rb')), tried(lambda: os.listdir('/proc/1/fd')),\n"
        " tried(lambda: open('/proc/1/environ').read())]"
    )
    assert result.value == "['PermissionError', 'PermissionError', 'PermissionError']"
    assert session.run("1").value == "1"


def test_branches_do_not_isolate_each_other_but_sandboxes_do(
    executor: BlockingCodeExecutor, session: BlockingSession
) -> None:
    """Branches share a user: one may read another's files and end it. None reaches another sandbox."""
    session.run("x = 'mine'; open('secret', 'w').write('secret')")
    (one,) = session.fork()
    pid = session.run("import os; os.getpid()").value
    assert one.run("import os; os.system('cat /code/secret')").stdout == "secret"
    assert one.run(f"os.kill({pid}, 9)").success
    assert eventually(lambda: not session.alive, 5)
    with pytest.raises(SessionEnded):
        session.run("x")
    assert one.run("1").value == "1"
    with executor.session() as other:
        assert other.run("import os; os.path.exists('/code/secret')").value == "False"


def test_file_names_of_the_program_stay_in_the_callers_directory(
    session: BlockingSession, tmp_path: Path
) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "file").symlink_to(outside / "target")
    session.run("import os; os.mkdir('link'); open('link/a', 'w').write('a'); open('file', 'w').write('f')")
    with suppress(CodeForgeError, OSError):
        session.files.download(inside)
    assert list(outside.iterdir()) == []


def test_a_program_that_swaps_folders_cannot_make_the_host_follow_a_link(session: BlockingSession) -> None:
    session.files.write("d/passwd", b"mine")
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(
            session.run,
            "import os, time\n"
            "until = time.time() + 4\n"
            "while time.time() < until:\n"
            "    os.rename('d', 'real'); os.symlink('/etc', 'd'); os.unlink('d'); os.rename('real', 'd')",
            timeout=30,
        )
        read = 0
        while not running.done():
            try:
                assert session.files.read("d/passwd") == b"mine"
                read += 1
            except CodeForgeError:
                pass
        assert read > 0
        assert running.result().success
