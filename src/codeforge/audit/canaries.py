"""Canaries: tokens in places that a sandbox must not reach. The audit's programs search for them."""

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
    """Return a new token."""
    return _MARK + secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Canaries:
    """The tokens, and where they are.

    Attributes:
        environment: in this process's environment.
        file: name and content of a file in ``folder``.
        neighbour: in the environment and a file of another run.
        folder: a folder in the host's folder for temporary files.
    """

    environment: str
    file: str
    neighbour: str
    folder: Path


@contextlib.contextmanager
def planted() -> Iterator[Canaries]:
    """Plant canaries, and remove them at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="codeforge-audit-") as folder:
        canaries = Canaries(token(), token(), token(), Path(folder))
        # Readable for every user, so that only the sandbox keeps a program from reading it.
        canaries.folder.chmod(0o755)
        (canaries.folder / canaries.file).write_text(canaries.file)
        os.environ[VARIABLE] = canaries.environment
        try:
            yield canaries
        finally:
            os.environ.pop(VARIABLE, None)
