"""A program can neither reach nor learn about the host and its container runtime."""

from __future__ import annotations

import socket

import pytest

from codeforge import LANGUAGES, ExecutionRequest, policy
from codeforge.model.limits import Limits
from hostile.conftest import Attack, Watch


@pytest.mark.catalogue("P26")
def test_a_caller_cannot_set_what_the_container_runtime_acts_on() -> None:
    asked = set(ExecutionRequest.__dataclass_fields__)
    assert asked.isdisjoint({"cwd", "entrypoint", "command", "mounts", "volumes", "user", "devices", "image"})
    for row in LANGUAGES:
        for limits in (Limits(), Limits(network=True)):
            spec = policy.container_spec(row, limits.of_sandbox(row), owner="me", uid=20000)
            host = spec["HostConfig"]
            refused = {
                "Privileged",
                "CapAdd",
                "Binds",
                "Mounts",
                "Devices",
                "PidMode",
                "UsernsMode",
                "Runtime",
            }
            assert refused.isdisjoint(host)
            assert host["NetworkMode"] != "host"
            assert spec["Entrypoint"] == ["/opt/codeforge/init"]
            assert spec["WorkingDir"] == "/code"
            assert spec["Healthcheck"] == {"Test": ["NONE"]}


@pytest.mark.catalogue("P26")
def test_no_process_of_the_container_runtime_is_visible(watch: Watch) -> None:
    code = """
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
        report({pid: open(f"/proc/{pid}/cmdline").read().split(chr(0))[0] for pid in pids})
        input()
    """
    with watch(code) as seen:
        count = len(seen.processes)
        mounts = seen.inspected.get("Mounts", [])
    assert seen.reported["1"] == "/opt/codeforge/init"
    assert count == len(seen.reported) == 2
    assert mounts == []


@pytest.mark.catalogue("P27")
def test_masked_paths_are_empty(run: Attack) -> None:
    reported = run(f"""
        facts = {{}}
        for path in {policy._MASKED_PATHS!r}:
            if os.path.isdir(path):
                facts[path] = len(os.listdir(path))
            elif os.path.exists(path):
                facts[path] = len(open(path, "rb").read())
        report(facts)
    """)
    assert {"/proc/interrupts", "/proc/cmdline", "/proc/partitions", "/proc/keys"} <= set(reported)
    assert set(reported.values()) == {0}


@pytest.mark.catalogue("P27")
def test_kernel_addresses_and_the_hosts_name_are_hidden(run: Attack) -> None:
    host = socket.gethostname()
    reported = run("""
        modules = open("/proc/modules").read().splitlines() if os.path.exists("/proc/modules") else []
        report({"name": os.uname().nodename, "addresses": [line.split()[-1] for line in modules]})
    """)
    assert reported["name"] == "sandbox" != host
    assert set(reported["addresses"]) <= {"0x0000000000000000", "(O)", "(OE)"}
