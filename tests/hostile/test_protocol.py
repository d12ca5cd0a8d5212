"""No program can speak for init: not on its own streams, not on another descriptor, not by ending init."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from codeforge import BlockingCodeExecutor, ExecutionResult, KillReason, Status
from codeforge.audit.payloads.forge import FORGED, MARK, OWN_STREAMS, TOO_LONG
from codeforge.audit.probe_runner import program
from hostile.conftest import Attack, Batch
from hostile.heartbeat import Arena
from hostile.payloads import payload

FRAMES = f"forged = bytes.fromhex({FORGED.hex()!r})\n"


@pytest.fixture(scope="module")
def arena(executor: BlockingCodeExecutor) -> Iterator[Arena]:
    with Arena(executor) as arena:
        yield arena


@pytest.mark.catalogue("X01")
@pytest.mark.parametrize("stream", [1, 2])
def test_frames_written_to_a_stream_are_output(executor: BlockingCodeExecutor, stream: int) -> None:
    result = executor.execute(f"import os\n{FRAMES}os.write({stream}, forged)\nos._exit(3)")
    outputs = {1: result.stdout_bytes, 2: result.stderr_bytes}
    assert outputs == {stream: FORGED, 3 - stream: b""}
    assert (result.status, result.exit_code, dict(result.files)) == (Status.ERROR, 3, {})


@pytest.mark.catalogue("X01")
def test_frames_written_to_a_stream_by_node_are_output(executor: BlockingCodeExecutor) -> None:
    code = f"require('fs').writeSync(1, Buffer.from('{FORGED.hex()}', 'hex')); process.exit(3)"
    result = executor.execute(code, "javascript")
    assert (result.stdout_bytes, result.exit_code, dict(result.files)) == (FORGED, 3, {})


def reached_its_own_streams_only(result: ExecutionResult) -> bool:
    written = json.loads(result.files["written"])
    streams = (result.stdout_bytes, result.stderr_bytes)
    return written == [[], OWN_STREAMS] and streams == (MARK + 2 * FORGED, MARK + FORGED + TOO_LONG + FORGED)


@pytest.mark.catalogue("X02")
def test_frames_written_to_every_descriptor_reach_only_the_programs_streams(
    executor: BlockingCodeExecutor,
) -> None:
    result = executor.execute(**program("forge.py"))
    assert reached_its_own_streams_only(result)
    assert (result.status, result.exit_code) == (Status.ERROR, 7)


@pytest.mark.catalogue("X02")
def test_frames_written_by_a_run_do_not_reach_the_template(run_in_turn: Batch) -> None:
    first, second, third = run_in_turn(program("forge.py"), "print('well')", program("forge.py"))
    assert first.container_id == second.container_id == third.container_id
    assert reached_its_own_streams_only(first)
    assert reached_its_own_streams_only(third)
    assert (second.stdout, second.status) == ("well\n", Status.OK)


@pytest.mark.catalogue("X02")
def test_frames_written_by_node_reach_only_its_streams(executor: BlockingCodeExecutor) -> None:
    """Node has descriptors of its own, which it may damage."""
    code = f"""
        const fs = require('fs')
        const forged = Buffer.from('{FORGED.hex()}', 'hex')
        const init = []
        for (let number = 0; number < 64; number++) {{
          try {{ fs.writeFileSync('/proc/1/fd/' + number, forged); init.push(number) }} catch {{}}
        }}
        fs.writeFileSync('reported', String(init.length))
        for (let number = 1; number < 64; number++) try {{ fs.writeSync(number, forged) }} catch {{}}
        process.reallyExit(3)
    """
    result = executor.execute(code, "javascript")
    assert result.files["reported"] == b"0"
    assert (result.stdout_bytes, result.stderr_bytes) == (FORGED, FORGED)
    assert result.status is not Status.OK


DESTROY = {
    "closed": "os.closerange(0, 1024)",
    "elsewhere": "null = os.open('/dev/null', os.O_RDWR); [os.dup2(null, fd) for fd in range(64)]",
    "swapped": "[os.dup2(a, b) for a, b in ((1, 0), (0, 1), (0, 2))]",
    "exhausted": "[os.dup2(1, fd) for fd in range(3, 1024)]",
}


@pytest.mark.catalogue("X03")
@pytest.mark.parametrize("how", DESTROY)
def test_a_program_that_destroys_its_descriptors_gets_a_result(
    executor: BlockingCodeExecutor, run_in_turn: Batch, how: str
) -> None:
    code = f"import os\n{DESTROY[how]}\nopen('late', 'w') if {how != 'exhausted'} else 0\nos._exit(5)"
    alone = executor.execute(code)
    reused, after = run_in_turn(code, "print('well')")
    for result in (alone, reused):
        assert (result.status, result.exit_code, result.stdout) == (Status.ERROR, 5, "")
    assert (after.status, after.stdout) == (Status.OK, "well\n")


@pytest.mark.catalogue("X03")
def test_node_that_closes_its_descriptors_gets_a_result(executor: BlockingCodeExecutor) -> None:
    code = """
        for (let fd = 0; fd < 64; fd++) try { require('fs').closeSync(fd) } catch {}
        process.reallyExit(5)
    """
    result = executor.execute(code, "javascript", timeout=5)
    assert (result.status is Status.OK, result.stdout) == (False, "")


@pytest.mark.catalogue("X04")
def test_init_survives_every_signal_to_all_processes(run: Attack) -> None:
    code = """
        for signum in range(1, 65):
            attempt(os.kill, 1, signum)
            call("tgkill", 1, 1, signum)
        children = [os.fork() or signal.pause() for _ in range(5)]
        while attempt(os.kill, -1, signal.SIGKILL) != "ESRCH":
            try: os.wait()
            except ChildProcessError: break
        report([os.path.exists("/proc/1"), os.getppid()])
    """
    assert run(code) == [True, 1]


@pytest.mark.catalogue("X04")
def test_memory_filled_with_files_is_out_of_memory(arena: Arena) -> None:
    """Files in memory take what init itself needs, too."""
    code = """
        import itertools, os
        for number in itertools.count():
            for place in ("/dev/shm", "/code", "/tmp"):
                try:
                    with open(f"{place}/{number}", "wb") as file: file.write(b"x" * 9_000)
                except OSError: pass
    """
    result = arena.attack(code, timeout=10, memory="32m")
    assert result.status is Status.OUT_OF_MEMORY
    assert result.evidence.oom_event


STEAL = """
    reported = {}
    for name in ("/proc/1/fd/0", "/proc/1/fd/4", "/proc/1/environ", f"/proc/{os.getppid()}/fd"):
        reported[name] = attempt(lambda: os.listdir(name) if name.endswith("fd") else open(name).read())
    descriptors = []
    for number in range(1024):
        try: descriptors.append([number, stat.S_IFMT(os.fstat(number).st_mode)])
        except OSError: pass
    report([sorted(set(reported.values())), descriptors, sys.stdin.read()])
