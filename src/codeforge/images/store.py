"""The images of an engine: find, pull and build them.

Theory of operation: a language's image is a reference. If a registry has it, it is pulled. Otherwise, if
the product has a Dockerfile for it, it is built. The base images are pulled, or, where no registry answers,
made from Debian packages by a script (docker/offline/make-base-images.sh).
"""

from __future__ import annotations

import asyncio
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aiodocker.exceptions import DockerError

from codeforge._version import __version__
from codeforge.errors import (
    EngineError,
    EngineUnavailable,
    HostFailure,
    ImageBuildFailed,
    ImageNotFound,
    ImagePullTimeout,
    InvalidRequest,
)
from codeforge.images import build_context
from codeforge.model import Language
from codeforge.package_data import path_of
from codeforge.programs import LOG_TAIL_LINES, run_program
from codeforge.progress import OnStep, Step, silently

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from aiodocker import Docker

T = TypeVar("T")

PULL_STALL_S = 60.0
"""A pull without any progress for this long has failed; a slow one has not."""

BUILD_STALL_S = 900.0
"""The same for a build, whose steps may compile in silence."""

OFFLINE_BASES = ("python:3.11-slim", "node:18-slim")
STAND_IN_LABEL = "ai-codeforge.stand-in"
"""The images that docker/offline/make-base-images.sh can make, and the label that it gives them."""

_EXTRA_PACKAGE = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._/@^~<>=!,\[\]*-]*", re.ASCII)
_REFERENCE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:@-]*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image on this machine.

    Attributes:
        reference: what it was asked for by.
        id: its digest.
        size: bytes, as ``docker image ls`` counts them.
        created: a timestamp, as the engine writes it.
        user: the user that it runs as by default.
        labels: the image's labels.
    """

    reference: str
    id: str
    size: int
    created: str
    user: str
    labels: Mapping[str, str]


class Daemon(Protocol):
    """The engine that keeps the images."""

    async def client(self) -> Docker:
        """The connected client."""

    def errors(self) -> AbstractContextManager[None]:
        """Turns what the client raises into this package's exceptions."""


class ImageStore:
    """The images of one engine."""

    kind = "image"

    def __init__(self, engine: Daemon) -> None:
        self._engine = engine

    async def status(self, language: Language) -> tuple[bool, str]:
        """See ``Provisions.status``."""
        image = await self.find(language.image)
        if image is None:
            return False, f"{language.image} is not on this machine"
        return True, f"{language.image}, {image.size / 1e6:.0f} MB"

    async def find(self, reference: str) -> ImageInfo | None:
        """The image on this machine with that reference, if there is one."""
        client = await self._engine.client()
        try:
            found = await client.images.inspect(reference)
        except DockerError as error:
            if error.status == 404:
                return None
            raise EngineError(f"Docker: {error.message}") from error
        config = found.get("Config") or {}
        return ImageInfo(
            reference=reference,
            id=found["Id"],
            size=found["Size"],
            created=found["Created"],
            user=config.get("User", ""),
            labels=config.get("Labels") or {},
        )

    async def provide(self, language: Language, on_step: OnStep = silently) -> bool:
        """See ``Provisions.provide``: pulls or builds the language's image."""
        try:
            if _names_a_registry(language.image):
                await self.pull(language.image, on_step)
            elif await self.find(language.image) is None:
                await self._pull_or_build(language, on_step)
        except EngineUnavailable:
            raise
        except HostFailure as error:
            on_step(Step(language.image, str(error), failed=True))
            return await self.find(language.image) is not None
        return True

    async def _pull_or_build(self, language: Language, on_step: OnStep) -> None:
        try:
            await self.pull(language.image, on_step)
        except HostFailure:
            if language.dockerfile is None:
                raise
            await self.build(language, on_step)

    async def pull(self, reference: str, on_step: OnStep = silently) -> None:
        """Pull from the registry that the reference names, or from the engine's default one.

        Raises:
            ImagePullTimeout: the registry does not answer, or has stopped answering.
            ImageNotFound: it has no such image.
            EngineError: the engine refused.
        """
        client = await self._engine.client()
        layers: dict[str, tuple[int, int]] = {}
        try:
            with self._engine.errors():
                async for line in _unless_stalled(client.images.pull(reference, stream=True), PULL_STALL_S):
                    detail = line.get("progressDetail") or {}
                    if line.get("status") == "Downloading" and "total" in detail:
                        layers[line["id"]] = (detail["current"], detail["total"])
                    done, total = map(sum, zip(*layers.values(), strict=True)) if layers else (None, None)
                    on_step(Step(reference, line.get("status", ""), done, total))
        except _StalledError as error:
            raise _pull_timeout(reference) from error
        except EngineError as error:
            raise _pull_failure(reference, str(error)) from error

    async def build(
        self,
        language: Language,
        on_step: OnStep = silently,
        *,
        packages: Sequence[str] = (),
        tag: str | None = None,
        base: str | None = None,
        update: bool = False,
    ) -> str:
        """Build an image that has a Dockerfile here.

        Args:
            language: the language whose image it is.
            on_step: called with every step.
            packages: more packages, as pip or npm take them (``tabulate``, ``left-pad@1.3.0``).
            tag: the reference to give it; default: the language's image.
            base: a base image in place of the Dockerfile's default, such as one pinned by digest.
            update: pull the base image again, and build without the cache.

        Returns:
            its reference.

        Raises:
            InvalidRequest: the language has no Dockerfile here, or a package or tag is not a valid name.
            ImageBuildFailed: with the end of the build's log.
        """
        if language.dockerfile is None:
            raise InvalidRequest(f"no Dockerfile here builds {language.image}: pull it, or build it yourself")
        if isinstance(packages, str | bytes):
            raise InvalidRequest(f"packages must be a list of names, not {type(packages).__name__}")
        for package in packages:
            if not isinstance(package, str) or not _EXTRA_PACKAGE.fullmatch(package):
                raise InvalidRequest(f"{package!r} is not a package's name")
        tag = _full_reference(language, tag)
        base_argument, default_base = build_context.base_image(language.dockerfile)
        await self._provide_base(base or default_base, on_step, update=update)
        arguments = {"VERSION": __version__, base_argument: base or default_base}
        if packages:
            arguments["EXTRA_PACKAGES"] = " ".join(packages)
        client = await self._engine.client()
        with tempfile.TemporaryFile() as context:
            build_context.write(context)
            context.seek(0)
            lines = client.images.build(
                fileobj=context,
                encoding="identity",
                path_dockerfile=language.dockerfile,
                tag=tag,
                nocache=update,
                forcerm=True,
                buildargs=arguments,
                stream=True,
            )
            await _follow_build(lines, tag, on_step)
        return tag

    async def _provide_base(self, base: str, on_step: OnStep, *, update: bool) -> None:
        here = await self.find(base)
        if here is not None and not update:
            made = " (made from Debian packages)" if STAND_IN_LABEL in here.labels else ""
            on_step(Step(base, f"base image, already on this machine{made}"))
            return
        try:
            await self.pull(base, on_step)
            on_step(Step(base, "base image, pulled from its registry"))
        except HostFailure as error:
            if base not in OFFLINE_BASES:
                raise
            if here is None or STAND_IN_LABEL in here.labels:
                why = str(error).splitlines()[0]
                on_step(Step(base, f"no registry ({why}); making it from Debian packages"))
                await _make_offline_base(base, on_step, force=update)

    async def export(self, reference: str) -> AsyncIterator[bytes]:
        """The image as ``docker save`` writes it."""
        client = await self._engine.client()
        with self._engine.errors():
            async with client.images.export_image(reference) as content:
                async for chunk in content.iter_chunked(1 << 20):
                    yield chunk


