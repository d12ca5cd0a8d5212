"""Sandboxes as containers of Docker, or of another engine with its API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from aiodocker.stream import Message, Stream

from codeforge.engines.base import Channel, EngineInfo
from codeforge.engines.docker_client import (
    API_TIMEOUT_S,
    DOCKER,
    Dialect,
    connect,
    disconnect,
    docker_errors,
)
from codeforge.engines.oom_watch import OomWatch
from codeforge.errors import EngineError, EngineUnavailable, HostFailure, quoted
from codeforge.model import Language, SandboxLimits
from codeforge.policy import LABEL, container_spec, posture_faults

if TYPE_CHECKING:
    from codeforge.images import ImageStore

REMOVAL_GRACE_S = 5.0
"""How long the daemon may take to remove a container that has ended; after that we remove it by force."""

WATCH_RETRY_S = 0.5
"""Between two attempts to read the daemon's events."""

STALE_S = 120.0
"""A container that was created this long ago and never started belongs to no running executor."""

SWEEP_EVERY_S = 60.0


class DockerEngine:
    """Launches sandboxes as containers. Belongs to one event loop."""

    name = "docker"
    dialect: Dialect = DOCKER

    def __init__(self, docker_host: str | None, owner: str, *, runtime: str | None = None) -> None:
        self._docker_host = docker_host
        self.owner = owner
        self.runtime = runtime
        self.runtime_arguments: tuple[str, ...] = ()
        self._client: aiodocker.Docker | None = None
        self.kernel = ""
        self._connecting = asyncio.Lock()
        self._channels: dict[str, DockerChannel] = {}
        self._launching: set[asyncio.Future[DockerChannel]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def client(self) -> aiodocker.Docker:
        """The connected client.

        Raises:
            EngineUnavailable: no engine answers, or this user may not use it, or it has no such runtime.
        """
        async with self._connecting:
            if self._client is None:
                client = await connect(self._docker_host, self.dialect)
                try:
                    with self.errors():
                        async with asyncio.timeout(API_TIMEOUT_S):
                            await self.check(client)
                except BaseException:
                    await disconnect(client)
                    raise
                self._client = client
                self.in_background(self._watch(client))
                self.in_background(self._sweep(client))
        return self._client

    async def check(self, client: aiodocker.Docker) -> None:
        """Make sure that the engine supports what sandboxes need.

        Raises:
            EngineUnavailable: it does not.
        """
        version = await client.version()
        if is_podman(version):
            raise EngineUnavailable("Podman answers in Docker's place. Ask for it: engine='podman'")
        if self.runtime is not None:
            found = _runtime(await client.system.info(), self.runtime)
            self.runtime_arguments = tuple(found.get("runtimeArgs") or ())
        self.kernel = version["KernelVersion"]

    def errors(self) -> AbstractContextManager[None]:
        """Turns the client's exceptions into this package's own."""
        return docker_errors(self.dialect)

    @property
    def images(self) -> ImageStore:
        """See ``Engine.images``."""
        from codeforge.images import ImageStore  # a run needs none of it

        return ImageStore(self)

    async def provisions(self) -> ImageStore:
        """See ``Engine.provisions``."""
        await self.start()
        return self.images

    async def start(self) -> None:
        """See ``Engine.start``."""
        await self.client()

    async def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        client = await self.client()
        with self.errors():
            async with asyncio.timeout(API_TIMEOUT_S):
                info, version = await client.system.info(), await client.version()
        return EngineInfo(
            name=self.dialect.name,
            version=version["Version"],
            api=version["ApiVersion"],
            kernel=info["KernelVersion"],
            driver=info["Driver"],
            cgroup_version=info.get("CgroupVersion", "1"),
            cpus=info["NCPU"],
            memory_bytes=info["MemTotal"],
            swap_limit=info["SwapLimit"],
            security_options=tuple(info.get("SecurityOptions") or ()),
        )

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that ``close`` cancels if it is still running."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def spec(self, language: Language, limits: SandboxLimits, *, uid: int) -> dict[str, Any]:
        """The body of the create call."""
        spec = container_spec(language, limits, owner=self.owner, uid=uid)
        if self.runtime is not None:
            spec["HostConfig"]["Runtime"] = self.runtime
        return spec

    async def observe(self, channel: Channel) -> Mapping[str, str]:
        """See ``Engine.observe``."""
        return {"kernel": f"Linux {self.kernel}"}

    async def faults(
        self, channel: Channel, posture: Mapping[str, str], limits: SandboxLimits, *, uid: int
    ) -> list[str]:
        """See ``Engine.faults``."""
        return posture_faults(posture, limits, uid=uid)

    async def launch(self, language: Language, limits: SandboxLimits, *, uid: int) -> DockerChannel:
        """See ``Engine.launch``."""
        return await self.launch_container(self.spec(language, limits, uid=uid))

    async def launch_container(self, spec: dict[str, Any]) -> DockerChannel:
        """Launch a container with that description; returns a channel to it."""
        launching = asyncio.ensure_future(self._launch(await self.client(), spec))
        self._launching.add(launching)
        launching.add_done_callback(self._launching.discard)
        try:
            return await asyncio.shield(launching)
        except asyncio.CancelledError:
            # If the create call were cancelled, its container would remain, and its id would be lost.
            launching.add_done_callback(self._destroy_unwanted)
            raise

    async def _launch(self, client: aiodocker.Docker, spec: dict[str, Any]) -> DockerChannel:
        with self.errors():
            async with asyncio.timeout(API_TIMEOUT_S):
                container = await self._create(client, spec)
        channel = DockerChannel(self, container)
        self._channels[channel.id] = channel
        try:
            await channel.open()
        except BaseException:
            await channel.destroy()
            raise
        return channel

    def creation(self, client: aiodocker.Docker, spec: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Path and body of the API call that creates a container with that description."""
        return f"{client.api_version}/containers/create", spec

    async def _create(self, client: aiodocker.Docker, spec: dict[str, Any]) -> DockerContainer:
        # Not client.containers.create(): it drops the warnings of the answer, and a warning here means that
        # the daemon has left out a restriction.
        path, body = self.creation(client, spec)
        async with client.session.post(f"{client.docker_host}/{path}", json=body) as response:
            answer = await response.json(content_type=None)
        if response.status >= 400:
            raise DockerError(response.status, answer.get("message", "create failed"))
        container = client.containers.container(answer["Id"])
        if answer.get("Warnings"):
            await container.delete(force=True)
            raise EngineError(
                f"{self.dialect.name} would weaken the sandbox: {'; '.join(answer['Warnings'])}"
            )
        return container

    def _destroy_unwanted(self, launching: asyncio.Future[DockerChannel]) -> None:
        if not launching.cancelled() and launching.exception() is None:
            self.in_background(launching.result().destroy())

    def forget(self, channel: DockerChannel) -> None:
        """Drop a channel whose container is gone."""
        self._channels.pop(channel.id, None)

    async def close(self) -> None:
        """See ``Engine.close``."""
        await asyncio.gather(*self._launching, return_exceptions=True)
        await asyncio.gather(*(channel.destroy() for channel in list(self._channels.values())))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            # Containers whose create call was never answered.
            for container in await self._labelled(self._client, f"{LABEL}={self.owner}", []):
                await self._delete(container)
            await disconnect(self._client)

    async def _watch(self, client: aiodocker.Docker) -> None:
        """Pass the daemon's events on to the channels; reconnects for as long as the engine is open."""
        # Starting in the past, so that no event is missed between two connections, or because this clock is
        # ahead of the daemon's. An event that arrives twice does no harm.
        since = time.time() - 60
        while True:
            with contextlib.suppress(HostFailure, ValueError), self.errors():  # ValueError: cut-off JSON
                async for event in self._events(client, since):
                    since = max(since, event.get("time", 0) - 1)
                    channel = self._channels.get(event.get("Actor", {}).get("ID", ""))
                    if channel is not None:
                        channel.notice(event.get("Action", ""))
            await asyncio.sleep(WATCH_RETRY_S)

    async def _events(self, client: aiodocker.Docker, since: float) -> AsyncIterator[dict[str, Any]]:
        filters = {
            "label": [f"{LABEL}={self.owner}"],
            "event": ["oom", self.dialect.gone],
            "type": ["container"],
        }
        async with client.session.get(
            f"{client.docker_host}/{client.api_version}/events",
            params={"filters": json.dumps(filters), "since": f"{since:.9f}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_read=None),
        ) as response:
            async for line in response.content:
                yield json.loads(line)

    async def _sweep(self, client: aiodocker.Docker) -> None:
        """Remove, at intervals, containers that were left behind.

        Some were created and never started, because their host process died in between or the answer to the
        create call was lost. Others have ended while the engine was down. A container that runs is never
        removed here: it ends with its host process.
        """
        while True:
            for container in await self._labelled(client, LABEL, self.dialect.left):
                if container["State"] != "created" or time.time() - container["Created"] > STALE_S:
                    await self._delete(container)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def _labelled(
        self, client: aiodocker.Docker, label: str, states: Sequence[str]
    ) -> list[DockerContainer]:
        """Containers with that label, in one of those states if any are given; none if the call fails."""
        filters = json.dumps({"label": [label], "status": states})
        with contextlib.suppress(HostFailure), self.errors():
            async with asyncio.timeout(API_TIMEOUT_S):
                return list(await client.containers.list(all=True, filters=filters))
        return []

    async def _delete(self, container: DockerContainer) -> None:
        # An error is 404, it is gone already; or 409, the daemon is removing it.
        with contextlib.suppress(HostFailure), self.errors():
            async with asyncio.timeout(API_TIMEOUT_S):
                await container.delete(force=True)


def _runtime(info: Mapping[str, Any], runtime: str) -> Mapping[str, Any]:
    """The daemon's registration of a runtime."""
    if runtime not in info["Runtimes"]:
        raise EngineUnavailable(
            f"Docker has no runtime {quoted(runtime)}; it has {', '.join(sorted(info['Runtimes']))}\n"
            'Register it under "runtimes" in /etc/docker/daemon.json and reload Docker: docs/engines.md'
        )
    found: Mapping[str, Any] = info["Runtimes"][runtime]
    return found


def is_podman(version: Mapping[str, Any]) -> bool:
    """Whether an answer to the version call is Podman's."""
    return any(part.get("Name") == "Podman Engine" for part in version.get("Components") or ())


class DockerChannel:
    """See ``Channel``: a container and its attach stream."""

    def __init__(self, engine: DockerEngine, container: DockerContainer) -> None:
        self._engine = engine
        self._container = container
        self._stream: Stream = container.attach(stdin=True, stdout=True, stderr=False)
        self._starting: asyncio.Task[None] | None = None
        self._oom = asyncio.Event()
        self._watch: OomWatch | None = None
        self._gone = asyncio.Event()
        self._heard = False
        self._ended = False
        self._destroying: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The container's id."""
        return str(self._container.id)

    def notice(self, action: str) -> None:
        """Handle an event of this container."""
        if action == "oom":
            self._oom.set()
        elif action == self._engine.dialect.gone:
            self._gone.set()

    async def open(self) -> None:
        """Attach, and start without waiting: init reads what is written from now on."""
        with self._engine.errors():
            async with asyncio.timeout(API_TIMEOUT_S):
                await self._stream.__aenter__()
        self._starting = asyncio.get_running_loop().create_task(self._start())
        # read() raises its error if that matters; this only marks the error as retrieved.
        self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _start(self) -> None:
        with self._engine.errors():
            async with asyncio.timeout(API_TIMEOUT_S):
                await self._container.start()

    def watch(self, pid: int) -> None:
        """Have the kernel report out-of-memory kills from now on, in addition to the daemon.

        Args:
            pid: a process of the container, as numbered on this machine.

        Raises:
            EngineError: it is not on this machine, or has ended.
        """
        self._watch = OomWatch(pid, lambda: self.notice("oom"))

    async def inspect(self) -> Mapping[str, Any]:
        """The daemon's description of the container, once it has started it."""
        if self._starting is not None:
            await asyncio.shield(self._starting)
        with self._engine.errors():
            async with asyncio.timeout(API_TIMEOUT_S):
                return await self._container.show()

    async def read(self) -> bytes:
        """See ``Channel.read``."""
        with self._engine.errors():
            if self._heard or self._starting is None:
                message = await self._stream.read_out()
            else:
                message = await self._read_first(self._starting)
        self._heard = True
        self._ended = message is None
        return b"" if message is None else message.data

    async def _read_first(self, starting: asyncio.Task[None]) -> Message | None:
        """The first output; init often sends it before the daemon answers the start call.

        If the start fails, there is no output, and the start call's error is raised.
        """
        reading = asyncio.ensure_future(self._stream.read_out())
        try:
            await asyncio.wait({reading, starting}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                starting.result()
            return await reading
        finally:
            reading.cancel()

    async def write(self, data: bytes) -> None:
        """See ``Channel.write``."""
        with contextlib.suppress(OSError, RuntimeError, AssertionError, aiohttp.ClientError):
            await self._stream.write_in(data)

    async def oom_event(self, wait_s: float) -> bool:
        """See ``Channel.oom_event``."""
        if wait_s > 0 and self._destroying is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._oom.wait(), wait_s)
        return self._oom.is_set()

    async def destroy(self, *, ended: bool = False) -> None:
        """See ``Channel.destroy``. Once begun it goes on, even if the caller is cancelled."""
        if self._destroying is None:
            self._destroying = self._engine.in_background(self._destroy(ended or self._ended))
        await asyncio.shield(self._destroying)

    async def _destroy(self, ended: bool) -> None:
        with contextlib.suppress(OSError, AssertionError, aiohttp.ClientError):
            await self._stream.close()
        if ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), REMOVAL_GRACE_S)
        if not self._gone.is_set():
            await self._remove()
        if self._watch is not None:
            self._watch.close()
        self._engine.forget(self)

    async def _remove(self) -> None:
        if self._starting is not None:
            await asyncio.wait({self._starting})
        try:
            with self._engine.errors():
                async with asyncio.timeout(API_TIMEOUT_S):
                    await self._container.delete(force=True)
        except EngineError:  # 404: gone already; 409: the daemon is removing it
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), REMOVAL_GRACE_S)
        except HostFailure:
            pass  # the engine does not answer; the container ends when its attach stream closes
