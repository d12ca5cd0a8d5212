"""A program uses up nothing of the machine's: disk, files, kernel tables, or what other users need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codeforge import BlockingCodeExecutor, InvalidRequest, Status
from codeforge.audit.attack_cases import facts
from codeforge.audit.probe_runner import program
from hostile.conftest import Attack, Watch, answer
from hostile.heartbeat import Arena
from observer import UNDER_TEST

MIB = 1 << 20


@pytest.fixture(scope="module")
def arena(executor: BlockingCodeExecutor) -> Iterator[Arena]:
    with Arena(executor) as arena:
        yield arena


@pytest.mark.catalogue("R07", "R08")
def test_writable_folders_fill_up_and_nothing_reaches_the_disk(watch: Watch) -> None:
    places = ("/tmp", "/code", "/dev/shm")
    with watch(program("resources.py", "fill_folder", *places), memory_limit="64m") as seen:
        upper = seen.inspected.get("GraphDriver", {}).get("Data", {}).get("UpperDir")
        # An engine without such a folder keeps root in memory.
        found = Path(upper).rglob("*") if upper else ()
        on_disk = sum(path.stat().st_size for path in found if path.is_file())
    assert seen.reported["answer"] == "ENOSPC"
    assert all(0 < int(seen.reported[place]) <= 16 * MIB for place in places)
    assert on_disk == 0


@pytest.mark.catalogue("R07")
def test_a_file_cannot_grow_beyond_its_folders_size(run: Attack) -> None:
    code = """
        fd = os.open("/dev/shm/large", os.O_WRONLY | os.O_CREAT)
        sparse = attempt(os.truncate, fd, 1 << 50)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        report([sparse, in_child(os.ftruncate, fd, 1 << 40)])
    """
    assert run(code) == ["EFBIG", "SIGXFSZ"]


@pytest.mark.catalogue("R08")
def test_no_message_queue_can_be_made_as_a_file(run: Attack) -> None:
    code = """
        report(attempt(os.open, "/dev/mqueue/x", os.O_CREAT | os.O_RDWR))
    """
    by_file = "ENOENT" if UNDER_TEST == "bubblewrap" else "EMFILE"  # bubblewrap has no such folder
    assert run(code) == by_file


@pytest.mark.catalogue("R09")
# In /code are main.py and observe.py, in three folders.
@pytest.mark.parametrize(("place", "left"), [("/tmp", 4095), ("/code", 4090)])
def test_empty_files_are_bounded_by_the_folders_inodes(arena: Arena, place: str, left: int) -> None:
    result = arena.attack(**program("resources.py", "many_files", place), memory="128m")
    assert facts(result) == {"count": str(left), "answer": "ENOSPC"}


@pytest.mark.catalogue("R09")
def test_empty_files_in_shared_memory_are_bounded_or_count_as_memory(arena: Arena) -> None:
    result = arena.attack(**program("resources.py", "many_files", "/dev/shm"), timeout=10, memory="32m")
    if UNDER_TEST == "bubblewrap":
        assert facts(result) == {"count": "4095", "answer": "ENOSPC"}
    else:
        assert (result.status, result.evidence.oom_event) == (Status.OUT_OF_MEMORY, True)


LEAVE = """
    import glob
    from multiprocessing import shared_memory
    looked = sorted(name for place in ("shm", "mqueue") for name in glob.glob("*", root_dir=f"/dev/{place}"))
    shared = shared_memory.SharedMemory("left", create=True, size=4096)
    report([looked, os.listdir("/dev/shm")])
    os._exit(0)
