"""A program's files: where it may write, and what a caller may send."""

from __future__ import annotations

import pytest

from codeforge import BlockingCodeExecutor, InvalidRequest
from hostile.conftest import Watch

pytestmark = pytest.mark.core

WRITABLE = ["/code", "/dev/shm", "/tmp"]


@pytest.mark.catalogue("F01", "P24")
@pytest.mark.engine("docker", "podman", "bubblewrap")  # gVisor: docs/engines.md
def test_every_writable_mount_is_in_memory_and_noexec(watch: Watch) -> None:
    with watch("report(0); input()") as seen:
        lines = [line.split() for line in (seen.init / "mountinfo").read_text().splitlines()]
        writable = {}
        for line in lines:
            kind = line[line.index("-") + 1]
            device = (seen.init / "root" / line[4][1:]).is_char_device()  # mounted by itself, or a mask
            if "rw" in line[5].split(",") and kind not in ("proc", "devpts") and not device:
                writable[line[4]] = (kind, set(line[5].split(",")))
    # /dev itself, and with cgroup v1 the folder of its hierarchies, belong to root.
    others = set(writable) - {"/code", "/tmp", "/dev/shm"}
    assert others <= {"/dev", "/dev/mqueue", "/sys/fs/cgroup"}
    assert {kind for kind, _ in writable.values()} <= {"tmpfs", "mqueue"}
    for place in WRITABLE:
        assert {"noexec", "nosuid", "nodev"} <= writable[place][1]
    (root,) = [line for line in lines if line[4] == "/"]
    assert "ro" in root[5].split(",")


HOSTILE_PATHS = [
    "../../x",
    "/etc/passwd",
    "a/../../x",
    "./x",
    "a//b",
    "",
    "a/",
    "x\n",
    "x\0",
    "..",
    "a" * 256,
    "a/" * 17 + "b",
]


@pytest.mark.catalogue("F09")
@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=lambda path: ascii(path)[:20])
def test_a_path_that_leads_out_of_the_folder_is_refused(executor: BlockingCodeExecutor, path: str) -> None:
    with pytest.raises(InvalidRequest, match=r"not a usable path|NUL"):
        executor.execute("print(1)", files={path: "x"})


@pytest.mark.catalogue("F09")
def test_too_many_files_are_refused(executor: BlockingCodeExecutor) -> None:
    with pytest.raises(InvalidRequest, match="at most 1000 files"):
        executor.execute("print(1)", files={f"f{n}": "" for n in range(100_000)})


@pytest.mark.catalogue("F09")
def test_files_that_python_would_load_do_not_run_before_the_program(
    executor: BlockingCodeExecutor,
) -> None:
    mark = "import os; os.write(1, b'LOADED\\n')\n"
    files = {
        "sitecustomize.py": mark,
        "usercustomize.py": mark,
        "evil.pth": mark,
        "_evil.pth": mark,
        "python311._pth": mark,
        "pyvenv.cfg": "home = /code\n",
        "encodings/__init__.py": mark,
        "conftest.py": mark,
    }
    for variables in ({}, {"PYTHONHASHSEED": "1"}):  # in a warm interpreter, and in a new one
        result = executor.execute("import os; print(sorted(os.listdir()))", files=files, env_vars=variables)
        assert (result.status, result.stderr) == ("ok", "")
        assert result.stdout == f"{sorted({'main.py', *(name.split('/')[0] for name in files)})}\n"


@pytest.mark.catalogue("F09")
def test_files_that_node_would_load_do_not_run_before_the_program(executor: BlockingCodeExecutor) -> None:
    mark = "require('fs').writeSync(1, 'LOADED\\n')\n"
    files = {
        "node_modules/fs/index.js": mark,
        "node_modules/ts-node/index.js": mark,
        "node_modules/typescript/lib/typescript.js": mark,
        ".node_repl_history": mark,
        "node_worker.cjs": mark,
        ".npmrc": "node-options=--require ./node_worker.cjs\n",
    }
    for language in ("javascript", "typescript"):
        result = executor.execute("console.log('mine')", language, files=files, timeout=90, cpu_quota=100_000)
        assert (result.status, result.stdout) == ("ok", "mine\n"), result.stderr
