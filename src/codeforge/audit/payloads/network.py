"""Tries every way out that a network would offer, in a sandbox without a network."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from codeforge.audit.payloads.observe import attempt, report

CONNECT_S = 1.0
UNRESOLVED_WITHIN_S = 3.0
METADATA = ("169.254.169.254", "fd00:ec2::254", "169.254.170.2", "100.100.100.200")
PUBLIC = ("1.1.1.1", "2606:4700:4700::1111")
HOST = ("172.17.0.1", "10.0.0.1", "192.168.0.1", "192.168.65.2")
NAME_SERVERS = ("8.8.8.8", "1.1.1.1")
UNREACHABLE = {"ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT"}
SIOCGIFCONF = 0x8912
INTERFACE_BYTES = 40


def connect(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Connect to a port, by default over TCP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as client:
        client.settimeout(CONNECT_S)
        client.connect((address, port))


def send(address: str) -> None:
    """Ask a name server over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"\0" * 12, (address, 53))


def reach_any(addresses: Iterable[str], port: int) -> str:
    """Connect to each address. Return ``unreachable``, or the addresses with another answer."""
    found = {address: attempt(connect, address, port) for address in addresses}
    odd = [f"{address}: {what}" for address, what in found.items() if what not in UNREACHABLE]
    return ", ".join(odd) or "unreachable"


def metadata() -> str:
    """Return ``unreachable`` if no metadata service is reached and the refusal is immediate."""
    started = time.monotonic()
    answer = reach_any(METADATA, 80)
    return answer if time.monotonic() - started < CONNECT_S else f"slow: {answer}"


def resolve(*names: str) -> str:
    """Return ``unresolved`` if no name is resolved and the refusal does not take long."""
    started = time.monotonic()
    for name in names:
        try:
            socket.getaddrinfo(name, 80)
        except socket.gaierror as error:
            if error.errno not in (socket.EAI_AGAIN, socket.EAI_NONAME):
                return f"{name}: {error}"
        else:
            return f"{name} was resolved"
    return "unresolved" if time.monotonic() - started < UNRESOLVED_WITHIN_S else "slow"


def abstract_sockets() -> str:
    """Return the sockets without a file. In the host's network namespace, these would be the host's."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return ", ".join(sorted({line.split()[-1] for line in lines if "@" in line or "/" in line})) or "none"


def socket_files(folder: str = "/") -> Iterator[str]:
    """Yield the sockets in the file system, such as an engine's."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
        except OSError:
            continue
        if stat.S_ISSOCK(mode):
            yield entry.path
        elif stat.S_ISDIR(mode) and entry.path not in ("/proc", "/sys"):
            yield from socket_files(entry.path)


def agents() -> str:
    """Return the variables that name a socket, such as ``SSH_AUTH_SOCK``."""
    return ", ".join(name for name in os.environ if name.endswith("SOCK")) or "none"


def name_servers() -> str:
    """Return the name servers that the resolver uses."""
    try:
        lines = Path("/etc/resolv.conf").read_text().split("\n")
    except OSError:
        return "none"
    named = {line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1}
    return ", ".join(sorted(named - {"127.0.0.1"})) or "none"


def interfaces() -> str:
    """Return the interfaces that /proc lists: not every engine's sandboxes have /sys/class."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return ", ".join(sorted(line.partition(":")[0].strip() for line in lines))


def interfaces_in_sys() -> str:
    """Return the interfaces that /sys lists, if it does."""
    folder = Path("/sys/class/net")
    return ", ".join(sorted(path.name for path in folder.iterdir())) if folder.exists() else "lo"


def interfaces_by_ioctl() -> str:
    """Return the interfaces that the system call lists."""
    listed = bytearray(4096)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        buffer = (ctypes.c_char * len(listed)).from_buffer(listed)
        request = struct.pack("iP", len(listed), ctypes.addressof(buffer))
        size = struct.unpack("iP", fcntl.ioctl(client, SIOCGIFCONF, request))[0]
    starts = range(0, size, INTERFACE_BYTES)
    return ", ".join(sorted(bytes(listed[at : at + 16]).split(b"\0")[0].decode() for at in starts))


def services_of_names() -> str:
    """Connect to name servers over TCP and over UDP."""
    found = [attempt(connect, address, 53) for address in NAME_SERVERS]
    found += [attempt(connect, address, 53, socket.SOCK_DGRAM) for address in NAME_SERVERS]
    return "unreachable" if set(found) <= UNREACHABLE else ", ".join(found)


report(
    {
        "interfaces": interfaces(),
        "interfaces in /sys": interfaces_in_sys(),
        "interfaces by ioctl": interfaces_by_ioctl(),
        "routes": str(len(Path("/proc/net/route").read_text().splitlines()) - 1),
        "metadata services": metadata(),
        "internet": reach_any(PUBLIC, 443),
        "host": reach_any(HOST, 22),
        "host's engine": attempt(connect, "127.0.0.1", 2375),
        "name server over UDP": attempt(send, "1.1.1.1"),
        "name servers by address": services_of_names(),
        "names": resolve("example.com", "host.docker.internal"),
        "metadata by name": resolve("metadata.google.internal"),
        "name servers": name_servers(),
        "abstract sockets": abstract_sockets(),
        "socket files": ", ".join(socket_files()) or "none",
        "agents": agents(),
    }
)
