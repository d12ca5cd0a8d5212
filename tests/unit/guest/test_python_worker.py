# ruff: noqa: E501 - programs
"""The Python worker: a program in it sees what it would see in a plain process."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import venv
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from worker_harness import Ended, Worker, run_plainly

GUEST = Path(__file__).parents[3] / "src" / "codeforge" / "guest" / "python"
STEPS = (
    "json re random datetime collections typing dataclasses tempfile uuid threading concurrent.futures",
    "asyncio logging unittest xml.etree.ElementTree multiprocessing no_such_module antigravity.nothing",
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of its own with the .pth file among its packages, as in the image."""
    return environment(tmp_path_factory.mktemp("venv"))


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with a worker that takes it for a version that it was not made for."""
    return environment(tmp_path_factory.mktemp("other"), made_for="()")


def environment(home: Path, made_for: str | None = None) -> Path:
    venv.create(home, symlinks=True)
    guest = home / "guest"
    shutil.copytree(GUEST, guest)
    if made_for is not None:
        preload = guest / "python_preload.py"
        text, count = re.subn(r"(?m)^MADE_FOR = .*$", f"MADE_FOR = {made_for}", preload.read_text())
        assert count == 1
        preload.write_text(text)
    (packages,) = home.glob("lib/python*/site-packages")
    line = (GUEST / "codeforge_worker.pth").read_text()
    (packages / "codeforge_worker.pth").write_text(line.replace("/opt/codeforge", str(guest)))
    (packages / "spoilt.py").write_text("import csv\nraise SystemExit(3)\n")
    (packages / "talks.py").write_text("print('imported')\n")
    (packages / "no_fork.py").write_text(
        f"import os\ndef fork(): raise BlockingIOError({errno.EAGAIN}, 'no more')\nos.fork = fork\n"
    )
    (packages / "meddles.py").write_text(
        "import atexit, os, sys, warnings\n"
        "warnings.filterwarnings('ignore', 'meddled')\n"
        "sys.meta_path.append(sys.meta_path[-1])\n"
        "os.environ['MEDDLED'] = '1'\n"
        "atexit.register(print, 'meddles says goodbye')\n"
    )
    return home / "bin" / "python"


@dataclass
class Bench:
    """Runs a program in three ways: plainly, in a worker, and forked from a template."""

    python: Path
    code: Path
    steps: tuple[str, ...] = STEPS
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment = {"PATH": f"{self.python.parent}:/usr/bin:/bin", "LANG": "C.UTF-8"}

    def empty(self) -> None:
        """Empty the directory; it is the worker's working directory, so it stays."""
        self.code.mkdir(exist_ok=True)
        for entry in self.code.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def write(self, program: str) -> None:
        self.empty()
        for name, text in {**self.files, "main.py": program}.items():
            (self.code / name).parent.mkdir(exist_ok=True)
            (self.code / name).write_text(text)

    def worker(self) -> Worker:
        self.empty()
        return Worker(self.code, python="python", environment=self.environment)

    def plain(self, program: str, *arguments: str, stdin: bytes = b"") -> Ended:
        self.write(program)
        return run_plainly(
            self.code, python="python", environment=self.environment, arguments=arguments, stdin=stdin
        )

    def go(self, program: str, *arguments: str) -> Ended:
        with self.worker() as worker:
            worker.preload(*self.steps)
            self.write(program)
            return worker.go(arguments)

    def fork(self, program: str, *arguments: str, times: int = 1, stdin: bytes = b"") -> list[Ended]:
        with self.worker() as worker:
            worker.preload(*self.steps)
            self.write(program)
            return [worker.fork(arguments, stdin=stdin) for _ in range(times)]

    def agree(self, program: str) -> Ended:
        """Check that all three ways give the same result, and return it."""
        plain = self.plain(program)
        for run in (self.go(program), *self.fork(program, times=2)):
            assert _said(run) == _said(plain)
            assert run.status == plain.status
        return plain


def _said(run: Ended) -> list[str]:
    """The output, without addresses."""
    return [re.sub("0x[0-9a-f]{6,}", "0x", stream.decode()) for stream in (run.stdout, run.stderr)]


