"""What attacks on kernels begin with is refused, and what cannot be refused gives nothing."""

from __future__ import annotations

import errno
import platform
import socket

import pytest

from codeforge import BlockingCodeExecutor
from hostile.cases import not_shown
from hostile.conftest import Attack
from hostile.payloads import payload

AF_ALG, AF_VSOCK = 38, 40


@pytest.mark.catalogue("P13", "P16", "P17", "N07")
def test_sockets_are_local_or_internet_and_nothing_else(run: Attack) -> None:
    told = run("""
        def made(name, family, kind):
            return call(name, family, kind, 0, (ctypes.c_int * 2)())
        kinds = (1, 2, 3, 5, 10)  # stream, datagram, raw, seqpacket, packet
        others = [family for family in (*range(64), 1 << 32 | 16) if family not in (1, 2, 10)]
        report({
            "socket": sorted({made("socket", family, kind) for family in others for kind in kinds}),
            "socketpair": sorted({made("socketpair", family, kind) for family in others for kind in kinds}),
            "unix": made("socket", 1, 1) > 0,
            "inet": made("socket", 2, 1) > 0,
            "inet6": made("socket", 10, 2) > 0,
        })
    """)
    assert told == {
        "socket": ["EAFNOSUPPORT"],
        "socketpair": ["EAFNOSUPPORT"],
        "unix": True,
        "inet": True,
        "inet6": True,
    }


@pytest.mark.catalogue("P13")
def test_no_raw_or_packet_socket(run: Attack) -> None:
    told = run("""
        raw, packet = 3, 10
        report({
            "raw": [attempt(socket.socket, family, raw, protocol)
                    for family in (socket.AF_INET, socket.AF_INET6) for protocol in (1, 6, 17, 58, 255)],
            # With AF_INET, SOCK_PACKET is the old name of a packet socket.
            "packet": attempt(socket.socket, socket.AF_INET, packet, 0x300),
        })
    """)
    assert set(told["raw"]) == {"EPERM", "EPROTONOSUPPORT"}  # the kernel's answer, and the filter's to 255
    assert told["packet"] in ("EPERM", "EPROTONOSUPPORT")


@pytest.mark.catalogue("P14")
def test_no_bpf_perf_userfaultfd_or_fanotify(run: Attack) -> None:
    told = run("""
        attributes = (ctypes.c_uint64 * 16)(1, 128)
        report({
            "bpf": [call("bpf", command, attributes, 128) for command in (0, 5, 6, 18)],
            "perf": call("perf_event_open", attributes, 0, -1, -1, 0),
            "userfaultfd": [call("userfaultfd", flags) for flags in (0, 1)],
            "fanotify": [call("fanotify_init", flags, 0) for flags in (0, 0x200)],
        })
    """)
    assert told == {
        "bpf": ["EPERM"] * 4,
        "perf": "EPERM",
        "userfaultfd": ["EPERM"] * 2,
        "fanotify": ["EPERM"] * 2,
    }


@pytest.mark.catalogue("P15")
def test_no_io_uring(run: Attack) -> None:
    told = run("""
        parameters = (ctypes.c_uint32 * 32)()
        report([call("io_uring_setup", 8, parameters), call("io_uring_enter", 3, 1, 0, 0, 0, 0),
                call("io_uring_register", 3, 0, 0, 0)])
    """)
    assert told == ["ENOSYS"] * 3


def host_has(family: int, kind: socket.SocketKind) -> bool:
    try:
        socket.socket(family, kind).close()
    except OSError:
        return False
    return True


@pytest.mark.catalogue("P16")
def test_no_vsock_though_the_kernel_has_it(run: Attack) -> None:
    told = run("""
        try:
            vsock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
            vsock.settimeout(2)
            facts = {"socket": "ok", "connect": attempt(vsock.connect, (2, 1024))}
        except OSError as error:
            facts = {"socket": errno.errorcode[error.errno]}
        report(facts | {"device": attempt(os.open, "/dev/vsock", os.O_RDONLY)})
    """)
    assert told == {"socket": "EAFNOSUPPORT", "device": "ENOENT"}
    if not host_has(AF_VSOCK, socket.SOCK_STREAM):
        not_shown("this kernel has no AF_VSOCK that the filter could refuse")


