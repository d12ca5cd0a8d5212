"""What can go wrong outside a program: two families, and each class knows its exit code and HTTP status.

A *program* that fails is never an exception: it is an ``ExecutionResult``. What raises is either the
caller's mistake (``InvalidRequest``) or the host's failure (``HostFailure``).
"""

from __future__ import annotations


def quoted(value: object) -> str:
    """A caller's value as a message shows it: never long, and never an error of its own."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more digits than Python writes out
        text = f"that {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


class CodeForgeError(Exception):
    """Base of everything this package raises on purpose.

    Attributes:
        exit_code: what ``codeforge`` exits with (sysexits.h where one fits).
        http_status: what a server would answer.
    """

    exit_code = 70
    http_status = 500


class InvalidRequest(CodeForgeError, ValueError):
    """The caller asked for something that cannot be; nothing was started."""

    exit_code = 2
    http_status = 422


class UnknownLanguage(InvalidRequest):
    """No language of that name is configured."""


class Unsupported(InvalidRequest):
    """The engine cannot do what was asked for; another one can."""


class HostFailure(CodeForgeError):
    """The host, the engine or the sandbox failed; says nothing about the program."""


class EngineUnavailable(HostFailure):
    """No container engine answers."""

    exit_code = 69
    http_status = 503


class EnginePermissionDenied(EngineUnavailable):
    """An engine is there, and this user may not talk to it."""

    exit_code = 77


class EngineError(HostFailure):
    """The engine answered with an error, or not in time."""


class ImageNotFound(HostFailure):
    """The language's image is not on this machine."""

    exit_code = 66
    http_status = 503


class EnvironmentNotFound(ImageNotFound):
    """The language's environment, which is what stands in for an image, is not on this machine."""


class ImagePullTimeout(HostFailure):
    """A registry did not deliver an image in time."""

    exit_code = 75
    http_status = 504


class ImageBuildFailed(HostFailure):
    """An image could not be built; the message ends with the build's last lines."""


class PostureMismatch(HostFailure):
    """A sandbox came up weaker than was asked for; no code was run in it."""


class SandboxLost(HostFailure):
    """A sandbox broke off: its init died, or the engine did. Nobody knows how the program fared."""


class ProtocolViolation(HostFailure):
    """Bytes came out of a sandbox that its init cannot have sent."""


class Busy(HostFailure):
    """As many requests are waiting for a sandbox as may; nothing was started. Try again later."""

    exit_code = 75
    http_status = 429


class ExecutorClosed(HostFailure):
    """The executor was closed before or while this request ran."""


class SessionEnded(InvalidRequest):
    """The session has no interpreter any more: it was closed, or a cell ended it."""

    http_status = 410


class CannotFork(InvalidRequest):
    """The session holds something that a copy could not have; the message says what."""

    http_status = 409


class FileError(OSError, InvalidRequest):
    """A file of a session's cannot be read, written, listed or removed.

    Attributes:
        errno, strerror, filename: as every ``OSError`` has them.
    """

    http_status = 409

    def __init__(self, number: int, why: str, path: str) -> None:
        OSError.__init__(self, number, why, path)  # which is not the next in line

    __str__ = OSError.__str__
