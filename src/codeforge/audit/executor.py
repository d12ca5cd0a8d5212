"""The audit's executor. It runs programs like any other, and lets the audit inspect and weaken sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
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
    EngineSettings,
    engine_name,
    make_engine,
    unreachable_reason,
)
from codeforge.errors import ImageNotFound, Unsupported
from codeforge.executor import CodeExecutor
from codeforge.model import PYTHON, Language, Output, SandboxLimits
from codeforge.policy import LABEL

HELD_FOR_S = 600.0
"""How long a program may wait while its sandbox is inspected."""

ENGINE_NOTICES_WITHIN_S = 10.0

_WAITS = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"

Weaken: TypeAlias = Callable[[dict[str, Any]], None]
"""Removes one control from a container's description, in place."""

DOCKER, PODMAN, BUBBLEWRAP = ENGINES


class WeakenedDocker(DockerEngine):
    """Docker, for the self-test: its sandboxes may lack a control.

    Args:
        owner: the label of its sandboxes.
        weaken: removes the control; ``None`` leaves sandboxes as they are.
        unchecked: whether programs run even if the posture check finds a fault.
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


class RememberingBubblewrap(BubblewrapEngine):
    """bubblewrap, with a record of the sandboxes that it launched."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self._launched: set[str] = set()

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> BubblewrapChannel:
        """See ``Engine.launch``."""
        channel = await super().launch(language, limits, uid=uid)
        self._launched.add(channel.id)
        return channel

    def remaining(self) -> set[str]:
        """Return the sandboxes that still have a control group. One without has no process. Blocks."""
        groups = {name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names}
        return self._launched & groups


def engine_under_audit(
    weaken: Weaken | None = None, *, unchecked: bool = False
) -> tuple[str, DockerEngine | RememberingBubblewrap]:
    """Return the engine's kind, and the engine: the one that the environment names, else the first available.

    Raises:
        Unsupported: the sandboxes of this engine cannot be weakened; those of Docker's own runtime can.
    """
    runtime = os.environ.get(RUNTIME_VARIABLE) or None
    name = engine_name(None, docker_host=None, runtime=runtime)
    if name == AUTO:
        name = next((each for each in ENGINES if unreachable_reason(each) is None), DOCKER)
    owner = uuid.uuid4().hex
    kind = GVISOR if runtime is not None and GVISOR in runtime else name
    if kind == DOCKER:
        return kind, WeakenedDocker(owner, weaken, unchecked=unchecked)
    if weaken is not None or unchecked:
        raise Unsupported("only Docker's own sandboxes can be weakened: CODEFORGE_ENGINE=docker")
    if kind == BUBBLEWRAP:
        return kind, RememberingBubblewrap(owner)
    engine = make_engine(EngineSettings(engine=name, owner=owner, runtime=runtime))
    if not isinstance(engine, DockerEngine):
        raise Unsupported(f"the audit does not know the engine {name}")
    return kind, engine


class AuditExecutor(CodeExecutor):
    """Keeps no warm sandboxes, so every sandbox has a run.

    Args:
        weaken: removes a control from every sandbox.
        unchecked: whether programs run in sandboxes that are weaker than asked for.

    Attributes:
        kind: Docker, Podman, bubblewrap or gVisor: some checks differ between them.
    """

    def __init__(self, weaken: Weaken | None = None, *, unchecked: bool = False) -> None:
        kind, engine = engine_under_audit(weaken, unchecked=unchecked)
        super().__init__(engine=engine, max_warm=0)
        self.kind = kind
        self._audited = engine

    @property
    def docker(self) -> DockerEngine:
        """The engine, if it has Docker's API.

        Raises:
            Unsupported: it is bubblewrap.
        """
        if not isinstance(self._audited, DockerEngine):
            raise Unsupported("bubblewrap has no daemon to ask")
        return self._audited

    async def launch(self, spec: dict[str, Any]) -> Channel:
        """Launch a container of any description; closing the channel removes it."""
        return await self.docker.launch_container(spec)

    async def version(self) -> dict[str, Any]:
        """Return the versions of the engine's components, and under ``Info`` its settings."""
        client = await self.docker.client()
        with self.docker.errors():
            return {**await client.version(), "Info": await client.system.info()}

    async def socket_path(self) -> str | None:
        """Return the path of the engine's socket; ``None`` if it is not on this machine."""
        path = getattr((await self.docker.client()).connector, "path", None)
        return None if path is None else str(path)

    async def image_configs(self) -> dict[str, dict[str, Any]]:
        """Return, by language name, the engine's description of each image that it has."""
        client, found = await self.docker.client(), {}
        for row in self.languages:
            if await self.images.find(row.image) is not None:
                with self.docker.errors():
                    found[row.name] = await client.images.inspect(row.image)
        return found

    async def sandboxes(self) -> set[str]:
        """Return the ids of this executor's sandboxes, in any state."""
        if isinstance(self._audited, RememberingBubblewrap):
            return set(self._audited.sandboxes())
        return await self._labelled(self.owner)

    async def left_behind_by(self, closed: AuditExecutor) -> set[str]:
        """Return the ids of the sandboxes that a closed executor left behind."""
        if isinstance(closed._audited, RememberingBubblewrap):
            return await asyncio.to_thread(closed._audited.remaining)
        return await self._labelled(closed.owner)

    async def _labelled(self, owner: str) -> set[str]:
        client, filters = await self.docker.client(), {"label": [f"{LABEL}={owner}"]}
        with self.docker.errors():
            found = await client.containers.list(all=True, filters=json.dumps(filters))
        return {str(each.id) for each in found}

    async def inspect(self, sandbox: str) -> dict[str, Any]:
        """Return the engine's description of a sandbox. For bubblewrap, it has the first process alone."""
        if isinstance(self._audited, RememberingBubblewrap):
            pid = self._audited.sandboxes()[sandbox]
            return {"Id": sandbox, "State": {"Pid": pid, "Running": True}, "Config": {"User": ""}}
        client = await self.docker.client()
        with self.docker.errors():
            return dict(await client.containers.container(sandbox).show())

    async def _is_running(self, sandbox: str) -> bool:
        return bool((await self.inspect(sandbox))["State"]["Running"])

    @contextlib.asynccontextmanager
    async def held(
        self, *, env_vars: Mapping[str, str] | None = None, files: Mapping[str, str | bytes] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Run a program that waits until the end of the block, and give the description of its sandbox."""
        before = await self.sandboxes()
        waiting = self.stream(
            _WAITS, timeout=HELD_FOR_S, stdin=silent_stdin(), env_vars=env_vars, files=files
        )
        async with contextlib.aclosing(waiting) as events:
            async for event in events:
                if isinstance(event, Output):
                    break
            (new,) = await self.sandboxes() - before
            # The program's output often arrives before the engine reports the sandbox as running.
            await until(lambda: self._is_running(new), ENGINE_NOTICES_WITHIN_S)
            yield await self.inspect(new)


def python_image_id(configs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the id of the image in which the audit runs its programs, from what ``image_configs`` returns.

    Raises:
        ImageNotFound: the engine does not have it.
    """
    if PYTHON.name not in configs:
        raise ImageNotFound(
            f"{PYTHON.image} is not on this machine\nBuild or pull it: codeforge images pull {PYTHON.name}"
        )
    return str(configs[PYTHON.name]["Id"])


async def until(condition: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    """Wait for the condition. Return whether it came true in time."""
    deadline = time.monotonic() + within_s
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


async def silent_stdin() -> AsyncIterator[bytes]:
    """Send nothing, and never end."""
    await asyncio.Event().wait()
    yield b""
