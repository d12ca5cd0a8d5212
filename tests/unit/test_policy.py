"""Policy: the whole create call, what no option can do to it, and one fault for each weakness."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from codeforge.model.languages import LANGUAGES, PYTHON, TYPESCRIPT, Language
from codeforge.model.limits import GiB, Limits, MiB, SandboxLimits
from codeforge.model.request import tmpfs_bytes
from codeforge.policy import LABEL, container_spec, posture_faults
from codeforge.protocol.frames import PROTOCOL

UID = 20_007

GOLDEN = Path(__file__).parent.parent / "golden"
"""The reviewed create calls. They are edited by hand, so a change of policy has to be made twice."""


# --- The create call ----------------------------------------------------------------------------------


def spec(language: Language = PYTHON, *, owner: str = "o", **limits: Any) -> dict[str, Any]:
    return container_spec(language, Limits(**limits).of_sandbox(language), owner=owner, uid=UID)


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
def test_the_create_call_is_exactly_the_reviewed_one(language: Language) -> None:
    reviewed = json.loads((GOLDEN / f"container_{language.name}.json").read_text())
    assert container_spec(language, Limits().of_sandbox(language), owner="owner-1", uid=UID) == reviewed


def differences(a: Any, b: Any, at: str = "") -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from differences(a.get(key), b.get(key), f"{at}/{key}")
    elif a != b:
        yield at


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"timeout_s": 1.0}, set()),
        ({"output_bytes": 0, "files_bytes": 0}, set()),
        ({"network": True}, {"/NetworkDisabled", "/HostConfig/NetworkMode", "/HostConfig/Dns"}),
        ({"cpu_quota_us": 1000}, {"/HostConfig/CpuQuota"}),
        ({"memory_bytes": GiB}, {"/HostConfig/Memory", "/HostConfig/MemorySwap"}),
        (
            {"memory_bytes": 64 * MiB},
            {
                "/HostConfig/Memory",
                "/HostConfig/MemorySwap",
                "/HostConfig/Tmpfs//code",
                "/HostConfig/Tmpfs//tmp",
                "/HostConfig/Ulimits",
            },
        ),
    ],
)
def test_a_limit_changes_its_own_settings_and_nothing_else(change: dict[str, Any], changed: set[str]) -> None:
    before = spec()
    after = spec(**change)
    assert set(differences(before, after)) == changed


FORBIDDEN = {
    "Privileged", "CapAdd", "Binds", "Mounts", "Devices", "DeviceRequests", "DeviceCgroupRules",
    "PidMode", "UTSMode", "UsernsMode", "VolumesFrom", "VolumeDriver", "Volumes", "Links", "ExtraHosts",
    "PortBindings", "PublishAllPorts", "ExposedPorts", "CgroupParent", "Cgroup", "Init",
    "OomKillDisable", "Sysctls", "GroupAdd", "Runtime", "Isolation", "StorageOpt", "NetworkingConfig",
    "ContainerIDFile", "Shell", "OnBuild", "KernelMemory", "BlkioDeviceReadBps",
}  # fmt: skip
SPECS = list(
    itertools.product(
        LANGUAGES,
        (16 * MiB, 16 * MiB + 1, 512 * MiB, 1024 * GiB),
        (1000, 50_000, 102_400_000),
        (False, True),
    )
)


@pytest.fixture(scope="module")
def specs() -> list[tuple[SandboxLimits, dict[str, Any]]]:
    """Every combination of the options, at the ends and in the middle of their ranges."""
    made = []
    for language, memory, cpu, network in SPECS:
        limits = Limits(memory_bytes=memory, cpu_quota_us=cpu, network=network).of_sandbox(language)
        made.append((limits, container_spec(language, limits, owner="owner-1", uid=UID)))
    return made


Specs = list[tuple[SandboxLimits, dict[str, Any]]]


def test_no_option_opens_a_sandbox(specs: Specs) -> None:
    for _, spec in specs:
        assert not FORBIDDEN & (spec.keys() | spec["HostConfig"].keys())


def test_no_option_shares_anything_with_the_host(specs: Specs) -> None:
    for _, spec in specs:
        assert "host" not in json.dumps(spec).lower().replace('"hostconfig"', "").replace('"hostname"', "")
        assert "unconfined" not in json.dumps(spec)
        assert "docker.sock" not in json.dumps(spec)
        assert spec["HostConfig"]["IpcMode"] == spec["HostConfig"]["CgroupnsMode"] == "private"


def test_the_hardening_is_the_same_for_all(specs: Specs) -> None:
    for _, spec in specs:
        host = spec["HostConfig"]
        assert spec["User"] == "20007:10001"
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert host["CapDrop"] == ["ALL"]
        assert host["ReadonlyRootfs"] is True
        assert host["AutoRemove"] is spec["StdinOnce"] is spec["OpenStdin"] is True
        assert spec["Tty"] is False
        assert host["RestartPolicy"] == {"Name": "no"}
        assert host["LogConfig"] == {"Type": "none"}
        assert spec["Entrypoint"] == ["/opt/codeforge/init"]
        assert spec["Cmd"] == []
        assert 0 < host["PidsLimit"] <= 128
        assert host["OomScoreAdj"] > 0


def test_there_is_no_swap_whatever_the_memory(specs: Specs) -> None:
    for limits, spec in specs:
        assert spec["HostConfig"]["Memory"] == spec["HostConfig"]["MemorySwap"] == limits.memory_bytes > 0
        assert "MemorySwappiness" not in spec["HostConfig"]


def test_there_is_a_network_only_where_it_was_asked_for(specs: Specs) -> None:
    for limits, spec in specs:
        assert spec["HostConfig"]["NetworkMode"] == ("bridge" if limits.network else "none")
        assert spec["NetworkDisabled"] is not limits.network


def test_nothing_that_can_be_written_can_be_executed_or_grow(specs: Specs) -> None:
    for limits, spec in specs:
        mounts = spec["HostConfig"]["Tmpfs"]
        assert mounts.keys() == {"/code", "/tmp"}
        for options in mounts.values():
            given = options.split(",")
            assert {"noexec", "nosuid", "nodev", "mode=0700", "uid=20007", "gid=10001"} < set(given)
            assert not {"exec", "suid", "dev"} & set(given)
            assert f"size={tmpfs_bytes(limits)}" in given
            assert any(option.startswith("nr_inodes=") and int(option[10:]) > 0 for option in given)
        ulimits = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in spec["HostConfig"]["Ulimits"]}
        assert ulimits["core"] == (0, 0)
        assert ulimits["fsize"] == (tmpfs_bytes(limits), tmpfs_bytes(limits))
        assert (
            not {"nproc", "as"} & ulimits.keys()
        )  # counted per user id over the host; V8 reserves much address space


def test_dockers_own_masked_paths_are_all_still_masked(specs: Specs) -> None:
    dockers = {
        "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
        "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
        "/sys/devices/virtual/powercap", "/proc/interrupts",
    }  # fmt: skip
    for _, spec in specs:
        assert dockers < set(spec["HostConfig"]["MaskedPaths"])
        assert set(spec["HostConfig"]["ReadonlyPaths"]) >= {
            "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
        }  # fmt: skip
        needed = {"/proc/meminfo", "/proc/stat", "/proc/cpuinfo", "/proc/self"}
        assert not needed & set(spec["HostConfig"]["MaskedPaths"])


def test_no_variable_of_the_host_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [spec(row)["Env"] for row in LANGUAGES]
    for name in ("HOME", "PATH", "NODE_OPTIONS", "DOCKER_HOST", "AWS_SECRET_ACCESS_KEY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "secret-of-the-host")
    after = [spec(row) for row in LANGUAGES]
    assert [spec["Env"] for spec in after] == before
    assert "secret-of-the-host" not in json.dumps(after)


def test_two_calls_share_nothing_that_the_engine_could_change() -> None:
    one, two = (spec() for _ in range(2))
    one["HostConfig"]["MaskedPaths"].clear()
    one["HostConfig"]["Tmpfs"].clear()
    one["Env"].append("A=1")
    assert two == spec()


def test_the_owner_is_in_the_label_and_nowhere_else() -> None:
    one, two = (spec(owner=owner) for owner in ("a", "b"))
    assert set(differences(one, two)) == {f"/Labels/{LABEL}"}


@pytest.mark.parametrize(("memory", "heap"), [(16 * MiB, 12), (512 * MiB, 384), (GiB, 768)])
def test_a_heap_is_told_to_stay_below_the_memory_limit(memory: int, heap: int) -> None:
    assert f"NODE_OPTIONS=--max-old-space-size={heap}" in spec(TYPESCRIPT, memory_bytes=memory)["Env"]


@pytest.mark.parametrize("value", ['{"a": 1}', "{}", "{0}", "{", "}", "{heap}", "{{}}"])
def test_braces_of_a_variables_own_are_left_alone(value: str) -> None:
    row = replace(PYTHON, env={"CONFIG": value})
    assert f"CONFIG={value}" in spec(row)["Env"]


# --- The posture that the kernel reports --------------------------------------------------------------

LIMITS = Limits(memory_bytes=512 * MiB + 5).of_sandbox(PYTHON)
TMPFS = tmpfs_bytes(LIMITS)
PAGES = 512 * MiB
"""The memory limit as the kernel counts it."""

COMMON = {
    "protocol": str(PROTOCOL),
    "pid": "1",
    "uid": "20007",
    "gid": "10001",
    "dumpable": "0",
    "no_new_privs": "1",
    "seccomp": "2",
    "seccomp_filters": "1",
    "cap_inh": "0000000000000000",
    "cap_prm": "0000000000000000",
    "cap_eff": "0000000000000000",
    "cap_bnd": "0000000000000000",
    "cap_amb": "0000000000000000",
    "groups": "10001 ",
    "root": "ro",
    "root_bytes": "100000000000",
    "root_inodes": "1000000",
    "code": "rw,nosuid,nodev,noexec",
    "code_bytes": str(TMPFS),
    "code_inodes": "4096",
    "tmp": "rw,nosuid,nodev,noexec",
    "tmp_bytes": str(TMPFS),
    "tmp_inodes": "4096",
    "shm": "rw,nosuid,nodev,noexec",
    "shm_bytes": str(16 * MiB),
    "shm_inodes": "1000000",
    "interfaces": "lo",
    "core_max": "0",
    "nofile_max": "1024",
    "fsize_max": str(TMPFS),
    "msgqueue_max": "0",
    "sigpending_max": "128",
    "memlock_max": "65536",
    "memory_max": str(PAGES),
    "pids_max": "64",
    "cpu_quota_us": "50000",
    "cpu_period_us": "100000",
}
GOOD = {"v1": {**COMMON, "memsw_max": str(PAGES)}, "v2": {**COMMON, "swap_max": "0"}}
VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])


def faults(posture: dict[str, str], limits: SandboxLimits = LIMITS) -> list[str]:
    return posture_faults(posture, limits, uid=UID)


@VERSIONS
def test_a_sandbox_with_everything_in_force_has_no_fault(version: str) -> None:
    assert faults(GOOD[version]) == []


@VERSIONS
@pytest.mark.parametrize(
    "fine",
    [
        {"groups": ""},
        {"root": "ro,nosuid,nodev,noexec"},
        {"code_bytes": str(TMPFS + 4095), "tmp_bytes": "4096"},
        {"seccomp_filters": "2"},
        {"new_key": "whatever"},
    ],
    ids=str,
)
def test_a_sandbox_that_is_stronger_or_reports_more_has_no_fault(version: str, fine: dict[str, str]) -> None:
    assert faults({**GOOD[version], **fine}) == []


WEAKER = {
    "protocol": ["0", "1", "22"],
    "pid": ["2", "7"],
    "uid": ["0", "1000", "20001"],
    "gid": ["0", "999"],
    "dumpable": ["1", "2"],
    "no_new_privs": ["0"],
    "seccomp": ["0", "1"],
    "cap_inh": ["0000000000000001", "000001ffffffffff"],
    "cap_prm": ["0000000000000001", "000001ffffffffff"],
    "cap_eff": ["0000000000200000", "000001ffffffffff"],
    "cap_bnd": ["00000000a80425fb", "000001ffffffffff"],
    "cap_amb": ["8000000000000000", "000001ffffffffff"],
    "groups": ["0", "10001 0", "10001 999", "docker"],
    "root": ["rw", "rw,nosuid,nodev,noexec"],
    "code": ["rw", "rw,nosuid,nodev", "rw,nosuid,noexec", "rw,nodev,noexec", "ro"],
    "tmp": ["rw", "rw,nosuid,nodev", "rw,nosuid,noexec", "rw,nodev,noexec", "ro"],
    "shm": ["rw", "rw,nosuid,nodev", "rw,nosuid,noexec", "rw,nodev,noexec", "ro"],
    "code_bytes": ["0", str(TMPFS + 4096), str(2 * TMPFS), "9" * 5000],
    "tmp_bytes": ["0", str(TMPFS + 4096), str(2 * TMPFS), "9" * 5000],
    "shm_bytes": ["0", str(16 * MiB + 1), str(64 * MiB), "9" * 5000],
    "code_inodes": ["0", "4097", "9" * 5000],
    "tmp_inodes": ["0", "4097", "9" * 5000],
    "core_max": ["1", str(2**64 - 1)],
    "nofile_max": ["1025", "20000"],
    "fsize_max": [str(TMPFS + 1), str(2**64 - 1)],
    "msgqueue_max": ["819200"],
    "sigpending_max": ["129", "95000"],
    "memlock_max": ["65537", str(2**64 - 1)],
    "interfaces": ["", "lo,eth0", "eth0", "lo,tunl0"],
    "memory_max": ["max", str(PAGES + 4096), "9223372036854771712", "0"],
    "pids_max": ["max", "65", "4194304", "0"],
    "cpu_quota_us": ["max", "-1", "100000", "50001", "0"],
    "cpu_period_us": ["50000", "100001", "0", "max"],
}
GARBAGE = ["", " ", "?", "-1", "nan", "True", "\u0661", "1 1", "\0", "ro rw", "noexec"]
MOST = {
    **dict.fromkeys(("code_bytes", "tmp_bytes"), TMPFS + 4095),
    **dict.fromkeys(("code_inodes", "tmp_inodes"), PYTHON.tmp_inodes),
    "shm_bytes": 16 * MiB,
}
"""Here less is fine."""


def one_fault(posture: dict[str, str], key: str) -> None:
    found = faults(posture)
    assert len(found) == 1
    assert found[0].startswith(f"{key} ")


@VERSIONS
@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in WEAKER.items() for value in values],
    ids=lambda text: text[:40],
)
def test_each_weaker_value_is_one_fault_that_names_it(version: str, key: str, value: str) -> None:
    one_fault({**GOOD[version], key: value}, key)


@VERSIONS
@pytest.mark.parametrize("key", WEAKER)
def test_each_value_that_is_not_reported_is_one_fault_that_names_it(version: str, key: str) -> None:
    one_fault({k: v for k, v in GOOD[version].items() if k != key}, key)


@VERSIONS
@pytest.mark.parametrize("key", WEAKER)
def test_garbage_is_a_fault_and_never_believed(version: str, key: str) -> None:
    for garbage in GARBAGE:
        if key != "groups" or garbage.split():  # no groups is what is wanted
            one_fault({**GOOD[version], key: garbage}, key)


def test_every_good_value_has_a_weaker_one_in_these_tests() -> None:
    not_compared = {"seccomp_filters", "swap_max", "memsw_max", "root_bytes", "root_inodes", "shm_inodes"}
    assert GOOD["v1"].keys() | GOOD["v2"].keys() == WEAKER.keys() | not_compared


@pytest.mark.parametrize(
    "swap",
    [
        {},
        {"swap_max": "max"},
        {"swap_max": "1"},
        {"swap_max": ""},
        {"memsw_max": "9223372036854771712"},
        {"memsw_max": str(PAGES + 4096)},
        {"memsw_max": "0"},
        {"memsw_max": ""},
        {"swap_max": "max", "memsw_max": "max"},
    ],
    ids=str,
)
def test_swap_that_is_not_bounded_is_a_fault_in_either_version(swap: dict[str, str]) -> None:
    assert faults({**COMMON, **swap}) == ["swap is not limited"]


def test_a_network_that_was_asked_for_is_no_fault() -> None:
    network = replace(LIMITS, network=True)
    assert faults({**GOOD["v2"], "interfaces": "lo,eth0"}, network) == []
    assert faults(GOOD["v2"], network) == []
    assert faults({**GOOD["v2"], "root": "rw"}, network) == ["root is not mounted ro"]


def test_limits_are_compared_with_those_that_were_asked_for() -> None:
    assert len(faults(GOOD["v2"], Limits(memory_bytes=64 * MiB, cpu_quota_us=10_000).of_sandbox(PYTHON))) == 5
    assert posture_faults(GOOD["v2"], replace(LIMITS, pids=128), uid=UID) == ["pids_max is '64', not '128'"]


def test_a_kernel_that_reports_nothing_has_every_fault() -> None:
    found = faults({})
    assert all(any(fault.startswith(f"{key} ") for fault in found) for key in WEAKER)
    assert "swap is not limited" in found
    assert len(found) == len(WEAKER) + 1


@given(st.dictionaries(st.sampled_from(sorted(GOOD["v1"].keys() | {"swap_max"})), st.text(max_size=20)))
def test_whatever_is_reported_there_are_faults_and_no_exception(posture: dict[str, str]) -> None:
    assert faults(posture)


@given(st.sampled_from(sorted(WEAKER)), st.text(max_size=20))
def test_any_other_value_than_the_wanted_one_is_a_fault(key: str, value: str) -> None:
    good = GOOD["v2"]
    same = value == good[key] or (key == "groups" and set(value.split()) <= {"10001"})
    flags = key in ("root", "code", "tmp", "shm") and set(good[key].split(",")) - {"rw"} <= set(
        value.split(",")
    )
    capped = key in MOST and value.isascii() and value.isdecimal() and 0 < int(value) <= MOST[key]
    assert bool(faults({**good, key: value})) is not (same or flags or capped)
