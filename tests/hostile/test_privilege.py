"""No program has a privilege. test_probes.py has the attempts to gain one."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from codeforge import LANGUAGES, Language
from contract.support import docker
from hostile.conftest import Attack, Watch

ZERO = "0" * 16


def status_of(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


"""EINVAL: in a user namespace with one id, there is no other user to become."""


@pytest.mark.catalogue("P01")
@pytest.mark.parametrize("row", LANGUAGES, ids=lambda row: row.name)
@pytest.mark.engine("docker")
def test_no_file_of_an_image_has_a_set_id_bit(row: Language) -> None:
    container = docker("create", row.image, "true").strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            with tarfile.open(fileobj=export.stdout, mode="r|") as files:
                members = [(member.name, member.mode) for member in files if member.isfile()]
    finally:
        docker("rm", container)
    assert len(members) > 1000
    assert [name for name, mode in members if mode & 0o6000] == []


@pytest.mark.catalogue("P02")
def test_no_process_has_a_capability_from_inside_or_outside(watch: Watch) -> None:
    code = """
        import threading
        threading.Thread(target=time.sleep, args=(0.0,)).start()
        child = os.fork()
        if child == 0:
            time.sleep(60)
        lines = open("/proc/self/status").read().splitlines()
        report(dict(line.split(":\\t", 1) for line in lines if line.startswith(("Cap", "NoNew", "Seccomp"))))
        input()
    """
    with watch(code) as seen:
        processes = seen.processes
        outside = [status_of(task) for process in processes for task in (process / "task").iterdir()]
    assert len(processes) == 3
    for status in (*outside, seen.reported):
        sets = {key: status[f"Cap{key}"] for key in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        assert sets == dict.fromkeys(sets, ZERO)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
    for status in outside:
        ids = set(status["Uid"].split()) | set(status["Gid"].split())
        assert all(int(number) >= 10001 for number in ids)


@pytest.mark.catalogue("P02", "P08")
def test_every_process_has_our_filter_on_top_of_the_engines(watch: Watch) -> None:
    with watch("report(0); input()") as seen:
        counts = [int(status_of(process)["Seccomp_filters"]) for process in seen.processes]
    engine, program = counts
    assert engine >= 1
    assert program >= engine
    assert program >= 2


@pytest.mark.catalogue("P10")
def test_no_kernel_setting_can_be_opened_for_writing(run: Attack) -> None:
    reported = run(
        """
        writable, looked = [], 0
        for top in ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/sys"):
            for folder, _, names in os.walk(top):
                for name in names:
                    looked += 1
                    path = f"{folder}/{name}"
                    if attempt(open_to_write, path) == "allowed":
                        writable.append(path)
        report({"writable": writable, "looked": looked})
        """,
        timeout=60,
        cpu_quota=200_000,
    )
    assert reported["looked"] > 1000
    assert reported["writable"] == []
