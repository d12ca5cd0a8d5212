"""System calls that a run has no business with, each made once."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import socket

from codeforge.audit.payloads.observe import attempt, in_child, report, syscall

CLONE_NEWUSER, SIGCHLD = 0x10000000, 17
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
READ_IMPLIES_EXEC = 0x0400000
X32 = 0x40000000

PLAIN: dict[str, tuple[int | bytes | None, ...]] = {
    "io_uring_setup": (1, bytes(120)), "io_uring_enter": (-1, 0, 0, 0, None, 0),
    "io_uring_register": (-1, 0, None, 0), "memfd_secret": (0,), "clone3": (None, 0),
    "ptrace": (0x4206, os.getppid(), 0, 0), "kcmp": (os.getpid(), os.getpid(), 0, 0, 0),
    "process_vm_readv": (1, None, 0, None, 0, 0), "process_vm_writev": (1, None, 0, None, 0, 0),
    "pidfd_getfd": (-1, 0, 0), "process_madvise": (-1, None, 0, 0, 0), "process_mrelease": (-1, 0),
    "add_key": (b"user", b"canary", b"x", 1, -3), "request_key": (b"user", b"canary", None, 0),
    "keyctl": (0, -3, 0), "unshare": (CLONE_NEWUSER,), "setns": (-1, 0),
    "mount": (b"none", b"/tmp", b"tmpfs", 0, None), "umount2": (b"/tmp", 0),
    "pivot_root": (b"/tmp", b"/tmp"), "chroot": (b"/tmp",), "fsopen": (b"tmpfs", 0),
    "fsconfig": (-1, 0, None, None, 0), "fsmount": (-1, 0, 0), "fspick": (-100, b"/tmp", 0),
    "open_tree": (-100, b"/tmp", 1), "move_mount": (-1, b"", -1, b"", 0),
    "mount_setattr": (-1, b"", 0, None, 0), "bpf": (5, bytes(128), 128),
    "perf_event_open": (bytes(128), 0, -1, -1, 0), "userfaultfd": (0,), "fanotify_init": (0, 0),
    "name_to_handle_at": (-100, b"/tmp", bytes(8), bytes(4), 0), "open_by_handle_at": (-100, bytes(8), 0),
    "modify_ldt": (0, bytes(16), 16), "sync": (), "syncfs": (1,), "shmget": (0, 4096, 0o1600),
    "semget": (0, 1, 0o1600), "msgget": (0, 0o1600), "mq_open": (b"canary", 0o102, 0o600, None),
    "init_module": (None, 0, b""), "finit_module": (-1, b"", 0), "delete_module": (b"no-such-module", 0),
    "kexec_load": (0, 0, None, 0), "reboot": (0, 0, 0, None), "swapon": (b"/tmp", 0), "swapoff": (b"/tmp",),
    "acct": (b"/tmp/acct",), "iopl": (3,), "ioperm": (0x80, 1, 1), "settimeofday": (None, None),
    "clock_settime": (0, None), "clock_adjtime": (0, bytes(256)), "adjtimex": (bytes(256),),
    "syslog": (3, bytes(16), 15), "quotactl": (0x800002 << 8, None, 0, None), "quotactl_fd": (1, 0, 0, None),
    "sethostname": (b"x", 1), "setdomainname": (b"x", 1),
}  # fmt: skip


def pipes(name: str) -> int:
    """``splice`` or ``tee`` between two pipes."""
    (_, out), (into, _) = os.pipe(), os.pipe()
    first = (into, None, out, None, 1, 2) if name == "splice" else (into, out, 1, 2)
    return syscall(name, *first)


def vmsplice() -> int:
    """A page of ours into a pipe."""
    _, out = os.pipe()
    page = ctypes.create_string_buffer(b"x")
    vector = ctypes.addressof(page).to_bytes(8, "little") + (1).to_bytes(8, "little")
    return syscall("vmsplice", out, vector, 1, 0)


def new_user_namespace() -> None:
    """A child that is root in a namespace of its own."""
    if syscall("clone", CLONE_NEWUSER | SIGCHLD, None, None, None, None) == 0:
        os._exit(0)
    os.wait()


def personality() -> None:
    """Every readable page becomes executable."""
    syscall("personality", READ_IMPLIES_EXEC)


def typed(request: int) -> int:
    """Type into a terminal, or command it."""
    import fcntl

    return len(fcntl.ioctl(0, request, b"\x0b"))


def by_int80() -> None:
    """``getpid`` by the 32-bit entry, which most filters do not see."""
    if platform.machine() != "x86_64":
        raise NotImplementedError
    code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20; int 0x80; ret
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def by_x32() -> int:
    """``getpid`` by the x32 entry."""
    if platform.machine() != "x86_64":
        raise NotImplementedError
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    result = int(libc.syscall(ctypes.c_long(X32 | 39)))
    if result == -1:
        raise OSError(ctypes.get_errno(), "x32")
    return result


def main() -> None:
    """Everything, each in a process of its own: some are fatal."""
    observed = {name: in_child(syscall, name, *words) for name, words in PLAIN.items()}
    observed |= {name: in_child(pipes, name) for name in ("splice", "tee")}
    observed["vmsplice"] = in_child(vmsplice)
    observed["clone(NEWUSER)"] = in_child(new_user_namespace)
    observed["personality"] = in_child(personality)
    observed["TIOCSTI"] = in_child(typed, TIOCSTI)
    observed["TIOCLINUX"] = in_child(typed, TIOCLINUX)
    observed["int80"] = in_child(by_int80)
    observed["x32"] = in_child(by_x32)
    for name, family, kind in (
        ("AF_NETLINK", 16, socket.SOCK_RAW), ("AF_VSOCK", 40, socket.SOCK_STREAM),
        ("AF_ALG", 38, socket.SOCK_SEQPACKET), ("AF_PACKET", 17, socket.SOCK_RAW),
        ("AF_XDP", 44, socket.SOCK_RAW), ("AF_TIPC", 30, socket.SOCK_SEQPACKET),
        ("raw IPv4", 2, socket.SOCK_RAW), ("raw IPv6", 10, socket.SOCK_RAW),
    ):  # fmt: skip
        observed[name] = attempt(socket.socket, family, kind, 1 if name.startswith("raw") else 0)
    report(observed)


main()