def _names_a_registry(reference: str) -> bool:
    first, slash, _ = reference.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def _full_reference(language: Language, tag: str | None) -> str:
    """The reference for a tag: ``custom`` is a tag of the language's image, ``name:tag`` is complete."""
    if tag is None:
        return language.image
    if _TAG.fullmatch(tag):
        name, colon, last = language.image.rpartition(":")
        return f"{name if colon and '/' not in last else language.image}:{tag}"
    if not _REFERENCE.fullmatch(tag):
        raise InvalidRequest(f"{tag!r} is not an image tag")
    return tag


# Daemons pass on the registry's message without a code; these words show what it means.
_NOT_THERE = ("not found", "manifest unknown", "access denied", "does not exist")
_OUT_OF_REACH = ("timeout", "deadline exceeded", "no such host", "connection refused", "lookup ")


class _StalledError(Exception):
    """A pull or a build was silent for too long."""


async def _unless_stalled(lines: AsyncIterator[T], limit_s: float) -> AsyncIterator[T]:
    """Pass lines on; raises ``_StalledError`` if the next takes longer than ``limit_s``."""
    while True:
        try:
            async with asyncio.timeout(limit_s):
                line = await anext(lines)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise _StalledError from error
        yield line


def _pull_timeout(reference: str) -> ImagePullTimeout:
    return ImagePullTimeout(
        f"timeout pulling image\nNo registry delivered {reference} in time: "
        "check the internet connection, and whether the registry (Docker Hub) is up"
    )


def _pull_failure(reference: str, message: str) -> HostFailure:
    text = message.lower()
    if any(sign in text for sign in _NOT_THERE):
        return ImageNotFound(f"no registry has {reference}: {message}")
    if any(sign in text for sign in _OUT_OF_REACH):
        return _pull_timeout(reference)
    return EngineError(f"cannot pull {reference}: {message}")


async def _follow_build(lines: AsyncIterator[dict[str, Any]], tag: str, on_step: OnStep) -> None:
    log: list[str] = []
    step: tuple[int | None, int | None] = (None, None)
    try:
        async for line in _unless_stalled(lines, BUILD_STALL_S):
            text = line.get("stream", "").rstrip()
            if not text:
                continue
            log = [*log[-LOG_TAIL_LINES:], text]
            match = re.match(r"Step (\d+)/(\d+) : (.*)", text)
            step = (int(match[1]), int(match[2])) if match else step
            on_step(Step(tag, match[3] if match else text.splitlines()[-1], *step))
    except DockerError as error:
        raise ImageBuildFailed("\n".join([f"building {tag} failed: {error.message}", *log])) from error
    except _StalledError as error:
        raise ImageBuildFailed(f"building {tag}: the engine wrote nothing for {BUILD_STALL_S:g} s") from error


async def _make_offline_base(base: str, on_step: OnStep, *, force: bool) -> None:
    try:
        status, log = await run_program(
            "bash",
            path_of("docker/offline/make-base-images.sh"),
            base.partition(":")[0],
            on_line=lambda line: on_step(Step(base, line)),
            env={"FORCE": "1" if force else ""},
            end_with=signal.SIGTERM,  # it removes what it has made so far
        )
    except OSError as error:
        raise ImageBuildFailed(f"cannot make the base image {base}:\n{error}") from error
    if status != 0:
        raise ImageBuildFailed("\n".join([f"cannot make the base image {base}:", *log]))
