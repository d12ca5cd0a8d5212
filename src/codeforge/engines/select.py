"""Which engine: by name, or the first of those there are that answers.

The modules of the engines are imported when their turn comes: Docker's need an HTTP client, which takes
longer to import than a sandbox of bubblewrap's takes to start.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codeforge.engines.base import GVISOR, Channel, Engine, EngineInfo, Provisions
from codeforge.engines.sockets import not_there
from codeforge.errors import EngineUnavailable, InvalidRequest, nearest, quoted
from codeforge.model import Language, SandboxLimits

if TYPE_CHECKING:
    from codeforge.images import ImageStore

AUTO = "auto"
ENGINES = ("docker", "podman", "bubblewrap")
"""In the order in which ``auto`` tries them."""

ENGINE_VARIABLE, RUNTIME_VARIABLE = "CODEFORGE_ENGINE", "CODEFORGE_RUNTIME"

OnChoice = Callable[[str, Mapping[str, str]], object]
"""Is told which engine ``auto`` chose, and of each that came before it why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine is made of.

    Attributes:
        engine: one of ``ENGINES``, or ``auto``.
        owner: what its sandboxes are labelled with.
        docker_host: the address of Docker or Podman, if not where they are looked for.
        runtime: the OCI runtime, for Docker; ``None``: the daemon's own.
        allow_unenforced_limits: whether sandboxes may do without limits that this machine cannot enforce.
    """

    engine: str
    owner: str
    docker_host: str | None = None
    runtime: str | None = None
    allow_unenforced_limits: bool = False


def engine_name(asked: object, *, docker_host: str | None, runtime: str | None, default: str = AUTO) -> str:
    """The engine's name, or ``auto``: what was asked for, else what the environment says, else the default.

    An address or a runtime is Docker's, if nobody says otherwise.

    Raises:
        InvalidRequest: there is no such engine.
    """
    name = asked or os.environ.get(ENGINE_VARIABLE) or default
    known = (AUTO, *ENGINES)
    if not isinstance(name, str) or name not in known:
        near = nearest(str(name), known)
        hint = "" if near is None else f" Did you mean {near!r}?"
        raise InvalidRequest(f"unknown engine {quoted(name)}; known: {', '.join(known)}.{hint}")
    if name == AUTO and (docker_host or runtime):
        return "docker"
    if runtime is not None and name != "docker":
        raise InvalidRequest(f"runtime is Docker's; the engine is {name}")
    if docker_host is not None and name == "bubblewrap":
        raise InvalidRequest("docker_host is an address of Docker or Podman; bubblewrap has none")
    return name


def engine_for(
    asked: str | Engine | None,
    *,
    docker_host: str | None,
    runtime: str | None,
    allow_unenforced_limits: bool,
    on_choice: OnChoice | None = None,
) -> Engine:
    """The engine that an executor's caller asked for, by name or as an instance; nothing is started yet.

    Raises:
        InvalidRequest: there is no such engine, or it cannot have these settings.
    """
    if asked is not None and not isinstance(asked, str) and hasattr(asked, "launch"):
        if docker_host is not None or runtime is not None or allow_unenforced_limits:
            raise InvalidRequest(
                "docker_host, runtime and allow_unenforced_limits go with an engine's name; "
                "this engine is an instance: create it with them"
            )
        return asked
    runtime = runtime or os.environ.get(RUNTIME_VARIABLE)
    settings = EngineSettings(
        engine=engine_name(asked, docker_host=docker_host, runtime=runtime),
        owner=uuid.uuid4().hex,
        docker_host=docker_host,
        runtime=runtime,
        allow_unenforced_limits=allow_unenforced_limits,
    )
    return make_engine(settings, on_choice)


def make_engine(settings: EngineSettings, on_choice: OnChoice | None = None) -> Engine:
    """The engine; nothing is started yet."""
    if settings.engine == AUTO:
        return FirstThatAnswers(settings, on_choice)
    if settings.engine == "bubblewrap":
        from codeforge.engines.bubblewrap import BubblewrapEngine

        return BubblewrapEngine(settings.owner, allow_unenforced_limits=settings.allow_unenforced_limits)
    if settings.engine == "podman":
        from codeforge.engines.podman import PodmanEngine

        return PodmanEngine(settings.docker_host, settings.owner)
    if settings.runtime is not None and GVISOR in settings.runtime:
        from codeforge.engines.gvisor import GvisorEngine

        return GvisorEngine(settings.docker_host, settings.owner, runtime=settings.runtime)
    from codeforge.engines.docker import DockerEngine

    return DockerEngine(settings.docker_host, settings.owner, runtime=settings.runtime)


class FirstThatAnswers:
    """Docker if it answers, else Podman, else bubblewrap; chosen when it is first needed, and for good."""

    def __init__(self, settings: EngineSettings, on_choice: OnChoice | None = None) -> None:
        self._settings = settings
        self._on_choice = on_choice
        self._choosing = asyncio.Lock()
        self._chosen: Engine | None = None

    @property
    def name(self) -> str:
        """The chosen engine's; ``auto`` before."""
        return AUTO if self._chosen is None else self._chosen.name

    @property
    def owner(self) -> str:
        """See ``Engine.owner``."""
        return self._settings.owner

    @property
    def images(self) -> ImageStore:
        """See ``Engine.images``."""
        if self._chosen is None:
            raise InvalidRequest(
                f"images are Docker's and Podman's; the engine is {AUTO}, which has chosen none yet: "
                "await engine() first"
            )
        return self._chosen.images

    async def provisions(self) -> Provisions:
        """See ``Engine.provisions``."""
        return await (await self.chosen()).provisions()

    async def chosen(self) -> Engine:
        """The engine that answers.

        Raises:
            EngineUnavailable: none does; the message has each one's reason.
        """
        async with self._choosing:
            if self._chosen is None:
                self._chosen = await self._choose()
        return self._chosen

    async def _choose(self) -> Engine:
        reasons: dict[str, str] = {}
        for name in ENGINES:
            if (reason := not_there(name)) is None:
                engine = make_engine(dataclasses.replace(self._settings, engine=name))
                try:
                    await engine.start()
                except EngineUnavailable as error:
                    await engine.close()
                    reason = str(error)
                else:
                    if self._on_choice is not None:
                        self._on_choice(name, reasons)
                    return engine
            reasons[name] = reason
        told = "\n".join(f"{name}: {reason.partition(chr(10))[0]}" for name, reason in reasons.items())
        raise EngineUnavailable(f"{reasons[ENGINES[-1]]}\nNo engine can run sandboxes here:\n{told}")

    async def start(self) -> None:
        """See ``Engine.start``."""
        await self.chosen()

    async def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        return await (await self.chosen()).info()

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> Channel:
        """See ``Engine.launch``."""
        return await (await self.chosen()).launch(language, limits, uid=uid)

    async def observe(self, channel: Channel) -> Mapping[str, str]:
        """See ``Engine.observe``."""
        return await (await self.chosen()).observe(channel)

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], limits: SandboxLimits, *, uid: int
    ) -> list[str]:
        """See ``Engine.faults``."""
        return await (await self.chosen()).faults(channel, posture, limits, uid=uid)

    async def close(self) -> None:
        """See ``Engine.close``."""
        if self._chosen is not None:
            await self._chosen.close()
