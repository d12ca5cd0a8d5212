"""Fixtures for tests that need a real engine, and the selection of tests for that engine.

``CODEFORGE_ENGINE`` names the engine under test; the default is Docker. Tests for other engines are
deselected, and the summary counts them. Tests that need an engine fail without one, unless
``CODEFORGE_TEST_ENGINE=none`` skips them; ``make test`` sets that on a machine that cannot run an engine.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from codeforge import LANGUAGES, BlockingCodeExecutor
from contract.podman_service import podman_service
from contract.support import shared_executor
from fuzzing import LONG
from observer import UNDER_TEST
from scripted_engine import KNOWN_TOKEN
from selection import TEST_ALL

# No deadline for an example: a busy machine is not a defect. Examples are the same on each run, so that a
# failure comes from the change under test; long runs (CODEFORGE_FUZZ=long) generate new ones.
settings.register_profile("codeforge", deadline=None, derandomize=not LONG)
settings.load_profile("codeforge")

NO_ENGINE = os.environ.get("CODEFORGE_TEST_ENGINE") == "none"

SERVICES = contextlib.ExitStack()

OTHERS = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and make Ctrl-C work even if a shell started pytest in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "engine(*names): runs programs on the engine under test; with names, applies to these engines only",
    )
    config.addinivalue_line(
        "markers",
        "core: each language, each outcome and each kind of isolation; gVisor and Podman run only these",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start a Podman service with our images if Podman is the engine and CONTAINER_HOST names none."""
    if UNDER_TEST == "podman" and "CONTAINER_HOST" not in os.environ and not NO_ENGINE:
        service = SERVICES.enter_context(podman_service())
        service.load(row.image for row in LANGUAGES)
        os.environ["CONTAINER_HOST"] = service.address


@pytest.fixture(scope="module")
def known_token() -> Iterator[None]:
    """Make every GO frame carry ``KNOWN_TOKEN``, so that a scripted init can answer it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codeforge.sandboxes.sandbox.new_token", lambda: KNOWN_TOKEN)
        yield


def pytest_sessionfinish() -> None:
    """Stop the Podman service."""
    SERVICES.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests for other engines; without an engine, skip the tests that need one."""
    others = [item for item in items if not _applies_here(item)]
    items[:] = [item for item in items if item not in set(others)]
    config.hook.pytest_deselected(items=others)
    config.stash[OTHERS] = len(others)
    if NO_ENGINE:
        reason = pytest.mark.skip(reason="needs an engine, and none can run on this machine")
        for item in items:
            if item.get_closest_marker("engine") or item.get_closest_marker("docker"):
                item.add_marker(reason)


def _applies_here(item: pytest.Item) -> bool:
    return all(not mark.args or UNDER_TEST in mark.args for mark in item.iter_markers("engine"))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Print the engine under test and how many tests were for other engines."""
    if others := config.stash.get(OTHERS, 0):
        terminalreporter.write_line(f"engine: {UNDER_TEST}; {others} tests for other engines were not run")


@pytest.fixture(scope="session")
def executor() -> Iterator[BlockingCodeExecutor]:
    """One executor, shared by many tests.

    Each run gets a fresh sandbox, because these tests do not need the refill and the preloading that a warm
    stock would do after each run. The hostile tests on bubblewrap, the comparison with plain Docker and the
    tests of the pool keep warm sandboxes, and ``make test-all`` does everywhere.
    """
    with shared_executor(warm=TEST_ALL) as shared:
        yield shared
