"""Writes files whose names and content come from a program: below one directory, and nowhere else.

Every path is walked from an open directory, one name at a time, without following links. So neither
``..`` nor a link, old or made meanwhile, leads out of the directory. A file gets its name when it is
complete, and replaces anything of that name; a link is replaced, not followed.
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
    """Writes files below one directory, which is made if it does not exist.

    Raises:
        OSError: the directory cannot be made or opened.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # The caller's own path may contain links; paths below it may not.
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._root)

    @contextlib.contextmanager
    def create(self, path: str, mode: int = 0o644) -> Iterator[BinaryIO]:
        """Open a new file. It gets its name if the block succeeds, and is removed otherwise.

        Raises:
            InvalidRequest: the path is not a plain relative one.
            OSError: the file cannot be written, or a link or a file is where the path needs a directory.
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
