"""No program reaches the processes it shares a user id with: init, and in a reused sandbox the template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostile.cases import not_shown
from hostile.conftest import Attack, Batch, Watch, answer

Guarded = Callable[[str], Any]

CAP_SYS_RESOURCE = 24


def root_has(capability: int) -> bool:
    """Whether the host's first process has it, and so, at most, the engine."""
    status = Path("/proc/1/status").read_text()
    return bool(int(status.partition("CapBnd:")[2].split()[0], 16) >> capability & 1)


@pytest.fixture(params=["init", "template"])
def against(request: pytest.FixtureRequest, run_in_turn: Batch) -> Guarded:
    """Runs an attack on ``TARGET``; afterwards another run must be well in the same sandbox."""
    target = {"init": "1", "template": "os.getppid()"}[request.param]

    def checked(code: str) -> Any:
        first, second = run_in_turn(f"TARGET = {target}\n{code}", "report('well')")
        assert answer(second) == "well"
        assert second.container_id == first.container_id
        return answer(first)

    return checked


@pytest.mark.catalogue("P05")
def test_cannot_trace(against: Guarded) -> None:
    told = against("""
PTRACE_TRACEME, PTRACE_PEEKDATA, PTRACE_ATTACH, PTRACE_SEIZE = 0, 2, 16, 0x4206
child = os.fork()
if child == 0:
    time.sleep(30)
facts = {
    "attach": call("ptrace", PTRACE_ATTACH, TARGET, 0, 0),
    "seize": call("ptrace", PTRACE_SEIZE, TARGET, 0, 0),
    "peek": call("ptrace", PTRACE_PEEKDATA, TARGET, 0, 0),
    "own child": call("ptrace", PTRACE_SEIZE, child, 0, 0),
    "be traced by the parent": call("ptrace", PTRACE_TRACEME, 0, 0, 0),
}
os.kill(child, 9)
report(facts)
""")
    assert set(told.values()) == {"EPERM"}
    assert len(told) == 5


@pytest.mark.catalogue("P06", "F10")
def test_cannot_open_its_memory_descriptors_or_environment(against: Guarded) -> None:
    told = against("""
def opened(path, how):
    return attempt(lambda: os.read(os.open(path, how), 1))
base = f"/proc/{TARGET}"
facts = {name: opened(f"{base}/{name}", os.O_RDONLY)
         for name in "mem maps smaps environ auxv stack syscall pagemap io personality clear_refs".split()}
facts["mem for writing"] = opened(f"{base}/mem", os.O_RDWR)
facts["task mem"] = opened(f"{base}/task/{TARGET}/mem", os.O_RDWR)
for name in ("fd", "fdinfo", "map_files", "task/%d/fd" % TARGET):
    facts[f"list {name}"] = attempt(os.listdir, f"{base}/{name}")
for name in ("cwd", "root", "exe", "ns/pid", "ns/net"):
    facts[f"link {name}"] = attempt(os.readlink, f"{base}/{name}")
for number in range(16):
    facts[f"descriptor {number}"] = opened(f"{base}/fd/{number}", os.O_WRONLY)
facts["through its root"] = opened(f"{base}/root/etc/passwd", os.O_RDONLY)
report(facts)
""")
    assert told.pop("clear_refs") == "EACCES"
    assert set(told.values()) <= {"EACCES", "EPERM"}, told
    assert told["mem"] == told["environ"] == told["list fd"] == told["descriptor 1"] == "EACCES"


@pytest.mark.catalogue("P06")
def test_cannot_reach_its_memory_by_system_calls(against: Guarded) -> None:
    told = against("""
buffer = ctypes.create_string_buffer(8)
local = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
remote = (ctypes.c_size_t * 2)(0x400000, 8)
pidfd = call("pidfd_open", TARGET, 0)
report({
    "read": call("process_vm_readv", TARGET, local, 1, remote, 1, 0),
    "write": call("process_vm_writev", TARGET, local, 1, remote, 1, 0),
    "descriptor": [call("pidfd_getfd", pidfd, n, 0) for n in range(4)],
    "compare": call("kcmp", TARGET, os.getpid(), 0, 0, 0),
    "advise": call("process_madvise", pidfd, remote, 1, 4, 0),
    "release": call("process_mrelease", pidfd, 0),
})
""")
    assert told.pop("descriptor") == ["EPERM"] * 4
    assert set(told.values()) == {"EPERM"}


