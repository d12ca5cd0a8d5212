"""Fixtures for tests that need a real engine, and the choice of tests for the one there is.

``CODEFORGE_ENGINE`` says which; Docker if it says nothing. What is about other engines is not run, and
counted at the end. Tests of an engine are required; only ``CODEFORGE_TEST_ENGINE=none``, which ``make test``
sets on a machine that cannot run one, leaves them out, and says so at the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from codeforge import LANGUAGES
from codeforge.blocking.executor import BlockingCodeExecutor
from contract.podman_service import podman_service
from contract.support import SHARED
from fuzzing import LONG
from observer import UNDER_TEST
from scripted_engine import KNOWN_TOKEN

# Examples take as long as they take: a loaded machine is no defect. They are the same each time, so that what
# fails is the change's; a long run makes up new ones.
settings.register_profile("codeforge", deadline=None, derandomize=not LONG)
settings.load_profile("codeforge")

NO_ENGINE = os.environ.get("CODEFORGE_TEST_ENGINE") == "none"

SERVICES = contextlib.ExitStack()

OTHERS = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """What tests say of themselves; and Ctrl-C works, also where a shell started them in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "engine(*names): runs programs on the engine under test; with names, is about those engines alone",
    )
    config.addinivalue_line(
        "markers",
        "core: every language and every outcome, and what an engine is for: all there is time for on gVisor",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have a service of Podman's, with the images, where that is the engine and nobody says which."""
    if UNDER_TEST == "podman" and "CONTAINER_HOST" not in os.environ and not NO_ENGINE:
        service = SERVICES.enter_context(podman_service())
        service.load(row.image for row in LANGUAGES)
        os.environ["CONTAINER_HOST"] = service.address


@pytest.fixture(scope="module")
def known_token() -> Iterator[None]:
    """Has every GO say ``KNOWN_TOKEN``, so that a test can play an init from a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codeforge.sandboxes.sandbox.new_token", lambda: KNOWN_TOKEN)
        yield


def pytest_sessionfinish() -> None:
    """Let go of it."""
    SERVICES.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about another engine and, without one, what needs one."""
    others = [item for item in items if not _is_for_this_engine(item)]
    items[:] = [item for item in items if item not in set(others)]
    config.hook.pytest_deselected(items=others)
    config.stash[OTHERS] = len(others)
    if NO_ENGINE:
        reason = pytest.mark.skip(reason="needs an engine, and none can run on this machine")
        for item in items:
            if item.get_closest_marker("engine") or item.get_closest_marker("docker"):
                item.add_marker(reason)


def _is_for_this_engine(item: pytest.Item) -> bool:
    return all(not mark.args or UNDER_TEST in mark.args for mark in item.iter_markers("engine"))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Which engine this was about, and how much was about another."""
    if others := config.stash.get(OTHERS, 0):
        terminalreporter.write_line(
            f"engine: {UNDER_TEST}; {others} tests are about other engines, and were not run"
        )


@pytest.fixture(scope="session")
def executor() -> Iterator[BlockingCodeExecutor]:
    """The executor as users get it, with its defaults."""
    with BlockingCodeExecutor() as shared:
        SHARED.append(shared)
        yield shared
