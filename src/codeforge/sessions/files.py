"""The files of a session: written and read in pieces, by plain relative paths; links are not followed.

init does the work inside the sandbox; see session_files.c. Names and bytes that come back are the
program's. On the host, only ``Extractor`` writes them, below a directory that the caller names.
"""

from __future__ import annotations

import collections
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from codeforge.errors import FileError, InvalidRequest, ProtocolViolation
from codeforge.model import MiB, check_path, format_memory, require_int, text_bytes
from codeforge.protocol import Answer, EntryKind, RawEntry, session_frames
from codeforge.safe_extract import Extractor

READ_BYTES = 64 * MiB
"""The largest file that ``read`` returns by default; ``stream`` and ``download`` need no such memory."""

DOWNLOAD_BYTES = 256 * MiB
DOWNLOAD_FILES = 10_000
"""How much ``download`` takes at most, by default."""

_UNUSABLE = "an unusable name"
_REASONS = {
    errno.ELOOP: "it is a link, or its path leads through one",
    errno.EACCES: "it is not a regular file, or the program removed the permission",
    errno.ESRCH: "the session's branch is gone",
    errno.EFBIG: "it would be larger than a file may be here",
    errno.ENOSPC: "the directory's memory is full",
}


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file, directory or link of a session.

    Attributes:
        path: relative to the session's directory; bytes that are not UTF-8 are escaped.
        kind: what it is.
        size: in bytes.
        modified: in seconds since 1970.
        mode: permission bits.
    """

    path: str
    kind: EntryKind
    size: int
    modified: float
    mode: int


@dataclass(frozen=True, slots=True)
class Download:
    """What ``download`` did.

    Attributes:
        files: the files that it wrote.
        skipped: the path of each file that it did not write, and the reason.
    """

    files: tuple[Path, ...]
    skipped: dict[str, str]


_Entries: TypeAlias = list[FileEntry]
_Found: TypeAlias = list[tuple[FileEntry, bool]]


class SessionFiles:
    """Reads and writes the files of one branch, also while a cell runs, and after its interpreter ended.

    Args:
        branch: the number of the branch.
        request: sends a frame about files to init, and returns the answer.
    """

    def __init__(self, branch: int, request: Callable[[bytes], Awaitable[Answer]]) -> None:
        self._branch = branch
        self._request = request

    async def write(self, path: str, content: str | bytes | Path | AsyncIterable[bytes]) -> int:
        """Write a file, replacing one that is there; missing directories are made.

        Args:
            path: relative to the session's directory.
            content: text, bytes, a file on this machine, or pieces as they come.

        Returns:
            The number of bytes written.

        Raises:
            InvalidRequest: the path or the content cannot be used.
            FileError: the file cannot be written.
        """
        check_path(path)
        size = 0
        async for piece in _pieces(content):
            await self._ask(path, session_frames.write_file(self._branch, path, size, piece))
            size += len(piece)
        if size == 0:
            await self._ask(path, session_frames.write_file(self._branch, path, 0, b""))
        return size

    async def read(self, path: str, *, max_bytes: int = READ_BYTES) -> bytes:
        """Return a file's content.

        Raises:
            InvalidRequest: the path cannot be used, or the file is larger than ``max_bytes``.
            FileError: the file cannot be read: it does not exist, is not a regular file, or is a link.
        """
        require_int("max_bytes", max_bytes, 0, 1 << 40)
        content = bytearray()
        async for piece in self.stream(path):
            content += piece
            if len(content) > max_bytes:
                raise InvalidRequest(
                    f"{path!r} has more than {format_memory(max_bytes)}; stream() it, or raise max_bytes"
                )
        return bytes(content)

    async def stream(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield a file's content, piece by piece. It may mix old and new if the program writes meanwhile.

        Raises:
            InvalidRequest: the path cannot be used.
            FileError: the file cannot be read.
        """
        check_path(path)
        at = 0
        while piece := await self._ask(path, session_frames.read_file(self._branch, path, at)):
            yield piece
            at += len(piece)

    async def list(self, path: str = "", *, recursive: bool = False) -> _Entries:
        """Return a directory's entries, sorted by path; ``recursive``: with all directories below it.

        Raises:
            InvalidRequest: the path cannot be used, or there are too many entries.
            FileError: it is not a directory, or does not exist.
        """
        if path:
            check_path(path)
        found, _ = await self._walk(path, recursive=recursive, max_entries=DOWNLOAD_FILES)
        return sorted((entry for entry, _ in found), key=lambda entry: entry.path)

    async def _walk(self, path: str, *, recursive: bool, max_entries: int) -> tuple[_Found, dict[str, str]]:
        """Return entries, each with whether its name is text, and why some directories were not read."""
        found: _Found = []
        closed: dict[str, str] = {}
        folders = collections.deque([path])
        while folders:
            folder = folders.popleft()
            try:
                async for raw in self._entries(folder):
                    entry, is_text = _entry(folder, raw)
                    found.append((entry, is_text))
                    if recursive and raw.kind is EntryKind.DIRECTORY:
                        if is_text:
                            folders.append(entry.path)
                        else:
                            closed[entry.path] = _UNUSABLE
                    if len(found) > max_entries:
                        raise InvalidRequest(
                            f"there are more than {max_entries} files and directories; "
                            "name single directories"
                        )
            except FileError as error:
                if folder == path:
                    raise
                closed[folder] = str(error.strerror)  # gone meanwhile, too deep, or without permission
        return found, closed

    async def _entries(self, folder: str) -> AsyncGenerator[RawEntry, None]:
        start = -1
        while start:
            data = await self._ask(folder, session_frames.list_files(self._branch, folder, max(0, start)))
            start, entries = session_frames.parse_listing(data)
            if start and not entries:
                raise ProtocolViolation("a listing that goes on without an entry")
            for raw in entries:
                yield raw

    async def exists(self, path: str) -> bool:
        """Return whether there is a file, directory or link of that name.

        Raises:
            InvalidRequest: the path cannot be used.
        """
        check_path(path)
        answer = await self._request(session_frames.stat_file(self._branch, path))
        return answer.error == 0

    async def remove(self, path: str) -> None:
        """Remove a file, a link, or a directory with everything in it.

        Raises:
            InvalidRequest: the path cannot be used.
            FileError: it cannot be removed, or does not exist.
        """
        check_path(path)
        await self._ask(path, session_frames.remove_file(self._branch, path))

    async def download(
        self,
        directory: str | os.PathLike[str],
        path: str = "",
        *,
        max_bytes: int = DOWNLOAD_BYTES,
        max_files: int = DOWNLOAD_FILES,
    ) -> Download:
        """Copy all regular files below ``path`` into a directory on this machine.

        Files and links that are there already are replaced; nothing is written through a link. ``skipped``
        names what is not a regular file, has an unusable name, or cannot be read; directories too.

        Raises:
            InvalidRequest: the path cannot be used, or there is more than ``max_bytes`` or ``max_files``.
            FileError: there is no such directory in the session.
            OSError: a file cannot be written on this machine.
        """
        if path:
            check_path(path)
        max_entries = max(max_files, DOWNLOAD_FILES)
        entries, skipped = await self._walk(path, recursive=True, max_entries=max_entries)
        files = [(entry, is_text) for entry, is_text in entries if entry.kind is EntryKind.FILE]
        size = sum(entry.size for entry, _ in files)
        if len(files) > max_files or size > max_bytes:
            raise InvalidRequest(
                f"there are {len(files)} files of {size} bytes; "
                f"download takes at most {max_files} of {format_memory(max_bytes)}: "
                "raise max_files or max_bytes, or name a directory"
            )
        written: list[Path] = []
        skipped |= {
            entry.path: "a link" if entry.kind is EntryKind.LINK else "not a regular file"
            for entry, _ in entries
            if entry.kind in (EntryKind.LINK, EntryKind.OTHER)
        }
        left = max_bytes
        with Extractor(Path(directory)) as extractor:
            for entry, is_text in files:
                if not (is_text and _is_usable(entry.path)):
                    skipped[entry.path] = _UNUSABLE
                    continue
                relative = str(PurePosixPath(entry.path).relative_to(path)) if path else entry.path
                try:
                    with extractor.create(relative) as file:
                        async for piece in self.stream(entry.path):
                            left -= len(piece)
                            if left < 0:
                                raise InvalidRequest(
                                    f"the files grew beyond {format_memory(max_bytes)} meanwhile; "
                                    "raise max_bytes"
                                )
                            file.write(piece)
                except FileError as error:  # gone meanwhile, or without permission
                    skipped[entry.path] = str(error.strerror)
                else:
                    written.append(Path(directory) / relative)
        return Download(tuple(written), skipped)

    async def _ask(self, path: str, frame: bytes) -> bytes:
        answer = await self._request(frame)
        if answer.error:
            why = _REASONS.get(answer.error) or os.strerror(answer.error)
            raise FileError(answer.error, why, path)
        return answer.data