@pytest.mark.catalogue("P07")
def test_cannot_change_its_limits_or_priority(against: Guarded) -> None:
    told = against("""
pair, mask, parameter = (ctypes.c_uint64 * 2)(9, 9), ctypes.c_uint64(1), ctypes.c_int(0)
batch = (ctypes.c_uint32 * 12)(48, 3)
def state():
    limits = open(f"/proc/{TARGET}/limits").read()
    return limits, os.getpriority(os.PRIO_PROCESS, TARGET), sorted(os.sched_getaffinity(TARGET))
before = state()
facts = {
    "limits": [call("prlimit64", TARGET, kind, pair, 0) for kind in range(16)],
    "limits by a wide number": call("prlimit64", TARGET | 1 << 32, 7, pair, 0),
    "affinity": call("sched_setaffinity", TARGET, 8, mask),
    "scheduler": call("sched_setscheduler", TARGET, 3, parameter),
    "parameter": call("sched_setparam", TARGET, parameter),
    "attributes": call("sched_setattr", TARGET, batch, 0),
    "priority": call("setpriority", 0, TARGET, 19),
    "priority of a group": call("setpriority", 1, TARGET, 19),
    "priority of a user": [call("setpriority", 2, who, 19) for who in (0, os.getuid())],
    "io": call("ioprio_set", 1, TARGET, 3 << 13),
    "io of a user": [call("ioprio_set", 3, who, 3 << 13) for who in (0, os.getuid())],
}
report({"calls": facts, "same": before == state()})
""")
    assert told["same"]
    for answered in told["calls"].values():
        assert set(answered if isinstance(answered, list) else [answered]) == {"EPERM"}, told


@pytest.mark.catalogue("P07")
def test_its_own_limits_and_its_childrens_a_program_may_change(run: Attack) -> None:
    told = run("""
        import resource, subprocess
        child = subprocess.Popen(["sleep", "30"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (50, 50))
        os.sched_setaffinity(0, {0})
        os.sched_setaffinity(child.pid, {0})
        os.setpriority(os.PRIO_PROCESS, child.pid, 5)
        os.nice(3)
        report([
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            resource.prlimit(child.pid, resource.RLIMIT_NOFILE)[0],
            len(os.sched_getaffinity(child.pid)), os.getpriority(os.PRIO_PROCESS, child.pid), os.nice(0),
        ])
        child.kill()
    """)
    assert told == [100, 50, 1, 5, 3]


SIGNALS = """
def all_signals(name, *before):
    return sorted({str(call(name, *before, number)) for number in range(1, 65)})
info = (ctypes.c_uint32 * 32)()
def queued(name, *before):
    answers = set()
    for number in range(1, 65):
        info[0], info[2] = number, 0xffffffff
        answers.add(str(call(name, *before, number, info)))
    return sorted(answers)
facts = {
    "kill": all_signals("kill", TARGET),
    "tkill": all_signals("tkill", TARGET),
    "tgkill": all_signals("tgkill", TARGET, TARGET),
    "rt_sigqueueinfo": queued("rt_sigqueueinfo", TARGET),
    "rt_tgsigqueueinfo": queued("rt_tgsigqueueinfo", TARGET, TARGET),
}
"""


@pytest.mark.catalogue("P08")
def test_cannot_signal_it(against: Guarded) -> None:
    told = against(SIGNALS + "report(facts)")
    assert set(map(tuple, told.values())) == {("EPERM",)}
    assert len(told) == 5


@pytest.mark.catalogue("P08")
def test_cannot_signal_a_template_in_a_roundabout_way(run_in_turn: Batch) -> None:
    first, second = run_in_turn(
        """
        import fcntl, struct
        TARGET = os.getppid()
        reading, writing = os.pipe()
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        fcntl.fcntl(reading, 10, signal.SIGKILL)  # F_SETSIG
        report({
            "everybody": [call("kill", -1, number) for number in (9, 15, 19)],
            "its group": [call("kill", -TARGET, number) for number in (9, 15, 19)],
            "by descriptor": call("pidfd_send_signal", call("pidfd_open", TARGET, 0), 9, 0, 0),
            "owner": attempt(fcntl.fcntl, reading, fcntl.F_SETOWN, TARGET),
            "owner's group": attempt(fcntl.fcntl, reading, fcntl.F_SETOWN, -TARGET),
            "owner by address": attempt(fcntl.fcntl, reading, 15, struct.pack("ii", 1, TARGET)),
            "socket's owner": attempt(fcntl.ioctl, socket.socket(), 0x8901, struct.pack("i", TARGET)),
        })
        """,
        "report('well')",
    )
    told = answer(first)
    assert told.pop("everybody") == told.pop("its group") == ["EPERM"] * 3
    assert told == dict.fromkeys(told, "EPERM")
    assert answer(second) == "well"
    assert second.container_id == first.container_id


