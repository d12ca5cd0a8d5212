"""Control groups: which files get which values, and that groups are removed; version 1 on the kernel's."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from codeforge.engines import cgroups
from codeforge.engines.cgroups import CgroupTree, find_tree
from codeforge.errors import EngineError
from codeforge.model.languages import PYTHON
from codeforge.model.limits import Limits, MiB
from observer import UNIT_TEST_GROUP

LIMITS = Limits(memory_bytes=64 * MiB, cpu_quota_us=20_000).of_sandbox(PYTHON)
FOUND = find_tree()


def read_all(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in sorted(folder.iterdir()) if path.is_file()}


def test_version_2_has_all_in_one_folder(tmp_path: Path) -> None:
    """In an ordinary folder the writes make the files; in a real tree they exist before."""
    tree = CgroupTree(2, dict.fromkeys(("memory", "cpu", "pids"), tmp_path))
    group = tree.make("one", LIMITS)
    assert read_all(tmp_path / "one") == {
        "memory.max": str(64 * MiB),
        "memory.swap.max": "0",
        "cpu.max": "20000 100000",
        "cpu.weight": "5",
        "pids.max": "64",
    }
    assert group.mounts == ((str(tmp_path / "one"), "/sys/fs/cgroup"),)
    group.add(123)
    assert (tmp_path / "one/cgroup.procs").read_text() == "123"
    assert group.oom_kills() == 0
    (tmp_path / "one/memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert group.oom_kills() == 2


def test_version_1_has_a_folder_in_each_tree(tmp_path: Path) -> None:
    roots = {name: tmp_path / name for name in ("memory", "cpu", "pids")}
    for root in roots.values():
        root.mkdir()
    group = CgroupTree(1, roots).make("one", LIMITS)
    assert {name: read_all(root / "one") for name, root in roots.items()} == {
        "memory": {
            "memory.limit_in_bytes": str(64 * MiB),
            "memory.memsw.limit_in_bytes": str(64 * MiB),
        },
        "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "20000", "cpu.shares": "128"},
        "pids": {"pids.max": "64"},
    }
    assert set(group.mounts) == {
        (str(root / "one"), f"/sys/fs/cgroup/{name}") for name, root in roots.items()
    }


def test_controllers_that_share_a_tree_share_a_folder(tmp_path: Path) -> None:
    group = CgroupTree(1, dict.fromkeys(("memory", "cpu", "pids"), tmp_path)).make("one", LIMITS)
    assert group.folders == (tmp_path / "one",)


def test_a_limit_that_the_kernel_refuses_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    tree = CgroupTree(2, dict.fromkeys(("memory", "cpu", "pids"), tmp_path / "not there"))
    with pytest.raises(EngineError, match="cannot make a control group"):
        tree.make("one", LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_removes_old_empty_groups(tmp_path: Path) -> None:
    tree = CgroupTree(2, dict.fromkeys(("memory", "cpu", "pids"), tmp_path))
    for name in ("old", "new", "in use"):
        (tmp_path / name).mkdir()
    (tmp_path / "in use" / "process").touch()
    past = time.time() - cgroups.STALE_S - 1
    for name in ("old", "in use"):
        os.utime(tmp_path / name, (past, past))
    tree.sweep()
    assert {path.name for path in tmp_path.iterdir()} == {"new", "in use"}


# --- For real -----------------------------------------------------------------------------------------


@pytest.mark.skipif(isinstance(FOUND, str), reason=f"no control groups here: {FOUND}")
def test_a_process_is_limited_counted_and_its_group_removed() -> None:
    assert isinstance(FOUND, CgroupTree)
    group = FOUND.make(f"{UNIT_TEST_GROUP}{uuid.uuid4().hex}", LIMITS)
    hog = "input(); x = [bytearray(1 << 20) for _ in range(300)]"
    with subprocess.Popen(
        ["python3", "-c", hog], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        group.add(process.pid)
        assert not group.remove()
        process.communicate(b"\n")
    assert process.returncode == -9
    assert group.oom_kills() == 1
    assert group.remove()
    assert group.oom_kills() == 0
    assert not any(folder.exists() for folder in group.folders)


@pytest.mark.skipif(isinstance(FOUND, str), reason=f"no control groups here: {FOUND}")
def test_a_process_that_is_gone_cannot_be_moved_into_a_group() -> None:
    assert isinstance(FOUND, CgroupTree)
    group = FOUND.make(f"{UNIT_TEST_GROUP}{uuid.uuid4().hex}", LIMITS)
    with subprocess.Popen(["true"]) as process:
        process.wait()
        with pytest.raises(EngineError, match=r"cgroup\.procs"):
            group.add(process.pid)
    assert group.remove()
