"""Python's environment: an interpreter of this machine, and packages that pip installs beside it.

It is a virtual environment that lies at /usr/local, once it is mounted there. /usr/bin and /usr/lib are
the machine's own in a sandbox, so the interpreter has to be from there.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from codeforge.environments.build import Build, EnvironmentFailed, counted
from codeforge.environments.fingerprint import OLDEST_MINOR, interpreter
from codeforge.model import Recipe
from codeforge.package_data import path_of, worker_hook

_PIP = ("-m", "pip", "--no-input", "--disable-pip-version-check")
_OPTIONS = ("--no-compile", "--no-warn-script-location", "--require-hashes", "--only-binary", ":all:")

_SIGNS = ("Collecting ", "Processing ")
"""How pip begins with a package, from an index or of this machine."""

_WITH_TESTS = (
    *("numpy", "pandas", "matplotlib", "mpl_toolkits", "networkx", "scipy", "seaborn", "sklearn"),
    *("statsmodels", "sympy"),
)
_NOT_FOR_RUNS = (*(f"{package}/**/tests" for package in _WITH_TESTS), "numpy/distutils")
_BIG_TABLES = "/pygments/(lexers|styles|formatters)/"
"""As in docker/trim-python.sh: what no program needs goes, and what hardly any does is not compiled."""


async def install(build: Build, recipe: Recipe) -> None:
    """Fill the environment.

    Raises:
        EnvironmentFailed: there is no interpreter, or a package cannot be had.
    """
    base = interpreter()
    if base is None:
        raise EnvironmentFailed(
            f"{build.name}: /usr/bin has no Python 3.{OLDEST_MINOR} or newer\n"
            "Install it: apt-get install python3 (as root)"
        )
    python = _make_venv(build.usr_local, base)
    lock = path_of(recipe.packages)
    await build.run(
        sys.executable, *_PIP, "--python", python, "install", *_OPTIONS, "-r", lock,
        heard=counted(build, _SIGNS, _packages_in(lock)),
    )  # fmt: skip
    site = build.usr_local / "lib" / base.name / "site-packages"
    for pattern in _NOT_FOR_RUNS:
        for folder in list(site.glob(pattern)):
            shutil.rmtree(folder, ignore_errors=True)  # one may lie in another
    if (site / "matplotlib").is_dir():
        build.say("fonts")
        await build.run(python, path_of("docker/matplotlib_fonts.py"))
    shutil.copy(worker_hook(), site)
    (python.parent / "f2py").unlink(missing_ok=True)
    for script in python.parent.iterdir():
        if not script.is_symlink():
            script.write_bytes(script.read_bytes().replace(bytes(python), b"/usr/local/bin/python"))
    build.say("compiling bytecode")
    # A read-only file system cannot cache any; nor do the sources change, so that nobody need look.
    await build.run(
        python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
        "-x", _BIG_TABLES, "-s", build.usr_local, "-p", "/usr/local", site,
    )  # fmt: skip


async def install_into(build: Build, lock: Path, folder: Path) -> None:
    """Put locked packages into a folder of their own.

    Raises:
        EnvironmentFailed: one cannot be had.
    """
    await build.run(
        sys.executable, *_PIP, "install", *_OPTIONS, "--no-deps", "--target", folder, "-r", lock,
        heard=counted(build, _SIGNS, _packages_in(lock)),
    )  # fmt: skip


def _packages_in(lock: Path) -> int:
    return len(re.findall(r"^[\w.-]+(?:\[.*\])?==", lock.read_text(), re.MULTILINE))


def _make_venv(path: Path, base: Path) -> Path:
    (path / "bin").mkdir(parents=True)
    (path / "lib" / base.name / "site-packages").mkdir(parents=True)
    (path / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    for name in ("python", "python3", base.name):
        (path / "bin" / name).symlink_to(base)
    return path / "bin" / "python"
