"""Reads a tar file from a stream, front to back, with a bound on every read.

An image's archive is a tar file, and so is each of its layers.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from codeforge.errors import HostFailure

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_HEADER_BYTES = 1 << 20
"""Longest extension header that is read: a long name, or pax records about a member."""

_NO_DATA = b"123456"
"""Types of members that have no data: links, devices, directories, pipes."""
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
"""Types of headers that describe the next member."""


class UnreadableImage(HostFailure):
    """An image's archive is damaged, exceeds a bound, or is not what ``docker save`` writes."""

    exit_code = 65


class Stream(Protocol):
    """A source of bytes. ``read`` returns fewer bytes than asked for only at the end."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""


class Body(io.RawIOBase):
    """The next ``left`` bytes of a stream, as a stream that ends after them."""

    def __init__(self, stream: Stream, left: int) -> None:
        self._stream = stream
        self.left = left

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer`` as far as possible, and return the number of bytes; 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self._stream.read(min(len(view), self.left))
        view[: len(data)] = data
        self.left -= len(data)
        return len(data)


def members(stream: Stream) -> Iterator[tuple[tarfile.TarInfo, io.BufferedReader[Body]]]:
    """Yield each member of a tar file with its data.

    ``tarfile`` has no bound: it reads headers of any length and keeps every member's name.
    """
    extra: dict[str, str] = {}
    while (block := stream.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        about_next = info.type in _EXTENSIONS
        is_member = not about_next and info.type != tarfile.XGLTYPE
        if is_member:
            info.name = extra.get("path", info.name)
            info.linkname = extra.get("linkpath", info.linkname)
            info.size = 0 if info.type in _NO_DATA else int(extra.get("size", info.size))
        if info.size < 0:
            raise UnreadableImage(f"{info.name!r} has a negative size")
        raw = Body(stream, info.size)
        body = io.BufferedReader(raw, 1 << 16)
        if about_next:
            extra |= _extended(info.type, bounded(body, MAX_HEADER_BYTES, "a tar header"))
        elif is_member:
            extra = {}
            yield info, body
        while body.read(1 << 20):
            pass
        padding = -info.size % tarfile.BLOCKSIZE
        if raw.left or len(stream.read(padding)) != padding:
            raise UnreadableImage(f"the archive ends within {info.name!r}")


def _extended(kind: bytes, data: bytes) -> dict[str, str]:
    """Return what an extension header says about the next member, by pax keyword."""
    if kind != tarfile.XHDTYPE:
        key = "path" if kind == tarfile.GNUTYPE_LONGNAME else "linkpath"
        return {key: data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    values = {}
    start = 0
    while start < len(data):
        length = int(data[start : start + 20].partition(b" ")[0])
        record = data[start : start + length].partition(b" ")[2]
        if length < 5 or not record.endswith(b"\n"):
            raise UnreadableImage("a tar header is malformed")
        key, _, value = record[:-1].decode("utf-8", "surrogateescape").partition("=")
        values[key] = value
        start += length
    return values


def bounded(body: Stream, limit: int, what: str) -> bytes:
    """Read a stream to its end.

    Raises:
        UnreadableImage: it has more than ``limit`` bytes. The message names ``what``.
    """
    data = body.read(limit + 1)
    if len(data) > limit:
        raise UnreadableImage(f"{what} is longer than {limit} bytes")
    return data
