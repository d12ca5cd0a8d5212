"""Every way in which a run can end, and its result."""

from __future__ import annotations

import signal
import textwrap
import time
from typing import Any

import pytest

from codeforge import LANGUAGES, BlockingCodeExecutor, DockerCodeExecutor, ExecutionResult, Language, Status

pytestmark = [pytest.mark.engine, pytest.mark.core]

HELLO = {
    "python": "print('hello')",
    "javascript": "console.log('hello')",
    "typescript": "console.log('hello')",
}
SLEEP = {
    "python": "import time; print('before', flush=True); time.sleep(60)",
    "javascript": "console.log('before'); setTimeout(() => {}, 60000)",
    "typescript": "console.log('before'); setTimeout(() => {}, 60000)",
}
EXIT_3 = {
    "python": "import sys; sys.exit(3)",
    "javascript": "process.exitCode = 3",
    "typescript": "process.exit(3)",
}
EAT_MEMORY = """
    blocks = []
    while True:
        blocks.append(bytearray(4 << 20))
"""


def python(executor: BlockingCodeExecutor, code: str, **options: Any) -> ExecutionResult:
    return executor.execute(textwrap.dedent(code), **options)


@pytest.fixture(params=[row.name for row in LANGUAGES])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_documented_example(executor: BlockingCodeExecutor) -> None:
    result = executor.execute(code="print('Hello from Docker!')", language="python", timeout=30)
    assert result.success
    assert result.output == "Hello from Docker!\n"
    assert result.error is None
    assert result.exit_code == 0
    assert result.container_id
    assert 0 < result.execution_time < 30
    assert result.memory_used > 0


def test_documented_import_path() -> None:
    from execution.docker_executor import DockerCodeExecutor as Documented

    assert Documented is DockerCodeExecutor


def test_ok(executor: BlockingCodeExecutor, language: str) -> None:
    result = executor.execute(HELLO[language], language)
    assert (result.status, result.exit_code, result.stdout, result.stderr) == (Status.OK, 0, "hello\n", "")


def test_the_exit_code_is_the_programs(executor: BlockingCodeExecutor, language: str) -> None:
    result = executor.execute(EXIT_3[language], language)
    assert (result.status, result.exit_code, result.success) == (Status.ERROR, 3, False)
    assert result.error == "exited with code 3"


def test_timeout_keeps_partial_output(executor: BlockingCodeExecutor, language: str) -> None:
    timeout = 6 if language == "typescript" else 2  # its compiler takes a second of half a core
    start = time.monotonic()
    result = executor.execute(SLEEP[language], language, timeout=timeout, type_check=False)
    assert time.monotonic() - start < timeout + 4
    assert result.timed_out
    assert result.status is Status.TIMEOUT
    assert result.stdout == "before\n"
    assert str(result.error).startswith(f"timed out after {timeout} s")
    assert timeout <= result.execution_time < timeout + 2


def test_out_of_memory_is_reported_with_advice(executor: BlockingCodeExecutor) -> None:
    result = python(executor, EAT_MEMORY, memory_limit="64m")
    assert result.oom_killed
    assert str(result.error).startswith("container killed (OOMKilled)")
    assert "memory_limit='128m'" in str(result.error)


def test_more_memory_helps(executor: BlockingCodeExecutor) -> None:
    code = "block = bytearray(600 << 20); print(len(block))"
    assert python(executor, code).oom_killed
    assert python(executor, code, memory_limit="1g").success


# gVisor's whole sandbox ends then: test_gvisor.py.
@pytest.mark.engine("docker", "podman", "bubblewrap")
def test_out_of_memory_in_a_child_is_reported_although_the_parent_continues(
    executor: BlockingCodeExecutor,
) -> None:
    code = """
        import os
        if os.fork() == 0:
            blocks = []
            while True:
                blocks.append(bytearray(4 << 20))
        print(os.waitstatus_to_exitcode(os.wait()[1]))
    """
    result = python(executor, code, memory_limit="64m")
    assert (result.status, result.exit_code, result.stdout) == (Status.OUT_OF_MEMORY, 0, "-9\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_is_reported_by_number_and_is_not_out_of_memory(
    executor: BlockingCodeExecutor, number: signal.Signals
) -> None:
    result = python(executor, f"import os; os.kill(os.getpid(), {int(number)})")
    assert (result.status, result.signal, result.exit_code) == (Status.KILLED, number, None)
    assert result.error == f"killed by {number.name}"
    assert not result.oom_killed


