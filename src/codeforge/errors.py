"""Exceptions, in two families: the caller's mistakes and the host's failures.

A program that fails is not an exception: its failure is in the ``ExecutionResult``. A mistake of the caller
raises ``InvalidRequest``, a failure of the host raises ``HostFailure``. Each class has an exit code and an
HTTP status.
"""

from __future__ import annotations

from collections.abc import Iterable


def quoted(value: object) -> str:
    """Return the ``repr`` of a caller's value, cut to 200 characters, for an error text. Never raises."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int with more digits than Python prints
        text = f"that {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that ``word`` is most likely a misspelling of, if there is one."""
    import difflib  # only a mistake needs it

    found = difflib.get_close_matches(word[:100], known, n=1)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of an error text, which suggests the nearest known word; empty if none is near."""
    near = nearest(word, known)
    return "" if near is None else f". Did you mean {near!r}?"


class CodeForgeError(Exception):
    """Base class of every exception that this package raises on purpose.

    Attributes:
        exit_code: what ``codeforge`` exits with (from sysexits.h where one fits).
        http_status: what a server answers with.
    """

    exit_code = 70
    http_status = 500


class InvalidRequest(CodeForgeError, ValueError):
    """The request is not valid; nothing was started."""

    exit_code = 2
    http_status = 422


class UnknownLanguage(InvalidRequest):
    """No language of that name is configured."""


class Unsupported(InvalidRequest):
    """This engine does not support the request; another one does."""


class HostFailure(CodeForgeError):
    """The host, the engine or the sandbox failed; says nothing about the program."""


class EngineUnavailable(HostFailure):
    """No container engine answers."""

    exit_code = 69
    http_status = 503


class EnginePermissionDenied(EngineUnavailable):
    """An engine is running, but this user has no permission to use it."""

    exit_code = 77


class EngineError(HostFailure):
    """The engine reported an error, or did not answer in time."""


class ImageNotFound(HostFailure):
    """The language's image is not on this machine."""

    exit_code = 66
    http_status = 503


class EnvironmentNotFound(ImageNotFound):
    """The language's environment, bubblewrap's substitute for an image, is not on this machine."""


class ImagePullTimeout(HostFailure):
    """A registry did not deliver an image in time."""

    exit_code = 75
    http_status = 504


class ImageBuildFailed(HostFailure):
    """An image could not be built; the message ends with the build's last lines."""


class PostureMismatch(HostFailure):
    """A sandbox started with weaker isolation than requested; no code was run in it."""


class SandboxLost(HostFailure):
    """A sandbox was lost because its init or the engine died. How the program ended is unknown."""


class ProtocolViolation(HostFailure):
    """A sandbox sent bytes that its init cannot have sent."""


class Busy(HostFailure):
    """The queue for sandboxes is full, or there is no memory for another session. Try again later."""

    exit_code = 75
    http_status = 429


class ExecutorClosed(HostFailure):
    """The executor was closed before or during this request."""

    def __init__(self, message: str = "the executor was closed during the run") -> None:
        super().__init__(message)


class SessionEnded(InvalidRequest):
    """The session has no interpreter: it was closed, or a cell ended the interpreter."""

    http_status = 410


class CannotFork(InvalidRequest):
    """The session holds something that cannot be copied; the message says what."""

    http_status = 409


class FileError(OSError, InvalidRequest):
    """A file in a session cannot be read, written, listed or removed.

    Attributes:
        errno, strerror, filename: as in every ``OSError``.
    """

    http_status = 409

    def __init__(self, number: int, why: str, path: str) -> None:
        OSError.__init__(self, number, why, path)  # super() would call CodeForgeError

    __str__ = OSError.__str__
