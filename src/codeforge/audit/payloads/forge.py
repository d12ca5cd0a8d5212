"""Writes what init would write, wherever it can be written; then ends with 7."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from pathlib import Path


def frame(kind: str, payload: bytes) -> bytes:
    """As the protocol has it."""
    return struct.pack("<IB", len(payload), ord(kind)) + payload


FORGED = (
    frame("O", b"forged output")
    + frame("W", bytes([0, 0]) + struct.pack("<QQQII", 1, 1, 1, 0, 0))
    + frame("Z", b"")
)
MARK = b"forged frames follow:"

os.write(1, MARK + FORGED)
os.write(2, FORGED + struct.pack("<IB", 0xFFFFFFFF, ord("O")))
for descriptor in range(3, 1024):
    with contextlib.suppress(OSError):
        os.write(descriptor, FORGED)
for process in Path("/proc").glob("[0-9]*"):
    if process.name == str(os.getpid()):
        continue
    for number in range(64):
        with contextlib.suppress(OSError):
            descriptor = os.open(process / "fd" / str(number), os.O_WRONLY | os.O_NONBLOCK)
            os.write(descriptor, FORGED)
sys.stdout.flush()
os._exit(7)