@pytest.mark.catalogue("P08")
def test_signals_to_everybody_leave_init_alone(watch: Watch) -> None:
    code = """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for number in (9, 15, 19, 1, 2):
            try:
                os.kill(-1, number)
            except ProcessLookupError:
                pass
        pidfd = os.pidfd_open(1)
        for number in (9, 15, 19, 1, 2, 3, 10, 12):
            attempt(signal.pidfd_send_signal, pidfd, number)
        report("still here")
        input()
    """
    with watch(code) as seen:
        state = (seen.init / "stat").read_text().rsplit(") ", 1)[1][0]
    assert seen.told == "still here"
    assert state in "SR"


@pytest.mark.catalogue("P08")
@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_node_cannot_signal_init(run: Attack, language: str) -> None:
    code = """
        const codes: string[] = [];
        for (const name of ["SIGKILL", "SIGTERM", "SIGINT", "SIGSTOP", "SIGUSR1", "SIGSEGV"]) {
          try { process.kill(1, name); codes.push("ok"); } catch (error: any) { codes.push(error.code); }
        }
        console.log(JSON.stringify(codes));
    """
    if language == "javascript":
        code = code.replace(": string[]", "").replace(": any", "")
    assert run(code, language) == ["EPERM"] * 6


@pytest.mark.catalogue("P06", "P09")
def test_node_cannot_open_what_is_inits(run: Attack) -> None:
    told = run(
        """
        const fs = require("fs");
        const paths = ["mem", "environ", "maps", "fd/0", "fd/1", "root/etc/passwd", "cwd/main.js"];
        const codes = {};
        for (const path of paths) {
          try { fs.closeSync(fs.openSync(`/proc/1/${path}`, "r")); codes[path] = "ok"; }
          catch (error) { codes[path] = error.code; }
        }
        try { fs.writeFileSync("/proc/1/oom_score_adj", "1000"); codes.oom = "ok"; }
        catch (error) { codes.oom = error.code; }
        console.log(JSON.stringify(codes));
        """,
        "javascript",
    )
    assert set(told.values()) == {"EACCES"}


@pytest.mark.catalogue("P09")
def test_cannot_steer_who_is_killed_for_want_of_memory(against: Guarded) -> None:
    told = against("""
def write(path, text):
    return attempt(lambda: os.write(os.open(path, os.O_WRONLY), text))
report({
    "its score": write(f"/proc/{TARGET}/oom_score_adj", b"1000"),
    "its old score": write(f"/proc/{TARGET}/oom_adj", b"15"),
    "own, lower": write("/proc/self/oom_score_adj", b"-500"),
    "own, higher": write("/proc/self/oom_score_adj", b"1000"),
    "timer slack": write(f"/proc/{TARGET}/timerslack_ns", b"1000000000"),
    "name": write(f"/proc/{TARGET}/comm", b"x"),
})
""")
    assert told.pop("own, higher") == "ok"
    assert told.pop("timer slack") in ("EPERM", "EACCES")
    assert told == dict.fromkeys(told, "EACCES")


@pytest.mark.catalogue("P09")
def test_cannot_make_itself_a_little_less_likely_to_be_killed(run: Attack) -> None:
    if not root_has(CAP_SYS_RESOURCE):
        not_shown("root has no CAP_SYS_RESOURCE on this machine, so a score that root sets is no floor")
    assert run("report(attempt(lambda: open('/proc/self/oom_score_adj', 'w').write('899')))") == "EACCES"


@pytest.mark.catalogue("P09")
def test_seen_from_outside_every_process_goes_before_the_hosts(watch: Watch) -> None:
    code = """
        attempt(lambda: open("/proc/1/oom_score_adj", "w").write("-1000"))
        report(0)
        input()
    """
    with watch(code) as seen:
        scores = [int((process / "oom_score_adj").read_text()) for process in seen.processes]
    assert scores == [900, 900]


@pytest.mark.catalogue("P08")
def test_a_program_may_signal_itself_and_its_children(run: Attack) -> None:
    told = run("""
        caught = []
        signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        report([len(caught), fate(lambda: os.kill(os.getpid(), signal.SIGTERM))])
    """)
    assert told == [2, -15]


def test_what_a_guarded_attack_would_look_like_if_it_succeeded(run: Attack) -> None:
    """The payloads can tell: against a process of one's own the same calls do something."""
    told = run("""
        child = os.fork()
        if child == 0:
            time.sleep(30)
        facts = {
            "environ": attempt(lambda: open(f"/proc/{child}/environ").read()),
            "limits": call("prlimit64", child, 7, (ctypes.c_uint64 * 2)(9, 9), 0),
            "kill": call("kill", child, 9),
        }
        report(facts)
    """)
    assert told == {"environ": "ok", "limits": 0, "kill": 0}
