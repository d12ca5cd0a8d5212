"""The pool on a real engine: warm sandboxes, reused ones, a daemon that goes away; nothing is left over."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from codeforge import BlockingCodeExecutor, CodeExecutor, ExecutionResult, Status
from codeforge.errors import EngineUnavailable
from contract.corpus import CPU_QUOTA_US, Program, load_corpus
from contract.support import eventually
from observer import OBSERVER

pytestmark = pytest.mark.engine

CORPUS = load_corpus()
DOCKER_SOCKET = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
SOON_S = 60.0


def sandboxes_of(executor: BlockingCodeExecutor | CodeExecutor) -> set[str]:
    """Ids of the sandboxes that an executor has on the engine."""
    return OBSERVER.of(executor)


# --- Warm, and nothing left ---------------------------------------------------------------------------


ENDINGS: list[dict[str, Any]] = [
    {"code": "print(1)"},
    {"code": "import sys; sys.exit(3)"},
    {"code": "while True: pass", "timeout": 0.5},
    {"code": "import os; os.kill(os.getpid(), 9)"},
    {"code": "import os\nfor _ in range(5):\n    if os.fork() == 0: os.setsid()\nprint(1)"},
    {"code": "console.log(1)", "language": "javascript"},
    {"code": "process.exit(3)", "language": "javascript"},
]


@pytest.mark.parametrize("max_warm", [0, 8])
def test_after_many_runs_and_close_no_sandbox_is_left(max_warm: int) -> None:
    with BlockingCodeExecutor(max_warm=max_warm) as executor:
        results = list(executor.execute_many(ENDINGS * 3, concurrency=4))
        results += executor.execute_many(ENDINGS * 3, concurrency=4, max_runs_per_sandbox=5)
        assert len(results) == 6 * len(ENDINGS)
        assert len({result.container_id for result in results[: 3 * len(ENDINGS)]}) == 3 * len(ENDINGS)
        assert executor.get_stats()["launched"] > 0
    assert sandboxes_of(executor) == set()
    stats = executor.get_stats()
    assert (stats["sandboxes"], stats["leased"], stats["waiting"]) == (0, 0, 0)


def test_close_in_the_middle_of_launches_runs_and_refills_leaves_nothing() -> None:
    executor = BlockingCodeExecutor(max_sandboxes=6)
    executor.warm(["python"], count=1)
    with ThreadPoolExecutor(8) as threads:
        runs = [threads.submit(executor.execute, "import time; time.sleep(60)") for _ in range(8)]
        assert eventually(lambda: executor.get_stats()["leased"] >= 2, SOON_S)
        executor.close()
        assert sandboxes_of(executor) == set()
        for run in runs:
            assert run.exception(SOON_S) is not None


def test_many_callers_on_few_sandboxes_each_get_their_own() -> None:
    with BlockingCodeExecutor(max_sandboxes=3) as executor, ThreadPoolExecutor(64) as threads:
        results = list(threads.map(lambda n: executor.execute(f"print({n})"), range(64)))
        assert [result.stdout for result in results] == [f"{n}\n" for n in range(64)]
        assert len({result.container_id for result in results}) == 64
        assert len(sandboxes_of(executor)) <= 3


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_a_run_takes_a_warm_sandbox(language: str) -> None:
    with BlockingCodeExecutor() as executor:
        executor.warm([language], count=1)
        (warm,) = sandboxes_of(executor)
        result = executor.execute("print(1)" if language == "python" else "console.log(1)", language)
        assert (result.stdout, result.container_id) == ("1\n", warm)
        stats = executor.get_stats()
        assert (stats["found_warm"], stats["found_none"]) == (1, 0)
        assert eventually(lambda: executor.get_stats()["warm"] == 1, SOON_S)
        assert warm not in sandboxes_of(executor)


def test_a_warm_sandbox_with_little_memory_leaves_all_of_it_to_the_run() -> None:
    code = "block = bytearray(12 << 20); print(len(block) >> 20)"
    with BlockingCodeExecutor() as executor:
        for _ in range(2):
            result = executor.execute(code, memory_limit="32m")
            assert (result.status, result.stdout) == (Status.OK, "12\n")
            assert eventually(lambda: executor.get_stats()["warm"] == 1, SOON_S)
        assert executor.get_stats()["found_warm"] == 1


# --- A daemon that goes away --------------------------------------------------------------------------


class Way:
    """A connection to the daemon that can be cut: open connections break, and new ones are refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._begin, self.path)

    async def cut(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._carrying)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrying = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(carrying)
        carrying.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_unix_connection(DOCKER_SOCKET)
        self._writers |= {writer, to_there}
        await asyncio.gather(_pump(reader, to_there), _pump(there, writer), return_exceptions=True)
        for end in (writer, to_there):
            end.close()
        self._writers -= {writer, to_there}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@asynccontextmanager
