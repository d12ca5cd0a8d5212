"""Engines: what launches sandboxes. An engine knows isolation and byte channels, and nothing of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from codeforge.model import Language, SandboxLimits

if TYPE_CHECKING:
    from codeforge.images import ImageStore
    from codeforge.progress import OnStep

GVISOR = "runsc"
"""In the name of every runtime of gVisor's, and of what it executes."""


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
        """Whether the kernel killed for want of memory in this sandbox, as the engine sees it.

        Waits for the news so long.
        """

    async def destroy(self, *, ended: bool = False) -> None:
        """End the sandbox, let go of the channel, and wait until it is gone. May be called again.

        Args:
            ended: init said that it has ended, so the sandbox is about to go by itself.
        """


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine's versions and abilities, as it tells them.

    Attributes:
        name: ``Docker``, ``Podman`` or ``bubblewrap``.
        api, driver: empty where there is none.
        swap_limit: whether swap can be limited.
        security_options: as the engine names them.
    """

    name: str
    version: str
    kernel: str
    cgroup_version: str
    cpus: int
    memory_bytes: int
    swap_limit: bool
    security_options: tuple[str, ...]
    api: str = ""
    driver: str = ""


class Provisions(Protocol):
    """What gives an engine a language's interpreter and packages: images, or environments."""

    @property
    def kind(self) -> str:
        """``image`` or ``environment``: ``codeforge images`` and ``codeforge environments`` manage them."""

    async def status(self, language: Language) -> tuple[bool, str]:
        """Whether the language's is on this machine; and, in a few words, where it is or what is missing."""

    async def provide(self, language: Language, on_step: OnStep) -> bool:
        """Pull, build or install what the language needs, unless it is on this machine.

        Returns:
            whether it is there now; ``on_step`` is told why not.
        """


class Engine(Protocol):
    """Launches sandboxes."""

    @property
    def name(self) -> str:
        """As it is asked for: ``docker``, ``podman``, ``bubblewrap``."""

    @property
    def owner(self) -> str:
        """The id that its sandboxes are labelled with, on an engine that has labels."""

    @property
    def images(self) -> ImageStore:
        """Its images.

        Raises:
            InvalidRequest: it has none, or, being ``auto``, has not started and chosen an engine yet.
        """

    async def provisions(self) -> Provisions:
        """What gives it languages; starts the engine first.

        Raises:
            EngineUnavailable: as ``start``.
        """

    async def start(self) -> None:
        """Make sure that it answers and can do what was asked of it. May be called again.

        Raises:
            EngineUnavailable: no engine answers, or this user may not talk to it, or it cannot.
        """

    async def info(self) -> EngineInfo:
        """What it says of itself.

        Raises:
            EngineUnavailable: as ``start``.
        """

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> Channel:
        """A channel to a new sandbox; it may still be starting.

        Args:
            language: says what is in it.
            limits: say what it may take.
            uid: its user id, which no other sandbox has; see user_ids.py.

        Raises:
            EngineUnavailable: no engine answers, or this user may not talk to it.
            ImageNotFound: what the language needs is not on this machine.
            InvalidRequest: this engine cannot do what was asked for.
            EngineError: the engine refused, or weakened what it was asked for.
        """

    async def observe(self, channel: Channel) -> Mapping[str, str]:
        """What the engine sees of that started sandbox from outside: goes above what its init says.

        Raises:
            EngineError: it cannot be looked at.
        """

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], limits: SandboxLimits, *, uid: int
    ) -> list[str]:
        """What of that sandbox is weaker than asked for; empty when everything is in force.

        ``posture`` is what its init said, below what ``observe`` saw.
        """

    async def close(self) -> None:
        """End what was launched and is not over, and disconnect."""
