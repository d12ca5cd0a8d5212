"""The wheel has what an installed copy needs, also to build the images."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from codeforge import __version__, package_data
from codeforge.images import build_context

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel's files lie after an installation."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    assert __version__ in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_an_installed_copy_builds_from_the_same_context(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = io.BytesIO(), io.BytesIO()
    build_context.write(here)
    monkeypatch.setattr(package_data, "PACKAGE_DIR", installed / "codeforge")
    build_context.write(there)
    assert there.getvalue() == here.getvalue()


def test_an_installed_copy_imports_without_the_checkout(installed: Path) -> None:
    program = (
        "from execution.docker_executor import DockerCodeExecutor\n"
        "import codeforge\n"
        "print(codeforge.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd="/", env={"PYTHONPATH": str(installed)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(installed / "codeforge/__init__.py")


def test_types_and_licence_travel_along(installed: Path) -> None:
    assert (installed / "codeforge/py.typed").exists()
    assert (installed / "execution/py.typed").exists()
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))
