"""The audit's rules: each says HOLDS where all is well, and FAILS for the fault that it is about."""

from __future__ import annotations

import asyncio
import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest

from codeforge.audit import engine_checks, host_checks, probe_runner, run as audit_run, selftest
from codeforge.audit.attack_cases import FULL, QUICK, Case
from codeforge.audit.canaries import VARIABLE, planted
from codeforge.audit.catalogue import GROUPS, ids, ids_in
from codeforge.audit.executor import (
    AuditExecutor,
    RememberingBubblewrap,
    WeakenedDocker,
    engine_under_audit,
)
from codeforge.audit.model import Check, Layer, Rule, Severity, Verdict, counts, exit_code
from codeforge.audit.mutations import MUTATIONS
from codeforge.audit.probes import PROBES, Probe
from codeforge.engines import ENGINE_VARIABLE, GVISOR, RUNTIME_VARIABLE, DockerEngine
from codeforge.errors import ImageNotFound, Unsupported
from codeforge.model.languages import PYTHON
from codeforge.model.limits import Limits
from codeforge.model.result import ExecutionResult, Status
from codeforge.policy import USER_IDS, container_spec

# --- Checks -------------------------------------------------------------------------------------------


def check(verdict: Verdict, name: str = "inside.x", severity: Severity = Severity.HIGH) -> Check:
    return Rule(name, "well", "X00", severity).says(verdict, "")


@pytest.mark.parametrize(
    ("found", "strict", "code"),
    [
        ([check(Verdict.HOLDS)], True, 0),
        ([check(Verdict.NOT_AVAILABLE)], True, 0),
        ([check(Verdict.FAILS)], False, 1),
        ([check(Verdict.FAILS, severity=Severity.LOW)], False, 1),
        ([check(Verdict.UNKNOWN)], False, 2),
        ([check(Verdict.UNKNOWN)], True, 1),
        ([check(Verdict.UNKNOWN), check(Verdict.FAILS)], False, 1),
        ([check(Verdict.FAILS, "host.x", Severity.MEDIUM)], False, 0),
        ([check(Verdict.FAILS, "host.x", Severity.MEDIUM)], True, 1),
        ([check(Verdict.FAILS, "host.x")], False, 1),
        ([check(Verdict.UNKNOWN, "daemon.x")], False, 0),
        ([check(Verdict.UNKNOWN, "daemon.x")], True, 1),
    ],
)
def test_the_exit_code_follows_the_verdicts(found: list[Check], strict: bool, code: int) -> None:
    assert exit_code(found, strict=strict) == code


def test_every_verdict_is_counted() -> None:
    assert counts([check(Verdict.HOLDS)]) == {"HOLDS": 1, "FAILS": 0, "NOT-AVAILABLE": 0, "UNKNOWN": 0}


# --- The host -----------------------------------------------------------------------------------------

WELL_KEPT = {
    "proc/sys/kernel/io_uring_disabled": "2", "proc/sys/kernel/unprivileged_bpf_disabled": "2",
    "proc/sys/kernel/kptr_restrict": "2", "proc/sys/kernel/dmesg_restrict": "1",
    "proc/sys/kernel/perf_event_paranoid": "3", "proc/sys/kernel/yama/ptrace_scope": "1",
    "proc/sys/kernel/kexec_load_disabled": "1", "proc/sys/user/max_user_namespaces": "0",
    "proc/sys/vm/unprivileged_userfaultfd": "0", "proc/sys/fs/protected_symlinks": "1",
    "proc/sys/fs/protected_hardlinks": "1", "proc/sys/fs/protected_fifos": "1",
    "proc/sys/fs/protected_regular": "2", "proc/sys/fs/suid_dumpable": "0",
    "proc/sys/kernel/core_pattern": "core.%p", "proc/swaps": "Filename Type Size Used Priority",
    "proc/sys/kernel/osrelease": "6.18.4", "sys/module/apparmor/parameters/enabled": "Y",
    "sys/devices/system/cpu/vulnerabilities/meltdown": "Not affected",
}  # fmt: skip
BADLY_KEPT = {
    "proc/sys/kernel/io_uring_disabled": "0", "proc/sys/kernel/perf_event_paranoid": "-1",
    "proc/sys/fs/protected_symlinks": "0", "proc/sys/fs/suid_dumpable": "2",
    "proc/sys/kernel/core_pattern": "|/usr/lib/systemd/systemd-coredump %P",
    "proc/swaps": "Filename Type Size Used Priority\n/swapfile file 1 0 -2",
    "proc/sys/kernel/osrelease": "5.15.4", "sys/devices/system/cpu/vulnerabilities/meltdown": "Vulnerable",
}  # fmt: skip


