"""Variables that a loader or an interpreter obeys affect only the program that asked for them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from codeforge import BlockingCodeExecutor, ExecutionRequest, InvalidRequest, Status
from hostile.conftest import Attack, Watch

LIBRARY = "libanl.so.1"
"""A library in every image that no program loads by itself."""

TOLD_BY_THE_LOADER = """
    report([
        LIBRARY in open("/proc/self/maps").read(),
        os.environ["LD_PRELOAD"] == LIBRARY,
        open("/proc/self/status").read().split("Seccomp_filters:")[1].split()[0],
    ])
    input()
""".replace("LIBRARY", repr(LIBRARY))


@pytest.mark.catalogue("X11")
def test_a_preloaded_library_is_in_the_program_and_not_in_init(watch: Watch) -> None:
    """The warm interpreter is discarded, and a new one is started behind the filter."""
    with watch(TOLD_BY_THE_LOADER, env_vars={"LD_PRELOAD": LIBRARY}) as seen:
        init = (seen.init / "maps").read_text() + (seen.init / "environ").read_text()
        processes = len(seen.processes)
    assert seen.reported == [True, True, "2"]
    assert LIBRARY not in init
    assert "LD_PRELOAD" not in init
    assert processes == 2


@pytest.mark.catalogue("X11")
def test_a_library_sent_with_the_run_cannot_be_preloaded(
    executor: BlockingCodeExecutor, tmp_path: Path
) -> None:
    source, library = tmp_path / "evil.c", tmp_path / "evil.so"
    source.write_text(
        "#include <unistd.h>\n"
        '__attribute__((constructor)) static void evil(void) { if (write(1, "evil\\n", 5)) _exit(9); }\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    files = {"evil.so": library.read_bytes()}
    result = executor.execute("print('well')", files=files, env_vars={"LD_PRELOAD": "/code/evil.so"})
    assert (result.status, result.stdout) == (Status.OK, "well\n")
    assert "cannot be preloaded" in result.stderr
    assert "failed to map segment" in result.stderr


HOOK = """
import os
with open("/proc/self/status") as status:
    filters = status.read().split("Seccomp_filters:")[1].split()[0]
print("hook", os.getpid(), filters, flush=True)
"""


@pytest.mark.catalogue("X11")
def test_an_interpreter_hook_runs_in_the_program_behind_the_filter(
    executor: BlockingCodeExecutor,
) -> None:
    result = executor.execute(
        "import os; print('program', os.getpid())",
        files={"sitecustomize.py": HOOK},
        env_vars={"PYTHONPATH": "/code"},
    )
    hook, program = (line.split() for line in result.stdout.splitlines())
    assert hook == ["hook", program[1], "2"]
    assert program[1] != "1"


@pytest.mark.catalogue("X11")
def test_without_the_variable_the_hook_is_not_loaded(executor: BlockingCodeExecutor) -> None:
    result = executor.execute("print('program')", files={"sitecustomize.py": HOOK, "usercustomize.py": HOOK})
    assert result.stdout == "program\n"


@pytest.mark.catalogue("X11")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PYTHONHOME", "/nowhere"),
        ("PYTHONSTARTUP", "/code/main.py"),
        ("PYTHONINSPECT", "1"),
        ("PYTHONBREAKPOINT", "os.abort"),
        ("LD_LIBRARY_PATH", "/code"),
        ("LD_AUDIT", "/code/none.so"),
        ("LD_DEBUG", "all"),
        ("PATH", "/nowhere"),
        ("HOME", "/nowhere"),
    ],
)
def test_a_variable_has_no_effect_on_the_next_run_of_the_same_sandbox(
    executor: BlockingCodeExecutor, variable: str, value: str
) -> None:
    code = f"import os; print(os.environ.get({variable!r}) == {value!r})"
    requests = [ExecutionRequest(code=code, env_vars={variable: value}), ExecutionRequest(code=code)]
    poisoned, after = executor.execute_many(requests, concurrency=1, max_runs_per_sandbox=2)
    assert poisoned.status in (Status.OK, Status.ERROR)
    assert poisoned.evidence.killed is None
    assert (after.status, after.stdout, after.stderr) == (Status.OK, "False\n", "")


@pytest.mark.catalogue("X11")
def test_node_options_affect_only_their_program(executor: BlockingCodeExecutor) -> None:
    hook = "console.log('hook', process.pid, process.getuid() >= 10001)"
    result = executor.execute(
        "console.log('program', process.pid)",
        "javascript",
        files={"hook.js": hook},
        env_vars={"NODE_OPTIONS": "--require /code/hook.js"},
    )
    loaded, program = (line.split() for line in result.stdout.splitlines())
    assert loaded == ["hook", program[1], "true"]
    assert program[1] != "1"
    assert executor.execute("console.log('well')", "javascript").stdout == "well\n"


@pytest.mark.catalogue("X11")
def test_a_larger_node_heap_does_not_make_the_sandbox_larger(executor: BlockingCodeExecutor) -> None:
    code = "const heap = []; for (;;) heap.push({ some: 'thing', more: [heap.length] })"
    options = {"NODE_OPTIONS": "--max-old-space-size=100000"}
    result = executor.execute(code, "javascript", memory_limit="128m", timeout=20, env_vars=options)
    assert (result.status, result.evidence.oom_event) == (Status.OUT_OF_MEMORY, True)


@pytest.mark.catalogue("X11")
@pytest.mark.parametrize(
    "variable", ["CODEFORGE_CONTROL_FD", "CODEFORGE_", "A=B", "", "A B", "1A", "é", "A\0"]
)
def test_variables_that_init_and_workers_use_cannot_be_set(
    executor: BlockingCodeExecutor, variable: str
) -> None:
    with pytest.raises(InvalidRequest, match="not a usable name"):
        executor.execute("pass", env_vars={variable: "3"})


RANDOM = {
    "python": """
