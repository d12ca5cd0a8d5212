"""Engines: what launches sandboxes. An engine knows containers and byte channels, not languages."""

from __future__ import annotations

from typing import Any, Protocol


class Channel(Protocol):
    """One launched sandbox, and the byte channel to its init."""

    @property
    def id(self) -> str:
        """The engine's name for the sandbox."""

    async def read(self) -> bytes:
        """The next bytes from init; ``b""`` when there are no more.

        Raises:
            EngineError: the sandbox could not be started.
        """

    async def write(self, data: bytes) -> None:
        """Send bytes to init; waits while init is slow. Silently lost once the sandbox is gone."""

    async def oom_event(self, wait_s: float) -> bool:
        """Whether the engine reported an out-of-memory kill in this sandbox, waiting for it so long."""

    async def destroy(self, *, ended: bool = False) -> None:
        """End the sandbox, let go of the channel, and wait until it is gone. May be called again.

        Args:
            ended: init said that it has ended, so the sandbox is about to go by itself.
        """


class Engine(Protocol):
    """Launches sandboxes."""

    async def launch(self, spec: dict[str, Any]) -> Channel:
        """A channel to a new sandbox; it may still be starting.

        Raises:
            EngineUnavailable: no engine answers, or this user may not talk to it.
            ImageNotFound: the image is not on this machine.
            EngineError: the engine refused, or weakened what it was asked for.
        """

    async def close(self) -> None:
        """End what was launched and is not over, and disconnect."""
