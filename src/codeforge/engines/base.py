"""The protocols of engines: an engine launches sandboxes and gives a byte channel to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from codeforge.model import Language, SandboxLimits

if TYPE_CHECKING:
    from codeforge.images import ImageStore
    from codeforge.progress import OnStep

GVISOR = "runsc"
"""Part of the name of every gVisor runtime and of its executable."""


class Channel(Protocol):
    """A launched sandbox, and the byte channel to its init."""

    @property
    def id(self) -> str:
        """The engine's id of the sandbox."""

    async def read(self) -> bytes:
        """The next bytes from init; ``b""`` at the end.

        Raises:
            EngineError: the sandbox could not be started.
        """

    async def write(self, data: bytes) -> None:
        """Send bytes to init; waits while init is slow. They are dropped if the sandbox is gone."""

    async def oom_event(self, wait_s: float) -> bool:
        """Whether the engine knows that the kernel killed a process in it because memory ran out.

        Args:
            wait_s: how long to wait for the event.
        """

    async def destroy(self, *, ended: bool = False) -> None:
        """End the sandbox, close the channel, and wait until the engine has removed it. May be called again.

        Args:
            ended: init has reported its end, so the sandbox is about to end by itself.
        """


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine's versions and abilities, as it reports them.

    Attributes:
        name: ``Docker``, ``Podman`` or ``bubblewrap``.
        api, driver: empty if it has none.
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
            whether it is there now; if not, the last step says why.
        """


class Engine(Protocol):
    """Launches sandboxes."""

    @property
    def name(self) -> str:
        """The name that callers write: ``docker``, ``podman`` or ``bubblewrap``."""

    @property
    def owner(self) -> str:
        """The id that its sandboxes are labelled with, on an engine that has labels."""

    @property
    def images(self) -> ImageStore:
        """Its images.

        Raises:
            InvalidRequest: it has none, or it is ``auto`` and has not chosen an engine yet.
        """

    async def provisions(self) -> Provisions:
        """What provides its languages: images or environments. Starts the engine first.

        Raises:
            EngineUnavailable: as ``start``.
        """

    async def start(self) -> None:
        """Make sure that it answers and supports its settings. May be called again.

        Raises:
            EngineUnavailable: it does not, or this user may not use it.
        """

    async def info(self) -> EngineInfo:
        """Its versions and abilities.

        Raises:
            EngineUnavailable: as ``start``.
        """

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> Channel:
        """Launch a sandbox; returns a channel to it, while it may still be starting.

        Args:
            language: decides what is in it.
            limits: what bounds it.
            uid: its user id, which no other sandbox has; see user_ids.py.

        Raises:
            EngineUnavailable: as ``start``.
            ImageNotFound: the language's image or environment is not on this machine.
            InvalidRequest: this engine does not support what was asked for.
            EngineError: the engine refused, or would have made a weaker sandbox.
        """

    async def observe(self, channel: Channel) -> Mapping[str, str]:
        """The posture of a started sandbox as seen from outside; it overrides what its init reports.

        Raises:
            EngineError: the engine cannot look at it.
        """

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], limits: SandboxLimits, *, uid: int
    ) -> list[str]:
        """Every way in which that sandbox is weaker than asked for; empty if all restrictions are in force.

        Args:
            channel: the sandbox.
            posture: what its init reported, overridden by what ``observe`` returned.
            limits: the limits that it was launched with.
            uid: the user id that it was launched with.
        """

    async def close(self) -> None:
        """End the sandboxes that are left, and disconnect."""