"""


@pytest.mark.catalogue("R23")
def test_shared_memory_left_behind_is_gone_for_the_next_run(run: Attack, run_in_turn: Any) -> None:
    assert [run(LEAVE), run(LEAVE)] == [[[], ["left"]]] * 2
    reused = run_in_turn(LEAVE, LEAVE)
    assert len({result.container_id for result in reused}) == 1
    assert [json.loads(result.stdout) for result in reused] == [[[], ["left"]]] * 2


TOO_LARGE: dict[str, dict[str, Any]] = {
    "code of 100 MB": {"code": "#" * 100_000_000},
    "a file of 100 MB": {"files": {"large": b"x" * 100_000_000}},
    "100000 files": {"files": {f"f{number}": b"" for number in range(100_000)}},
    "100000 arguments": {"args": ["x"] * 100_000},
    "an argument of 1 MB": {"args": ["x" * 1_000_000]},
    "a variable of 1 MB": {"env_vars": {"LARGE": "x" * 1_000_000}},
    "100000 variables": {"env_vars": {f"V{number}": "" for number in range(100_000)}},
    "much in many arguments": {"args": ["x" * 1000] * 1000},
    "a path of 10000 directories": {"files": {"a/" * 10_000 + "b": b""}},
}


@pytest.mark.catalogue("R24")
@pytest.mark.parametrize("kind", TOO_LARGE)
def test_input_that_is_too_large_is_refused_before_a_sandbox_is_taken(
    executor: BlockingCodeExecutor, kind: str
) -> None:
    before = executor.get_stats()
    with pytest.raises(InvalidRequest) as refused:
        executor.execute(**{"code": "pass", **TOO_LARGE[kind]})
    after = executor.get_stats()
    taken = [after[count] - before[count] for count in ("found_warm", "found_none", "runs")]
    assert taken == [0, 0, 0]
    assert len(str(refused.value)) < 1000


@pytest.mark.catalogue("R24")
def test_large_code_is_sent_in_frames_and_not_on_the_command_line(watch: Watch) -> None:
    with watch(f"secret = '{'x' * MIB}'\nreport(0)\ninput()") as seen:
        lines = [(process / "cmdline").read_bytes() for process in seen.processes]
        inspected = json.dumps(seen.inspected)
    assert all(len(line) < 200 for line in lines)
    assert len(inspected) < 50_000


CRASHES = {
    "segmentation fault": "import ctypes; ctypes.string_at(0)",
    "deep recursion": """
        import sys
        sys.setrecursionlimit(10**9)
        deep = []
        for _ in range(200_000): deep = [deep]
        repr(deep)
    """,
    "abort": "import os; os.abort()",
}


@pytest.mark.catalogue("R25")
@pytest.mark.parametrize("kind", CRASHES)
def test_a_crash_is_reported_by_its_signal_and_leaves_no_core_file(arena: Arena, kind: str) -> None:
    result = arena.attack(CRASHES[kind], memory="256m", timeout=15)
    assert (result.status, result.signal) == (Status.KILLED, 6 if kind == "abort" else 11)
    assert (dict(result.files), dict(result.files_skipped)) == ({}, {})


@pytest.mark.catalogue("R25", "R26")
def test_core_dumps_cannot_be_enabled_again(run: Attack) -> None:
    code = """
        import resource
        unlimited = (ctypes.c_uint64 * 2)(2**64 - 1, 2**64 - 1)
        report([call("prlimit64", 0, 4, unlimited, 0), resource.getrlimit(resource.RLIMIT_CORE)])
    """
    assert run(code) == ["EPERM", [0, 0]]


@pytest.mark.catalogue("R27")
def test_resources_that_the_kernel_counts_by_user_are_not_taken_from_others(
    watch: Watch, executor: BlockingCodeExecutor
) -> None:
    take = program("resources.py", "take_user_budget")
    with watch(take) as first:
        second = answer(executor.execute(**take))
        owner = first.init.stat().st_uid
    reported = first.reported
    assert (reported["instances"], reported["inotify"]) == ("128", "EMFILE")
    assert (reported["queue"], int(reported["queued"]) >= 100) == ("EAGAIN", True)
    assert int(reported["all_pages"]) > 10_000
    assert reported.pop("uid") != second.pop("uid")
    assert second == reported
    assert owner != 0


@pytest.mark.catalogue("R28")
def test_a_program_may_have_its_own_files_written(run: Attack) -> None:
    code = """
        fd = os.open("/tmp", os.O_RDONLY)
        report(attempt(os.fsync, fd))
    """
    assert run(code) == "allowed"


@pytest.mark.catalogue("R29")
@pytest.mark.parametrize("threads", ["1", "64"])
def test_numpy_works_with_any_number_of_threads(run: Attack, threads: str) -> None:
    """On a machine with many cores, numpy starts that many threads."""
    code = """
        import numpy
        square = numpy.ones((300, 300))
        report([float((square @ square)[0, 0]), len(os.listdir("/proc/self/task")) <= 62])
    """
    assert run(code, timeout=20, env_vars={"OPENBLAS_NUM_THREADS": threads}) == [300.0, True]


@pytest.mark.catalogue("R29")
@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_node_works_with_the_most_threads_it_can_have(executor: BlockingCodeExecutor, language: str) -> None:
    code = """
        import { pbkdf2 } from 'crypto'
        let left = 100
        const count = () => { if (--left === 0) console.log('done') }
        for (let i = left; i > 0; i--) pbkdf2('x', 'y', 1, 8, 'sha1', count)
    """
    result = executor.execute(code, language, timeout=40, env_vars={"UV_THREADPOOL_SIZE": "40"})
    assert (result.status, result.stdout) == (Status.OK, "done\n"), result.stderr
