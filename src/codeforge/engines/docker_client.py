"""A connection to an engine of Docker's API: how to get one, and what its failures mean to callers."""

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
    """What an engine says in its own way.

    Attributes:
        name: of the engine, as its makers write it.
        not_available: the message where none answers.
        permission_denied: the message where this user may not talk to it.
        no_image: what is in its answer where the image is not there, in small letters.
        gone: its event of a container that is no more.
        left: its states of containers that were not started, or have ended.
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
def docker_errors(dialect: Dialect = DOCKER) -> Iterator[None]:
    """Turn what aiodocker raises into this package's exceptions."""
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


def connect(docker_host: str | None, dialect: Dialect = DOCKER) -> aiodocker.Docker:
    """A client for ``docker_host``, or for what DOCKER_HOST, the docker context or the default socket say.

    Raises:
        EngineUnavailable: none of them names an engine.
    """
    try:
        client = aiodocker.Docker(docker_host)
    except (AssertionError, ValueError) as error:  # it asserts where it finds no socket at all
        raise EngineUnavailable(dialect.not_available) from error
    return client


async def connect_unbounded(docker_host: str | None, dialect: Dialect = DOCKER) -> aiodocker.Docker:
    """The same, without aiohttp's bound of 100 connections where the engine is on this machine.

    A sandbox holds one connection for as long as it lives; how many there are is the pool's business.
    """
    client = connect(docker_host, dialect)
    if not isinstance(client.connector, aiohttp.UnixConnector):
        return client
    path = client.connector.path
    await client.close()
    session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path, limit=0))
    # With a connector given, the address only has to be a URL.
    return aiodocker.Docker("unix://localhost", connector=session.connector, session=session)


async def disconnect(client: aiodocker.Docker) -> None:
    """Close it, and the session that ``connect_unbounded`` may have given it."""
    await client.close()
    await client.session.close()