import json, os, random, secrets, tempfile, uuid, numpy
print(json.dumps([random.random(), random.SystemRandom().random(), str(uuid.uuid4()), str(uuid.uuid1()),
    secrets.token_hex(), os.urandom(8).hex(), tempfile.mktemp(), float(numpy.random.random()),
    float(numpy.random.default_rng().random())]))
""",
    "javascript": """
const crypto = require('crypto')
console.log(JSON.stringify([Math.random(), crypto.randomUUID(), crypto.randomBytes(8).toString('hex')]))
""",
    "typescript": """
import { randomUUID } from 'crypto'
console.log(JSON.stringify([Math.random(), randomUUID()]))
""",
}


@pytest.mark.catalogue("X15")
@pytest.mark.parametrize("language", RANDOM)
def test_warm_sandboxes_do_not_share_randomness(language: str) -> None:
    with BlockingCodeExecutor(max_warm=3, warm_memory="1g") as executor:
        executor.warm([language], count=3, timeout=180)
        results = [executor.execute(RANDOM[language], language, timeout=60) for _ in range(3)]
        assert executor.get_stats()["found_warm"] == 3
    drawn = [json.loads(result.stdout) for result in results]
    assert all(len(set(values)) == 3 for values in zip(*drawn, strict=True)), drawn


@pytest.mark.catalogue("X15")
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_runs_of_one_sandbox_do_not_share_randomness(executor: BlockingCodeExecutor, language: str) -> None:
    """Python's runs are all forked from one interpreter that has loaded these modules."""
    requests = [{"code": RANDOM[language], "language": language}] * 4
    results = list(executor.execute_many(requests, concurrency=1, max_runs_per_sandbox=4))
    assert len({result.container_id for result in results}) == 1
    drawn = [json.loads(result.stdout) for result in results]
    assert all(len(set(values)) == 4 for values in zip(*drawn, strict=True)), drawn


@pytest.mark.catalogue("X15")
def test_hash_seed_and_addresses_of_two_sandboxes_differ(run: Attack) -> None:
    """The hash seed, and the stack canary and addresses that the kernel chooses at the start."""
    code = """
        auxiliary = open("/proc/self/auxv", "rb").read()
        report([hash("x"), id(object()), auxiliary.hex()])
    """
    first, second = run(code), run(code)
    assert all(one != other for one, other in zip(first, second, strict=True))


@pytest.mark.catalogue("X11")
@pytest.mark.parametrize(
    ("language", "code", "boot"),
    [("python", "print(1)", "PYTHONHASHSEED"), ("javascript", "console.log(1)", "NODE_NO_WARNINGS")],
)
def test_a_useless_path_affects_only_the_program(
    executor: BlockingCodeExecutor, language: str, code: str, boot: str
) -> None:
    result = executor.execute(code, language, env_vars={"PATH": "/nowhere", boot: "0"})
    assert (result.status, result.stdout) == (Status.OK, "1\n")