@pytest.fixture
def bench(python: Path, tmp_path: Path) -> Bench:
    return Bench(python, tmp_path / "code")


PROBE = r"""
import sys
_modules = list(sys.modules)
_finders = sorted(sys.path_importer_cache)
_paths = [str(x) for x in sys.meta_path], [getattr(x, "__name__", "") for x in sys.path_hooks], list(sys.path)
import gc
_gc = gc.isenabled(), gc.get_threshold(), gc.get_count()[1] < 20, gc.get_count()[2], len(gc.callbacks), gc.get_debug()
import atexit
_exits = atexit._ncallbacks()
import _signal, _thread, os, posix, builtins
_fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
_status = {line.split(":")[0]: line.split(":")[1].strip() for line in open("/proc/self/status")}
_frame = sys._getframe()
_early = {
    "modules": _modules, "finders": _finders, "paths": _paths, "gc": _gc, "exits": _exits, "fds": _fds,
    "signals": {key: _status[key] for key in ("SigBlk", "SigIgn", "SigCgt", "Threads", "SigPnd", "ShdPnd")},
    "back": repr(_frame.f_back), "main": sorted(vars(sys.modules["__main__"])), "name": __name__,
    "spec": repr(__spec__), "loader": type(__loader__).__name__, "file": __file__,
    "flags": repr(sys.flags), "argv": sys.argv, "orig": sys.orig_argv, "cwd": os.getcwd(),
    "warnoptions": sys.warnoptions, "warnings": repr(sys.modules["_warnings"].filters),
    "once": repr(sys.modules["_warnings"]._onceregistry), "environ": sorted(os.environ.items()),
    "environ_c": sorted(k.decode() for k in posix.environ if k != b"CODEFORGE_CONTROL_FD"),
    "builtins": sorted(vars(builtins)), "import": repr(builtins.__import__), "sys": sorted(vars(sys)),
    "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__,
              sys.unraisablehook is sys.__unraisablehook__, sys.getprofile(), sys.gettrace()],
    "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_asyncgen_hooks()[0]],
    "umask": oct(posix.umask(0o22)), "session": os.getsid(0) == os.getpid(),
    "streams": [repr(sys.stdin), repr(sys.stdout), repr(sys.stderr)],
    "threads": _thread._count(), "dumpable": os.access("/proc/self/environ", os.R_OK),
    "owner": os.stat("/proc/self/environ").st_uid == os.getuid(),
    "register": repr(atexit.register),
}
import xml
_early["xml.etree"] = hasattr(xml, "etree")
import importlib.util
_spec = importlib.util.find_spec("json")
_early["find_spec"] = [_spec.origin, _spec.submodule_search_locations, type(_spec.loader).__name__, sorted(vars(_spec.loader)), "json" in sys.modules]
import json
import concurrent.futures, logging, random, threading, multiprocessing, uuid, decimal, warnings, locale, signal
import collections.abc, inspect, asyncio, unittest, xml.etree.ElementTree, tempfile, typing
late = {
    "modules": sorted(sys.modules), "finders": sorted(sys.path_importer_cache), "exits": atexit._ncallbacks(),
    "meta_path": [str(x) for x in sys.meta_path], "warnings": repr(warnings.filters),
    "threads": [t.name for t in threading.enumerate()], "count": threading.active_count(),
    "main_thread": [threading.main_thread().ident == threading.get_ident(),
                    threading.main_thread().native_id == threading.get_native_id(),
                    threading.current_thread() is threading.main_thread()],
    "specs": {name: [repr(m.__spec__), type(getattr(m, "__loader__", None)).__name__, getattr(m, "__file__", None)]
              for name, m in sys.modules.items() if name != "__main__" and hasattr(m, "__spec__")
              and "object at" not in repr(m.__spec__)},
    "origins": {name: [m.__spec__.origin, m.__spec__.parent, m.__spec__.cached] for name, m in sys.modules.items()
                if getattr(m, "__spec__", None) is not None},
    "kinds": {name: type(m.__spec__.loader).__name__ for name, m in sys.modules.items()
              if getattr(m, "__spec__", None) is not None},
    "children": {name: sorted(k for k, v in vars(m).items() if type(v) is type(sys) and k != "sys")
                 for name, m in sys.modules.items() if hasattr(m, "__path__")},
    "decimal": str(decimal.getcontext()), "locale": locale.setlocale(locale.LC_ALL),
    "handlers": {str(s): str(signal.getsignal(s)) for s in signal.valid_signals()},
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "source": len(inspect.getsource(json)), "initializing": json.__spec__._initializing,
    "tempdir": tempfile.tempdir, "uuid": [uuid._node, uuid._last_timestamp],
    "loglevel": logging.root.level, "loghandlers": len(logging.root.handlers),
    "started": __import__("time").time() - logging._startTime < 5,
}
print(json.dumps([_early, late]))
"""