async def executor_by(way: Way) -> AsyncIterator[CodeExecutor]:
    await way.open()
    async with CodeExecutor(docker_host=f"unix://{way.path}") as executor:
        yield executor
    await way.cut()


async def becomes(condition: Callable[[], bool]) -> bool:
    return await asyncio.to_thread(eventually, condition, SOON_S)


@pytest.mark.engine("docker")
def test_after_the_daemon_was_away_runs_work_and_the_stock_is_new(tmp_path: Path) -> None:
    async def scenario() -> None:
        way = Way(tmp_path / "docker.sock")
        async with executor_by(way) as executor:
            await executor.warm(["python"], count=2)
            before = await asyncio.to_thread(sandboxes_of, executor)
            assert len(before) == 2

            await way.cut()
            assert await becomes(lambda: executor.get_stats()["warm"] == 0)
            with pytest.raises(EngineUnavailable):
                await executor.execute("print(1)")
            # Their stdin is closed, so they end by themselves.
            assert await becomes(lambda: not sandboxes_of(executor))

            await way.open()
            results = [await executor.execute(f"print({n})") for n in range(3)]
            assert [result.stdout for result in results] == ["0\n", "1\n", "2\n"]
            assert await becomes(lambda: executor.get_stats()["warm"] >= 2)
            after = await asyncio.to_thread(sandboxes_of, executor)
            assert not before & {*after, *(result.container_id for result in results)}
        assert await asyncio.to_thread(sandboxes_of, executor) == set()

    asyncio.run(scenario())


@pytest.mark.engine("docker")
def test_the_stock_comes_back_without_a_caller(tmp_path: Path) -> None:
    async def scenario() -> None:
        way = Way(tmp_path / "docker.sock")
        async with executor_by(way) as executor:
            await executor.warm(["python"], count=1)
            await way.cut()
            assert await becomes(lambda: executor.get_stats()["warm"] == 0)
            launched = executor.get_stats()["launched"]
            await way.open()
            assert await becomes(lambda: executor.get_stats()["warm"] == 1)
            assert executor.get_stats()["launched"] > launched
            assert (await executor.execute("print(1)")).stdout == "1\n"

    asyncio.run(scenario())


# --- Reused sandboxes ---------------------------------------------------------------------------------


def reused(executor: BlockingCodeExecutor, programs: Iterable[Any], **options: Any) -> list[ExecutionResult]:
    """The results of programs that run one after another in one sandbox, as long as it can be reused."""
    requests = [{"code": code, **options} if isinstance(code, str) else code for code in programs]
    return list(executor.execute_many(requests, concurrency=1, max_runs_per_sandbox=50))


