"""Fixtures for tests that need a real engine.

Docker tests are required wherever an engine is to be had; only ``CODEFORGE_TEST_ENGINE=none``, which
``make test`` sets on a machine that cannot run one, leaves them out, and says so at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from codeforge import DockerCodeExecutor
from codeforge.policy import LABEL
from contract.support import SHARED

# Examples take as long as they take: a loaded machine is no defect.
settings.register_profile("codeforge", deadline=None)
settings.load_profile("codeforge")

NO_ENGINE = os.environ.get("CODEFORGE_TEST_ENGINE") == "none"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without an engine, leave out what needs one."""
    if NO_ENGINE:
        reason = pytest.mark.skip(reason="needs a Docker engine, and none can run on this machine")
        for item in items:
            if item.get_closest_marker("docker"):
                item.add_marker(reason)


@pytest.fixture(scope="session")
def executor() -> Iterator[DockerCodeExecutor]:
    """The executor as users get it, with its defaults."""
    with DockerCodeExecutor() as shared:
        SHARED.add(f"{LABEL}={shared._executor.owner}")
        yield shared