@pytest.fixture
def other_bench(other_python: Path, tmp_path: Path) -> Bench:
    return Bench(other_python, tmp_path / "code")


@pytest.mark.parametrize("version", ["bench", "other_bench"])
def test_nothing_of_the_worker_shows(version: str, request: pytest.FixtureRequest) -> None:
    """Compares each property of the interpreter by itself, so that a failure names it."""
    bench: Bench = request.getfixturevalue(version)
    plain = bench.plain(PROBE)
    assert plain.exit_code == 0, plain.stderr
    expected = json.loads(plain.stdout)
    bench.steps = (*STEPS, "meddles")
    for run in (bench.go(PROBE), *bench.fork(PROBE, times=2)):
        assert run.exit_code == 0, run.stderr
        for seen, wanted in zip(json.loads(run.stdout), expected, strict=True):
            for key in wanted:
                assert seen[key] == wanted[key], key


def test_importing_a_preloaded_module_has_the_side_effects_of_its_import(bench: Bench) -> None:
    bench.steps = (*STEPS, "meddles")
    program = """
import sys, atexit
atexit.register(print, "first")
import os, meddles, warnings
atexit.register(print, "last")
print(len(sys.meta_path), os.environ["MEDDLED"], warnings.filters[0][2].pattern, atexit._ncallbacks())
os.system("echo $MEDDLED")
"""
    assert b"meddles says goodbye" in bench.agree(program).stdout


def test_a_module_that_prints_or_fails_on_import_is_not_preloaded(bench: Bench) -> None:
    bench.steps = ("talks", "spoilt talks", "csv")
    assert (
        bench.agree("import talks, csv, sys\nprint('spoilt' in sys.modules)").stdout == b"imported\nFalse\n"
    )
    assert bench.agree("import spoilt").exit_code == 3


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("random.py", "import random; print(random.mine)"),
        ("random.py", "import tempfile; print(tempfile._Random.__mro__)"),
        ("queue.py", "import queue; print(queue.mine)"),
        ("json/__init__.py", "import json; print(json.mine)"),
        ("lib/random.py", "import sys; sys.path.insert(0, 'lib'); import random; print(random.mine)"),
        ("lib/random.py", "import sys; sys.path.insert(0, 'lib'); import uuid, random; print(random.mine)"),
        (
            "lib/random.py",
            "import shutil; shutil.copy('lib/random.py', 'random.py'); import random; print(random.mine)",
        ),
        ("sub/xml.py", "import sys; sys.path.append('sub'); import xml; print(xml.__file__)"),
    ],
)
def test_the_programs_own_modules_come_first(bench: Bench, name: str, use: str) -> None:
    bench.files = {name: "mine = 'mine'\nclass Random: pass\n"}
    bench.agree(use)