LEAVE_EVERYTHING = """
import builtins, os, random, resource, signal, subprocess, sys, threading, time
import json
import numpy
for place in ("/code", "/tmp", "/dev/shm"):
    os.makedirs(f"{place}/deep/er", exist_ok=True)
    for name in (f"{place}/left", f"{place}/deep/er/left", f"{place}/.hidden"):
        open(name, "w").write("secret of the run before")
    os.mkdir(f"{place}/locked", 0)
os.symlink("/tmp/left", "/code/link")
os.mkfifo("/tmp/pipe")
builtins.left = json.left = sys.left = "left"
builtins.print = lambda *a, **k: None
json.dumps = lambda *a, **k: "left"
sys.path.insert(0, "/tmp")
sys.modules["left"] = sys
random.seed(1)
numpy.random.seed(1)
os.umask(0)
os.chdir("/tmp")
os.nice(5)
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
subprocess.Popen(["sleep", "1000"], start_new_session=True)
os.environ["LEFT"] = os.environ["PATH"] = "left"
os.write(1, b"left everything")
"""

LOOK_AROUND = """
import builtins, glob, json, os, resource, signal, sys, threading
import numpy
files = {p: [sorted(os.listdir(p)), oct(os.stat(p).st_mode)] for p in ("/code", "/tmp", "/dev/shm")}
processes = [open(f"/proc/{p}/cmdline").read() for p in os.listdir("/proc") if p.isdigit()]
print(json.dumps({
    "files": files,
    "env": {k: v for k, v in os.environ.items()},
    "sleepers": [c for c in processes if "sleep" in c],
    "left": [hasattr(x, "left") for x in (builtins, json, sys)] + ["left" in sys.modules],
    "path": sys.path,
    "umask": os.umask(0o22),
    "cwd": os.getcwd(),
    "nice": os.nice(0),
    "files_open": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:3],
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "term": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    "threads": threading.active_count(),
    "argv": sys.argv,
}))
"""


def test_the_next_run_in_a_sandbox_finds_nothing_that_a_run_left(
    executor: BlockingCodeExecutor,
) -> None:
    dirty, after = reused(executor, [LEAVE_EVERYTHING, LOOK_AROUND])
    assert dirty.stdout == "left everything", dirty.stderr
    assert dirty.container_id == after.container_id
    assert '"sleepers": []' in after.stdout, after.stderr
    alone = executor.execute(LOOK_AROUND)
    # In any order: Podman orders the variables of each sandbox differently.
    assert json.loads(after.stdout) == json.loads(alone.stdout)
    assert after.files == alone.files == {}


def test_a_run_gets_its_own_arguments_input_and_variables(
    executor: BlockingCodeExecutor,
) -> None:
    show = "import os, sys; print(sys.argv[1:], sys.stdin.read(), os.environ.get('WHO'), os.listdir('/code'))"
    first, second, third = reused(
        executor,
        [
            {"code": show, "args": ["a"], "stdin": "in", "env_vars": {"WHO": "first"}, "files": {"f": "x"}},
            {"code": show},
            {"code": show, "env_vars": {"PYTHONHASHSEED": "7"}},  # an interpreter of its own
        ],
    )
    assert first.stdout == "['a'] in first ['f', 'main.py']\n" or first.stdout.endswith("['main.py', 'f']\n")
    assert second.stdout == third.stdout == "[]  None ['main.py']\n"
    assert first.container_id == second.container_id == third.container_id


RANDOM = """
import os, random, secrets, tempfile, uuid
import numpy
print(random.random(), random.SystemRandom().random(), uuid.uuid4(), secrets.token_hex(8),
      next(tempfile._get_candidate_names()), os.urandom(8).hex(),
      numpy.random.rand(), numpy.random.default_rng().random(), numpy.random.RandomState().rand())
"""


def test_runs_in_one_sandbox_do_not_share_their_random_numbers(executor: BlockingCodeExecutor) -> None:
    results = reused(executor, [RANDOM] * 6)
    assert len({result.container_id for result in results}) == 1
    for values in zip(*(result.stdout.split() for result in results), strict=True):
        assert len(set(values)) == 6, values


