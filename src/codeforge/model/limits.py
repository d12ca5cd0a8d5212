"""Limits of runs and sandboxes, and the notation for sizes of memory."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codeforge.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from codeforge.model.languages import Language

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB

MIN_TIMEOUT_S = 0.001
MAX_TIMEOUT_S = 24 * 3600.0
"""A day: a sandbox is not meant for services."""

IDLE_TIMEOUT_S = 900.0
"""Default time without use after which a session is closed, in case it was forgotten."""

MIN_MEMORY_BYTES = 16 * MiB
"""With less, runc itself may fail to start a container (seen with 6 to 12 MiB)."""

MAX_MEMORY_BYTES = 1024 * GiB

CPU_PERIOD_US = 100_000
"""The kernel's default CFS period; a quota of 50000 is half a core."""

MIN_CPU_QUOTA_US = 1000
"""The kernel refuses less than 1 ms."""

_MEMORY = re.compile(
    r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*(?:b|(?:([kmgt])(?:i?b)?)?)\s*", re.IGNORECASE | re.ASCII
)
_UNIT = {"": 1, "k": KiB, "m": MiB, "g": GiB, "t": 1024 * GiB}


def parse_memory(text: str | int) -> int:
    """The number of bytes in Docker's notation: ``"512m"``, ``"1g"``, ``"1.5GiB"``, or a plain number.

    Raises:
        InvalidRequest: not that notation, or outside 16 MiB to 1 TiB.
    """
    return parse_size(text, "memory_limit", MIN_MEMORY_BYTES, MAX_MEMORY_BYTES)


def parse_size(text: str | int, name: str, low: int, high: int) -> int:
    """The number of bytes in the same notation, from ``low`` to ``high``, for the argument ``name``.

    Raises:
        InvalidRequest: not that notation, or out of range.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        size = text
    else:
        match = _MEMORY.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidRequest(f"{name} must look like '512m' or '1g', not {quoted(text)}")
        size = int(float(match[1]) * _UNIT[(match[2] or "").lower()])
    if not low <= size <= high:
        raise InvalidRequest(
            f"{name} must be between {format_memory(low)} and {format_memory(high)}, not {quoted(text)}"
        )
    return size


def format_memory(size: int) -> str:
    """Docker's notation for a number of bytes, in the largest unit that divides it: ``"512m"``."""
    for unit in ("g", "m", "k"):
        if size % _UNIT[unit] == 0:
            return f"{size // _UNIT[unit]}{unit}"
    return str(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds one run.

    Attributes:
        timeout_s: wall-clock seconds from the program's start.
        memory_bytes: of everything in the sandbox together; there is no swap.
        cpu_quota_us: microseconds of CPU in each period of 100 ms (50000 is half a core).
        network: whether the sandbox has a network.
        output_bytes: how much of stdout, and of stderr, is kept.
        files_bytes: how much of what the run wrote under /code is returned.
    """

    timeout_s: float = 30.0
    memory_bytes: int = 512 * MiB
    cpu_quota_us: int = 50_000
    network: bool = False
    output_bytes: int = 1 * MiB
    files_bytes: int = 16 * MiB

    def __post_init__(self) -> None:
        """Refuse limits that no sandbox can have."""
        require_number("timeout", self.timeout_s, MIN_TIMEOUT_S, MAX_TIMEOUT_S, "seconds")
        require_int("cpu_quota", self.cpu_quota_us, MIN_CPU_QUOTA_US, 1024 * CPU_PERIOD_US)
        require_int("memory_bytes", self.memory_bytes, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES)
        require_int("max_output_bytes", self.output_bytes, 0, GiB)
        require_int("max_files_bytes", self.files_bytes, 0, GiB)
        if not isinstance(self.network, bool):
            raise InvalidRequest(f"network_enabled must be True or False, not {quoted(self.network)}")

    def of_sandbox(self, language: Language) -> SandboxLimits:
        """The limits of a sandbox for such a run."""
        return SandboxLimits(
            memory_bytes=self.memory_bytes,
            cpu_quota_us=self.cpu_quota_us,
            network=self.network,
            pids=language.pids,
            tmp_inodes=language.tmp_inodes,
        )

    def with_timeout(self, timeout_s: float) -> Limits:
        """The same with another timeout."""
        return dataclasses.replace(self, timeout_s=timeout_s)

    @property
    def flood_bytes(self) -> int:
        """How much a run may write to one stream; the host ends a run that writes more."""
        return max(64 * self.output_bytes, 64 * MiB)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What bounds a sandbox itself, whatever runs in it; ``Limits.of_sandbox`` makes them.

    Attributes:
        memory_bytes: of everything in it together; there is no swap.
        cpu_quota_us: microseconds of CPU in each period of 100 ms.
        network: whether it has a network.
        pids: how many processes and threads.
        tmp_inodes: how many files /code, /tmp and /dev/shm may each hold.
    """

    memory_bytes: int
    cpu_quota_us: int
    network: bool
    pids: int
    tmp_inodes: int


def require_number(name: str, value: object, low: float, high: float, unit: str) -> None:
    """Check the argument ``name``.

    Raises:
        InvalidRequest: it is not a number from ``low`` to ``high``.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return  # not for NaN: every comparison with it is false
    raise InvalidRequest(
        f"{name} must be a number of {unit} between {low:g} and {high:g}, not {quoted(value)}"
    )


def require_int(name: str, value: object, low: int, high: int) -> None:
    """Check the argument ``name``.

    Raises:
        InvalidRequest: it is not a whole number from ``low`` to ``high``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequest(f"{name} must be a whole number between {low} and {high}, not {quoted(value)}")