def host_with(root: Path, files: dict[str, str]) -> dict[str, Verdict]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return {each.id: each.verdict for each in host_checks.look(root)}


def test_a_well_kept_host_holds(tmp_path: Path) -> None:
    assert set(host_with(tmp_path, WELL_KEPT).values()) == {Verdict.HOLDS}


@pytest.mark.parametrize("name", BADLY_KEPT)
def test_each_bad_setting_of_a_host_fails(name: str, tmp_path: Path) -> None:
    found = host_with(tmp_path, {**WELL_KEPT, name: BADLY_KEPT[name]})
    assert list(found.values()).count(Verdict.FAILS) == 1


def test_settings_that_a_kernel_lacks_are_reported(tmp_path: Path) -> None:
    found = host_with(tmp_path, {"proc/sys/kernel/osrelease": "6.1.0"})
    assert found["host.lsm"] is found["host.kernel.yama.ptrace_scope"] is Verdict.NOT_AVAILABLE
    assert found["host.swap"] is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("release", "verdict"),
    [
        ("5.7.0", Verdict.HOLDS), ("5.10.102", Verdict.HOLDS), ("5.10.101", Verdict.FAILS),
        ("5.11.1", Verdict.FAILS), ("5.15.0-101-generic", Verdict.UNKNOWN), ("5.17.0", Verdict.HOLDS),
        ("", Verdict.UNKNOWN),
    ],
)  # fmt: skip
def test_a_kernel_is_judged_by_the_fix_in_its_own_series(
    release: str, verdict: Verdict, tmp_path: Path
) -> None:
    assert host_with(tmp_path, {"proc/sys/kernel/osrelease": release})["host.kernel"] is verdict


# --- The engine ---------------------------------------------------------------------------------------


def engine(version: str = "29.6.0", runc: str = "1.3.4", **info: object) -> dict[str, Any]:
    well: dict[str, Any] = {
        "SecurityOptions": ["name=seccomp,profile=builtin"], "CgroupVersion": "2", "MemoryLimit": True,
        "SwapLimit": True, "PidsLimit": True, "CpuCfsQuota": True, "DefaultRuntime": "runc",
        "Runtimes": {"runc": {}},
    }  # fmt: skip
    return {"Version": version, "Components": [{"Name": "runc", "Version": runc}], "Info": {**well, **info}}


def engine_says(version: dict[str, Any]) -> dict[str, Verdict]:
    return {each.id: each.verdict for each in engine_checks.look(version, None)}


def test_a_well_kept_engine_holds() -> None:
    found = engine_says(engine())
    # The engine is on another machine.
    assert found.pop("daemon.socket") is found.pop("daemon.tcp") is Verdict.NOT_AVAILABLE
    assert set(found.values()) == {Verdict.HOLDS}


