"""What the other programs in this folder observe with. Laid beside each of them."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
from collections.abc import Callable, Mapping
from typing import NoReturn

# Number on x86_64, on aarch64; -1 where there is none.
NUMBERS = {
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "splice": (275, 76), "tee": (276, 77), "vmsplice": (278, 75), "memfd_secret": (447, 447),
    "clone3": (435, 435), "clone": (56, 220), "ptrace": (101, 117), "kcmp": (312, 272),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "open_tree": (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "personality": (135, 92),
    "modify_ldt": (154, -1), "sync": (162, 81), "syncfs": (306, 267), "shmget": (29, 194),
    "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "iopl": (172, -1), "ioperm": (173, -1), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "syslog": (103, 116), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "sethostname": (170, 161), "setdomainname": (171, 162), "tkill": (200, 130),
    "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "sched_setattr": (314, 274), "ioprio_set": (251, 30), "prlimit64": (302, 261), "setuid": (105, 146),
    "setgid": (106, 144), "getpid": (39, 172),
}  # fmt: skip

MACHINES = {"x86_64": 0, "aarch64": 1}
_libc = ctypes.CDLL(None, use_errno=True)


def syscall(name: str, *arguments: int | bytes | None) -> int:
    """The system call itself, past the C library's ideas of it."""
    number = NUMBERS[name][MACHINES[platform.machine()]]
    if number < 0:
        raise NotImplementedError(name)
    words = [value if isinstance(value, bytes | None) else ctypes.c_long(value) for value in arguments]
    ctypes.set_errno(0)
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def attempt(action: Callable[..., object], *arguments: object) -> str:
    """``allowed``, or the name of the error that kept it from happening."""
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except NotImplementedError:
        return "no such call here"
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what was observed)
        return type(error).__name__
    return "allowed"


def in_child(action: Callable[..., object], *arguments: object) -> str:
    """The same, in a process of its own; or the name of the signal that ended it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(write, attempt(action, *arguments))
    os.close(write)
    with os.fdopen(read) as answers:
        answer = answers.read()
    _, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else answer


def _answer(to: int, answer: str) -> NoReturn:
    os.write(to, answer.encode())
    os._exit(0)


def report(observed: Mapping[str, str]) -> None:
    """Tell the host."""
    print(json.dumps(dict(observed)))
