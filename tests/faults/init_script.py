#!/usr/local/bin/python3
"""Acts as init inside a sandbox. A variable has the script, with a step on each line; the last never ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

UID_ASKED = b"uid=20000\n"


def received() -> Iterator[str]:
    """The types of the frames from the host."""
    while header := sys.stdin.buffer.read(5):
        sys.stdin.buffer.read(int.from_bytes(header[:4], "little"))
        yield chr(header[4])
    os._exit(0)  # the host is gone


def play(script: str) -> None:
    """Do each step."""
    frames = received()
    for line in script.splitlines():
        step, _, value = line.partition(" ")
        if step == "await":
            while next(frames) != value:
                pass
        elif step == "say":
            os.write(1, bytes.fromhex(value).replace(UID_ASKED, b"uid=%d\n" % os.getuid()))
        elif step == "babble":
            while True:
                os.write(1, bytes.fromhex(value))
        elif step == "deafen":  # the streams end, the process does not
            os.closerange(0, 3)
            time.sleep(1000)
        elif step == "hang":
            time.sleep(1000)
        elif step == "abort":
            os.abort()
        elif step == "exit":
            os._exit(0)


if __name__ == "__main__":
    play(os.environ["SCRIPT"])
