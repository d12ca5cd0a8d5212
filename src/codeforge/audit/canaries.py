"""Canaries: tokens laid where a sandbox must not reach, which its programs then look for."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "AUDIT_TOKEN"
_MARK = "codeforge-" + "canary-"
"""In two pieces, so that the programs that look for it do not find themselves."""


def token() -> str:
    """A new one."""
    return _MARK + secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Canaries:
    """What was laid where.

    Attributes:
        environment: in this process's environment.
        file: name and content of a file in ``folder``.
        neighbour: in the environment and a file of another run.
        folder: in the host's folder for temporary files.
    """

    environment: str
    file: str
    neighbour: str
    folder: Path


@contextlib.contextmanager
def planted() -> Iterator[Canaries]:
    """Lay them; afterwards they are gone."""
    with tempfile.TemporaryDirectory(prefix="codeforge-audit-") as folder:
        laid = Canaries(token(), token(), token(), Path(folder))
        # Readable by anybody, so that only the sandbox is between it and a program.
        laid.folder.chmod(0o755)
        (laid.folder / laid.file).write_text(laid.file)
        os.environ[VARIABLE] = laid.environment
        try:
            yield laid
        finally:
            os.environ.pop(VARIABLE, None)