@pytest.mark.catalogue("P17")
def test_no_crypto_socket_though_the_kernel_has_it(run: Attack) -> None:
    told = run("""
        facts = attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET).bind(("aead", "gcm(aes)")))
        report(facts)
    """)
    assert told == "EAFNOSUPPORT"
    if not host_has(AF_ALG, socket.SOCK_SEQPACKET):
        not_shown("this kernel has no AF_ALG that the filter could refuse")


@pytest.mark.catalogue("P17", "P25")
def test_no_pages_of_files_in_pipes(run: Attack) -> None:
    told = run("""
        reading, writing = os.pipe()
        other, end = os.pipe()
        file = os.open("/usr/bin/env", os.O_RDONLY)
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(64)), 64)
        report([call("splice", file, 0, writing, 0, 1, 0), call("tee", reading, end, 1, 0),
                call("vmsplice", writing, vector, 1, 0), call("memfd_secret", 0)])
    """)
    assert told == ["ENOSYS"] * 4


@pytest.mark.catalogue("P18")
def test_no_keys(run: Attack) -> None:
    told = run("""
        report([call("add_key", b"user", b"mark", b"x", 1, ring) for ring in (-1, -2, -3, -4, -5)]
               + [call("request_key", b"user", b"mark", 0, -4)]
               + [call("keyctl", command, -4, 0, 0, 0) for command in (0, 1, 6, 11, 22)])
    """)
    assert told == ["EPERM"] * 11


INT_0X80 = """
import mmap
def through_int_0x80(nr):
    "mov eax, nr; int 0x80; ret"
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\\xb8" + nr.to_bytes(4, "little") + b"\\xcd\\x80\\xc3")
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""


@pytest.mark.catalogue("P19")
def test_a_system_call_by_the_32_bit_entry_is_deadly(run: Attack, executor: BlockingCodeExecutor) -> None:
    if platform.machine() != "x86_64":
        not_shown("only x86-64 has a 32-bit entry that 64-bit code can take")
    told = run(f"""{INT_0X80}
# getpid, socketcall, ptrace, and one that no kernel has; and from a thread
import threading
report([fate(lambda: through_int_0x80(nr)) for nr in (20, 102, 26, 9999)]
       + [fate(lambda: threading.Thread(target=through_int_0x80, args=(20,)).start() or time.sleep(5))])
