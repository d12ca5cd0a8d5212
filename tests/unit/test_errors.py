"""Exceptions: two families, and the exit code and HTTP status of each class."""

from __future__ import annotations

import pytest

from codeforge import errors
from codeforge.errors import CodeForgeError, HostFailure, InvalidRequest

CLASSES: list[type[CodeForgeError]] = [
    c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, CodeForgeError)
]
CODES = {
    "CodeForgeError": (70, 500),
    "CannotFork": (2, 409),
    "FileError": (2, 409),
    "SessionEnded": (2, 410),
    "InvalidRequest": (2, 422),
    "UnknownLanguage": (2, 422),
    "Unsupported": (2, 422),
    "HostFailure": (70, 500),
    "EngineUnavailable": (69, 503),
    "EnginePermissionDenied": (77, 503),
    "EngineError": (70, 500),
    "ImageNotFound": (66, 503),
    "EnvironmentNotFound": (66, 503),
    "ImagePullTimeout": (75, 504),
    "ImageBuildFailed": (70, 500),
    "PostureMismatch": (70, 500),
    "SandboxLost": (70, 500),
    "ProtocolViolation": (70, 500),
    "Busy": (75, 429),
    "ExecutorClosed": (70, 500),
}


def test_every_class_has_its_exit_code_and_http_status() -> None:
    assert {c.__name__: (c.exit_code, c.http_status) for c in CLASSES} == CODES


@pytest.mark.parametrize("error", CLASSES, ids=lambda c: c.__name__)
def test_an_exception_belongs_to_exactly_one_family(error: type[CodeForgeError]) -> None:
    families = [family for family in (InvalidRequest, HostFailure) if issubclass(error, family)]
    assert len(families) == (0 if error is CodeForgeError else 1)


@pytest.mark.parametrize("error", CLASSES, ids=lambda c: c.__name__)
def test_no_exit_code_of_ours_looks_like_a_programs_signal(error: type[CodeForgeError]) -> None:
    assert 2 <= error.exit_code < 126


def test_an_invalid_request_can_be_caught_as_a_value_error() -> None:
    with pytest.raises(ValueError, match="why"):
        raise InvalidRequest("why")


def test_a_missing_permission_is_an_unavailable_engine() -> None:
    assert issubclass(errors.EnginePermissionDenied, errors.EngineUnavailable)


def test_a_file_error_is_an_invalid_request_and_an_oserror() -> None:
    error = errors.FileError(20, "it is no directory", "a/b")
    assert (error.errno, error.strerror, error.filename) == (20, "it is no directory", "a/b")
    assert isinstance(error, errors.InvalidRequest)
    assert str(error) == "[Errno 20] it is no directory: 'a/b'"
