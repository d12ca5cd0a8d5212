"""The guest's C programs: compiled when the package is built, or else when an environment is made.

The hook that builds the package (hatch_build.py) loads this file by its path, before the package is
there: it imports the standard library alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = "bin"
"""Where under the guest's folder the package keeps what was compiled for it."""

PROGRAMS = ("init", "enter")
"""Each is made of the folder of its name; ``enter`` also of init's filter."""

LOG_TAIL_LINES = 15
_STAMP = "sources"
"""Beside them, what they were made of."""

_CURE = (
    "The package has come without programs that were compiled for this machine, and to compile them it takes "
    "gcc, make and the C library's headers: apt-get install gcc libc6-dev make (as root)"
)


class CannotCompile(Exception):
    """There is no compiler, or it failed; the message says which, and what to do."""


def copy(guest: Path, into: Path) -> None:
    """Put the programs into a folder: those that came with the package, if of these sources, or new ones.

    Raises:
        CannotCompile: they have to be compiled, and cannot be.
    """
    ready = guest / FOLDER
    stamp = ready / _STAMP
    if not stamp.is_file() or stamp.read_text() != digest(guest):
        compile_into(guest, into)
        return
    for name in PROGRAMS:
        shutil.copyfile(ready / name, into / name)


def compile_into(guest: Path, into: Path) -> None:
    """Compile the programs into a folder.

    Raises:
        CannotCompile: with the end of what make said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name in PROGRAMS:
            left = shutil.ignore_patterns("*.o", "build", name)  # make would take them for up to date
            shutil.copytree(guest / name, Path(scratch) / name, ignore=left)
        for name in PROGRAMS:
            _make(Path(scratch) / name, into.resolve())


def _make(source: Path, into: Path) -> None:
    command = ["make", "-C", str(source), f"OUT={into}"]
    try:
        subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    except FileNotFoundError as error:
        raise CannotCompile(f"make is not there\n{_CURE}") from error
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.stdout.splitlines()[-LOG_TAIL_LINES:])
        raise CannotCompile(f"compiling {source.name} failed\n{last}\n{_CURE}") from error


def prebuild(guest: Path) -> None:
    """Compile the programs into the package, unless they are there and of these sources.

    Raises:
        CannotCompile: what was there before is gone then.
    """
    ready = guest / FOLDER
    if (ready / _STAMP).is_file() and (ready / _STAMP).read_text() == digest(guest):
        return
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    try:
        compile_into(guest, ready)
    except CannotCompile:
        shutil.rmtree(ready)
        raise
    (ready / _STAMP).write_text(digest(guest))


def digest(guest: Path) -> str:
    """What the programs are made from, and for which machine."""
    value = hashlib.sha256(os.uname().machine.encode())
    for folder in PROGRAMS:
        for path in sorted((guest / folder).iterdir()):
            if path.suffix in (".c", ".h") or path.name == "Makefile":
                value.update(f"{folder}/{path.name}\0".encode() + path.read_bytes())
    return value.hexdigest()