@pytest.mark.parametrize(
    ("version", "name", "verdict"),
    [
        (engine(version="28.0.4"), "version", Verdict.FAILS),
        (engine(version="20.10.24+dfsg1"), "version", Verdict.UNKNOWN),
        (engine(version="dev"), "version", Verdict.UNKNOWN),
        (engine(runc="1.1.12"), "runc", Verdict.FAILS),
        (engine(runc="1.2.7"), "runc", Verdict.FAILS),
        (engine(runc="1.1.5+ds1-1+deb12u1"), "runc", Verdict.UNKNOWN),
        (engine(SecurityOptions=[]), "seccomp", Verdict.FAILS),
        (engine(SecurityOptions=["name=seccomp,profile=unconfined"]), "seccomp", Verdict.FAILS),
        (engine(CgroupVersion="1"), "cgroup", Verdict.FAILS),
        (engine(SwapLimit=False), "limits", Verdict.FAILS),
        (engine(CpuCfsQuota=False), "limits", Verdict.FAILS),
        (engine(DefaultRuntime="runsc"), "runtime", Verdict.FAILS),
        (engine(RegistryConfig={"InsecureRegistryCIDRs": ["10.0.0.0/8"]}), "insecure-registries",
         Verdict.FAILS),
        (engine(ExperimentalBuild=True), "experimental", Verdict.FAILS),
    ],
)  # fmt: skip
def test_each_weakness_of_an_engine_is_found(version: dict[str, Any], name: str, verdict: Verdict) -> None:
    assert engine_says(version)[f"daemon.{name}"] is verdict


