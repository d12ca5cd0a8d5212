"""The laboratory: an executor whose sandboxes can be looked at, and weakened."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from codeforge.engines import Channel, Engine
from codeforge.engines.connection import docker_errors
from codeforge.executor import CodeExecutor
from codeforge.languages import Language
from codeforge.limits import Limits
from codeforge.policy import LABEL, PostureCheck, posture_faults
from codeforge.pool import Pool
from codeforge.result import Output

HOLD_S = 600.0
"""How long a program that is looked at waits, at most."""

_NOTICE_S = 10.0

_WAITS = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"

Weaken: TypeAlias = Callable[[dict[str, Any]], None]
"""Takes one control out of a container's description, in place."""


class WeakenedEngine:
    """An engine that launches what it is asked for with one control less."""

    def __init__(self, engine: Engine, weaken: Weaken) -> None:
        self._engine = engine
        self._weaken = weaken

    async def launch(self, spec: dict[str, Any]) -> Channel:
        """See ``Engine.launch``."""
        self._weaken(spec)
        return await self._engine.launch(spec)

    async def close(self) -> None:
        """See ``Engine.close``."""
        await self._engine.close()


def no_check(posture: Mapping[str, str], language: Language, limits: Limits, *, uid: int) -> list[str]:
    """In place of the posture check, so that code runs in a weakened sandbox."""
    return []


class AuditExecutor(CodeExecutor):
    """Launches each sandbox when it is asked for, so that each one there is a run's.

    Args:
        weaken: what to take out of every sandbox.
        check: what is asked of a sandbox's posture.
    """

    def __init__(self, weaken: Weaken | None = None, check: PostureCheck = posture_faults) -> None:
        self._weaken = weaken
        self._check = check
        super().__init__(max_warm=0)

    def _make_pool(self, engine: Engine, **settings: Any) -> Pool:
        launching = WeakenedEngine(engine, self._weaken) if self._weaken else engine
        return super()._make_pool(launching, check=self._check, **settings)

    @property
    def owner(self) -> str:
        """What its containers are labelled with."""
        return self._engine.owner

    async def launch(self, spec: dict[str, Any]) -> Channel:
        """A container of this executor's with whatever is in it; ``close`` removes it."""
        return await self._engine.launch({**spec, "Labels": {LABEL: self.owner}})

    async def version(self) -> dict[str, Any]:
        """What the engine says of its parts."""
        client = await self._engine.client()
        with docker_errors():
            return {**await client.version(), "Info": await client.system.info()}

    async def socket_path(self) -> str | None:
        """The engine's socket; ``None`` if it is not on this machine."""
        path = getattr((await self._engine.client()).connector, "path", None)
        return None if path is None else str(path)

    async def image_configs(self) -> dict[str, dict[str, Any]]:
        """Of each language whose image is here, what the engine knows of it."""
        client, found = await self._engine.client(), {}
        for row in self.languages:
            if await self.images.find(row.image) is not None:
                with docker_errors():
                    found[row.name] = await client.images.inspect(row.image)
        return found

    async def sandboxes(self) -> set[str]:
        """Those that are there now, in whatever state."""
        return await self.sandboxes_of(self.owner)

    async def sandboxes_of(self, owner: str) -> set[str]:
        """Those of another executor."""
        client, filters = await self._engine.client(), {"label": [f"{LABEL}={owner}"]}
        with docker_errors():
            found = await client.containers.list(all=True, filters=json.dumps(filters))
        return {str(each.id) for each in found}

    async def inspect(self, sandbox: str) -> dict[str, Any]:
        """The engine's description of one."""
        client = await self._engine.client()
        with docker_errors():
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
