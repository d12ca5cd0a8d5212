"""A program finds nothing of another run. test_probes.py has the search for secrets."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import pytest

from codeforge import BlockingCodeExecutor
from codeforge.audit.probe_runner import program
from contract.support import docker
from hostile.conftest import Batch, Watch, answer


@pytest.mark.catalogue("F10")
@pytest.mark.engine("docker")
def test_images_carry_no_secret_in_their_settings() -> None:
    for language in ("python", "javascript", "typescript"):
        image = f"ai-codeforge-{language}:latest"
        settings = docker("inspect", "--format", "{{json .Config.Env}}", image)
        history = docker("history", "--no-trunc", image)
        assert not re.search(
            r"(?i)(api_?key|token|secret|password|passwd|credential)\w*=", settings + history
        )


@pytest.mark.catalogue("F11")
def test_the_next_run_with_the_same_user_id_finds_nothing() -> None:
    mark = secrets.token_hex(16)
    with BlockingCodeExecutor(max_warm=0, max_sandboxes=1) as executor:
        first = executor.execute(**program("leftovers.py", "leave", mark))
        uid = answer(first)["uid"]
        seen, found = {first.container_id}, []
        for _ in range(100):
            result = executor.execute(**program("leftovers.py", "find", mark))
            reported = answer(result)
            found += reported["found"]
            assert result.container_id not in seen
            seen.add(result.container_id)
            if reported["uid"] == uid:
                break
        else:
            pytest.fail("no user id came twice")
    assert found == []


@pytest.mark.catalogue("F11")
def test_the_next_run_of_a_reused_sandbox_finds_nothing(run_in_turn: Batch) -> None:
    mark = secrets.token_hex(16)
    leave, find = (program("leftovers.py", what, mark) for what in ("leave", "find"))
    first, second = run_in_turn(leave, find)
    assert answer(first)["shared memory"] == answer(first)["key"] == "EPERM"
    assert answer(second)["found"] == []
    assert second.container_id == first.container_id


@pytest.mark.catalogue("F11")
def test_the_search_finds_what_a_run_leaves_while_it_lasts(executor: BlockingCodeExecutor) -> None:
    """The tests above can fail."""
    reported = answer(executor.execute(**program("leftovers.py", "both", secrets.token_hex(16)), timeout=90))
    folders = {"/tmp", "/code", "/dev/shm"}
    in_the_interpreter = {"builtins", "json", "environment", "umask"}
    elsewhere = {"abstract socket", "process", "port", "hidden folder"}
    assert folders | in_the_interpreter | elsewhere <= set(reported["found"])


@pytest.mark.catalogue("F11", "F12")
def test_two_runs_share_only_the_user_and_time_namespaces(watch: Watch) -> None:
    code = """
        names = os.listdir("/proc/self/ns")
        report({name: os.stat(f"/proc/self/ns/{name}").st_ino for name in names})
        input()
    """
    with watch(code) as one, watch(code) as other:
        assert one.container != other.container
        uids = [(seen.init / "status").read_text().partition("Uid:")[2].split()[0] for seen in (one, other)]
        ours = {entry.name: entry.stat().st_ino for entry in Path("/proc/self/ns").iterdir()}
    common = {name for name in one.reported if one.reported[name] == other.reported[name]}
    with_host = {name for name in one.reported if one.reported[name] == ours[name]}
    # Docker's sandboxes share the machine's user namespace; those of other engines have one each.
    assert common == with_host
    assert {"time", "time_for_children"} <= common <= {"user", "time", "time_for_children"}
    assert len(set(uids)) == 2