@pytest.mark.parametrize(("mode", "verdict"), [(0o660, Verdict.HOLDS), (0o666, Verdict.FAILS)])
def test_a_socket_that_every_user_may_open_fails(mode: int, verdict: Verdict, tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    socket.chmod(mode)
    found = {each.id: each.verdict for each in engine_checks.look(engine(), str(socket), tmp_path)}
    assert found["daemon.socket"] is verdict


@pytest.mark.parametrize(("inode", "verdict"), [("77", Verdict.FAILS), ("78", Verdict.HOLDS)])
def test_an_engine_that_listens_on_tcp_fails(inode: str, verdict: Verdict, tmp_path: Path) -> None:
    process = tmp_path / "1"
    (process / "fd").mkdir(parents=True)
    (process / "net").mkdir()
    (process / "comm").write_text("dockerd\n")
    (process / "fd/5").symlink_to("socket:[77]")
    row = f"0: 00000000:0947 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 {inode} 1"
    (process / "net/tcp").write_text(f"header\n{row}\n")
    (process / "net/tcp6").write_text("header\n")
    (tmp_path / "docker.sock").touch()
    found = {
        each.id: each.verdict
        for each in engine_checks.look(engine(), str(tmp_path / "docker.sock"), tmp_path)
    }
    assert found["daemon.tcp"] is verdict


def test_an_image_that_runs_as_root_fails() -> None:
    configs = {"python": {"Id": "sha256:1", "Config": {"User": ""}}}
    found = {each.id: each.verdict for each in engine_checks.images(configs, ["python", "javascript"])}
    assert found["daemon.image-user-python"] is found["daemon.image-javascript"] is Verdict.FAILS
    assert found["daemon.image-python"] is Verdict.HOLDS


# --- Inside -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", PROBES, ids=[probe.rule.id for probe in PROBES])
def test_a_probe_accepts_only_the_answers_that_it_lists(probe: Probe) -> None:
    well = {name: min(fine) for name, fine in probe.answers.items()}
    assert probe_runner.judge(probe, well).verdict is Verdict.HOLDS
    for name in well:
        assert probe_runner.judge(probe, {**well, name: "something else"}).verdict is Verdict.FAILS
        assert (
            probe_runner.judge(probe, {k: v for k, v in well.items() if k != name}).verdict is Verdict.UNKNOWN
        )
    assert probe_runner.judge(probe, "it crashed").verdict is Verdict.UNKNOWN


def test_each_program_reports_every_answer_that_its_probes_need() -> None:
    for probe in PROBES:
        program = probe_runner.source(probe.payload)
        missing = [name for name in probe.answers if not re.search(rf"\b{re.escape(name)}\b", program)]
        # The program puts this name together.
        assert set(missing) <= {"clone(NEWUSER)"}, probe.rule.id


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', "null", '{"a": ["b"]}', "{}"])
def test_malformed_reports_are_ignored(text: str) -> None:
    assert probe_runner.parse_text(text) is None


DISASTER = ExecutionResult(
    status=Status.OK, exit_code=0, execution_time=99, cpu_time=99, files={"out.txt": b"root:x:0:0"}
)


@pytest.mark.parametrize("case", QUICK + FULL, ids=[case.rule.id for case in QUICK + FULL])
def test_a_case_can_fail(case: Case) -> None:
    assert not case.judge(DISASTER)


def test_ids_are_unique() -> None:
    named = [probe.rule.id for probe in PROBES] + [case.rule.id for case in QUICK + FULL]
    assert len(named) == len(set(named))


def test_references_name_existing_cases() -> None:
    known = {case for group in GROUPS for case in ids(group)}
    rules = [each.rule for each in (*PROBES, *QUICK, *FULL)]
    for rule in rules:
        assert set(ids_in(rule.reference)) <= known, rule.id
        assert ids_in(rule.reference) or "CIS" in rule.reference, rule.id


def test_ids_are_found_among_the_names_of_other_documents() -> None:
    assert ids_in("CIS 5.26; NIST 800-190 4.4.3; P01, X16") == ("P01", "X16")


# --- The engine of the audit's executor -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "runtime", "kind", "made"),
    [
        ("docker", "", "docker", WeakenedDocker),
        ("docker", "runsc", GVISOR, DockerEngine),
        ("podman", "", "podman", DockerEngine),
        ("bubblewrap", "", "bubblewrap", RememberingBubblewrap),
    ],
)
def test_the_environment_names_the_engine(
    engine: str, runtime: str, kind: str, made: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    monkeypatch.setenv(RUNTIME_VARIABLE, runtime)
    name, found = engine_under_audit()
    assert name == kind
    assert isinstance(found, made)


@pytest.mark.parametrize(("engine", "runtime"), [("docker", "runsc"), ("podman", ""), ("bubblewrap", "")])
def test_only_docker_with_its_own_runtime_can_be_weakened(
    engine: str, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    monkeypatch.setenv(RUNTIME_VARIABLE, runtime)
    for arguments in ({"weaken": lambda spec: None}, {"unchecked": True}):
        with pytest.raises(Unsupported):
            engine_under_audit(**arguments)


def test_a_weakened_engine_takes_the_control_out_of_every_container() -> None:
    engine = WeakenedDocker("me", lambda spec: spec["HostConfig"].update(PidsLimit=0), unchecked=False)
    spec = engine.spec(PYTHON, Limits().of_sandbox(PYTHON), uid=USER_IDS[0])
    assert spec["HostConfig"]["PidsLimit"] == 0


class WithoutImages(AuditExecutor):
    """The audit's executor, on an engine that has no image."""

    async def version(self) -> dict[str, Any]:
        return engine()

    async def socket_path(self) -> str | None:
        return None

    async def image_configs(self) -> dict[str, dict[str, Any]]:
        return {}


def test_without_an_image_the_audit_says_that_it_tested_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "docker")
    monkeypatch.setattr(audit_run, "AuditExecutor", WithoutImages)

    async def sandboxes() -> list[Check]:
        return [each async for each in audit_run.audit(full=False) if each.layer is Layer.OUTSIDE]

    (found,) = asyncio.run(sandboxes())
    assert (found.id, found.verdict) == ("outside.sandbox", Verdict.UNKNOWN)
    assert found.got.startswith(f"{PYTHON.image} is not on this machine")
    assert exit_code([found], strict=False) == 2


def test_without_an_image_the_self_test_is_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "docker")
    monkeypatch.setattr(selftest, "AuditExecutor", WithoutImages)
    with pytest.raises(ImageNotFound, match="is not on this machine"):
        asyncio.run(anext(selftest.self_test(MUTATIONS)))


# --- Mutations ----------------------------------------------------------------------------------------


def test_every_mutation_changes_the_container_and_names_a_check() -> None:
    for mutation in MUTATIONS:
        before = container_spec(PYTHON, Limits().of_sandbox(PYTHON), owner="me", uid=USER_IDS[0] + 1)
        after = copy.deepcopy(before)
        mutation.weaken(after)
        assert after != before, mutation.name
        assert mutation.caught_by or mutation.posture, mutation.name


def test_canaries_are_removed_afterwards() -> None:
    with planted() as laid:
        assert (laid.folder / laid.file).read_text() == laid.file
        assert os.environ[VARIABLE] == laid.environment
    assert not laid.folder.exists()
    assert VARIABLE not in os.environ
