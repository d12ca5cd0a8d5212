"""A second daemon for all tests of this folder, and what must hold after each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from codeforge.model.languages import LANGUAGES
from contract.support import eventually
from faults.second_daemon import SecondDaemon

WITHIN_S = 10.0
REQUIRED = os.environ.get("CODEFORGE_TEST_ENGINE") == "required"


@pytest.fixture(scope="session")
def _second_daemon() -> Iterator[SecondDaemon]:
    if os.geteuid() != 0:
        _not_here("a daemon of the tests' own needs root")
    try:
        daemon = SecondDaemon()
    except OSError as error:
        _not_here(str(error))
    try:
        daemon.start()
        daemon.load(LANGUAGES[0].image)
        yield daemon
    finally:
        daemon.end()


def _not_here(reason: str) -> NoReturn:
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def daemon(_second_daemon: SecondDaemon) -> Iterator[SecondDaemon]:
    """A daemon that a test may harm; afterwards no sandbox may be left on it."""
    _second_daemon.restore()
    yield _second_daemon
    _second_daemon.restore()
    assert eventually(lambda: not _second_daemon.sandboxes(), WITHIN_S), (
        f"{_second_daemon.docker('ps', '--all')}\n{_second_daemon.log[-10_000:]}"
    )
    assert eventually(lambda: not _second_daemon.cgroups(), WITHIN_S), _second_daemon.cgroups()