def _entry(folder: str, raw: RawEntry) -> tuple[FileEntry, bool]:
    """Return an entry, and whether its name is text."""
    name = raw.name.decode("utf-8", "backslashreplace")
    path = f"{folder}/{name}" if folder else name
    entry = FileEntry(path, raw.kind, raw.size, raw.changed_ns / 1e9, raw.mode)
    return entry, name.encode() == raw.name


def _is_usable(path: str) -> bool:
    try:
        check_path(path)
    except InvalidRequest:
        return False
    return True


async def _pieces(content: object) -> AsyncIterator[bytes]:
    size = session_frames.FILE_PIECE_BYTES
    if isinstance(content, Path):
        with content.open("rb") as file:
            while piece := file.read(size):
                yield piece
        return
    if isinstance(content, AsyncIterable):
        async for data in content:
            if not isinstance(data, bytes):
                raise InvalidRequest(f"content must yield bytes, not {type(data).__name__}")
            for at in range(0, len(data), size):
                yield data[at : at + size]
        return
    if isinstance(content, str):
        content = text_bytes("content", content)
    if not isinstance(content, bytes | bytearray | memoryview):
        raise InvalidRequest(f"content must be text, bytes or a Path, not {type(content).__name__}")
    whole = bytes(content)
    for at in range(0, len(whole), size):
        yield whole[at : at + size]
