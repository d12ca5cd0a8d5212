"""Writes files whose names and content a program made up below a directory of the caller's, and nowhere else.

Every step is relative to a directory that is open already and goes through no link, so that neither
``..`` nor a link that lies there, or is put there meanwhile, leads out. A file appears under its name when
it is whole, and takes the place of whatever had that name; that may be a link, which goes then.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from codeforge.model import check_path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Extractor:
    """Files below one directory, which is made if it is not there.

    Raises:
        OSError: the directory cannot be made or opened.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # The caller's own path may lead through links; what is below it may not.
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._root)

    @contextlib.contextmanager
    def create(self, path: str, mode: int = 0o644) -> Iterator[BinaryIO]:
        """A file to write to; it gets its name when that went well, and is gone otherwise.

        Raises:
            InvalidRequest: not a plain relative path.
            OSError: it cannot be written, or a link or a file is where a directory is to be.
        """
        check_path(path)
        *folders, name = path.split("/")
        with contextlib.ExitStack() as stack:
            folder = self._root
            for part in folders:
                folder = _enter(folder, part)
                stack.callback(os.close, folder)
            temporary = f".codeforge-{secrets.token_hex(8)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, mode & 0o777, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    yield file
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise


def _enter(folder: int, name: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=folder)
    return os.open(name, _DIRECTORY, dir_fd=folder)
