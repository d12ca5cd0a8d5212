"""What the documents show is run, and prints what they say it prints.

A Python block after a line ``<!-- run -->`` is a script of its own. Where it says ``# -> text``, the lines it
prints, but for empty ones, are those texts in that order.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codeforge import LANGUAGES, CodeExecutor
from codeforge.model.limits import Limits
from codeforge.sandboxes.kind import SandboxKind

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = re.compile(r"^<!-- run -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LEAST_EXAMPLES = 12

EXAMPLES = [
    pytest.param(block, id=f"{path.stem}-{number}")
    for path in DOCUMENTS
    for number, block in enumerate(RUN.findall(path.read_text(encoding="utf-8")), 1)
]
COMMANDS = [
    line.partition("  #")[0].strip()
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith(("codeforge run", "echo"))
]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in an otherwise empty folder, with our ``codeforge`` first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, timeout=120, env={**os.environ, "PATH": path}
    )


@pytest.mark.engine("docker")
@pytest.mark.parametrize("block", EXAMPLES)
def test_examples_run_and_print_what_they_say(block: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(block, encoding="utf-8")
    done = run([sys.executable, "-W", "error", "example.py"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told = re.findall(r"# -> (.*)$", block, re.MULTILINE)
    printed = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    assert printed == told or not told


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= LEAST_EXAMPLES
    assert len(COMMANDS) == 5


@pytest.mark.parametrize(
    "command",
    [
        # Elsewhere its sandboxes would be among those that bubblewrap's tests count.
        pytest.param(command, marks=pytest.mark.engine("bubblewrap")) if "bubblewrap" in command else command
        for command in COMMANDS
    ],
)
def test_commands_of_the_readme_work(command: str, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("print('hello')")
    (tmp_path / "report.py").write_text(
        "import sys; print(sys.argv[1:], open('data.csv').read()); open('table.txt', 'w').write('1')"
    )
    (tmp_path / "data.csv").write_text("a,b")
    done = run(["bash", "-o", "pipefail", "-c", command], tmp_path)
    brings_out = "--out results/" in command
    assert (done.returncode, done.stderr) == (0, "Wrote results/table.txt\n" if brings_out else "")
    assert done.stdout in ("hello\n", "['--year', '2025'] a,b\n", "[] a,b\n", "42\n")
    assert (tmp_path / "results" / "table.txt").is_file() == brings_out


KIND = SandboxKind(language=LANGUAGES[0], limits=Limits().of_sandbox(LANGUAGES[0]))


def test_protocol_md_has_every_key_that_a_sandbox_reports() -> None:
    async def reported() -> set[str]:
        async with CodeExecutor() as executor, executor._pool.lease(KIND) as sandbox:
            return set(sandbox.posture)

    table = (ROOT / "docs/protocol.md").read_text(encoding="utf-8").partition("## Posture keys")[2]
    rows = re.findall(r"^\| (`[^|]*) \|", table.partition("\n## ")[0], re.MULTILINE)
    told = {key for row in rows for key in re.findall(r"`([a-z_]+)`", row)}
    keys = asyncio.run(reported())
    assert keys <= told
    assert told - keys <= {"swap_max", "memsw_max"}  # one for each version of cgroups