@pytest.mark.parametrize(("code", "told"), [(137, 137), (124, 124), (300, 44), (-1, 255)])
def test_an_exit_code_that_looks_like_a_verdict_is_only_an_exit_code(
    executor: BlockingCodeExecutor, code: int, told: int
) -> None:
    result = python(executor, f"import os; print('Killed'); os._exit({code})")
    assert (result.status, result.exit_code, result.signal) == (Status.ERROR, told, None)


def test_output_beyond_the_limit_is_cut_and_reported(executor: BlockingCodeExecutor) -> None:
    result = python(executor, "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('y' * 10)")
    assert (result.status, result.truncated) == (Status.OK, True)
    assert result.stdout == "x" * (1 << 20)
    assert result.stderr == "y" * 10


def test_output_at_the_limit_is_not_cut(executor: BlockingCodeExecutor) -> None:
    result = python(executor, f"import sys; sys.stdout.write('x' * {1 << 20})")
    assert (len(result.stdout), result.truncated) == (1 << 20, False)


def test_a_flood_is_ended(executor: BlockingCodeExecutor) -> None:
    result = python(executor, "while True: print('x' * 10000)", timeout=25)
    assert (result.status, result.truncated, len(result.stdout)) == (Status.OUTPUT_LIMIT, True, 1 << 20)
    assert "64m" in str(result.error)


def test_a_flood_on_both_streams_does_not_deadlock(executor: BlockingCodeExecutor) -> None:
    code = """
        import sys, threading
        def flood(stream):
            for _ in range(3000):
                stream.write("x" * 1000)
        threads = [threading.Thread(target=flood, args=[s]) for s in (sys.stdout, sys.stderr)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    """
    result = python(executor, code)
    assert (result.status, len(result.stdout), len(result.stderr)) == (Status.OK, 1 << 20, 1 << 20)


def test_bytes_come_out_unchanged(executor: BlockingCodeExecutor) -> None:
    result = python(executor, "import sys; sys.stdout.buffer.write(bytes(range(256)))")
    assert result.stdout_bytes == bytes(range(256))
    assert "\ufffd" in result.stdout


def test_the_error_quotes_the_traceback(executor: BlockingCodeExecutor) -> None:
    result = python(executor, "1 / 0")
    assert "ZeroDivisionError: division by zero" in str(result.error)
    assert 'File "/code/main.py", line 1, in <module>' in result.stderr


def test_files_in_and_out(executor: BlockingCodeExecutor) -> None:
    code = """
        import os, pathlib
        print(pathlib.Path("data/in.txt").read_text(), os.getcwd(), sorted(os.listdir()))
        pathlib.Path("data/out.bin").write_bytes(bytes(range(256)))
        pathlib.Path("kept.txt").open("a").write("more")
        os.symlink("/etc/passwd", "link")
        os.mkfifo("pipe")
        os.link("data/out.bin", "second-name")
        os.makedirs("a/b/c")
        pathlib.Path("a/b/c/deep").touch()
        pathlib.Path("new\\nline").touch()
    """
    result = python(executor, code, files={"data/in.txt": "input", "kept.txt": b"some ", "same": b"same"})
    assert result.stdout == "input /code ['data', 'kept.txt', 'main.py', 'same']\n"
    assert dict(result.files) == {"a/b/c/deep": b"", "kept.txt": b"some more"}
    assert dict(result.files_skipped) == {
        "data/out.bin": "linked",
        "second-name": "linked",
        "link": "not_regular",
        "pipe": "not_regular",
        "new\nline": "unusable_name",
    }


def test_files_beyond_the_limit_are_reported(executor: BlockingCodeExecutor) -> None:
    code = """
        open("small", "w").write("x")
        open("large", "wb").truncate(17 << 20)
        open("sparse", "wb").truncate(60 << 20)
    """
    result = python(executor, code)
    assert dict(result.files) == {"small": b"x"}
    assert dict(result.files_skipped) == {"large": "too_large", "sparse": "too_large"}


