"""What a program wrote: kept up to a limit, counted beyond it."""

from __future__ import annotations

from codeforge.model import StreamName


class OutputBuffer:
    """Output of a run or a cell, stream by stream.

    Args:
        limit_bytes: how much of each stream is kept.
        flood_bytes: a program that writes more than this to one stream floods it; ``None``: no amount is.

    Attributes:
        flooded: whether a stream got more than ``flood_bytes``.
    """

    def __init__(self, limit_bytes: int, flood_bytes: int | None = None) -> None:
        self.flooded = False
        self._limit_bytes = limit_bytes
        self._flood_bytes = flood_bytes
        self._kept: dict[StreamName, bytearray] = {}
        self._written: dict[StreamName, int] = {"stdout": 0, "stderr": 0}

    def add(self, stream: StreamName, data: bytes) -> bytes:
        """Add output, and return the part of it that is kept."""
        kept = self._kept.setdefault(stream, bytearray())
        data_kept = data[: self._limit_bytes - len(kept)]
        kept += data_kept
        self._count(stream, len(data))
        return data_kept

    def add_dropped(self, stream: StreamName, size: int) -> None:
        """Count ``size`` bytes that were written and did not come here."""
        self._count(stream, size)

    def _count(self, stream: StreamName, size: int) -> None:
        self._written[stream] += size
        if self._flood_bytes is not None and self._written[stream] > self._flood_bytes:
            self.flooded = True

    @property
    def streams(self) -> tuple[StreamName, ...]:
        """The streams that were written to, in the order of their first output."""
        return tuple(self._kept)

    @property
    def truncated(self) -> bool:
        """Whether more was written than is kept."""
        return any(size > len(self._kept.get(stream, b"")) for stream, size in self._written.items())

    def kept(self, stream: StreamName) -> bytes:
        """What is kept of a stream."""
        return bytes(self._kept.get(stream, b""))

    def text(self, stream: StreamName) -> str:
        """The same as text; bytes that are not UTF-8 become U+FFFD."""
        return self._kept.get(stream, b"").decode("utf-8", "replace")

    def written(self, stream: StreamName) -> int:
        """How many bytes were written to a stream, kept or not."""
        return self._written[stream]