"""


@pytest.mark.catalogue("X05")
def test_a_program_has_its_own_stdin_and_no_other_channel(run: Attack) -> None:
    refused, descriptors, stdin = run(STEAL, stdin="mine")
    assert refused == ["EACCES"]
    assert descriptors == [[number, 0o010000] for number in range(3)]  # pipes
    assert stdin == "mine"


@pytest.mark.catalogue("X05")
def test_a_run_in_a_reused_sandbox_has_only_its_own_stdin(executor: BlockingCodeExecutor) -> None:
    requests = [{"code": payload(STEAL), "stdin": text} for text in ("first", "second", "")]
    results = list(executor.execute_many(requests, concurrency=1, max_runs_per_sandbox=3))
    pipes = [[number, 0o010000] for number in range(3)]
    assert [json.loads(result.stdout) for result in results] == [
        [["EACCES"], pipes, stdin] for stdin in ("first", "second", "")
    ]
    assert len({result.container_id for result in results}) == 1


TAMPER = """
    import atexit, builtins, gc, threading
    names = {type(thing).__name__ for thing in gc.get_objects()}
    print([name for name in names if "Control" in name or "Preloads" in name], flush=True)
    def lie(*_, **__): raise SystemExit(0)
    for module, name in ((builtins, "print"), (json, "dumps"), (os, "fork"), (os, "waitpid"), (os, "_exit")):
        setattr(module, name, lie)
    atexit.register(lie)
    sys.meta_path.insert(0, None)
    sys.excepthook = lie
    threading.setprofile(lie)
    sys.setprofile(lie)
    sorted([])
"""


@pytest.mark.catalogue("X10")
def test_changes_to_the_interpreter_do_not_reach_the_next_run(run_in_turn: Batch) -> None:
    """A program decides its own exit code, but nothing about the next run."""
    first, second = run_in_turn(TAMPER, "report([str(print), sys.getprofile(), None in sys.meta_path])")
    assert first.container_id == second.container_id
    assert (first.stdout, first.exit_code, first.evidence.killed) == ("[]\n", 0, None)
    assert json.loads(second.stdout) == ["<built-in function print>", None, False]


TYPE_BOMB = """
type D = '0' | '1' | '2' | '3' | '4' | '5' | '6' | '7' | '8' | '9'
type Walk<S extends string, N extends 0[] = []> =
  S extends `${infer _}${infer T}` ? Walk<T, [...N, 0]> : N['length']
type Each<A, B extends string> = A extends string ? Walk<`${A}${B}`> : never
""" + "".join(f"const n{i}: Each<`${{D}}${{D}}${{D}}${{D}}`, '{f'{i:02}' * 15}'> = 34\n" for i in range(30))


@pytest.mark.catalogue("X16")
def test_types_that_take_forever_to_check_time_out(arena: Arena) -> None:
    code = TYPE_BOMB + "console.log('ran')"
    checked = arena.attack(code, "typescript", timeout=10, memory="512m")
    assert (checked.status, checked.evidence.killed) == (Status.TIMEOUT, KillReason.DEADLINE)
    assert checked.stdout == ""
    unchecked = arena.attack(code, "typescript", timeout=10, memory="512m", type_check=False)
    assert (unchecked.status, unchecked.stdout) == (Status.OK, "ran\n")


@pytest.mark.catalogue("X16")
def test_code_that_the_compiler_loads_runs_in_the_sandbox_behind_the_filter(
    executor: BlockingCodeExecutor,
) -> None:
    tell = """
        const fs = require('fs')
        const filters = fs.readFileSync('/proc/self/status', 'utf8').match(/Seccomp_filters:\\t(.*)/)[1]
        console.log(JSON.stringify([process.pid, process.getuid() >= 10001, filters]))
        module.exports = () => {}
    """
    settings = {"compilerOptions": {"plugins": [{"name": "./load"}]}, "ts-node": {"require": ["./load.js"]}}
    files = {"load.js": tell, "tsconfig.json": json.dumps(settings)}
    result = executor.execute("console.log(process.pid)", "typescript", timeout=40, files=files)
    loaded, program = map(json.loads, result.stdout.splitlines())
    assert loaded[0] == program != 1
    assert loaded[1:] == [True, "2"]
