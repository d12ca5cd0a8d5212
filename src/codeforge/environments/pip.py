"""Python's environment: packages that pip installs for an interpreter of this machine.

It is a virtual environment that sandboxes see at /usr/local. Their /usr/bin and /usr/lib are the machine's
own, so the interpreter has to be from there.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from codeforge.environments.build import Build, counted
from codeforge.environments.fingerprint import OLDEST_MINOR, interpreter
from codeforge.environments.store import EnvironmentFailed
from codeforge.model import Recipe
from codeforge.package_data import path_of, worker_hook

_PIP = ("-m", "pip", "--no-input", "--disable-pip-version-check")
_OPTIONS = ("--no-compile", "--no-warn-script-location", "--require-hashes", "--only-binary", ":all:")

_SIGNS = ("Collecting ", "Processing ")
"""pip's lines for a package from an index, and for one from a file, begin with these."""

_WITH_TESTS = (
    *("numpy", "pandas", "matplotlib", "mpl_toolkits", "networkx", "scipy", "seaborn", "sklearn"),
    *("statsmodels", "sympy"),
)
_NOT_FOR_RUNS = (*(f"{package}/**/tests" for package in _WITH_TESTS), "numpy/distutils")
_BIG_TABLES = "/pygments/(lexers|styles|formatters)/"
"""As in docker/trim-python.sh: removed if no program needs it, not compiled if hardly any does."""


async def install(build: Build, recipe: Recipe) -> None:
    """Fill the environment.

    Raises:
        EnvironmentFailed: there is no interpreter, or a package could not be installed.
    """
    base = interpreter()
    if base is None:
        raise EnvironmentFailed(
            f"{build.name}: /usr/bin has no Python 3.{OLDEST_MINOR} or newer\n"
            "Install it: apt-get install python3 (as root)"
        )
    python = _make_venv(build.usr_local, base)
    lock = path_of(recipe.packages)
    install: list[str | Path] = [*_PIP, "--python", python, "install", *_OPTIONS, "-r", lock]
    await build.run(sys.executable, *install, on_line=counted(build, _SIGNS, _packages_in(lock)))
    site = build.usr_local / "lib" / base.name / "site-packages"
    for pattern in _NOT_FOR_RUNS:
        for folder in list(site.glob(pattern)):
            shutil.rmtree(folder, ignore_errors=True)  # gone already if it was inside another
    if (site / "matplotlib").is_dir():
        build.say("fonts")
        await build.run(python, path_of("docker/matplotlib_fonts.py"))
    shutil.copy(worker_hook(), site)
    (python.parent / "f2py").unlink(missing_ok=True)
    for script in python.parent.iterdir():
        if not script.is_symlink():
            script.write_bytes(script.read_bytes().replace(bytes(python), b"/usr/local/bin/python"))
    build.say("compiling bytecode")
    # Sandboxes see it read-only, so they cannot cache bytecode; unchecked, because the sources never change.
    options = ("-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-x", _BIG_TABLES)
    await build.run(python, "-m", "compileall", *options, "-s", build.usr_local, "-p", "/usr/local", site)


async def install_into(build: Build, lock: Path, folder: Path) -> None:
    """Install locked packages into a folder of their own.

    Raises:
        EnvironmentFailed: one could not be installed.
    """
    install: list[str | Path] = [*_PIP, "install", *_OPTIONS, "--no-deps", "--target", folder, "-r", lock]
    await build.run(sys.executable, *install, on_line=counted(build, _SIGNS, _packages_in(lock)))


def _packages_in(lock: Path) -> int:
    return len(re.findall(r"^[\w.-]+(?:\[.*\])?==", lock.read_text(), re.MULTILINE))


def _make_venv(path: Path, base: Path) -> Path:
    (path / "bin").mkdir(parents=True)
    (path / "lib" / base.name / "site-packages").mkdir(parents=True)
    (path / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    for name in ("python", "python3", base.name):
        (path / "bin" / name).symlink_to(base)
    return path / "bin" / "python"