""")
    assert told == [-31] * 5
    result = executor.execute(payload(f"{INT_0X80}\nthrough_int_0x80(20)"))
    assert (result.status, result.signal) == ("killed", 31)


@pytest.mark.catalogue("P19")
def test_a_system_call_by_an_x32_number_is_deadly(run: Attack) -> None:
    if platform.machine() != "x86_64":
        not_shown("only x86-64 has x32 numbers")
    told = run("report([fate(lambda: raw(0x40000000 | nr)) for nr in (39, 41, 101, 512)])")
    assert told == [-31] * 4


@pytest.mark.catalogue("P19")
def test_the_filter_stays_over_exec_and_takes_no_looser_one(run: Attack) -> None:
    told = run("""
        import subprocess
        again = "import socket, sys\\ntry: socket.socket(16, 3)\\nexcept OSError as e: sys.exit(e.errno)"
        # A filter that allows everything, on top.
        allow = (ctypes.c_uint64 * 1)(0x7fff000000000006)
        class Program(ctypes.Structure):
            _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_void_p)]
        added = call("prctl", 22, 2, ctypes.byref(Program(1, ctypes.addressof(allow))), 0, 0)
        report({
            "after exec": subprocess.run([sys.executable, "-c", again]).returncode,
            "added": added, "after adding": attempt(socket.socket, 16, 3),
            "strict mode off": call("prctl", 22, 0, 0, 0, 0),
        })
    """)
    assert told == {
        "after exec": errno.EAFNOSUPPORT,
        "added": 0,
        "after adding": "EAFNOSUPPORT",
        "strict mode off": "EINVAL",
    }


@pytest.mark.catalogue("P20")
def test_no_administration(run: Attack) -> None:
    told = run("""
        zero, path = ctypes.create_string_buffer(256), b"/tmp"
        calls = {
            "init_module": (zero, 0, zero), "finit_module": (0, zero, 0), "delete_module": (zero, 0),
            "kexec_load": (0, 0, 0, 0), "kexec_file_load": (0, 0, 0, 0, 0),
            "reboot": (0xfee1dead - (1 << 32), 672274793, 0, 0), "swapon": (path, 0), "swapoff": (path,),
            "acct": (0,), "iopl": (3,), "ioperm": (0x70, 2, 1), "settimeofday": (zero, 0),
            "clock_settime": (0, zero), "clock_adjtime": (0, zero), "adjtimex": (zero,),
            "syslog": (3, zero, 256), "quotactl": (0, path, 0, zero), "quotactl_fd": (0, 0, 0, zero),
            "sethostname": (b"x", 1), "setdomainname": (b"x", 1), "sync": (), "syncfs": (0,),
        }
        report({name: call(name, *arguments) for name, arguments in calls.items() if number(name)})
    """)
    assert len(told) == (22 if platform.machine() == "x86_64" else 20)
    assert told == dict.fromkeys(told, "EPERM")


@pytest.mark.catalogue("P20", "F11")
def test_no_system_v_ipc_and_no_message_queue(run: Attack) -> None:
    told = run("""
        report([call("shmget", 0, 4096, 0o1600), call("semget", 0, 1, 0o1600), call("msgget", 0, 0o1600),
                call("mq_open", b"queue", os.O_CREAT | os.O_RDWR, 0o600, 0)])
    """)
    assert told == ["EPERM"] * 4


@pytest.mark.catalogue("P20")
def test_cannot_type_into_a_terminal(run: Attack) -> None:
    told = run("""
        import fcntl, pty, termios
        controller, terminal = pty.openpty()
        TIOCLINUX = 0x541C
        report({
            "works": os.isatty(terminal),
            "type": [call("ioctl", terminal, termios.TIOCSTI | wide, b"x") for wide in (0, 1 << 32)],
            "paste": call("ioctl", terminal, TIOCLINUX, b"\\3"),
        })
    """)
    assert told == {"works": True, "type": ["EPERM"] * 2, "paste": "EPERM"}


@pytest.mark.catalogue("P21")
def test_no_file_handles(run: Attack) -> None:
    told = run("""
        handle, mount = (ctypes.c_uint32 * 34)(128), ctypes.c_int()
        inode_2 = (ctypes.c_uint32 * 4)(8, 1, 2, 0)
        root = os.open("/", os.O_RDONLY)
        report([call("name_to_handle_at", -100, b"/etc/passwd", handle, ctypes.byref(mount), 0),
                call("open_by_handle_at", root, inode_2, os.O_RDONLY)])
    """)
    assert told == ["EPERM"] * 2


@pytest.mark.catalogue("P22")
def test_cannot_take_another_personality(run: Attack) -> None:
    told = run("""
        report({
            "weaker": [call("personality", flags)
                       for flags in (0x40000, 0x400000, 0x440000, 8, 0x20000, 0x100000, 0x200000)],
            "asked": call("personality", 0xffffffff), "plain": call("personality", 0),
            "segments": call("modify_ldt", 1, bytes(16), 16) if number("modify_ldt") else "EPERM",
        })
    """)
    assert told == {"weaker": ["EPERM"] * 7, "asked": 0, "plain": 0, "segments": "EPERM"}
