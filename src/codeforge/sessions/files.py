"""The files of a session: in and out in pieces, of plain relative paths, no link followed.

init does what is asked for, inside the sandbox; see session_files.c. Names and bytes that come back are
the program's, and are only ever written below a directory of the caller's by ``Extractor``.
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
"""What ``read`` takes into memory at most, by default; ``stream`` and ``download`` do not."""

DOWNLOAD_BYTES = 256 * MiB
DOWNLOAD_FILES = 10_000
"""What ``download`` brings out at most, by default."""

_UNUSABLE = "an unusable name"
_WHY = {
    errno.ELOOP: "it is a link, or on the way there is one",
    errno.EACCES: "it is no regular file, or its program took the right to it away",
    errno.ESRCH: "the session's branch is gone",
    errno.EFBIG: "it would be larger than a file may be here",
    errno.ENOSPC: "the directory's memory is full",
}


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file, directory or link of a session's.

    Attributes:
        path: below the session's directory; characters that are not UTF-8 are escaped.
        kind: what it is.
        size: bytes.
        modified: seconds since 1970.
        mode: permission bits.
    """

    path: str
    kind: EntryKind
    size: int
    modified: float
    mode: int


@dataclass(frozen=True, slots=True)
class Download:
    """What ``download`` brought out.

    Attributes:
        files: where they are now.
        skipped: what it left: path to reason.
    """

    files: tuple[Path, ...]
    skipped: dict[str, str]


_Entries: TypeAlias = list[FileEntry]
_Found: TypeAlias = list[tuple[FileEntry, bool]]


class SessionFiles:
    """Reads and writes the files of one branch, also while a cell runs, and after its interpreter ended."""

    def __init__(self, ask: Callable[..., Awaitable[Answer]]) -> None:
        self._ask = ask

    async def write(self, path: str, content: str | bytes | Path | AsyncIterable[bytes]) -> int:
        """Write a file, in the place of one that is there; directories on the way are made.

        Args:
            path: relative, below the session's directory.
            content: text, bytes, a file of this machine's, or pieces as they come.

        Returns:
            how many bytes.

        Raises:
            InvalidRequest: that is no usable path, or no content.
            FileError: it cannot be written.
        """
        check_path(path)
        size = 0
        async for piece in _pieces(content):
            await self._request(path, session_frames.write_file, path, size, piece)
            size += len(piece)
        if size == 0:
            await self._request(path, session_frames.write_file, path, 0, b"")
        return size

    async def read(self, path: str, *, max_bytes: int = READ_BYTES) -> bytes:
        """A file's content.

        Raises:
            InvalidRequest: that is no usable path, or the file is larger than ``max_bytes``.
            FileError: it cannot be read: it is not there, no regular file, or a link.
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
        """A file's content, piece by piece. If its program writes to it meanwhile, a mixture.

        Raises:
            InvalidRequest: that is no usable path.
            FileError: it cannot be read.
        """
        check_path(path)
        at = 0
        while piece := await self._request(path, session_frames.read_file, path, at):
            yield piece
            at += len(piece)

    async def list(self, path: str = "", *, recursive: bool = False) -> _Entries:
        """What is in a directory, by name; ``recursive``: and in those below it.

        Raises:
            InvalidRequest: that is no usable path, or there are too many.
            FileError: it is no directory, or not there.
        """
        if path:
            check_path(path)
        found, _ = await self._walk(path, recursive=recursive, most=DOWNLOAD_FILES)
        return sorted((entry for entry, _ in found), key=lambda entry: entry.path)

    async def _walk(self, path: str, *, recursive: bool, most: int) -> tuple[_Found, dict[str, str]]:
        """Entries, and whether each has a name that can be asked for; what was not looked into, and why."""
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
                    if len(found) > most:
                        raise InvalidRequest(
                            f"there are more than {most} files and directories; name single directories"
                        )
            except FileError as error:
                if folder == path:
                    raise
                closed[folder] = str(error.strerror)  # it went away meanwhile, is too deep, or closed
        return found, closed

    async def _entries(self, folder: str) -> AsyncGenerator[RawEntry, None]:
        start = -1
        while start:
            data = await self._request(folder, session_frames.list_files, folder, max(0, start))
            start, entries = session_frames.parse_listing(data)
            if start and not entries:
                raise ProtocolViolation("a listing that goes on without an entry")
            for raw in entries:
                yield raw

    async def exists(self, path: str) -> bool:
        """Whether there is a file, directory or link of that name."""
        check_path(path)
        answer = await self._ask(session_frames.look_at_file, path)
        return answer.error == 0

    async def remove(self, path: str) -> None:
        """Remove a file, a link, or a directory with all that is in it.

        Raises:
            InvalidRequest: that is no usable path.
            FileError: it cannot be removed, or is not there.
        """
        check_path(path)
        await self._request(path, session_frames.remove_file, path)

    async def download(
        self,
        directory: str | os.PathLike[str],
        path: str = "",
        *,
        max_bytes: int = DOWNLOAD_BYTES,
        max_files: int = DOWNLOAD_FILES,
    ) -> Download:
        """Bring all regular files below ``path`` out, into a directory of this machine's.

        A file that is there already is replaced, a link too; nothing is written through a link. What is
        not a regular file, has a name that cannot be used or cannot be read, is left and told: directories
        as well.

        Raises:
            InvalidRequest: there is more than may be.
            FileError: there is no such directory.
            OSError: something cannot be written here.
        """
        if path:
            check_path(path)
        most = max(max_files, DOWNLOAD_FILES)
        entries, skipped = await self._walk(path, recursive=True, most=most)
        files = [(entry, is_text) for entry, is_text in entries if entry.kind is EntryKind.FILE]
        size = sum(entry.size for entry, _ in files)
        if len(files) > max_files or size > max_bytes:
            raise InvalidRequest(
                f"there are {len(files)} files of {size} bytes; "
                f"at most {max_files} of {format_memory(max_bytes)} are brought out"
            )
        written: list[Path] = []
        skipped |= {
            entry.path: "a link" if entry.kind is EntryKind.LINK else "no regular file"
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
                                    f"the files grew beyond {format_memory(max_bytes)} meanwhile"
                                )
                            file.write(piece)
                except FileError as error:  # it went away meanwhile, or its program took the right to it away
                    skipped[entry.path] = str(error.strerror)
                else:
                    written.append(Path(directory) / relative)
        return Download(tuple(written), skipped)

    async def _request(self, path: str, frame: Callable[..., bytes], *arguments: object) -> bytes:
        answer = await self._ask(frame, *arguments)
        if answer.error:
            why = _WHY.get(answer.error) or os.strerror(answer.error)
            raise FileError(answer.error, why, path)
        return answer.data


def _entry(folder: str, raw: RawEntry) -> tuple[FileEntry, bool]:
    """An entry, and whether its name is text."""
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
