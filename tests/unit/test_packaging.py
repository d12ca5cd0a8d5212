"""The wheel contains what an installed copy needs, and the lock files what a checkout needs."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from codeforge import __version__, package_data
from codeforge.images import build_context

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel's files as an installation puts them."""
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
    env = {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(installed / "codeforge/__init__.py")


def test_the_wheel_has_type_markers_and_the_licence(installed: Path) -> None:
    assert (installed / "codeforge/py.typed").exists()
    assert (installed / "execution/py.typed").exists()
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))


def pins(lock: str) -> dict[str, str]:
    """The version of each package in a lock file."""
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def test_the_development_lock_adds_to_the_runtime_lock() -> None:
    runtime, development = pins("requirements.lock"), pins("requirements-dev.lock")
    assert runtime.items() < development.items()


def test_the_runtime_lock_has_what_the_package_declares_and_no_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name_of(each) for rows in project["optional-dependencies"].values() for each in rows}
    assert {name_of(each) for each in project["dependencies"]} <= pins("requirements.lock").keys()
    assert extras & pins("requirements.lock").keys() == set()
    assert extras <= pins("requirements-dev.lock").keys()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_package_in_a_lock_has_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    packages = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert packages
    assert all("==" in package and "--hash=sha256:" in package for package in packages)


def name_of(requirement: str) -> str:
    return re.split(r"[<>=\[]", requirement)[0]
