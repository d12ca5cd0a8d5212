"""The audit's checks from outside: HOLDS where all is well, FAILS for each weakness."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from codeforge.audit import container_checks, kernel_checks
from codeforge.audit.model import Verdict
from codeforge.audit.mutations import MUTATIONS, WITHOUT_INIT
from codeforge.audit.probes import PROBES
from codeforge.audit.proc_facts import Facts, Mount, Process
from codeforge.model.languages import PYTHON
from codeforge.model.limits import Limits
from codeforge.policy import USER_IDS, container_spec

# --- A sandbox, as the engine describes it -------------------------------------------------------------

SANDBOX_LIMITS = Limits().of_sandbox(PYTHON)


def described() -> dict[str, Any]:
    """The engine's description of a container that is as the policy asks."""
    spec = copy.deepcopy(container_spec(PYTHON, SANDBOX_LIMITS, owner="me", uid=USER_IDS[0]))
    hostconfig = spec.pop("HostConfig")
    return {"Image": "sha256:1", "HostConfig": hostconfig, "Config": spec, "Mounts": []}


def asked(inspect: dict[str, Any]) -> dict[str, Verdict]:
    facts = Facts(inspect=inspect, image_id="sha256:1", blind="a unit test")
    return {each.id: each.verdict for each in container_checks.look(facts, PYTHON, SANDBOX_LIMITS)}


def test_the_audit_expects_what_the_policy_asks_for() -> None:
    assert set(asked(described()).values()) == {Verdict.HOLDS}


