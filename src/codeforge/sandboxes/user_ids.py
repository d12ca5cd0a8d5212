"""User ids: every sandbox that is alive has one of its own.

What a container is limited in is its own, but some of the kernel's accounts are kept by user id over
the whole machine: inotify instances, pipe buffers, queued signals. Under one id, one sandbox could use
them up for all others; and the rule that a user may look into his own processes stops at the container
only because of its namespaces. So no two have the same.

Executors of this machine share the range without knowing of each other: each takes blocks of it, and a
block is taken by binding an abstract socket of its name, which the kernel gives back when the process
is gone, however it ended.
"""

from __future__ import annotations

import errno
import socket

from codeforge.errors import EngineError
from codeforge.policy import USER_IDS

BLOCK = 32
"""How many user ids an executor claims at once."""

CLAIM = "ai-codeforge-user-ids"
"""What the sockets are called, with the block's number."""


class UserIds:
    """Those of one executor."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._claims: list[socket.socket] = []

    def take(self) -> int:
        """One that nobody has.

        Raises:
            EngineError: this machine's executors have all of them.
        """
        if not self._free:
            self._free.extend(self._claim())
        return self._free.pop()

    def give_back(self, uid: int) -> None:
        """Its sandbox is gone."""
        if self._claims:
            self._free.insert(0, uid)  # at the other end: the longer an id rests, the better

    def close(self) -> None:
        """Give all back."""
        for claim in self._claims:
            claim.close()
        self._claims.clear()
        self._free.clear()

    def _claim(self) -> range:
        for start in USER_IDS[::BLOCK]:
            block = USER_IDS.index(start) // BLOCK
            if (claim := _bind(f"\0{CLAIM}-{block}")) is not None:
                self._claims.append(claim)
                return range(start, start + BLOCK)
        raise EngineError(
            f"all {len(USER_IDS)} user ids for sandboxes are taken: close other executors on this machine"
        )


def _bind(name: str) -> socket.socket | None:
    """A socket of that name; ``None`` if another process has it."""
    try:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError as error:
        raise EngineError(f"no user id for a sandbox: {error.strerror}") from error
    try:
        claim.bind(name)
    except OSError as error:
        claim.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise EngineError(f"no user id for a sandbox: {error.strerror}") from error
    return claim
