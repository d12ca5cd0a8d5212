"""System calls that no program here needs. Each is made, in one or more forms, and its answer is reported."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import socket
import threading

from codeforge.audit.payloads.observe import NUMBERS, attempt, distinct, in_child, report, syscall

SIGCHLD = 17
NAMESPACES = {
    "mnt": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x80,
}
USER_AND_NET = NAMESPACES["user"] | NAMESPACES["net"]
AT_FDCWD = -100
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
WIDE = 1 << 32  # the kernel looks at 32 bits of some arguments; a filter must not look at more
X32 = 0x40000000
INT_0X80_CALLS = (20, 102, 26, 9999)  # getpid, socketcall, ptrace, and one that no kernel has
X32_CALLS = (39, 41, 101, 512)  # getpid, socket, ptrace, and one that x32 alone has

ZERO = bytes(256)
ATTRIBUTES = bytes([1, 0, 0, 0, 0, 0, 0, 0, 128]) + bytes(119)
INODE_2 = bytes([8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])  # a file handle: the root of its device

# Name: the arguments of each form in which the call is made.
# A row for each form would be two hundred lines.
# fmt: off
CALLS: dict[str, list[tuple[int | bytes | None, ...]]] = {
    "io_uring_setup": [(8, bytes(120))], "io_uring_enter": [(-1, 1, 0, 0, None, 0)],
    "io_uring_register": [(-1, 0, None, 0)], "memfd_secret": [(0,)],
    "add_key": [(b"user", b"canary", b"x", 1, ring) for ring in (-1, -2, -3, -4, -5)],
    "request_key": [(b"user", b"canary", None, ring) for ring in (0, -4)],
    "keyctl": [(0, -3, 0), *((command, -4, 0, 0, 0) for command in (0, 1, 6, 11, 22))],
    "unshare": [(flag,) for flag in (*NAMESPACES.values(), USER_AND_NET)],
    "mount": [(b"none", b"/tmp", b"tmpfs", 0, None), (b"/", b"/tmp", None, 4096, None)],
    "umount2": [(b"/tmp", 0), (b"/tmp", 2)], "pivot_root": [(b"/tmp", b"/tmp")], "chroot": [(b"/tmp",)],
    "fsopen": [(b"tmpfs", 0)], "fsconfig": [(-1, 0, None, None, 0), (0, 6, None, None, 0)],
    "fsmount": [(-1, 0, 0), (0, 0, 0)], "fspick": [(AT_FDCWD, b"/tmp", 0), (AT_FDCWD, b"/", 0)],
    "open_tree": [(AT_FDCWD, b"/tmp", 1), (AT_FDCWD, b"/", 1)],
    "move_mount": [(-1, b"", -1, b"", 0), (AT_FDCWD, b"/", AT_FDCWD, b"/tmp", 0)],
    "mount_setattr": [(-1, b"", 0, None, 0), (AT_FDCWD, b"/", 0, bytes(32), 32)],
    "bpf": [(command, ATTRIBUTES, 128) for command in (0, 5, 6, 18)],
    "perf_event_open": [(ATTRIBUTES, 0, -1, -1, 0)], "userfaultfd": [(0,), (1,)],
    "fanotify_init": [(0, 0), (0x200, 0)],
    "name_to_handle_at": [(AT_FDCWD, b"/etc/passwd", bytes([128]) + bytes(135), bytes(4), 0)],
    "modify_ldt": [(0, bytes(16), 16), (1, bytes(16), 16)],
    "personality": [(flags,) for flags in (8, 0x20000, 0x40000, 0x100000, 0x200000, 0x400000, 0x440000)],
    "sync": [()], "syncfs": [(0,), (1,)],
    "shmget": [(key, 4096, 0o1666) for key in (0, 7)], "semget": [(key, 1, 0o1666) for key in (0, 7)],
    "msgget": [(key, 0o1666) for key in (0, 7)], "mq_open": [(b"canary", 0o102, 0o600, None)],
    "init_module": [(None, 0, b"")], "finit_module": [(-1, b"", 0), (0, ZERO, 0)],
    "delete_module": [(b"no-such-module", 0)], "kexec_load": [(0, 0, None, 0)],
    "kexec_file_load": [(-1, -1, 0, None, 0)],
    "reboot": [(0, 0, 0, None), (0xFEE1DEAD - WIDE, 672274793, 0, 0)],
    "swapon": [(b"/tmp", 0)], "swapoff": [(b"/tmp",)], "acct": [(b"/tmp/acct",), (None,)], "iopl": [(3,)],
    "ioperm": [(0x80, 1, 1), (0x70, 2, 1)], "settimeofday": [(None, None), (ZERO, None)],
    "clock_settime": [(0, None), (0, ZERO)], "clock_adjtime": [(0, ZERO)], "adjtimex": [(ZERO,)],
    "syslog": [(3, bytes(16), 15), (3, ZERO, 256)],
    "quotactl": [(0x800002 << 8, None, 0, None), (0, b"/tmp", 0, ZERO)], "quotactl_fd": [(1, 0, 0, None)],
    "sethostname": [(b"x", 1)], "setdomainname": [(b"x", 1)],
}
# fmt: on

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
KINDS = (1, 2, 3, 5, 10)  # stream, datagram, raw, seqpacket, packet
NAMED_FAMILIES = {
    "AF_VSOCK": (40, socket.SOCK_STREAM),
    "AF_ALG": (38, socket.SOCK_SEQPACKET),
    "AF_PACKET": (17, socket.SOCK_RAW),
    "AF_XDP": (44, socket.SOCK_RAW),
    "AF_TIPC": (30, socket.SOCK_SEQPACKET),
}
RAW_PROTOCOLS = (1, 6, 17, 58, 255)
ETHERNET_IP = 0x300


def each_form(name: str) -> str:
    """Make every form of a call, each in a child: some end the process. Return the distinct answers."""
    return distinct(in_child(syscall, name, *arguments) for arguments in CALLS[name])


def pipe_calls() -> dict[str, str]:
    """Try the calls that put pages of a file or of memory into a pipe."""
    (reading, out), (_, end) = os.pipe(), os.pipe()
    file = os.open("/etc/passwd", os.O_RDONLY)
    page = ctypes.create_string_buffer(b"x" * 64)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(page), 64)
    return {
        "splice": in_child(syscall, "splice", file, None, out, None, 1, 0),
        "tee": in_child(syscall, "tee", reading, end, 1, 2),
        "vmsplice": in_child(syscall, "vmsplice", out, vector, 1, 0),
    }


def new_namespace(flag: int) -> None:
    """Start a child in a new namespace."""
    if syscall("clone", flag | SIGCHLD, None, None, None, None) == 0:
        os._exit(0)
    os.wait()


def new_namespace_by_clone3() -> None:
    """The same by the newer call, whose flags lie in memory, where no filter can see them."""
    arguments = NAMESPACES["user"].to_bytes(8, "little") + bytes(80)
    if syscall("clone3", arguments, len(arguments)) == 0:
        os._exit(0)


def enter(path: str) -> None:
    """Enter the namespace of a file: the program's own, in which it is already."""
    syscall("setns", os.open(path, os.O_RDONLY), 0)


