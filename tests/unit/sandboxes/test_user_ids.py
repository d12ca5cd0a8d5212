"""User ids: no two sandboxes have the same one, in any executor; and running out of them is an error."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import uuid
from contextlib import closing

import pytest

from codeforge.errors import EngineError
from codeforge.policy import USER_IDS
from codeforge.sandboxes import user_ids
from codeforge.sandboxes.user_ids import BLOCK, UserIds


@pytest.fixture(autouse=True)
def claim(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name of this test's own, because other executors on this machine need their ids."""
    name = f"codeforge-test-{uuid.uuid4()}"
    monkeypatch.setattr(user_ids, "CLAIM", name)
    return name


def test_two_executors_share_no_user_id() -> None:
    with closing(UserIds()) as one, closing(UserIds()) as other:
        taken = [ids.take() for _ in range(BLOCK + 1) for ids in (one, other)]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(USER_IDS)


def test_a_returned_id_is_reused_last() -> None:
    with closing(UserIds()) as ids:
        first = ids.take()
        ids.give_back(first)
        assert first not in [ids.take() for _ in range(BLOCK - 1)]
        assert ids.take() == first


def test_when_all_ids_are_taken_the_next_is_an_error_until_an_executor_closes() -> None:
    with closing(UserIds()) as greedy, closing(UserIds()) as other:
        for _ in USER_IDS:
            greedy.take()
        with pytest.raises(EngineError, match=f"all {len(USER_IDS)} user ids"):
            greedy.take()
        with pytest.raises(EngineError, match="close other executors"):
            other.take()
        greedy.close()
        assert other.take() in USER_IDS


def test_a_killed_process_gives_its_ids_back(claim: str) -> None:
    hold_all = "\n".join(
        (
            "from codeforge.sandboxes import user_ids",
            f"user_ids.CLAIM = {claim!r}",
            "ids = user_ids.UserIds()",
            "try:",
            "    while True: ids.take()",
            "except Exception: print('all', flush=True)",
            "input()",
        )
    )
    with (
        closing(UserIds()) as ids,
        subprocess.Popen([sys.executable, "-c", hold_all], stdin=-1, stdout=-1) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"all\n"
        with pytest.raises(EngineError, match="user ids"):
            ids.take()
        holder.kill()
        holder.wait()
        assert ids.take() in USER_IDS


def test_the_error_of_a_process_out_of_descriptors_says_so() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - it must not open a descriptor of its own
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(EngineError, match="Too many open files"):
            UserIds().take()
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
