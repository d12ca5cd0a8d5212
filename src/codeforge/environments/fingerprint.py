"""Fingerprints of environments: a folder's name has a digest of everything that it is made from.

Finding an environment is part of every start of the program, so this imports little.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from codeforge.package_data import is_left_by_a_build

DIGEST_CHARACTERS = 16

OLDEST_MINOR = 11
PREFERRED = "python3.11"
"""The images' version, for which the locked packages were chosen."""

NPM_LOCK, NODE_LOCK, TRIM = "docker/npm-requirements.lock", "docker/node", "docker/trim-node-modules.sh"
NODE_INGREDIENTS = (NPM_LOCK, NODE_LOCK, TRIM)
"""Files of the build context that every environment of Node is made with."""

MAKERS = ("etc_files.py", "maker.py", "npm.py", "pip.py")
"""Modules of this package that decide how an environment turns out."""

_NAME = re.compile(r"python3\.(\d+)", re.ASCII)


def interpreter(folder: Path = Path("/usr/bin")) -> Path | None:
    """The machine's Python: the images' version, else its default, else the oldest that is new enough."""
    found = sorted(folder.glob("python3.*"), key=lambda path: (len(path.name), path.name))
    for path in (folder / PREFERRED, folder / "python3", *found):
        real = path.resolve()
        match = _NAME.fullmatch(real.name)
        if match and int(match[1]) >= OLDEST_MINOR and real.parent == folder.resolve() and real.is_file():
            return real
    return None


def interpreter_identity() -> str:
    """Identifies the interpreter: when it is updated, environments are out of date."""
    python = interpreter()
    return f"{python} {python.stat().st_mtime_ns}" if python else "no interpreter"


def digest(what: str, sources: Iterable[Path]) -> str:
    """The digest of a folder's sources and of the modules that make it, in 16 characters.

    Args:
        what: anything else that it depends on.
        sources: files and folders that it is made from.
    """
    value = hashlib.sha256(f"{os.uname().machine} {what}".encode())
    for source in (*sources, *(Path(__file__).with_name(name) for name in MAKERS)):
        for path in _files(source):
            value.update(f"{path.name}\0".encode() + path.read_bytes())
    return value.hexdigest()[:DIGEST_CHARACTERS]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, _, names in sorted(os.walk(path)):
        found = (Path(folder, name) for name in sorted(names))
        yield from (file for file in found if not is_left_by_a_build(file.relative_to(path)))
