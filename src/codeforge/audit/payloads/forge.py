"""Writes what init would send to the host to every descriptor that it can, then exits with 7.

The file ``written`` says where writing worked: descriptors by number, then descriptors by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from pathlib import Path

MARK = b"forged frames follow:"


def frame(kind: str, payload: bytes = b"") -> bytes:
    """Return a frame of the protocol."""
    return struct.pack("<IB", len(payload), ord(kind)) + payload


FORGED = (
    frame("O", b"forged")
    + frame("W", struct.pack("<BBQQQII", 0, 0, 1, 1, 1, 0, 0))
    + frame("F", bytes(4) + b"forged.txt")
    + frame("D", b"forged")
    + frame("Z")
)
"""What init would send at the end of a run that succeeded and left a file."""

TOO_LONG = struct.pack("<IB", 0xFFFFFFFF, ord("O"))
"""The header of a frame that claims 4 GiB of output."""


OWN_STREAMS = ["own/fd/0", "own/fd/1", "own/fd/2"]
"""Where writing by a name under /proc works: a program may open its own pipes."""


def main() -> None:
    """Write to the streams, to every descriptor, and to every descriptor of every process by its name."""
    os.write(1, MARK + FORGED)
    os.write(2, MARK + FORGED + TOO_LONG)
    numbers, names = [], []
    for number in range(3, 1024):
        with contextlib.suppress(OSError):
            os.write(number, FORGED)
            numbers.append(number)
    for process in list(Path("/proc").glob("[0-9]*")):
        whose = "own" if process.name == str(os.getpid()) else process.name
        for number in range(64):
            with contextlib.suppress(OSError):
                descriptor = os.open(process / "fd" / str(number), os.O_WRONLY | os.O_NONBLOCK)
                try:
                    os.write(descriptor, FORGED)
                    names.append(f"{whose}/fd/{number}")
                finally:
                    os.close(descriptor)
    Path("written").write_text(json.dumps([numbers, names]))
    os._exit(7)


if __name__ == "__main__":
    main()
