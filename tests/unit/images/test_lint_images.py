"""The Dockerfiles and shell scripts of the images are lint clean."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
DOCKER = REPO / "docker"
DOCKERFILES = sorted(DOCKER.rglob("*.Dockerfile"))
SCRIPTS = sorted(DOCKER.rglob("*.sh"))
NPM_LOCKS = sorted(DOCKER.rglob("package-lock.json"))
PYTHON_LOCKS = sorted(DOCKER.glob("python*-requirements.lock"))


def run_tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    beside_python = Path(sys.executable).parent
    tool = shutil.which(name, path=beside_python) or shutil.which(name)
    assert tool, f"{name} is missing: install the dev dependencies"
    return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_there_is_something_to_lint() -> None:
    assert [path.name for path in DOCKERFILES] == [
        "javascript.Dockerfile",
        "python-data.Dockerfile",
        "python.Dockerfile",
        "typescript.Dockerfile",
    ]
    assert {"make-base-images.sh", "prune-rootfs.sh"} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing_in(path: Path) -> None:
    outcome = run_tool("hadolint", str(path))
    assert (outcome.stdout + outcome.stderr, outcome.returncode) == ("", 0)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing_in(path: Path) -> None:
    outcome = run_tool("shellcheck", str(path))
    assert (outcome.stdout + outcome.stderr, outcome.returncode) == ("", 0)


@pytest.mark.parametrize(
    "path",
    [*PYTHON_LOCKS, *NPM_LOCKS, *DOCKERFILES, *SCRIPTS],
    ids=lambda path: str(path.relative_to(DOCKER)),
)
def test_no_registry_is_written_down_in(path: Path) -> None:
    text = path.read_text()
    for host in ("registry.", "docker.io/", "pypi.", "pythonhosted", "npmjs", '"resolved"'):
        assert host not in text


@pytest.mark.parametrize("path", NPM_LOCKS, ids=lambda path: path.parent.name)
def test_every_locked_npm_package_has_its_hash(path: Path) -> None:
    text = path.read_text()
    # Node itself is two: one for each processor.
    least = 2 if path.parent.name == "node" else 300
    assert text.count('"integrity": "sha512-') == text.count('    "node_modules/') >= least


@pytest.mark.parametrize("path", PYTHON_LOCKS, ids=lambda path: path.stem)
def test_every_locked_python_package_has_its_hash(path: Path) -> None:
    joined = path.read_text().replace("\\\n", "")
    requirements = [line for line in joined.splitlines() if not line.lstrip().startswith("#")]
    assert len(requirements) > 25
    for requirement in requirements:
        assert "==" in requirement
        assert "--hash=sha256:" in requirement


def test_the_data_image_has_all_of_the_python_image() -> None:
    data, plain = (set(re.findall(r"^\S+==\S+", path.read_text(), re.MULTILINE)) for path in PYTHON_LOCKS)
    assert plain < data
