"""The laboratory: an executor whose sandboxes can be looked at, and weakened."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from codeforge.engines import (
    AUTO,
    ENGINES,
    GVISOR,
    RUNTIME_VARIABLE,
    BubblewrapChannel,
    BubblewrapEngine,
    Channel,
    DockerEngine,
    Engine,
    EngineSettings,
    engine_name,
    make_engine,
    not_there,
)
from codeforge.errors import Unsupported
from codeforge.executor import CodeExecutor
from codeforge.model import Language, Output, SandboxLimits
from codeforge.policy import LABEL

HOLD_S = 600.0
"""How long a program that is looked at waits, at most."""

_NOTICE_S = 10.0

_WAITS = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"

Weaken: TypeAlias = Callable[[dict[str, Any]], None]
"""Takes one control out of a container's description, in place."""


class LabEngine(DockerEngine):
    """Docker, with one control less in every sandbox, if so asked.

    Args:
        weaken: what to take out.
        unchecked: whether programs run in it all the same.
    """

    def __init__(self, owner: str, weaken: Weaken | None, *, unchecked: bool) -> None:
        super().__init__(None, owner)
        self._weaken = weaken
        self._unchecked = unchecked

    def spec(self, language: Language, limits: SandboxLimits, *, uid: int) -> dict[str, Any]:
        """See ``DockerEngine.spec``."""
        spec = super().spec(language, limits, uid=uid)
        if self._weaken is not None:
            self._weaken(spec)
        return spec

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], limits: SandboxLimits, *, uid: int
    ) -> list[str]:
        """See ``Engine.faults``."""
        faults = await super().faults(channel, posture, limits, uid=uid)
        return [] if self._unchecked else faults


class LabBubblewrap(BubblewrapEngine):
    """bubblewrap, and what became of its sandboxes."""

    def __init__(self, *, allow_unenforced_limits: bool) -> None:
        super().__init__(allow_unenforced_limits=allow_unenforced_limits)
        self._launched: set[str] = set()

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> BubblewrapChannel:
        """See ``Engine.launch``."""
        channel = await super().launch(language, limits, uid=uid)
        self._launched.add(channel.id)
        return channel

    def left(self) -> set[str]:
        """Those that have a control group still, without which no process of theirs can be. Blocks."""
        groups = {name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names}
        return self._launched & groups


DOCKER, PODMAN, BUBBLEWRAP = ENGINES


class AuditExecutor(CodeExecutor):
    """Launches each sandbox when it is asked for, so that each one there is a run's.

    ``CODEFORGE_ENGINE`` and ``CODEFORGE_RUNTIME`` say on which engine; else it is the first of which a socket
    answers.

    Args:
        weaken: what to take out of every sandbox.
        unchecked: whether programs run in sandboxes that are weaker than asked for.
    """

    def __init__(self, weaken: Weaken | None = None, *, unchecked: bool = False) -> None:
        self._weaken, self._unchecked = weaken, unchecked
        runtime = os.environ.get(RUNTIME_VARIABLE)
        name = engine_name(None, docker_host=None, runtime=runtime)
        settings = EngineSettings(engine=name, owner=uuid.uuid4().hex, runtime=runtime)
        super().__init__(engine=self._lab_engine(settings), max_warm=0)

    def _lab_engine(self, settings: EngineSettings) -> Engine:
        name = settings.engine
        if name == AUTO:
            name = next(each for each in ENGINES if not_there(each) is None)
        self._containers: DockerEngine | None = None
        self._bubblewrap: LabBubblewrap | None = None
        self.kind = GVISOR if GVISOR in (settings.runtime or "") else name
        """Docker, Podman, bubblewrap or gVisor: what differs between them, the checks have to know."""
        if self.kind == DOCKER:
            self._containers = LabEngine(settings.owner, self._weaken, unchecked=self._unchecked)
            return self._containers
        if self._weaken is not None or self._unchecked:
            raise Unsupported("only Docker's own sandboxes can be weakened: CODEFORGE_ENGINE=docker")
        if name == BUBBLEWRAP:
            self._bubblewrap = LabBubblewrap(allow_unenforced_limits=settings.allow_unenforced_limits)
            return self._bubblewrap
        engine = make_engine(dataclasses.replace(settings, engine=name))
        assert isinstance(engine, DockerEngine)  # noqa: S101 - Podman and gVisor
        self._containers = engine
        return engine

    @property
    def lab(self) -> DockerEngine:
        """Docker, or an engine that answers its calls."""
        if self._containers is None:
            raise Unsupported("bubblewrap has no daemon that could be asked")
        return self._containers

    async def launch(self, spec: dict[str, Any]) -> Channel:
        """A container with whatever is in it; ``close`` removes it."""
        return await self.lab.launch_container(spec)

    async def version(self) -> dict[str, Any]:
        """What the engine says of its parts."""
        client = await self.lab.client()
        with self.lab.errors():
            return {**await client.version(), "Info": await client.system.info()}

    async def socket_path(self) -> str | None:
        """The engine's socket; ``None`` if it is not on this machine."""
        path = getattr((await self.lab.client()).connector, "path", None)
        return None if path is None else str(path)

    async def image_configs(self) -> dict[str, dict[str, Any]]:
        """Of each language whose image is here, what the engine knows of it."""
        client, found = await self.lab.client(), {}
        for row in self.languages:
            if await self.images.find(row.image) is not None:
                with self.lab.errors():
                    found[row.name] = await client.images.inspect(row.image)
        return found

    async def sandboxes(self) -> set[str]:
        """Those that are there now, in whatever state."""
        if self._bubblewrap is not None:
            return set(self._bubblewrap.sandboxes())
        return await self._labelled(self.owner)

    async def left_of(self, closed: AuditExecutor) -> set[str]:
        """What is left of another executor's."""
        if closed._bubblewrap is not None:
            return await asyncio.to_thread(closed._bubblewrap.left)
        return await self._labelled(closed.owner)

    async def _labelled(self, owner: str) -> set[str]:
        client, filters = await self.lab.client(), {"label": [f"{LABEL}={owner}"]}
        with self.lab.errors():
            found = await client.containers.list(all=True, filters=json.dumps(filters))
        return {str(each.id) for each in found}

    async def inspect(self, sandbox: str) -> dict[str, Any]:
        """The engine's description of one; of bubblewrap's, which has none, its first process."""
        if self._bubblewrap is not None:
            pid = self._bubblewrap.sandboxes()[sandbox]
            return {"Id": sandbox, "State": {"Pid": pid, "Running": True}, "Config": {"User": ""}}
        client = await self.lab.client()
        with self.lab.errors():
            return dict(await client.containers.container(sandbox).show())

    async def _runs(self, sandbox: str) -> bool:
        return bool((await self.inspect(sandbox))["State"]["Running"])

    @contextlib.asynccontextmanager
    async def held(
        self, *, env_vars: Mapping[str, str] | None = None, files: Mapping[str, str | bytes] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """A run that waits; gives what the engine says of its sandbox."""
        before = await self.sandboxes()
        waiting = self.stream(_WAITS, timeout=HOLD_S, stdin=_nothing_yet(), env_vars=env_vars, files=files)
        async with contextlib.aclosing(waiting) as events:
            async for event in events:
                if isinstance(event, Output):
                    break
            (new,) = await self.sandboxes() - before
            # A program is often heard before the engine has noticed that it runs.
            await until(lambda: self._runs(new), _NOTICE_S)
            yield await self.inspect(new)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + within_s
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


async def _nothing_yet() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""
