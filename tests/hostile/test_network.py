"""A program without a network reaches nothing: no host, no peer, no name server."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeforge import BlockingCodeExecutor
from contract.support import docker
from hostile.cases import not_shown
from hostile.conftest import Attack, Watch, answer
from hostile.payloads import payload
from observer import DISTRIBUTION, UNDER_TEST

pytestmark = pytest.mark.core

UNREACHABLE = "EHOSTUNREACH" if UNDER_TEST == "gvisor" else "ENETUNREACH"

CONNECT = """
def connect(address, port, family=None, kind=socket.SOCK_STREAM):
    family = family or (socket.AF_INET6 if ":" in address else socket.AF_INET)
    with socket.socket(family, kind) as client:
        client.settimeout(2)
        return attempt(client.connect, (address, port))
"""


@pytest.mark.catalogue("N02")
def test_the_sandbox_does_not_know_the_hosts_name_server(run: Attack) -> None:
    reported = run("path = '/etc/resolv.conf'; report(open(path).read() if os.path.exists(path) else '')")
    servers = [line.split()[1] for line in reported.splitlines() if line.startswith("nameserver")]
    assert set(servers) <= {"127.0.0.1"}
    known = [line.split() for line in Path("/etc/resolv.conf").read_text().splitlines()]
    words = {word for line in known if line and line[0] in ("nameserver", "search") for word in line[1:]}
    assert words.isdisjoint(reported.split()) or words <= {"127.0.0.1", "."}


@contextlib.contextmanager
def listening(address: str | tuple[str, int], family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen()
        server.settimeout(0.2)
        yield server


def has_caller(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


def has_bridge() -> bool:
    """Whether the engine has a bridge over which it could give a run a network."""
    if UNDER_TEST not in ("docker", "gvisor"):
        return False
    return "bridge" in docker("network", "ls", "--format", "{{.Name}}").split()


def bridge_gateway() -> str:
    """The host's address on the engine's bridge."""
    bridge = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]
    return str(bridge.get("Gateway") or "172.17.0.1")


def host_addresses() -> list[str]:
    """The host's addresses that a container could try."""
    found = {"172.17.0.1", "127.0.0.1"}
    if has_bridge():
        found.add(bridge_gateway())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        found.add(probe.getsockname()[0])
    return sorted(found)


@pytest.mark.catalogue("N03")
def test_a_program_reaches_no_service_of_the_host(run: Attack) -> None:
    with listening(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        reported = run(f"""{CONNECT}
ports = {port}, 2375, 22
report({{address: [connect(address, port) for port in ports] for address in {host_addresses()!r}}})
""")
        assert not has_caller(server)
    assert reported.pop("127.0.0.1") == ["ECONNREFUSED"] * 3
    assert reported == dict.fromkeys(reported, [UNREACHABLE] * 3)
    assert reported


@pytest.mark.catalogue("N03", "N04")
@pytest.mark.engine("docker", "gvisor")
def test_a_program_with_a_network_reaches_the_host(run: Attack) -> None:
    """The test above can fail: the same attack succeeds where it is allowed."""
    if not has_bridge() or not Path("/sys/class/net/docker0").exists():
        not_shown("this engine has no bridge to give a run a network with")
    gateway = bridge_gateway()
    if UNDER_TEST == "gvisor" and "--network=none" in docker("info", "--format", "{{json .Runtimes}}"):
        not_shown("this gVisor cannot give a run a network on this kernel")
    with listening(("0.0.0.0", 0)) as server:
        reported = run(
            f"""{CONNECT}
report([connect({gateway!r}, {server.getsockname()[1]}), sorted(os.listdir("/sys/class/net"))])
""",
            network_enabled=True,
        )
        reached = has_caller(server)
    assert "eth0" in reported[1]
    assert reported[0] == "allowed"
    assert reached


@pytest.mark.catalogue("N04")
def test_a_sandbox_has_a_network_namespace_of_its_own_and_no_address(watch: Watch) -> None:
    with watch("report(0); input()") as seen:
        settings = seen.inspected.get("NetworkSettings", {"IPAddress": "", "Ports": {}})
        theirs, ours = ((seen.init / "ns/net").readlink(), Path("/proc/self/ns/net").readlink())
    assert settings["IPAddress"] == ""
    assert not settings["Ports"]
    assert theirs != ours


@pytest.mark.catalogue("N05")
def test_a_program_neither_sees_nor_reaches_abstract_sockets_of_the_host(run: Attack) -> None:
    name = f"codeforge-test-{secrets.token_hex(8)}"
    with listening(f"\0{name}", socket.AF_UNIX) as server:
        reported = run(f"""
            def knock(address):
                client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                return attempt(client.connect, address)
            report({{
                "seen": [line for line in open("/proc/net/unix").readlines()[1:] if "@" in line],
                "host's": knock("\\0{name}"), "shim's": knock("\\0/containerd-shim/moby/x/shim.sock\\0"),
                "display's": knock("\\0/tmp/.X11-unix/X0"),
            }})
        """)
        assert not has_caller(server)
    assert reported.pop("seen") == []
    assert reported == dict.fromkeys(reported, "ECONNREFUSED")


@pytest.mark.catalogue("N06")
@pytest.mark.parametrize("language", ["python", "javascript", "typescript"])
@pytest.mark.engine("docker", "podman", "bubblewrap")  # gVisor: docs/engines.md
def test_no_socket_is_in_the_file_system(watch: Watch, language: str) -> None:
    # From outside, as root: a program cannot look into every folder.
    waits = {
        "python": "report(0); input()",
        "javascript": "console.log(0); require('fs').readFileSync(0)",
        "typescript": "import { readFileSync } from 'fs'; console.log(0); readFileSync(0)",
    }
    with watch(waits[language], language) as seen:
        root = seen.init / "root"
        found, looked = [], 0
        for folder, folders, names in os.walk(root):
            passed = ("/proc", "/sys", *DISTRIBUTION)
            folders[:] = [
                name for name in folders if f"/{Path(folder, name).relative_to(root)}" not in passed
            ]
            looked += len(names)
            found += [Path(folder, name) for name in names if Path(folder, name).is_socket()]
        mounted = (seen.init / "mountinfo").read_text()
    assert looked > 500
    assert found == []
    assert "docker.sock" not in mounted
    assert "containerd.sock" not in mounted


@pytest.mark.catalogue("N08")
def test_a_run_cannot_connect_to_a_port_of_another_run(watch: Watch, executor: BlockingCodeExecutor) -> None:
    listens = """
        name = os.urandom(8).hex()
        servers = [socket.create_server((address, 0), family=family)
                   for address, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))]
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind("\\0" + name)
        abstract.listen()
        socket.create_connection(servers[0].getsockname()).close()
        report([*(server.getsockname()[1] for server in servers), name])
        input()
        abstract.settimeout(0)
        assert attempt(abstract.accept) == "EAGAIN"
    """
    with watch(listens) as seen:
        port, port_6, name = seen.reported
        reported = answer(
            executor.execute(
                payload(f"""
abstract = socket.socket(socket.AF_UNIX)
{CONNECT}
report([connect("127.0.0.1", {port}), connect("::1", {port_6}), attempt(abstract.connect, chr(0) + {name!r})])
""")
            )
        )
    assert reported[0] == "ECONNREFUSED"
    assert reported[1] in ("ECONNREFUSED", "EADDRNOTAVAIL")
    assert reported[2] == "ECONNREFUSED"
