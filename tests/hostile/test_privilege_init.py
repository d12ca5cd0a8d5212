"""No program reaches init or, in a reused sandbox, the template, though they share its user id."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.cases import not_shown
from hostile.conftest import Attack, Batch, Watch, answer

CAP_SYS_RESOURCE = 24


def root_has(capability: int) -> bool:
    """Whether the host's first process has the capability; the engine can have no more than that."""
    status = Path("/proc/1/status").read_text()
    return bool(int(status.partition("CapBnd:")[2].split()[0], 16) >> capability & 1)


@pytest.mark.catalogue("P07")
def test_a_program_may_change_its_own_and_its_childrens_limits(run: Attack) -> None:
    reported = run("""
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
    assert reported == [100, 50, 1, 5, 3]


@pytest.mark.catalogue("P08")
def test_cannot_signal_a_template_indirectly(run_in_turn: Batch) -> None:
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
    reported = answer(first)
    assert reported.pop("everybody") == reported.pop("its group") == ["EPERM"] * 3
    assert reported == dict.fromkeys(reported, "EPERM")
    assert answer(second) == "well"
    assert second.container_id == first.container_id


@pytest.mark.catalogue("P08")
def test_signals_to_all_processes_do_not_affect_init(watch: Watch) -> None:
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
    assert seen.reported == "still here"
    assert state in "SR"


@pytest.mark.catalogue("P09")
def test_cannot_lower_its_own_oom_score_even_slightly(run: Attack) -> None:
    if not root_has(CAP_SYS_RESOURCE):
        not_shown("root has no CAP_SYS_RESOURCE on this machine, so a score that root sets is no floor")
    assert run("report(attempt(lambda: open('/proc/self/oom_score_adj', 'w').write('899')))") == "EACCES"


@pytest.mark.catalogue("P09")
def test_every_process_has_a_higher_oom_score_than_the_hosts(watch: Watch) -> None:
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
    reported = run("""
        caught = []
        signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        report([len(caught), in_child(lambda: os.kill(os.getpid(), signal.SIGTERM))])
    """)
    assert reported == [2, "SIGTERM"]


def test_the_same_attacks_succeed_against_a_child(run: Attack) -> None:
    """The attacks can succeed: against the program's own child they do."""
    reported = run("""
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
    assert reported == {"environ": "allowed", "limits": 0, "kill": 0}
