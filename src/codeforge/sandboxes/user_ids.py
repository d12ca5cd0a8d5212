"""User ids: no two running sandboxes have the same one.

Control groups limit most resources of a sandbox, but the kernel counts some by user id over the whole
machine: inotify instances, pipe buffers, queued signals. With a shared id, one sandbox could use them up
for all others. A user may also inspect its own processes, and then only namespaces would keep one sandbox
out of another.

Executors on one machine share the range of ids without knowing of each other. Each claims blocks of it; a
block is claimed by binding an abstract socket of that name, which the kernel releases when the process
ends, even if it is killed.
"""

from __future__ import annotations

import errno
import socket

from codeforge.errors import EngineError
from codeforge.policy import USER_IDS

BLOCK = 32
"""How many user ids an executor claims at a time."""

CLAIM = "ai-codeforge-user-ids"
"""The name of the sockets, followed by the block's number."""


class UserIds:
    """The user ids that one executor has claimed."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._claims: list[socket.socket] = []

    def take(self) -> int:
        """A user id that no other sandbox on this machine has.

        Raises:
            EngineError: all are taken.
        """
        if not self._free:
            self._free.extend(self._claim())
        return self._free.pop()

    def give_back(self, uid: int) -> None:
        """Make an id available again; its sandbox is gone."""
        if self._claims:
            self._free.insert(0, uid)  # at the end from which it is taken last

    def close(self) -> None:
        """Release all ids."""
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
    """A socket bound to that name; ``None`` if another process has bound it."""
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
