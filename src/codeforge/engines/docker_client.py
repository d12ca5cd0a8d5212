"""Connections to an engine with Docker's API, and the translation of its errors."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from codeforge.errors import (
    EngineError,
    EnginePermissionDenied,
    EngineUnavailable,
    HostFailure,
    ImageNotFound,
)

API_TIMEOUT_S = 60.0
"""For one call; the slowest, start, takes a fraction of a second on an idle daemon."""

_CONNECTION_FAILED = 900  # aiodocker's own status for "no connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs between engines that have Docker's API.

    Attributes:
        name: the engine's name, as its makers write it.
        not_available: the error text if it does not answer.
        permission_denied: the error text if this user may not use it.
        no_image: part of its own error text for a missing image, in lower case.
        gone: its event for a container that was removed.
        left: its states of containers that were never started, or have ended.
    """

    name: str
    not_available: str
    permission_denied: str
    no_image: str
    gone: str
    left: tuple[str, ...]


DOCKER = Dialect(
    name="Docker",
    not_available="Docker is not available. Install Docker to use sandboxed execution.",
    permission_denied=(
        "permission denied while trying to connect to the Docker daemon socket\n"
        "Add your user to the docker group, then log out and back in: sudo usermod -aG docker $USER"
    ),
    no_image="no such image",
    gone="destroy",
    left=("created", "exited", "dead"),
)


@contextlib.contextmanager
def docker_errors(dialect: Dialect) -> Iterator[None]:
    """Turn aiodocker's exceptions into this package's own."""
    try:
        yield
    except DockerError as error:
        raise _translate(error, dialect) from error
    except TimeoutError as error:
        raise EngineError(f"{dialect.name} did not answer within {API_TIMEOUT_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise _connection_failure(error, dialect) from error


def _translate(error: DockerError, dialect: Dialect) -> HostFailure:
    if error.status == _CONNECTION_FAILED:
        return _connection_failure(error.__context__, dialect)
    if dialect.no_image in error.message.lower():
        return ImageNotFound(f"{error.message}\nHave the images ready first: codeforge images pull")
    return EngineError(f"{dialect.name}: {error.message}")


def _connection_failure(error: BaseException | None, dialect: Dialect) -> HostFailure:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            return EnginePermissionDenied(dialect.permission_denied)
        error = error.__cause__ or error.__context__
    return EngineUnavailable(dialect.not_available)


async def connect(docker_host: str | None, dialect: Dialect) -> aiodocker.Docker:
    """A client for ``docker_host``, else for DOCKER_HOST, the docker context or the default socket.

    If the engine is on this machine, the client is without aiohttp's bound of 100 connections: a sandbox
    holds one connection as long as it exists, and the pool bounds how many sandboxes there are.

    Raises:
        EngineUnavailable: there is no address at all.
    """
    try:
        client = aiodocker.Docker(docker_host)
    except (AssertionError, ValueError) as error:  # aiodocker asserts that there is a socket
        raise EngineUnavailable(dialect.not_available) from error
    if not isinstance(client.connector, aiohttp.UnixConnector):
        return client
    path = client.connector.path
    await client.close()
    session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path, limit=0))
    # The connector decides where to connect; the address only has to be a URL.
    return aiodocker.Docker("unix://localhost", connector=session.connector, session=session)


async def disconnect(client: aiodocker.Docker) -> None:
    """Close it, and the session that ``connect`` may have given it."""
    await client.close()
    await client.session.close()
