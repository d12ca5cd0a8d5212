"""The image and environment for data: pictures, tables, magics, and the example that is made of them.

``codeforge images build python-data``, or ``codeforge environments build python-data`` for bubblewrap.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeforge import BlockingCodeExecutor, BlockingSession
from contract.test_humaneval_differential import data_file

pytestmark = pytest.mark.engine("docker", "bubblewrap")

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def session() -> Iterator[BlockingSession]:
    with (
        BlockingCodeExecutor(default_memory_limit="1g", default_cpu_quota=100_000) as executor,
        executor.session("python-data", timeout=120) as shared,
    ):
        yield shared


def test_figures_are_shown_without_being_saved(session: BlockingSession) -> None:
    result = session.run(
        "import matplotlib.pyplot as plt\nfor n in (1, 2):\n    plt.figure()\n    plt.plot([n, 4])\n'drawn'"
    )
    assert result.success, result.error
    pictures = [shown.png for shown in result.results if shown.png]
    assert [picture[:8] for picture in pictures] == [PNG, PNG]
    assert result.value == "'drawn'"
    assert [shown for shown in session.run("1").results if shown.png] == []  # they were closed


def test_data_frames_are_shown_as_html_and_displays_in_order(session: BlockingSession) -> None:
    result = session.run(
        "import pandas as pd\nframe = pd.DataFrame({'city': ['Oslo'], 'n': [3]})\n"
        "display({'a': 1})\ndisplay(frame)\nframe.n"
    )
    assert result.success, result.error
    first, second, value = result.results
    assert first.text == "{'a': 1}"
    assert "<table" in (second.html or "")
    assert "Oslo" in (second.text or "")
    assert value.text == result.value


def test_magics_and_shell_commands_work(session: BlockingSession) -> None:
    assert session.run("%pwd").value == "'/code'"
    result = session.run("!echo from a shell\n%timeit -n 1 -r 1 sum(range(10))")
    assert result.success, result.error
    assert "from a shell" in result.stdout
    assert "per loop" in result.stdout


@pytest.mark.parametrize("module", ["scipy.stats", "sklearn.linear_model", "seaborn", "sympy", "PIL.Image"])
def test_the_expected_packages_are_installed(session: BlockingSession, module: str) -> None:
    result = session.run(f"import {module}\n{module}.__name__")
    assert result.value == repr(module), result.error


def test_a_branch_has_figures_that_were_not_shown_yet(session: BlockingSession) -> None:
    session.run("import io\nkept = plt.figure()\nkept.add_subplot().plot([1, 2])\nplt.close(kept)")
    [branch] = session.fork()
    result = branch.run("buffer = io.BytesIO()\nkept.savefig(buffer, format='png')\nbuffer.getvalue()[:4]")
    branch.close()
    assert result.value == repr(PNG[:4]), result.error


def test_the_example_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"}
    command = [sys.executable, str(ROOT / "examples/analysis.py"), str(data_file())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "three forks in" in done.stdout
    assert "the original session has no model" in done.stdout
    assert [path.read_bytes()[:8] for path in tmp_path.rglob("scatter.png")] == [PNG]