def test_nothing_outlives_a_run_and_the_result_does_not_wait(executor: BlockingCodeExecutor) -> None:
    code = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(50); open('late', 'w')"],
                         start_new_session=True)
        print("done")
    """
    result = python(executor, code)
    assert (result.status, result.stdout) == (Status.OK, "done\n")
    assert result.execution_time < 5
    assert not result.files


def test_each_run_has_its_own_sandbox(executor: BlockingCodeExecutor) -> None:
    code = """
        import os
        print(sorted(os.listdir("/tmp")), sorted(os.listdir("/dev/shm")), sorted(os.listdir("/code")))
        for place in ("/tmp", "/dev/shm", "/code"):
            open(place + "/mark", "w").write("x")
    """
    first, second = (python(executor, code) for _ in range(2))
    assert first.stdout == second.stdout == "[] [] ['main.py']\n"
    assert first.container_id != second.container_id


def test_stdin_args_and_environment(executor: BlockingCodeExecutor) -> None:
    code = """
        import os, sys
        print(input(), sys.stdin.read(), sys.argv[1:], os.environ["KEY"], os.environ.get("HOME"))
    """
    options = {"stdin": "first\nrest", "args": ["a b", "", "é"], "env_vars": {"KEY": "välue"}}
    result = python(executor, code, **options)
    assert result.stdout == "first rest ['a b', '', 'é'] välue /tmp\n"


def test_without_stdin_the_program_reads_an_empty_one(executor: BlockingCodeExecutor) -> None:
    assert "EOFError" in python(executor, "input()").stderr


def test_large_stdin_that_nobody_reads_does_not_hold_up_the_run(executor: BlockingCodeExecutor) -> None:
    assert python(executor, "print('done')", stdin=b"x" * 5_000_000).stdout == "done\n"


def test_large_stdin_arrives_whole(executor: BlockingCodeExecutor) -> None:
    code = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    import hashlib

    data = bytes(range(256)) * 20_000
    assert python(executor, code, stdin=data).stdout.strip() == hashlib.sha256(data).hexdigest()


def test_variables_that_an_interpreter_reads_at_start_take_effect(executor: BlockingCodeExecutor) -> None:
    result = python(
        executor, "import sys; print(sys.flags.hash_randomization)", env_vars={"PYTHONHASHSEED": "0"}
    )
    assert result.stdout == "0\n"


def test_type_errors_are_reported_as_ts_node_does(executor: BlockingCodeExecutor) -> None:
    code = "const n: number = 'text'\nconsole.log(n)"
    checked = executor.execute(code, "typescript")
    assert checked.exit_code == 1
    assert "main.ts(1,7): error TS2322" in checked.stderr
    unchecked = executor.execute(code, "typescript", type_check=False)
    assert (unchecked.stdout, unchecked.status) == ("text\n", Status.OK)


def test_es_modules_and_top_level_await_are_detected(executor: BlockingCodeExecutor) -> None:
    code = """
        import { readFileSync } from 'fs'
        import { half } from './half.js'
        const text = await Promise.resolve(readFileSync('number.txt', 'utf8'))
        console.log(half(Number(text)), import.meta.url)
    """
    files = {"half.js": "export const half = (n) => n / 2", "number.txt": "42"}
    result = executor.execute(textwrap.dedent(code), "javascript", files=files)
    assert (result.stdout, result.stderr) == ("21 file:///code/main.js\n", "")
    assert not result.files


def test_callbacks_get_the_output_live_in_the_callers_thread(executor: BlockingCodeExecutor) -> None:
    import threading

    heard: list[tuple[str, str, int, float]] = []

    def listen(stream: str, text: str) -> None:
        heard.append((stream, text, threading.get_ident(), time.monotonic()))

    result = executor.execute(
        "import sys, time\nprint('é1', flush=True); time.sleep(1); print('2', file=sys.stderr)",
        on_stdout=lambda text: listen("stdout", text),
        on_stderr=lambda text: listen("stderr", text),
    )
    assert [(stream, text) for stream, text, _, _ in heard] == [("stdout", "é1\n"), ("stderr", "2\n")]
    assert {ident for _, _, ident, _ in heard} == {threading.get_ident()}
    assert heard[1][3] - heard[0][3] > 0.5
    assert result.stdout == "é1\n"


def test_an_error_in_a_callback_ends_the_run_and_reaches_the_caller(executor: BlockingCodeExecutor) -> None:
    def refuse(text: str) -> None:
        raise KeyError(text)

    with pytest.raises(KeyError):
        executor.execute("import time; print('x', flush=True); time.sleep(60)", on_stdout=refuse)


@pytest.mark.engine("docker", "podman", "gvisor")
def test_another_language_is_one_row(executor: BlockingCodeExecutor) -> None:
    shell = Language(
        name="shell",
        image="ai-codeforge-python:latest",
        file="main.sh",
        command=("sh",),
        smoke="echo hello",
    )
    with BlockingCodeExecutor(languages=[*LANGUAGES, shell]) as mine:
        result = mine.execute('read name; echo "hello $name $# $0"; exit 4', "shell", stdin="you", args=["x"])
    assert (result.stdout, result.exit_code) == ("hello you 1 /code/main.sh\n", 4)


@pytest.mark.parametrize("row", LANGUAGES, ids=lambda row: str(row.name))
def test_smoke_programs(executor: BlockingCodeExecutor, row: Language) -> None:
    assert executor.execute(row.smoke, row.name).stdout == "hello\n"