def enter_namespace_of_init() -> None:
    """Enter the user namespace of process 1."""
    syscall("setns", syscall("pidfd_open", 1, 0), NAMESPACES["user"])


def namespace_calls() -> dict[str, str]:
    """Make and enter namespaces of each kind."""
    # In clone, the bit of the time namespace is part of the signal's number.
    flags = [flag for kind, flag in NAMESPACES.items() if kind != "time"]
    own = [f"/proc/self/ns/{name}" for name in os.listdir("/proc/self/ns") if "_for_" not in name]  # noqa: PTH208 - names are wanted
    return {
        "clone": distinct(in_child(new_namespace, flag) for flag in flags),
        "clone3": distinct([in_child(syscall, "clone3", None, 0), in_child(new_namespace_by_clone3)]),
        "setns": distinct([in_child(syscall, "setns", -1, 0), *(in_child(enter, path) for path in own)]),
        "setns to init's": in_child(enter_namespace_of_init),
    }


def file_by_handle() -> None:
    """Open a file by a handle that was made up."""
    syscall("open_by_handle_at", os.open("/", os.O_RDONLY), INODE_2, os.O_RDONLY)


def into_terminal(request: int, text: bytes) -> None:
    """Type into a new terminal, or control it."""
    import fcntl

    _, terminal = os.openpty()
    if not os.isatty(terminal):
        raise RuntimeError("this is no terminal")
    fcntl.ioctl(terminal, request, text)


