"""Fixtures for the tests of init: a world, its builds, a Python that sandboxes may start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from init_harness import PATH, CannotIsolate, PythonProgram, Starter, World, open_world
from selection import TEST_ALL


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    try:
        with open_world() as opened:
            yield opened
    except CannotIsolate as reason:
        if os.environ.get("CODEFORGE_TEST_ENGINE") == "none":
            pytest.skip(str(reason))
        pytest.fail(f"{reason}; CODEFORGE_TEST_ENGINE=none leaves these tests out")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "both_builds: a test of init that runs with the static build as well as the sanitized one"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the static build of init where a test does not ask for it."""
    items[:] = [item for item in items if TEST_ALL or not _is_extra(item)]


def _is_extra(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    is_static = callspec is not None and callspec.params.get("start") == "static"
    return is_static and not item.get_closest_marker("both_builds")


@pytest.fixture(scope="session", params=["sanitized", "static"])
def start(request: pytest.FixtureRequest, world: World) -> Starter:
    """Starts init: one of its builds, compiled when the first test needs it."""
    return Starter(world, world.build(request.param))


@pytest.fixture(scope="session")
def python() -> str:
    """A Python that other users may run as well, which they could not in /root."""
    found = shutil.which("python3", path=PATH)
    assert found, "needs a python3 in the system's PATH"
    return found


@pytest.fixture(scope="session")
def py(python: str) -> PythonProgram:
    return PythonProgram(python)
