"""The laboratory: an executor whose sandboxes can be looked at, and weakened."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from codeforge.engines import Channel, Engine
from codeforge.engines.choose import EngineSettings, OnChoice
from codeforge.engines.docker import DockerEngine
from codeforge.executor import CodeExecutor
from codeforge.languages import Language
from codeforge.limits import Limits
from codeforge.policy import LABEL
from codeforge.result import Output

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

    def spec(self, language: Language, limits: Limits, *, uid: int) -> dict[str, Any]:
        """See ``DockerEngine.spec``."""
        spec = super().spec(language, limits, uid=uid)
        if self._weaken is not None:
            self._weaken(spec)
        return spec

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], language: Language, limits: Limits, *, uid: int
    ) -> list[str]:
        """See ``Engine.faults``."""
        faults = await super().faults(channel, posture, language, limits, uid=uid)
        return [] if self._unchecked else faults


class AuditExecutor(CodeExecutor):
    """Launches each sandbox when it is asked for, so that each one there is a run's.

    Args:
        weaken: what to take out of every sandbox.
        unchecked: whether programs run in sandboxes that are weaker than asked for.
    """

    def __init__(self, weaken: Weaken | None = None, *, unchecked: bool = False) -> None:
        self._weaken, self._unchecked = weaken, unchecked
        super().__init__(max_warm=0)

    def _make_engine(self, settings: EngineSettings, on_choice: OnChoice | None) -> Engine:
        self.lab = LabEngine(settings.owner, self._weaken, unchecked=self._unchecked)
        return self.lab

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
        return await self.sandboxes_of(self.owner)

    async def sandboxes_of(self, owner: str) -> set[str]:
        """Those of another executor."""
        client, filters = await self.lab.client(), {"label": [f"{LABEL}={owner}"]}
        with self.lab.errors():
            found = await client.containers.list(all=True, filters=json.dumps(filters))
        return {str(each.id) for each in found}

    async def inspect(self, sandbox: str) -> dict[str, Any]:
        """The engine's description of one."""
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
