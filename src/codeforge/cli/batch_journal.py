"""The output of a batch: one record for each line of the input, and how a batch resumes after a crash.

Theory of operation: each record is appended with one write. However the process ends, the file consists of
whole records. Only the last may be torn: it has no newline, and is cut off when the batch resumes.
Every record has a digest of its line. To resume, the batch reads both files side by side, and changes nothing
unless each record matches its line. It keeps one bit for each line in memory.

Records are not synced to the disk one by one, because what a process has written survives the process. If the
machine goes down, the last seconds may be lost, and their lines run again. The file is synced at the end of
the batch, so that exit code 0 is true even after a power failure.
"""

from __future__ import annotations

import collections
import errno
import fcntl
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self, TypeAlias

from codeforge.errors import HostFailure, InvalidRequest
from codeforge.model import MiB, Status

MAX_LINE_BYTES = 64 * MiB
"""The longest line of the input. Parsing holds several copies; a sandbox takes at most 64 MiB of files."""

MAX_RECORD_BYTES = 256 * MiB
"""Several times the largest result; a longer line is not one of our records."""

CHUNK_BYTES = 1 * MiB

INVALID = "invalid"
"""The fate of a line that could not be run; all other fates are ``Status`` values."""

Scalar: TypeAlias = str | int | float | bool | None


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        number: counted from 1.
        data: the line without its line break; ``None`` if it is too long.
        digest: digest of the line without its line break, also of a line that is too long.
        size: bytes in the file.
        ended: whether it ends with a newline.
    """

    number: int
    data: bytes | None
    digest: str
    size: int
    ended: bool

    @property
    def blank(self) -> bool:
        """Whether the line is empty or only white space."""
        return self.data is not None and not self.data.strip()


def read_lines(file: BinaryIO, longest: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Yield the lines of a file. At most ``longest`` bytes of it are in memory."""
    for number in itertools.count(1):
        head = file.readline(longest + 1)
        if not head:
            return
        data = head.rstrip(b"\r\n")
        if len(head) <= longest or head.endswith(b"\n"):
            digest = hashlib.blake2b(data, digest_size=8).hexdigest()
            yield Line(number, data, digest, len(head), head.endswith(b"\n"))
        else:
            yield _skip_line(file, number, head)


def _skip_line(file: BinaryIO, number: int, head: bytes) -> Line:
    digest = hashlib.blake2b(digest_size=8)
    size, piece = 0, head
    while piece:
        digest.update(piece)
        size, ended = size + len(piece), piece.endswith(b"\n")
        piece = b"" if ended else file.readline(CHUNK_BYTES)
    return Line(number, None, digest.hexdigest(), size, ended)


def count_lines(file: BinaryIO) -> int:
    """Count the lines of a file from the current position."""
    lines, last = 0, b"\n"
    while chunk := file.read(CHUNK_BYTES):
        lines, last = lines + chunk.count(b"\n"), chunk
    return lines + (not last.endswith(b"\n"))


class _Numbers:
    """A set of line numbers, one bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        byte = number // 8
        if byte >= len(self._bits):
            self._bits.extend(bytes(max(len(self._bits), byte + 1 - len(self._bits))))
        self._bits[byte] |= 1 << number % 8

    def __contains__(self, number: int) -> bool:
        byte = number // 8
        return byte < len(self._bits) and bool(self._bits[byte] >> number % 8 & 1)


class Records:
    """Writes a record for each line, and counts them.

    Attributes:
        fates: number of lines by fate: the value of a ``Status``, or ``INVALID``.
    """

    def __init__(self, name: object, file: BinaryIO) -> None:
        self._name = name
        self._file = file
        self.fates: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __contains__(self, line: Line) -> bool:
        """Whether the line has a record from an earlier batch."""
        return False

    def append(self, line: Line, identity: Scalar, outcome: Mapping[str, object]) -> None:
        """Write the record of a line.

        Raises:
            HostFailure: it could not be written.
            BrokenPipeError: its reader has gone.
        """
        record = {"line": line.number, "id": identity, "digest": line.digest, **outcome}
        data = json.dumps(record).encode() + b"\n"
        try:
            self._write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise HostFailure(f"cannot write {self._name}: {error.strerror}") from error
        self._note(line.number, _fate(record))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def _note(self, number: int, fate: str) -> None:
        self.fates[fate] += 1


class Journal(Records):
    """Records in a file that only this process writes, so that a later batch can resume.

    Raises:
        InvalidRequest: the file cannot be used, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self._done = _Numbers()
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise InvalidRequest(f"cannot write {path}: {error.strerror}") from error
        super().__init__(path, file)
        try:
            self._lock()
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise InvalidRequest(f"{self._name} is not a regular file")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequest(f"{self._name} is being written by another process") from None
        except OSError as error:
            raise InvalidRequest(f"cannot lock {self._name}: {error.strerror}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as failed:
            raise HostFailure(f"cannot write {self._name}: {failed.strerror}") from failed
        finally:
            self._file.close()

    def __contains__(self, line: Line) -> bool:
        return line.number in self._done

    @property
    def empty(self) -> bool:
        """Whether the file has no records yet."""
        return os.fstat(self._file.fileno()).st_size == 0

    def recover(self, lines: Iterable[Line]) -> None:
        """Find out from the file which of these lines are done, and cut off a torn last record.

        Raises:
            InvalidRequest: a record does not match its line; the file was not changed.
        """
        source = iter(lines)
        reached = size = 0
        open_digests: dict[int, str] = {}  # by number, of lines whose record has not been read yet
        for row, (number, digest, fate) in self._records():
            while reached < number and (line := next(source, None)) is not None:
                reached = line.number
                if not line.blank:
                    open_digests[reached] = line.digest
            if open_digests.pop(number, None) != digest:
                raise InvalidRequest(
                    f"{self._name}, line {row.number}: this is not the result of line {number} of the input\n"
                    "Either that line was changed, or the two files do not belong together. Nothing was "
                    "changed: restore the input, or name another output."
                )
            self._note(number, fate)
            size += row.size
        self._file.truncate(size)

    def _records(self) -> Iterator[tuple[Line, tuple[int, str, str]]]:
        self._file.seek(0)
        with open(self._file.fileno(), "rb", closefd=False) as file:
            for row in read_lines(file, MAX_RECORD_BYTES):
                if row.ended:
                    yield row, self._parse(row)

    def _parse(self, row: Line) -> tuple[int, str, str]:
        try:
            record = json.loads((row.data or b"").decode())
            return int(record["line"]), str(record["digest"]), _fate(record)
        except (ValueError, TypeError, LookupError, RecursionError):
            raise InvalidRequest(
                f"{self._name}, line {row.number}: this is not a record of a batch; nothing was changed"
            ) from None

    def _write(self, data: bytes) -> None:
        if self._file.write(data) != len(data):  # a disk that is nearly full takes a part of it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _note(self, number: int, fate: str) -> None:
        super()._note(number, fate)
        self._done.add(number)


def _fate(record: Mapping[str, object]) -> str:
    return Status(str(record["status"])).value if "status" in record else INVALID