def test_runs_of_javascript_in_one_sandbox_share_nothing_either(executor: BlockingCodeExecutor) -> None:
    dirty = """
        const fs = require('fs')
        for (const place of ['/code', '/tmp', '/dev/shm']) fs.writeFileSync(place + '/left', 'secret')
        globalThis.left = 1; Object.prototype.left = 1; process.env.LEFT = '1'
        require('child_process').spawn('sleep', ['1000'], {detached: true, stdio: 'ignore'}).unref()
    """
    look = """
        const fs = require('fs')
        const pids = fs.readdirSync('/proc').filter(name => /^[0-9]+$/.test(name))
        const found = ['/code', '/tmp', '/dev/shm'].map(place => fs.readdirSync(place))
        const sleepers = pids.filter(pid => fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('sleep'))
        const env = Object.entries(process.env).sort() // Podman has an order of its own for each container
        console.log(JSON.stringify([found, globalThis.left, env, sleepers, process.cwd()]))
        console.error(Math.random())
    """
    results = reused(executor, [dirty, look, look], language="javascript")
    assert len({result.container_id for result in results}) == 1
    alone = executor.execute(look, "javascript")
    assert results[1].stdout == results[2].stdout == alone.stdout
    assert results[1].stderr != results[2].stderr


TOUCH_ALL_MEMORY = "block = b'x' * (400 << 20); print(len(block))"


def test_a_batch_goes_on_after_timeouts_out_of_memory_crashes_and_floods(
    executor: BlockingCodeExecutor,
) -> None:
    bad: list[tuple[dict[str, Any], Status]] = [
        ({"code": "while True: pass", "timeout": 0.5}, Status.TIMEOUT),
        ({"code": TOUCH_ALL_MEMORY}, Status.OUT_OF_MEMORY),
        ({"code": "import os; os.kill(os.getpid(), 11)"}, Status.KILLED),
        ({"code": "import os; os.kill(os.getppid(), 9); os._exit(4)"}, Status.ERROR),
        ({"code": "import os\nwhile os.fork() >= 0: pass"}, Status.ERROR),
    ]
    programs: list[dict[str, Any]] = []
    wanted: list[tuple[Status, str | None]] = []
    for request, status in bad:
        programs += [request, {"code": "print('after')"}, {"code": "print('after')"}]
        wanted += [(status, None), (Status.OK, "after\n"), (Status.OK, "after\n")]
    results = reused(executor, [{"memory_limit": "256m", "timeout": 20, **request} for request in programs])
    found = [(result.status, result.stdout if result.status is Status.OK else None) for result in results]
    assert found == wanted
    assert len({result.container_id for result in results}) < len(results)


def comparable(result: ExecutionResult) -> tuple[Any, ...]:
    return (
        *(result.status, result.exit_code, result.signal),
        *(result.stdout_bytes.decode("utf-8", "backslashreplace"), result.stderr),
        *(result.truncated, dict(result.files), dict(result.files_skipped)),
    )


def requests_of(programs: Iterable[Program]) -> Iterator[dict[str, Any]]:
    for program in programs:
        yield {
            "code": program.code,
            "language": program.language,
            "stdin": program.stdin,
            "args": program.args,
            "env_vars": program.env,
            "files": program.files,
            "timeout": 60.0,
            "cpu_quota": CPU_QUOTA_US,
        }


def differing(executor: BlockingCodeExecutor, programs: list[Program]) -> dict[str, tuple[Any, Any]]:
    """For each program whose results differ: the result alone, and the result among others."""
    alone = executor.execute_many(requests_of(programs), concurrency=2)
    together = executor.execute_many(requests_of(programs), concurrency=2, max_runs_per_sandbox=len(programs))
    both = zip(programs, map(comparable, alone), map(comparable, together), strict=True)
    return {program.id: (one, other) for program, one, other in both if one != other}


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_the_corpus_gives_the_same_results_in_reused_sandboxes(language: str) -> None:
    programs = [program for program in CORPUS if program.language == language]
    with BlockingCodeExecutor(max_warm=0) as executor:
        found = differing(executor, programs)
        assert executor.get_stats()["launched"] < 1.5 * len(programs)
        # The order of output of some depends on time, which a busy machine distorts.
        for _ in range(2):
            if found:
                found = differing(executor, [program for program in programs if program.id in found])
    for name, (one, other) in found.items():
        assert other == one, name
