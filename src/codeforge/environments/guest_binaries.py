"""The guest's C programs: compiled when the package is built, otherwise when an environment is made.

The hook that builds the package (hatch_build.py) loads this file by its path, before the package can be
imported, so it imports the standard library alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = "bin"
"""The folder below the guest's in which the package keeps its compiled programs."""

PROGRAMS = ("init", "enter")
"""Each is compiled from the folder of its name; ``enter`` also from init's seccomp filter."""

LOG_TAIL_LINES = 15
_STAMP = "sources"
"""The file beside them with the digest of their sources."""

_ADVICE = (
    "This package has no programs compiled for this machine; compiling them takes "
    "gcc, make and the C library's headers: apt-get install gcc libc6-dev make (as root)"
)


class CannotCompile(Exception):
    """There is no compiler, or it failed; the message says which and what to do."""


def copy(guest: Path, into: Path) -> None:
    """Put the programs into a folder: the package's own if they match these sources, else newly compiled.

    Raises:
        CannotCompile: they do not match, and could not be compiled.
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
        CannotCompile: with the last lines of make's output.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name in PROGRAMS:
            # A build on this machine leaves these, and make would consider them up to date.
            ignored = shutil.ignore_patterns("*.o", "build", name)
            shutil.copytree(guest / name, Path(scratch) / name, ignore=ignored)
        for name in PROGRAMS:
            _make(Path(scratch) / name, into.resolve())


def _make(source: Path, into: Path) -> None:
    command = ["make", "-C", str(source), f"OUT={into}"]
    try:
        subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    except FileNotFoundError as error:
        raise CannotCompile(f"make is not installed\n{_ADVICE}") from error
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.stdout.splitlines()[-LOG_TAIL_LINES:])
        raise CannotCompile(f"compiling {source.name} failed\n{last}\n{_ADVICE}") from error


def prebuild(guest: Path) -> None:
    """Compile the programs into the package, unless it has them and they match these sources.

    Raises:
        CannotCompile: the package has none now.
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
    """The digest of the programs' sources and of the machine's architecture."""
    value = hashlib.sha256(os.uname().machine.encode())
    for folder in PROGRAMS:
        for path in sorted((guest / folder).iterdir()):
            if path.suffix in (".c", ".h") or path.name == "Makefile":
                value.update(f"{folder}/{path.name}\0".encode() + path.read_bytes())
    return value.hexdigest()
