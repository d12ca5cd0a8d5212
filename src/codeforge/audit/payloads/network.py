"""Every way out that a network would offer."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from codeforge.audit.payloads.observe import attempt, report

CONNECT_S = 1.0
AT_ONCE_S = 3.0
METADATA = ("169.254.169.254", "fd00:ec2::254", "169.254.170.2")
PUBLIC = ("1.1.1.1", "2606:4700:4700::1111")
HOST = ("172.17.0.1", "10.0.0.1", "192.168.0.1", "192.168.65.2")
UNREACHABLE = {"ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT"}


def connect(address: str, port: int) -> None:
    """Over TCP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(CONNECT_S)
        client.connect((address, port))


def send(address: str) -> None:
    """Over UDP: a name server's question."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"\0" * 12, (address, 53))


def out(addresses: tuple[str, ...], port: int) -> str:
    """``unreachable``, or what else came of it."""
    found = {address: attempt(connect, address, port) for address in addresses}
    odd = [f"{address}: {what}" for address, what in found.items() if what not in UNREACHABLE]
    return ", ".join(odd) or "unreachable"


def resolve(name: str) -> str:
    """``unresolved``, and not after a long time."""
    started = time.monotonic()
    answer = attempt(socket.getaddrinfo, name, 80)
    if answer == "allowed":
        return f"{name} was resolved"
    return "unresolved" if time.monotonic() - started < AT_ONCE_S else "slow"


def abstract_sockets() -> str:
    """Those of other namespaces would be the host's."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return ", ".join(sorted({line.split()[-1] for line in lines if "@" in line or "/" in line})) or "none"


def socket_files(folder: str = "/") -> Iterator[str]:
    """Sockets in the file system, such as an engine's."""
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISSOCK(mode):
                    yield entry.path
                elif stat.S_ISDIR(mode) and entry.path not in ("/proc", "/sys"):
                    yield from socket_files(entry.path)
            except OSError:
                continue


def name_servers() -> str:
    """What the resolver was told."""
    try:
        lines = Path("/etc/resolv.conf").read_text().split("\n")
    except OSError:
        return "none"
    named = {line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1}
    return ", ".join(sorted(named - {"127.0.0.1"})) or "none"


def interfaces() -> list[str]:
    """By /proc: not every engine's sandboxes have /sys/class."""
    return [line.partition(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]


report(
    {
        "interfaces": ", ".join(sorted(interfaces())),
        "routes": str(len(Path("/proc/net/route").read_text().splitlines()) - 1),
        "metadata services": out(METADATA, 80),
        "internet": out(PUBLIC, 443),
        "host": out(HOST, 22),
        "host's engine": attempt(connect, "127.0.0.1", 2375),
        "name server over UDP": attempt(send, "1.1.1.1"),
        "names": resolve("example.com"),
        "metadata by name": resolve("metadata.google.internal"),
        "name servers": name_servers(),
        "abstract sockets": abstract_sockets(),
        "socket files": ", ".join(socket_files()) or "none",
    }
)