IN_HOST = [
    ("privileged", "Privileged", True), ("mounts", "Binds", ["/:/host"]), ("mounts", "VolumesFrom", ["x"]),
    ("network", "NetworkMode", "host"), ("network-settings", "ExtraHosts", ["a:1.1.1.1"]),
    ("network-settings", "Links", ["a"]), ("name-servers", "Dns", None), ("memory", "OomKillDisable", True),
    ("memory", "Memory", 0), ("swap", "MemorySwap", -1), ("cpu", "NanoCpus", 4), ("cpu", "CpuShares", 1024),
    ("read-only", "ReadonlyRootfs", False), ("life", "RestartPolicy", {"Name": "always"}),
    ("life", "AutoRemove", False), ("pid-namespace", "PidMode", "host"), ("ipc", "IpcMode", "shareable"),
    ("devices", "DeviceRequests", [{}]), ("ulimits", "Ulimits", None), ("uts", "UTSMode", "host"),
    ("security-options", "SecurityOpt", []),
    ("security-options", "SecurityOpt", ["no-new-privileges", "apparmor=unconfined"]),
    ("cgroup-parent", "CgroupParent", "/x"), ("cgroup-namespace", "CgroupnsMode", "host"),
    ("pids", "PidsLimit", -1), ("log", "LogConfig", {"Type": "syslog"}), ("tmpfs", "Tmpfs", {}),
    ("shm", "ShmSize", 2**30), ("masked-paths", "MaskedPaths", None),
    ("masked-paths", "ReadonlyPaths", []), ("user", "GroupAdd", ["docker"]), ("oom-score", "OomScoreAdj", 0),
    ("program", "Init", True), ("unknown-settings", "Sysctls", {"net.ipv4.ip_forward": "1"}),
    ("unknown-settings", "VolumeDriver", "x"), ("capabilities", "CapAdd", ["SYS_ADMIN"]),
    ("capabilities", "CapDrop", None),
]  # fmt: skip
IN_CONFIG = [
    ("network", "NetworkDisabled", False), ("mounts", "Volumes", {"/v": {}}), ("stdin", "Tty", True),
    ("stdin", "StdinOnce", False), ("user", "User", ""), ("user", "User", "10001:10001"),
    ("environment", "Env", ["GITHUB_TOKEN=x"]), ("program", "Entrypoint", None),
    ("healthcheck", "Healthcheck", {"Test": ["CMD", "true"]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "name", "key", "value"),
    [("HostConfig", *each) for each in IN_HOST] + [("Config", *each) for each in IN_CONFIG],
)
def test_each_weaker_setting_fails(part: str, name: str, key: str, value: object) -> None:
    inspect = described()
    inspect[part][key] = value
    assert asked(inspect)[f"outside.spec-{name}"] is Verdict.FAILS


def test_every_rule_for_settings_can_fail() -> None:
    failed = {f"outside.spec-{name}" for name, _, _ in IN_HOST + IN_CONFIG}
    assert asked(described()).keys() - failed == {"outside.spec-image"}


def test_another_image_and_a_mount_fail() -> None:
    inspect = {**described(), "Image": "sha256:2", "Mounts": [{"Source": "/var/lib/docker/volumes/x"}]}
    found = asked(inspect)
    assert found["outside.spec-image"] is found["outside.spec-mounts"] is Verdict.FAILS


# --- A sandbox, as the kernel shows it ------------------------------------------------------------------

STATUS = {
    **dict.fromkeys(kernel_checks.CAPABILITY_SETS, "0000000000000000"), "NoNewPrivs": "1", "Seccomp": "2",
    "Seccomp_filters": "2", "Uid": " ".join([str(USER_IDS[0])] * 4), "Groups": "10001",
}  # fmt: skip
LIMITS = {
    "core file size": ("0", "0"), "open files": ("1024", "1024"), "msgqueue size": ("0", "0"),
    "pending signals": ("128", "128"), "locked memory": ("65536", "65536"), "file size": ("1000", "1000"),
}  # fmt: skip
OWN = dict.fromkeys((*kernel_checks.OWN_NAMESPACES, "user"), "own:[1]")
THEIRS = dict.fromkeys((*kernel_checks.OWN_NAMESPACES, "user"), "host:[0]")
INIT = Process(
    pid=100, inner=1, command="/opt/codeforge/init", threads=(STATUS,), limits=LIMITS, namespaces=OWN,
    descriptors={0: "/dev/null", 4: "anon_inode:[signalfd]", 10: "pipe:[1]", 12: "socket:[9]"},
    oom_score_adj=900, files_owner=0,
)  # fmt: skip
RUN = dataclasses.replace(
    INIT, pid=101, inner=7, command="python /code/main.py", files_owner=USER_IDS[0],
    descriptors={0: "pipe:[2]", 1: "pipe:[3]", 2: "pipe:[4]"},
)  # fmt: skip
MOUNTS = tuple(
    Mount.parse(f"1 0 0:1 / {point} {options},relatime - {kind} {kind} rw")
    for point, options, kind in (
        ("/", "ro", "overlay"), ("/proc", "rw,nosuid,nodev,noexec", "proc"), ("/dev", "rw,nosuid", "tmpfs"),
        ("/dev/pts", "rw,nosuid,noexec", "devpts"), ("/dev/mqueue", "rw,nosuid,nodev,noexec", "mqueue"),
        ("/dev/shm", "rw,nosuid,nodev,noexec", "tmpfs"), ("/sys", "ro,nosuid,nodev,noexec", "sysfs"),
        ("/sys/fs/cgroup", "ro,nosuid,nodev,noexec", "cgroup2"),
        ("/code", "rw,nosuid,nodev,noexec", "tmpfs"), ("/tmp", "rw,nosuid,nodev,noexec", "tmpfs"),
        ("/etc/hostname", "ro", "ext4"), ("/proc/sys", "ro", "proc"), ("/proc/acpi", "ro", "tmpfs"),
    )
)  # fmt: skip
WELL = Facts(
    inspect={}, image_id="", processes=(INIT, RUN), mounts=MOUNTS, host_namespaces=THEIRS,
    cgroup={"memory.max": str(512 * 2**20), "memory.swap.max": "0", "pids.max": "64",
            "cpu.max": "50000 100000", "devices.list": "c *:* m\nc 1:3 rwm"},
)  # fmt: skip


def seen(facts: Facts) -> dict[str, Verdict]:
    return {each.id: each.verdict for each in kernel_checks.look(facts, SANDBOX_LIMITS)}


def with_run(**changes: Any) -> Facts:
    return dataclasses.replace(WELL, processes=(INIT, dataclasses.replace(RUN, **changes)))


def with_thread(**status: str) -> Facts:
    return with_run(threads=(STATUS, {**STATUS, **status}))


def with_mount(line: str) -> Facts:
    return dataclasses.replace(WELL, mounts=(*MOUNTS, Mount.parse(line)))


def with_cgroup(**values: str) -> Facts:
    return dataclasses.replace(
        WELL, cgroup={**WELL.cgroup, **{k.replace("_", "."): v for k, v in values.items()}}
    )


def test_a_sandbox_in_order_holds() -> None:
    assert set(seen(WELL).values()) == {Verdict.HOLDS}


WEAKER: list[tuple[str, Facts]] = [
    ("capabilities", with_thread(CapBnd="00000000a80425fb")),
    ("no-new-privileges", with_thread(NoNewPrivs="0")),
    ("seccomp", with_thread(Seccomp="0")),
    ("seccomp", with_run(threads=({**STATUS, "Seccomp_filters": "1"},))),
    ("users", with_thread(Uid="0 0 0 0")),
    ("users", with_thread(Groups="10001 0")),
    ("users", dataclasses.replace(WELL, peer_uids=frozenset({str(USER_IDS[0])}))),
    (
        "init-dumpable",
        dataclasses.replace(WELL, processes=(dataclasses.replace(INIT, files_owner=USER_IDS[0]), RUN)),
    ),
    ("limits", with_run(limits={**LIMITS, "open files": ("1024", "20000")})),
    ("limits", with_run(limits={**LIMITS, "file size": ("unlimited", "unlimited")})),
    ("namespaces", with_run(namespaces={**OWN, "net": "host:[0]"})),
    ("descriptors", with_run(descriptors={**RUN.descriptors, 3: "socket:[9]"})),
    ("descriptors", with_run(descriptors={**RUN.descriptors, 9: "/host/secret"})),
    ("descriptors", with_run(descriptors={**RUN.descriptors, 0: "/dev/pts/0"})),
    ("mounts", with_mount("1 0 0:1 /home /host rw - ext4 /dev/vda rw")),
    ("mounts", with_mount("1 0 0:1 / /proc/keys rw - proc proc rw")),
    ("mounts", with_mount("1 0 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw")),
    ("mounts", with_mount("1 0 0:1 / /etc/hosts rw - ext4 /dev/vda rw")),
    ("mounts", with_mount("1 0 0:1 / /etc/hosts ro shared:1 - ext4 /dev/vda rw")),
    ("mounts", dataclasses.replace(WELL, mounts=MOUNTS[1:])),
    ("oom-score", with_run(oom_score_adj=-500)),
    ("processes", dataclasses.replace(WELL, processes=(INIT, RUN, RUN))),
    ("processes", dataclasses.replace(WELL, processes=(dataclasses.replace(INIT, command="sh"), RUN))),
    ("memory", with_cgroup(memory_max="max")),
    ("swap", with_cgroup(memory_swap_max="max")),
    ("pids", with_cgroup(pids_max="max")),
    ("cpu", with_cgroup(cpu_max="max 100000")),
    ("devices", with_cgroup(devices_list="a *:* rwm")),
]


@pytest.mark.parametrize(("name", "facts"), WEAKER, ids=[f"{n}-{i}" for i, (n, _) in enumerate(WEAKER)])
def test_each_weaker_fact_fails(name: str, facts: Facts) -> None:
    found = seen(facts)
    assert {each for each, verdict in found.items() if verdict is Verdict.FAILS} == {f"outside.kernel-{name}"}


def test_every_rule_for_facts_can_fail() -> None:
    left = seen(WELL).keys() - {f"outside.kernel-{name}" for name, _ in WEAKER}
    assert left == {"outside.kernel-user-namespace"}


def test_without_root_every_kernel_check_is_not_available() -> None:
    found = list(kernel_checks.look(dataclasses.replace(WELL, blind="not root"), SANDBOX_LIMITS))
    assert {(each.verdict, each.got) for each in found} == {(Verdict.NOT_AVAILABLE, "not root")}
    assert {each.id for each in found} == seen(WELL).keys()


def test_mutations_name_existing_checks() -> None:
    known = asked(described()).keys() | seen(WELL).keys() | {probe.rule.id for probe in PROBES}
    named = {name for mutation in MUTATIONS for name in mutation.caught_by} | set(WITHOUT_INIT)
    assert named - known == set()