def by_int80(number: int) -> None:
    """Make a system call by the 32-bit entry, which many filters do not see."""
    if platform.machine() != "x86_64":
        raise NotImplementedError
    # mov eax, number; int 0x80; ret
    code = b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x80\xc3"
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def by_int80_in_a_thread() -> None:
    """The same from a thread: the whole process must end."""
    if platform.machine() != "x86_64":
        raise NotImplementedError
    thread = threading.Thread(target=by_int80, args=(INT_0X80_CALLS[0],))
    thread.start()
    thread.join()


def by_x32(number: int) -> None:
    """Make a system call by the x32 entry."""
    if platform.machine() != "x86_64":
        raise NotImplementedError
    syscall(X32 | number)


def foreign_entries() -> dict[str, str]:
    """Make system calls as programs of other ABIs do."""
    answers = [in_child(by_int80, number) for number in INT_0X80_CALLS]
    return {
        "int80": distinct([*answers, in_child(by_int80_in_a_thread)]),
        "x32": distinct(in_child(by_x32, number) for number in X32_CALLS),
    }


def make_pair(family: int, kind: int) -> None:
    """Make a pair of sockets."""
    syscall("socketpair", family, kind, 0, (ctypes.c_int * 2)())


def make_socket(family: int, kind: int, protocol: int = 0) -> None:
    """Make a socket, and close it."""
    os.close(syscall("socket", family, kind, protocol))


def socket_calls() -> dict[str, str]:
    """Make sockets of every family, and raw internet sockets."""
    others = [
        family for family in (*range(64), WIDE | AF_NETLINK) if family not in (AF_UNIX, AF_INET, AF_INET6)
    ]
    every = [(family, kind) for family in others for kind in KINDS]
    netlink = [(kind, protocol) for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW) for protocol in range(24)]
    observed = {name: attempt(make_socket, *which) for name, which in NAMED_FAMILIES.items()}
    for name, family in (("raw IPv4", AF_INET), ("raw IPv6", AF_INET6)):
        observed[name] = distinct(attempt(make_socket, family, 3, protocol) for protocol in RAW_PROTOCOLS)
    return observed | {
        "packets of IPv4": attempt(make_socket, AF_INET, 10, ETHERNET_IP),  # what AF_PACKET was called once
        "AF_NETLINK": distinct(attempt(make_socket, AF_NETLINK, *which) for which in netlink),
        "every other family": distinct(attempt(make_socket, *which) for which in every),
        "pairs of every other family": distinct(attempt(make_pair, *which) for which in every),
        "unix": attempt(make_socket, AF_UNIX, 1),
        "internet": distinct((attempt(make_socket, AF_INET, 1), attempt(make_socket, AF_INET6, 2))),
    }


def main() -> None:
    """Make all of these calls."""
    missing = CALLS.keys() - NUMBERS.keys()
    if missing:
        raise KeyError(missing)
    report(
        {
            **{name: each_form(name) for name in CALLS},
            **pipe_calls(),
            **namespace_calls(),
            "open_by_handle_at": in_child(file_by_handle),
            "TIOCSTI": distinct(in_child(into_terminal, TIOCSTI | wide, b"x") for wide in (0, WIDE)),
            "TIOCLINUX": in_child(into_terminal, TIOCLINUX, b"\3"),
            **foreign_entries(),
            **socket_calls(),
        }
    )


main()