@pytest.mark.parametrize(
    "program",
    [
        "import json; json.mine = 1; import importlib; importlib.reload(json); print(json.dumps([json.mine]))",
        "import sys, json; del sys.modules['json']; import json as other; print(json is other)",
        "import pickle, collections; print(pickle.loads(pickle.dumps(collections.OrderedDict(a=1))))",
        "import importlib.metadata as m; print(m.version('pip'))",
        "import sys; sys.meta_path.clear(); import json",
        "import sys; print('typing' in sys.modules); import random; print('typing' in sys.modules)",
        "import asyncio\nasync def f(): return 1\nprint(asyncio.run(f()))",
        "import multiprocessing as m\nif __name__ == '__main__':\n c = m.get_context('spawn')\n"
        " p = c.Process(target=print, args=(1,)); p.start(); p.join(); print(p.exitcode)",
        "import os\nif os.fork() == 0:\n print('child')\nelse:\n os.wait(); print('parent')",
        "import threading; t = threading.Thread(target=print, args=(1,)); print(t.name); t.start()",
        "import logging; logging.warning('x'); logging.getLogger('a').error('y')",
        "import unittest\nclass T(unittest.TestCase):\n def test(self): self.fail('no')\n"
        "import io; unittest.TextTestRunner(io.StringIO()).run(unittest.TestLoader().loadTestsFromTestCase(T))",
        "import warnings; warnings.warn('w', DeprecationWarning)",
        "import no_such",
        "def f(n): return f(n + 1)\nf(0)",
        "import broken",
        "1/0",
        "syntax error",
        "raise SystemExit('bye')",
        "raise SystemExit(7)",
        "import sys; sys.exit(True)",
        "import os; os._exit(9)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import signal; signal.raise_signal(signal.SIGINT)",
        "raise KeyboardInterrupt",
    ],
)
def test_programs_behave_alike(bench: Bench, program: str) -> None:
    bench.files = {"broken.py": "import json\njson.loads('{')\n"}
    bench.agree(program)


@pytest.mark.parametrize(
    "program",
    [
        "class C:\n def __del__(self): print('del', json.dumps(1))\nimport json\nc = C()",
        "class C:\n def __del__(self): print('del')\nc = C(); c.c = c",
        "class C:\n def __del__(self): print('del')\nc = C()\nfrom typing import List, Dict\nx: Dict[str, List[C]] = {}",
        "class C:\n def __del__(self): print('del')\nimport json; json.kept = C()",
        "class C:\n def __del__(self): print('del')\nc = C()\nimport logging\n"
        "class H(logging.Handler):\n def emit(self, r): print('emit', c)\nlogging.root.addHandler(H())",
        "class C:\n def __del__(self):\n  import json; print(json)\nc = C()",
        "class C:\n def __del__(self):\n  import threading, json; print(json.dumps(1))\nc = C(); c.c = c; del c",
        "def g():\n try: yield\n finally: print('closed')\nx = g(); next(x)",
        "import weakref\nclass C: pass\nc = C(); r = weakref.ref(c, lambda _: print('gone'))",
        "import weakref\nclass C: pass\nc = C(); weakref.finalize(c, print, 'finalized')",
        "f = open('/proc/self/fd/1', 'w'); f.write('unflushed')",
        "import os; os.close(1); print('lost')",
        "import sys; print('kept'); sys.stdout = open('/dev/full', 'w'); print('lost')",
        "import atexit; atexit.register(print, 'a'); import threading; atexit.register(print, 'b')\n"
        "threading.Thread(target=lambda: __import__('time').sleep(.1) or print('thread')).start()",
        "from concurrent.futures import ThreadPoolExecutor as E; E().submit(lambda: __import__('time').sleep(.1) or print(1))",
        "import atexit; atexit.register(lambda: 1/0)",
        "import sys; me = sys.modules[__name__]\nclass C:\n def __del__(self): print('del')\nc = C()",
        "import ctypes; libc = ctypes.CDLL(None); libc.fopen.restype = ctypes.c_void_p\n"
        "libc.fputs(b'buffered', ctypes.c_void_p(libc.fopen(b'/proc/self/fd/1', b'w')))",
        "import tempfile, os; d = tempfile.TemporaryDirectory(); print(os.path.exists(d.name))",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
    ],
)
def test_programs_end_alike(bench: Bench, program: str) -> None:
    """Compares what the interpreter does at its end, and exit codes."""
    plain = bench.agree(program)
    assert plain.exit_code in {0, 120}, plain.stderr


