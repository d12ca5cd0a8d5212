"""What payloads are built of: system calls made directly, and a report on stdout."""

from __future__ import annotations

import textwrap

# Numbers on x86-64 and aarch64; None where an architecture has no such call.
_NUMBERS = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280),
    "chroot": (161, 51), "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220),
    "clone3": (435, 435), "delete_module": (176, 106), "fanotify_init": (300, 262),
    "finit_module": (313, 273), "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430),
    "fspick": (433, 433), "getpid": (39, 172), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioctl": (16, 29),
    "ioperm": (173, None), "iopl": (172, None), "ioprio_set": (251, 30), "kcmp": (312, 272),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219), "kill": (62, 129),
    "memfd_secret": (447, 447), "mknodat": (259, 33), "mlock": (149, 228), "mlockall": (151, 230),
    "modify_ldt": (154, None),
    "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429), "mq_open": (240, 180),
    "msgget": (68, 186), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41), "prctl": (157, 167), "prlimit64": (302, 261),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "reboot": (169, 142), "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "semget": (64, 190), "setdomainname": (171, 162), "setgid": (106, 144), "setgroups": (116, 159),
    "sethostname": (170, 161), "setns": (308, 268), "setpriority": (141, 140), "setresgid": (119, 149),
    "setresuid": (117, 147), "settimeofday": (164, 170), "setuid": (105, 146), "shmget": (29, 194),
    "socket": (41, 198), "socketpair": (53, 199), "splice": (275, 76), "swapoff": (168, 225),
    "swapon": (167, 224), "sync": (162, 81), "syncfs": (306, 267), "syslog": (103, 116), "tee": (276, 77),
    "tgkill": (234, 131), "tkill": (200, 130), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vmsplice": (278, 75),
}  # fmt: skip

_PRELUDE = f"""
import ctypes, errno, json, os, platform, signal, socket, stat, sys, time
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_NUMBERS = {_NUMBERS!r}

def number(name):
    return _NUMBERS[name][("x86_64", "aarch64").index(platform.machine())]

def raw(nr, *arguments):
    "What the kernel answers: a number, or the name of an error."
    taken = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    ctypes.set_errno(0)
    answer = _libc.syscall(ctypes.c_long(nr), *taken)
    return errno.errorcode[ctypes.get_errno()] if answer == -1 else answer

def call(name, *arguments):
    return raw(number(name), *arguments)

def attempt(action, *arguments):
    "What a function does: ok, or the name of the error it raises."
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok"

def fate(action):
    "How a child ends that does this: its exit code, or minus the signal."
    child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def report(facts):
    print(json.dumps(facts), flush=True)

"""


def payload(body: str) -> str:
    """A Python program of that body, with ``call``, ``attempt``, ``fate`` and ``report`` at hand."""
    return _PRELUDE + textwrap.dedent(body)
