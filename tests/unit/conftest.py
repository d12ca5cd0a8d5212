"""What the tests of init run with: a world, the binaries, a Python that sandboxes may start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from init_harness import PATH, CannotIsolate, PythonProgram, Starter, World, make, open_world


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    try:
        with open_world() as opened:
            yield opened
    except CannotIsolate as reason:
        if os.environ.get("CODEFORGE_TEST_ENGINE") == "none":
            pytest.skip(str(reason))
        pytest.fail(f"{reason}; CODEFORGE_TEST_ENGINE=none leaves these tests out")


@pytest.fixture(scope="session")
def binaries(world: World) -> Mapping[str, Path]:
    with ThreadPoolExecutor(2) as builders:
        list(builders.map(lambda goals: make(world.dir, *goals), ([], ["check"])))
    return {"static": world.dir / "init", "sanitized": world.dir / "init-asan"}


@pytest.fixture(params=["static", "sanitized"])
def start(request: pytest.FixtureRequest, world: World, binaries: Mapping[str, Path]) -> Starter:
    return Starter(world, binaries[request.param])


@pytest.fixture
def start_static(world: World, binaries: Mapping[str, Path]) -> Starter:
    return Starter(world, binaries["static"])


@pytest.fixture(scope="session")
def python() -> str:
    """A Python that another user may start, too: one under /root would not do."""
    found = shutil.which("python3", path=PATH)
    assert found, "needs a python3 in the system's PATH"
    return found


@pytest.fixture(scope="session")
def py(python: str) -> PythonProgram:
    return PythonProgram(python)
