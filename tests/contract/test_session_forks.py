"""Forks of sessions: what a copy has, what it does not share, and when a fork is refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from codeforge import BlockingCodeExecutor, BlockingSession, CannotFork, InvalidRequest, SessionEnded

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def maker() -> Iterator[BlockingCodeExecutor]:
    with BlockingCodeExecutor(max_warm=0) as made:
        yield made


@pytest.fixture
def session(maker: BlockingCodeExecutor) -> Iterator[BlockingSession]:
    with maker.session() as made:
        yield made


@pytest.mark.core
def test_a_copy_is_independent(session: BlockingSession) -> None:
    session.run(
        "import os\nx = [1]\nos.makedirs('sub/deep'); open('sub/f', 'w').write('f')\n"
        "os.symlink('f', 'sub/link'); os.chmod('sub/f', 0o640); os.chdir('sub')"
    )
    one, other = session.fork(2)
    assert one.run("x.append(2); open('f', 'w').write('one'); x").value == "[1, 2]"
    assert other.run("x.append(3); x, open('f').read()").value == "([1, 3], 'f')"
    assert session.run("x, open('f').read()").value == "([1], 'f')"
    assert one.run("os.path.basename(os.getcwd()), os.readlink('link'), oct(os.stat('f').st_mode)").value == (
        "('sub', 'f', '0o100640')"
    )
    assert one.run("print('mine')").stdout == "mine\n"
    assert one.files.read("sub/f") == b"one"
    assert session.files.read("sub/f") == b"f"
    assert (
        one.run("import random; random.random()").value != other.run("import random; random.random()").value
    )


def test_a_copy_can_be_forked_after_its_original_is_closed(session: BlockingSession) -> None:
    session.run("x = 1")
    (one,) = session.fork()
    one.run("x += 1; open('f', 'w').write('f')")
    session.close()
    (other,) = one.fork()
    one.close()
    assert other.run("x, open('f').read()").value == "(2, 'f')"
    made = other.fork(3)
    assert [branch.run("x, open('f').read()").value for branch in made] == ["(2, 'f')"] * 3
    assert other.container_id == session.container_id


def test_the_sandbox_ends_with_the_last_branch(session: BlockingSession) -> None:
    (one,) = session.fork()
    session.close()
    assert one.run("1").value == "1"
    one.close()
    with pytest.raises(SessionEnded):
        one.run("1")


def test_branches_run_concurrently(session: BlockingSession) -> None:
    branches = [session, *session.fork(3)]
    meet = """
import os, time
open(f'/tmp/here-{os.getpid()}', 'w').close()
while sum(name.startswith('here-') for name in os.listdir('/tmp')) < 4: time.sleep(0.01)
'all are here'
"""
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda branch: branch.run(meet, timeout=20), branches))
    assert [result.value for result in results] == ["'all are here'"] * 4


def test_the_other_branches_go_on_if_one_ends(session: BlockingSession) -> None:
    one, other = session.fork(2)
    assert one.run("import os; os._exit(0)").status == "ended"
    assert other.run("while True: pass", timeout=0.3).alive
    assert session.run("1").value == "1"
    one.restart()
    assert one.run("import os; os.getcwd()").value == "'/tmp/.branches/1'"
    assert other.run("1").value == "1"


def test_the_number_of_branches_is_limited(maker: BlockingCodeExecutor) -> None:
    with maker.session() as session:
        for n in (0, 64, -1):
            with pytest.raises(InvalidRequest):
                session.fork(n)
        branches = session.fork(20)
        assert [branch.run(f"{n}").value for n, branch in enumerate(branches)] == [str(n) for n in range(20)]
        for branch in branches:
            branch.close()
        again = session.fork(20)
        assert again[-1].run("1").value == "1"
        with pytest.raises((InvalidRequest, CannotFork)):
            session.fork(60)  # processes are limited, too
        assert session.run("1").value == "1"


@pytest.mark.parametrize(
    ("code", "undo", "word"),
    [
        (
            "import threading; stop = threading.Event(); t = threading.Thread(target=stop.wait); t.start()",
            "stop.set(); t.join()",
            "thread",
        ),
        ("import socket; s = socket.socket()", "s.close()", "socket"),
        ("import subprocess; p = subprocess.Popen(['sleep', '60'])", "p.kill(); p.wait()", "process"),
    ],
)
def test_a_fork_is_refused_and_names_what_a_copy_could_not_have(
    session: BlockingSession, code: str, undo: str, word: str
) -> None:
    session.run(code)
    with pytest.raises(CannotFork, match=word):
        session.fork()
    assert session.run(undo).status == "ok"
    (one,) = session.fork()
    assert one.run("1").value == "1"


def test_a_fork_is_refused_if_its_files_do_not_fit(session: BlockingSession) -> None:
    session.run(
        "import os\nwith open('/tmp/fill', 'wb') as f:\n    try:\n"
        "        while True: f.write(bytes(1 << 20))\n    except OSError: pass"
    )
    session.run("with open('large', 'wb') as f: f.write(bytes(4 << 20))")
    with pytest.raises(CannotFork, match="copied: No space"):
        session.fork()
    assert session.run("os.remove('/tmp/fill'); os.listdir('/tmp/.branches')").value == "[]"
    (one,) = session.fork()
    assert one.run("os.path.getsize('large')").value == str(4 << 20)


def test_a_javascript_session_cannot_be_forked(maker: BlockingCodeExecutor) -> None:
    with maker.session("javascript") as session, pytest.raises(InvalidRequest, match="cannot be forked"):
        session.fork()
