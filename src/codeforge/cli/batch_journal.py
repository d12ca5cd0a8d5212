"""The output of a batch: a record for each line of its input, and all it takes to go on after a crash.

Theory of operation: a record is appended whole, with one write, so whatever ends the process leaves
whole records and at most one torn one: the last, which has no newline and is cut off before the
batch goes on. Every record carries a digest of its line. To go on, both files are read side by
side, and nothing is touched unless each record belongs to its line. One bit for each line is all
that is kept.

Records are not synced to the disk one by one: what a process has written survives that process,
whatever ended it. A machine that goes down can lose the last seconds, and these lines run again.
The end of a batch is synced, so an exit code that says all is well holds after a power failure too.
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
from typing import Any, BinaryIO, NamedTuple, Self, TypeAlias

from codeforge.errors import HostFailure, InvalidRequest
from codeforge.model import MiB, Status

MAX_LINE_BYTES = 64 * MiB
"""Of input. It is held several times over while it is parsed; files in a sandbox take 64 MiB at most."""

MAX_RECORD_BYTES = 256 * MiB
"""Several times what the largest result comes to; what is longer is no record of ours."""

CHUNK_BYTES = 1 * MiB

INVALID = "invalid"
"""How a line fared that could not be run; every other fate is a ``Status``."""

Scalar: TypeAlias = str | int | float | bool | None


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        number: counted from 1.
        data: without its end; ``None`` if it is longer than what is read.
        digest: of ``data``, or of all of a longer line.
        size: bytes in the file.
        ended: it has a newline.
    """

    number: int
    data: bytes | None
    digest: str
    size: int
    ended: bool

    @property
    def blank(self) -> bool:
        """Whether nothing stands on it."""
        return self.data is not None and not self.data.strip()


def read_lines(file: BinaryIO, longest: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """The lines of a file, one by one; never more than ``longest`` bytes of it are held."""
    for number in itertools.count(1):
        head = file.readline(longest + 1)
        if not head:
            return
        data = head.rstrip(b"\r\n")
        if len(head) <= longest or head.endswith(b"\n"):
            digest = hashlib.blake2b(data, digest_size=8).hexdigest()
            yield Line(number, data, digest, len(head), head.endswith(b"\n"))
        else:
            yield _pass_over(file, number, head)


def _pass_over(file: BinaryIO, number: int, head: bytes) -> Line:
    digest = hashlib.blake2b(digest_size=8)
    size, piece = 0, head
    while piece:
        digest.update(piece)
        size, ended = size + len(piece), piece.endswith(b"\n")
        piece = b"" if ended else file.readline(CHUNK_BYTES)
    return Line(number, None, digest.hexdigest(), size, ended)


def count_lines(file: BinaryIO) -> int:
    """How many lines a file has from here on."""
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


class Journal:
    """A file of records, open for this process alone.

    Attributes:
        fates: how many lines fared how: a ``Status``'s value, or ``INVALID``.

    Raises:
        InvalidRequest: the file cannot be used, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done = _Numbers()
        self.fates: collections.Counter[str] = collections.Counter()
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise InvalidRequest(f"cannot write {path}: {error.strerror}") from error
        try:
            self._take_possession()
        except BaseException:
            self._file.close()
            raise

    def _take_possession(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise InvalidRequest(f"{self._path} is not a regular file")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequest(f"{self._path} is being written by another process") from None
        except OSError as error:
            raise InvalidRequest(f"cannot lock {self._path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as failed:
            raise HostFailure(f"cannot write {self._path}: {failed.strerror}") from failed
        finally:
            self._file.close()

    def __contains__(self, line: Line) -> bool:
        return line.number in self._done

    @property
    def empty(self) -> bool:
        """Whether nothing is in the file."""
        return os.fstat(self._file.fileno()).st_size == 0

    def recover(self, lines: Iterable[Line]) -> None:
        """Learn from the file which of these lines are done, and cut off a torn last record.

        Raises:
            InvalidRequest: a record is not that of its line; nothing was touched.
        """
        source = iter(lines)
        reached = size = 0
        open_digests: dict[int, str] = {}  # of lines that were passed and whose record comes later
        for row, (number, digest, fate) in self._records():
            while reached < number and (line := next(source, None)) is not None:
                reached = line.number
                if not line.blank:
                    open_digests[reached] = line.digest
            if open_digests.pop(number, None) != digest:
                raise InvalidRequest(
                    f"{self._path}, line {row.number}: this is not the result of line {number} of the input\n"
                    "Either that line was changed, or the two files do not belong together. Nothing was "
                    "touched: take the input as it was, or another name for the output."
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
                f"{self._path}, line {row.number}: this is not a record of a batch; nothing was touched"
            ) from None

    def append(self, line: Line, identity: Scalar, outcome: Mapping[str, Any]) -> None:
        """Add the record of a line: what became of it.

        Raises:
            HostFailure: it could not be written.
        """
        record = {"line": line.number, "id": identity, "digest": line.digest, **outcome}
        data = json.dumps(record).encode() + b"\n"
        try:
            if self._file.write(data) != len(data):  # what a full disk does before it is an error
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise HostFailure(f"cannot write {self._path}: {error.strerror}") from error
        self._note(line.number, _fate(record))

    def _note(self, number: int, fate: str) -> None:
        self._done.add(number)
        self.fates[fate] += 1


def _fate(record: Mapping[str, Any]) -> str:
    return Status(record["status"]).value if "status" in record else INVALID