def test_other_versions_of_python_preload_nothing_and_end_as_usual(
    other_bench: Bench,
) -> None:
    for program in (
        "class C:\n def __del__(self): print('del')\nc = C(); c.c = c\nimport json; json.kept = C()",
        "def g():\n try: yield\n finally: print('closed')\nx = g(); next(x)",
        "import atexit, ctypes, functools, gc, resource, warnings; atexit.register(print, gc.get_freeze_count())",
        "import multiprocessing as m\nif __name__ == '__main__':\n p = m.get_context('fork').Process(target=print, args=(1,)); p.start(); p.join()",
        "raise SystemExit(7)",
    ):
        other_bench.agree(program)


def test_runs_share_no_randomness(bench: Bench) -> None:
    bench.steps = (*STEPS, "secrets")
    program = """
import random, uuid, secrets, tempfile, multiprocessing.process as p
print(random.random(), uuid.uuid1(), uuid.uuid4(), secrets.token_hex(), tempfile.mktemp(),
      bytes(p.current_process().authkey).hex())
"""
    runs = [run.stdout.split() for run in bench.fork(program, times=4)]
    assert all(len(column) == len(set(column)) == 4 for column in zip(*runs, strict=True)), runs


def test_frames_may_arrive_in_pieces_and_be_large(bench: Bench) -> None:
    bench.steps = ()
    arguments = ["x" * 60000] * 4
    program = "import sys; print(len(sys.argv), len(sys.argv[-1]))"
    assert bench.go(program, *arguments).stdout == b"5 60000\n"
    assert bench.fork(program, *arguments)[0].stdout == b"5 60000\n"
    with bench.worker() as worker:
        for byte in b"\x04\x00\x00\x00pjson":
            worker.send_raw(bytes([byte]))
        assert worker.receive() == (b"P", b"")


def test_each_run_has_its_own_environment_and_stdin(bench: Bench) -> None:
    program = "import os, sys; print(sorted(os.environ.items())); print(sys.stdin.read())"
    with bench.worker() as worker:
        worker.preload(*STEPS)
        bench.write(program)
        first = worker.fork(environment={"A": "ä=1", "PATH": "x"}, stdin=b"one")
        second = worker.fork(stdin=b"two" * 40000)
    assert b"'A', '\xc3\xa4=1'" in first.stdout
    assert first.stdout.endswith(b"one\n")
    assert b"'A'" not in second.stdout
    assert second.stdout.endswith(b"two\n")


def test_a_worker_exits_when_its_socket_ends(bench: Bench) -> None:
    for prepare in (lambda _: None, lambda w: w.preload("json"), lambda w: w.send_raw(b"\x04\x00")):
        with bench.worker() as worker:
            prepare(worker)
            assert worker.hang_up() == 0


def test_a_run_reports_how_it_ended_and_what_it_used(bench: Bench) -> None:
    (run,) = bench.fork("import os, time\nwhile time.process_time() < .2: pass\nos.kill(os.getpid(), 9)")
    assert run.status == signal.SIGKILL
    assert 150_000 < run.user_us + run.system_us < 2_000_000


def test_a_fork_that_fails_is_reported(bench: Bench) -> None:
    with bench.worker() as worker:
        worker.preload("no_fork")
        read, write = os.pipe()
        for _ in range(2):
            worker.send(b"f", worker.command(), [read, write, write])
            assert worker.receive() == (b"E", errno.EAGAIN.to_bytes(4, "little"))
        os.close(read)
        os.close(write)


def test_a_template_blocks_signals_and_shares_no_memory(bench: Bench) -> None:
    program = """
import os
def blocked(pid): return int(next(l for l in open(f"/proc/{pid}/status") if l.startswith("SigBlk")).split()[1], 16)
import ctypes
print(ctypes.CDLL(None).prctl(3), blocked("self"), hex(blocked(os.getppid())))
print([line for line in open("/proc/self/maps") if line.split()[1].startswith("rw-s")])
"""
    with bench.worker() as worker:
        worker.preload(*STEPS)
        bench.write(program)
        run = worker.fork()
        assert run.stdout.split()[:2] == [b"1", b"0"]
        mask = int(run.stdout.split()[2], 16)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCONT, signal.SIGUSR1, signal.SIGRTMAX):
            assert mask >> (number - 1) & 1, number
        assert run.stdout.endswith(b"\n[]\n")
