"""Selects an engine: by name, or the first that answers.

Each engine's module is imported only when it is tried: Docker's needs an HTTP client, which takes longer to
import than a bubblewrap sandbox takes to start.
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
from codeforge.engines.sockets import unreachable_reason
from codeforge.errors import EngineUnavailable, InvalidRequest, did_you_mean, quoted
from codeforge.model import Language, SandboxLimits

if TYPE_CHECKING:
    from codeforge.images import ImageStore

AUTO = "auto"
ENGINES = ("docker", "podman", "bubblewrap")
"""``auto`` tries them in this order."""

ENGINE_VARIABLE, RUNTIME_VARIABLE = "CODEFORGE_ENGINE", "CODEFORGE_RUNTIME"

OnChoice = Callable[[str, Mapping[str, str]], object]
"""Called with the engine that ``auto`` chose, and with the reason for each that it passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The settings of an engine.

    Attributes:
        engine: one of ``ENGINES``, or ``auto``.
        owner: the id that its sandboxes are labelled with.
        docker_host: the address of Docker or Podman; ``None``: the default one.
        runtime: Docker's OCI runtime; ``None``: the daemon's default.
        allow_unenforced_limits: whether sandboxes may run without limits that this machine cannot enforce.
    """

    engine: str
    owner: str
    docker_host: str | None = None
    runtime: str | None = None
    allow_unenforced_limits: bool = False


def engine_name(asked: object, *, docker_host: str | None, runtime: str | None, default: str = AUTO) -> str:
    """The engine's name, or ``auto``: what was asked for, else CODEFORGE_ENGINE, else the default.

    With an address or a runtime, ``auto`` means Docker.

    Raises:
        InvalidRequest: there is no such engine, or it takes no address or runtime.
    """
    name = asked or os.environ.get(ENGINE_VARIABLE) or default
    known = (AUTO, *ENGINES)
    if not isinstance(name, str) or name not in known:
        hint = did_you_mean(str(name), known)
        raise InvalidRequest(f"unknown engine {quoted(name)}; known: {', '.join(known)}{hint}")
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
    """The engine that was asked for, by name or as an instance; it is not started yet.

    Raises:
        InvalidRequest: there is no such engine, or it does not take these settings.
    """
    if not isinstance(asked, str | type | None) and hasattr(asked, "launch"):
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
    """An engine of these settings; it is not started yet."""
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
    """Docker if it answers, else Podman, else bubblewrap; chosen once, when it is first needed."""

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
                f"only Docker and Podman have images; the engine is {AUTO}, which has chosen none yet: "
                "await engine() first"
            )
        return self._chosen.images

    async def provisions(self) -> Provisions:
        """See ``Engine.provisions``."""
        return await (await self.chosen()).provisions()

    async def chosen(self) -> Engine:
        """The engine that answers.

        Raises:
            EngineUnavailable: none does; the message gives the reason for each.
        """
        async with self._choosing:
            if self._chosen is None:
                self._chosen = await self._choose()
        return self._chosen

    async def _choose(self) -> Engine:
        reasons: dict[str, str] = {}
        for name in ENGINES:
            if (reason := unreachable_reason(name)) is None:
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
        summary = "\n".join(f"{name}: {reason.splitlines()[0]}" for name, reason in reasons.items())
        raise EngineUnavailable(f"{reasons[ENGINES[-1]]}\nNo engine can run sandboxes here:\n{summary}")

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
