"""A program that takes all the processes and memory it can get ends alone: by itself or at its limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from codeforge import LANGUAGES, BlockingCodeExecutor, KillReason, Status
from hostile.heartbeat import Arena

PIDS = {row.name: row.pids for row in LANGUAGES}
MIB = 1 << 20


@pytest.fixture(scope="module")
def arena(executor: BlockingCodeExecutor) -> Iterator[Arena]:
    with Arena(executor) as arena:
        yield arena


@pytest.mark.catalogue("R01")
def test_fork_bomb_ends_when_the_kernel_refuses_a_process(arena: Arena) -> None:
    result = arena.attack("import os\nwhile True: os.fork()", memory="256m")  # there are 62 tracebacks
    assert result.status is Status.ERROR
    assert "BlockingIOError: [Errno 11]" in result.stderr
    assert result.evidence.pids_refused >= 1


@pytest.mark.catalogue("R01")
def test_fork_bomb_that_ignores_errors_times_out(arena: Arena) -> None:
    code = """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
    """
    result = arena.attack(code, timeout=2)
    assert (result.status, result.evidence.killed) == (Status.TIMEOUT, KillReason.DEADLINE)
    assert result.evidence.pids_refused > 100


@pytest.mark.catalogue("R01")
def test_node_fork_bomb_is_bounded(arena: Arena) -> None:
    code = """
        const { fork } = require('child_process')
        setInterval(() => { try { fork(__filename).on('error', () => {}) } catch {} }, 1)
    """
    result = arena.attack(code, "javascript", memory="128m", timeout=3)
    assert result.status in (Status.TIMEOUT, Status.OUT_OF_MEMORY, Status.KILLED)
    assert result.evidence.pids_refused + result.evidence.oom_kills >= 1


@pytest.mark.catalogue("R02")
def test_node_thread_bomb_gets_a_clean_error(arena: Arena) -> None:
    code = """
        const { Worker } = require('worker_threads')
        setInterval(() => new Worker('setInterval(() => {}, 1000)', { eval: true }), 1)
    """
    result = arena.attack(code, "javascript", memory="1g", timeout=15, cpu_quota=100_000)
    assert result.status is Status.ERROR
    assert "ERR_WORKER_INIT_FAILED" in result.stderr
    assert result.evidence.pids_refused >= 1


@pytest.mark.catalogue("R03")
def test_node_memory_bomb_is_out_of_memory(arena: Arena) -> None:
    code = "const blocks = []; for (;;) blocks.push(Buffer.alloc(4 << 20, 1))"
    result = arena.attack(code, "javascript", memory="128m")
    assert (result.status, result.evidence.oom_event) == (Status.OUT_OF_MEMORY, True)


@pytest.mark.catalogue("R03")
def test_node_heap_bomb_ends_at_nodes_heap_limit_or_the_kernels(arena: Arena) -> None:
    code = "const heap = []; for (;;) heap.push({ some: 'thing', more: [heap.length] })"
    result = arena.attack(code, "javascript", memory="128m", timeout=15)
    if result.status is Status.OUT_OF_MEMORY:  # the garbage collector itself needs memory when there is none
        assert result.evidence.oom_event
    else:
        assert (result.status, result.signal) == (Status.KILLED, 6)
        assert "JavaScript heap out of memory" in result.stderr
        assert not result.evidence.oom_event


FAKES = {
    "error": ("raise MemoryError('Killed')", Status.ERROR),
    "child": ("os.fork() or os.kill(os.getpid(), 9); os.wait()", Status.OK),
}


@pytest.mark.catalogue("R05")
@pytest.mark.parametrize("fake", FAKES)
def test_a_program_cannot_fake_out_of_memory(arena: Arena, fake: str) -> None:
    action, status = FAKES[fake]
    result = arena.attack(f"import os\nprint('Killed', 'OOMKilled', flush=True)\n{action}")
    assert result.status is status
    assert (result.evidence.oom_event, result.evidence.oom_kills) == (False, 0)


@pytest.mark.catalogue("R06")
def test_swap_gives_no_memory_beyond_the_limit(arena: Arena) -> None:
    code = """
        import mmap, time
        size = 128 << 20
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(0, size, mmap.PAGESIZE):
            block[page] = 1
            if page % (4 << 20) == 0:
                print(page >> 20, flush=True)
                time.sleep(0.02)
    """
    result = arena.attack(code)
    assert result.status is Status.OUT_OF_MEMORY
    assert 16 <= int(result.stdout.split()[-1]) < 64
    posture = result.posture
    assert posture["memory_max"] == str(64 * MIB)
    assert posture.get("swap_max") == "0" or posture["memsw_max"] == posture["memory_max"]


OBJECTS = {
    "pipes": "os.set_blocking((ends := os.pipe())[1], False); os.write(ends[1], b'x' * 65536)",
    "sockets": "ends = socket.socketpair(); ends[0].setblocking(False); kept.append(ends);"
    " [ends[0].send(b'x' * 4096) for _ in range(40)]",
    "epolls": "kept.append(select.epoll())",
    "memory files": "os.write(os.memfd_create('x'), b'x' * 65536)",
}


@pytest.mark.catalogue("R10")
@pytest.mark.parametrize("kind", OBJECTS)
def test_kernel_objects_count_as_the_programs_memory(arena: Arena, kind: str) -> None:
    """Each process takes what its descriptors allow, and many processes do so."""
    code = f"""
        import os, select, signal, socket
        kept = []
        for _ in range(50):
            if os.fork() == 0:
                try:
                    while True:
                        {OBJECTS[kind]}
                except OSError:
                    signal.pause()
        signal.pause()
    """
    result = arena.attack(code, timeout=3)
    if kind == "epolls":
        assert result.status in (Status.TIMEOUT, Status.OUT_OF_MEMORY)
    else:
        assert (result.status, result.evidence.oom_event) == (Status.OUT_OF_MEMORY, True)
    assert result.memory_used <= 64 * MIB


@pytest.mark.catalogue("R10")
def test_lookups_of_missing_names_count_as_the_programs_memory(arena: Arena) -> None:
    code = """
        import itertools, os
        for number in itertools.count():
            os.path.exists(f"/usr/lib/{number:0200}")
    """
    result = arena.attack(code, timeout=2, memory="32m")
    # The kernel frees such names again; on a busy machine it may be too late, and kills.
    assert result.status in (Status.TIMEOUT, Status.OUT_OF_MEMORY)
    assert result.memory_used <= 32 * MIB


@pytest.mark.catalogue("R21")
def test_a_programs_own_zombies_count_as_its_processes(arena: Arena) -> None:
    code = """
        import os
        children = 0
        try:
            while True:
                if os.fork() == 0: os._exit(0)
                children += 1
        except BlockingIOError:
            print(children, flush=True)
        for _ in range(children): os.wait()
        print(os.fork() and os.waitpid(-1, 0)[1])
    """
    result = arena.attack(code)
    assert result.status is Status.OK
    assert result.stdout.split()[0] == str(PIDS["python"] - 2)
    assert result.stdout.split()[-1] == "0"
