"""What the programs in this folder share: direct system calls, attempts, and a report.

The audit sends this file with each program; the hostile tests put it in front of theirs.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
from collections.abc import Callable, Collection, Iterable
from typing import NoReturn

# System call: its number on x86_64 and on aarch64; -1 where an architecture has no such call.
# A row for each call would be a hundred lines.
# fmt: off
NUMBERS = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "chroot": (161, 51),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220), "clone3": (435, 435),
    "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "getpid": (39, 172), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioctl": (16, 29), "ioperm": (173, -1),
    "iopl": (172, -1), "ioprio_set": (251, 30), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "kill": (62, 129), "memfd_secret": (447, 447),
    "mknodat": (259, 33), "mlock": (149, 228), "mlockall": (151, 230), "modify_ldt": (154, -1),
    "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429), "mq_open": (240, 180),
    "msgget": (68, 186), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41), "prctl": (157, 167), "prlimit64": (302, 261), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "ptrace": (101, 117), "quotactl": (179, 60), "quotactl_fd": (443, 443), "reboot": (169, 142),
    "request_key": (249, 218), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "semget": (64, 190), "setdomainname": (171, 162), "setgid": (106, 144),
    "setgroups": (116, 159), "sethostname": (170, 161), "setns": (308, 268), "setpriority": (141, 140),
    "setresgid": (119, 149), "setresuid": (117, 147), "settimeofday": (164, 170), "setuid": (105, 146),
    "shmget": (29, 194), "socket": (41, 198), "socketpair": (53, 199), "splice": (275, 76),
    "swapoff": (168, 225), "swapon": (167, 224), "sync": (162, 81), "syncfs": (306, 267),
    "syslog": (103, 116), "tee": (276, 77), "tgkill": (234, 131), "tkill": (200, 130), "umount2": (166, 39),
    "unshare": (272, 97), "userfaultfd": (323, 282), "vmsplice": (278, 75),
}
# fmt: on

MACHINES = ("x86_64", "aarch64")
PLACES = ("/tmp", "/code", "/dev/shm")  # noqa: S108 - where a program may write in a sandbox

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def system_call_number(name: str) -> int:
    """Return the number of a system call on this machine.

    Raises:
        NotImplementedError: this architecture has no such call.
    """
    found = NUMBERS[name][MACHINES.index(platform.machine())]
    if found < 0:
        raise NotImplementedError(name)
    return found


def syscall(call: str | int, *arguments: object) -> int:
    """Make a system call, by name or number, without the C library's wrapper.

    Raises:
        OSError: the kernel or a filter refused it.
        NotImplementedError: this architecture has no such call.
    """
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    ctypes.set_errno(0)
    result = int(
        _libc.syscall(ctypes.c_long(call if isinstance(call, int) else system_call_number(call)), *words)
    )
    if result == -1:
        raise OSError(ctypes.get_errno(), str(call))
    return result


def attempt(action: Callable[..., object], *arguments: object) -> str:
    """Return ``allowed``, or the name of the error that the action raised."""
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except NotImplementedError:
        return "no such call here"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was observed
        return type(error).__name__
    return "allowed"


def in_child(action: Callable[..., object], *arguments: object) -> str:
    """Do the same in a child process; if a signal killed the child, return its name."""
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


def distinct(answers: Iterable[str]) -> str:
    """Return the different answers as one text: ``EPERM`` if all of them are."""
    return ", ".join(sorted(set(answers)))


def reach(
    paths: Iterable[str], action: Callable[[str], object], refusals: Collection[str] | None = None
) -> str:
    """Return ``refused`` if the action failed on every path; else the other paths and their answers.

    With ``refusals``, an error that is not among them counts as not refused.
    """
    answers = {path: attempt(action, path) for path in paths}
    reached = {
        path: answer
        for path, answer in answers.items()
        if (answer == "allowed" if refusals is None else answer not in refusals)
    }
    return ", ".join(f"{path}: {answer}" for path, answer in reached.items()) or "refused"


def open_to_read(path: str) -> None:
    """Open a file for reading, and close it."""
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def open_to_write(path: str) -> None:
    """Open a file for writing, and close it; nothing is written."""
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def put(path: str, content: bytes) -> None:
    """Write into a file that exists."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def report(observed: object) -> None:
    """Print what was observed as one line of JSON."""
    print(json.dumps(observed), flush=True)
