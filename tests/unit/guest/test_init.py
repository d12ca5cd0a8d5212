"""init, the PID 1 of every sandbox, as a program: started in namespaces, and driven over its channel.

The tests run with a build that has sanitizers. Those marked ``both_builds`` also run with the static build
that goes into the images, and with ``CODEFORGE_TEST_ALL=1`` all do.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from busy import scaled
from codeforge import protocol
from codeforge.protocol.frames import SkipReason
from init_harness import (
    INIT_DIR,
    SANITIZER_VARIABLE,
    TOKEN,
    Init,
    PythonProgram,
    SanitizerFinding,
    Starter,
    World,
    frame,
    make,
    sh,
    start_frames,
    state_of,
    wait_until,
)

GUEST_DIR = INIT_DIR.parent
FAILED = 70
GONE_S = 2.0
"""How long after the end of the channel everything in the sandbox is gone, on an idle machine."""


# --- Start


@pytest.mark.both_builds
def test_ready_comes_first_and_carries_the_posture(start: Starter) -> None:
    with start() as init:
        event = init.read_event()
    assert isinstance(event, protocol.Ready)
    keys = {"protocol", "pid", "uid", "gid", "dumpable", "no_new_privs", "seccomp", "root", "code", "tmp"}
    keys |= {"cap_inh", "cap_prm", "cap_eff", "cap_bnd", "cap_amb", "groups", "code_bytes", "interfaces"}
    assert keys <= event.posture.keys()
    assert (event.posture["pid"], event.posture["dumpable"]) == ("1", "0")
    assert event.posture["no_new_privs"] == "1"
    assert int(event.posture["cap_eff"], 16) == 0
    assert event.posture["code"].startswith("rw")
    assert event.posture["code_bytes"] == str(32 << 20)


@pytest.mark.both_builds
def test_init_refuses_to_be_anything_but_pid_1(start: Starter) -> None:
    refused = subprocess.run([start.binary], capture_output=True, stdin=subprocess.DEVNULL, text=True)
    assert refused.returncode == 64
    assert "must be PID 1" in refused.stderr
    assert refused.stdout == ""


PLANT = """
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
mode_t __real_umask(mode_t);
mode_t __wrap_umask(mode_t);
volatile int largest = INT_MAX;
mode_t __wrap_umask(mode_t mask)
{
    volatile size_t size = 8;
    volatile char *outside = (volatile char *)malloc(size) + size;
    if (getenv("overflow"))
        *outside = 1;
    if (getenv("undefined"))
        mask += (mode_t)(largest + 1);
    return __real_umask(mask);
}
"""
PLANTED = {"overflow": "heap-buffer-overflow", "undefined": "ended as UBSan ends it"}


@pytest.fixture(scope="session")
def planted(world: World) -> Starter:
    """init with bugs in umask(), which it calls once its stderr is gone. A variable chooses one."""
    world.build("sanitized")
    plant, binary = world.dir / "plant.c", world.dir / "init-planted"
    plant.write_text(PLANT)
    make(world.dir, "check", f"CHECKED={binary}", f"EXTRA={plant}", "LDFLAGS=-Wl,--wrap=umask")
    return Starter(world, binary)


@pytest.mark.parametrize("bug", PLANTED)
def test_the_sanitized_build_finds_a_planted_bug(planted: Starter, bug: str) -> None:
    with planted() as init:  # without a bug
        init.wait_for(protocol.Ready)
    with pytest.raises(SanitizerFinding, match=PLANTED[bug]), planted(env={bug: "1"}) as init:
        init.finish()


# --- A command


@pytest.mark.both_builds
def test_streams_stay_apart_and_exact(start: Starter, py: PythonProgram) -> None:
    program = "import os; os.write(1, bytes(range(256)) * 500); os.write(2, bytes(range(255, -1, -1)) * 300)"
    outcome = start.run(py(program))
    assert outcome.stdout == bytes(range(256)) * 500
    assert outcome.stderr == bytes(range(255, -1, -1)) * 300
    assert outcome.dropped == {"stdout": 0, "stderr": 0}


def test_output_arrives_while_the_run_goes_on(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(sh("echo first; read line; echo $line")))
        init.wait_for_output(b"first\n")
        init.feed(b"second\n")
        assert init.finish().stdout == b"first\nsecond\n"


def test_argv_is_exact(start: Starter) -> None:
    script = "cat /proc/$$/cmdline; :"
    arguments = ["", "two words", "ünïcödé ☃", "-rf", "a\nb", "'\"$(x)`", "", "x" * 60000]
    expected = b"".join(word.encode() + b"\0" for word in sh(script, *arguments))
    assert start.run(sh(script, *arguments)).stdout == expected


@pytest.mark.both_builds
def test_the_request_environment_overrides_the_inherited_one(start: Starter) -> None:
    variables = [b"BOTH=first", b"BOTH=last", b"EMPTY=", "UNI=☃=x\ny".encode(), b"BOT=prefix", b"TWICE=a=b"]
    with start(env={"BOTH": "inherited", "KEPT": "kept"}) as init:
        command = protocol.command(["cat", "/proc/self/environ"], {}, "/code")
        init.send(command, *(frame(b"e", v) for v in variables), protocol.go(token=TOKEN))
        lines = init.finish().stdout.split(b"\0")
    ours = tuple(f"{name}=".encode() for name in ("PATH", SANITIZER_VARIABLE))
    assert sorted(line for line in lines if not line.startswith(ours)) == sorted(
        [b"", b"BOTH=last", b"KEPT=kept", *variables[2:]]
    )


def test_the_path_variable_of_the_request_is_for_the_program_and_does_not_find_it(start: Starter) -> None:
    with start(env={"PATH": "/code/bin"}) as init:
        init.send(
            protocol.file("bin/mine", b'#!/bin/sh\necho "mine $PATH"\n', 0o755),
            start_frames(["mine"], env={"PATH": "/nowhere"}),
        )
        assert init.finish().stdout == b"mine /nowhere\n"


def test_a_run_starts_in_code_or_where_the_request_says(start: Starter) -> None:
    assert start.run(["pwd"]).stdout == b"/code\n"
    outcome = start.run(
        sh("pwd; echo x > here; echo y > /code/there"), files={"sub/in": b""}, cwd="/code/sub"
    )
    assert outcome.stdout == b"/code/sub\n"
    assert set(outcome.files) == {b"sub/here", b"there"}


@contextlib.contextmanager
def kept(start: Starter) -> Iterator[Init]:
    """An init for many runs: a start costs more than a run."""
    with start() as init:
        init.wait_for(protocol.Ready)
        yield init


def test_every_exit_code_is_reported(start: Starter) -> None:
    with kept(start) as init:
        ends = [init.run(sh(f"exit {code}")).exit for code in range(256)]
    assert [(end.exit_code, end.signal) for end in ends] == [(code, None) for code in range(256)]


def test_every_terminating_signal_is_reported(start: Starter) -> None:
    harmless = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    stopping = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    signals = [*sorted(set(range(1, 32)) - harmless - stopping), 34, 50, 64]
    with kept(start) as init:
        ends = [init.run(sh(f"kill -{number} $$; sleep 1000")).exit for number in signals]
    assert [(end.exit_code, end.signal) for end in ends] == [(None, number) for number in signals]


@pytest.mark.parametrize("command", ["no-such-program", "/code/no-such-program", "/code", "/etc/passwd"])
def test_a_command_that_cannot_run_is_named_in_the_failure(start: Starter, command: str) -> None:
    with start() as init:
        init.send(start_frames([command]))
        outcome = init.finish()
    assert outcome.failed is not None
    assert outcome.failed.startswith(f"cannot run {command}: ")
    assert (outcome.status, outcome.exited) == (FAILED, None)


def test_a_missing_start_directory_is_named_in_the_failure(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(["true"], cwd="/code/nowhere"))
        outcome = init.finish()
    assert outcome.status == FAILED
    assert outcome.failed is not None
    assert "/code/nowhere" in outcome.failed


# --- The state that a run starts in


@pytest.mark.both_builds
def test_a_run_has_exactly_three_descriptors(start: Starter, py: PythonProgram) -> None:
    # Whatever descriptors init inherits. 11 would lie between its own two ends of the channel.
    program = """
import os, sys
for number in (3, 4, 9, 11, 12, 200):
    os.dup2(2, number)
os.execv(sys.argv[1], sys.argv[1:])
"""
    wrapper = py(program)
    outcome = start.run(["ls", "-l", "/proc/self/fd"], wrapper=wrapper)
    shown = {line.split()[-3]: line.split()[-1] for line in outcome.stdout.decode().splitlines()[1:]}
    opened_by_ls = shown.pop("3", "")
    assert opened_by_ls.startswith("/proc/")
    assert set(shown) == {"0", "1", "2"}
    assert all(target.startswith("pipe:") for target in shown.values())
    assert len(set(shown.values())) == 3


def test_signals_session_and_limits_of_a_run_are_fresh(start: Starter) -> None:
    outcome = start.run(["cat", "/proc/self/status", "/proc/self/stat", "/proc/self/limits"])
    lines = outcome.stdout.decode().splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    for mask in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"):
        assert int(status[mask], 16) == 0, mask
    assert status["Umask"] == "0022"
    (stat,) = (line for line in lines if "(cat)" in line)
    pid, (parent, group, session) = stat.split()[0], stat.rpartition(") ")[2].split()[1:4]
    assert (parent, group, session) == ("1", pid, pid)
    (core,) = (line for line in lines if line.startswith("Max core file size"))
    assert core.split()[-3:-1] == ["0", "0"]


def test_a_run_cannot_raise_its_core_limit(start: Starter) -> None:
    assert start.run(sh("ulimit -c unlimited")).exit.exit_code != 0


def test_a_run_is_dumpable_again_and_may_write_its_own_proc(start: Starter) -> None:
    assert (
        start.run(
            sh("echo 500 > /proc/self/oom_score_adj && cat /proc/self/environ > /dev/null")
        ).exit.exit_code
        == 0
    )


# --- stdin


def test_stdin_is_delivered_and_ends(start: Starter) -> None:
    outcome = start.run(["cat"], stdin=b"line\n\0\xff")
    assert outcome.stdout == b"line\n\0\xff"
    assert outcome.acknowledged == 7


def test_empty_stdin_ends_at_once(start: Starter) -> None:
    assert start.run(["cat"], stdin=b"").stdout == b""


@pytest.mark.both_builds
def test_a_mebibyte_of_stdin_goes_through_the_window(start: Starter) -> None:
    data = random.Random(1).randbytes(1 << 20)
    outcome = start.run(["cat"], stdin=data, output_bytes=2 << 20)
    assert outcome.stdout == data
    assert outcome.acknowledged == len(data)


def test_stdin_that_is_never_read_does_not_block_kill(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(["sleep", "1000"]))
        init.send(protocol.stdin(b"x" * protocol.STDIN_WINDOW))
        init.wait_for(protocol.Acknowledged)
        init.send(protocol.stdin(b"y" * init.outcome.acknowledged), protocol.kill())
        outcome = init.finish()
    assert outcome.exit.signal == signal.SIGKILL
    assert outcome.done


def test_stdin_for_a_run_that_closed_it_is_dropped(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(sh("exec 0<&-; echo closed; read x <&1; sleep 1000")))
        init.wait_for_output(b"closed")
        init.feed(b"x" * 300_000)
        while init.outcome.acknowledged < 300_000:
            init.wait_for(protocol.Acknowledged)
        init.send(protocol.kill())
        assert init.finish().exit.signal == signal.SIGKILL


def test_stdin_left_over_does_not_delay_the_end(start: Starter) -> None:
    with start() as init:
        init.send(
            start_frames(sh("echo ready; head -c 1 >/dev/null")), protocol.stdin(b"z" * protocol.STDIN_WINDOW)
        )
        assert init.finish().exit.exit_code == 0


# --- A host that does not read


def test_a_host_that_reads_late_loses_nothing(start: Starter, py: PythonProgram) -> None:
    data = b"".join(b"%07d\n" % n for n in range(400_000))
    program = """
import os
for n in range(0, 400_000, 1000):
    os.write(1, b''.join(b'%07d\\n' % i for i in range(n, n + 1000)))
"""
    with start() as init:
        init.send(start_frames(py(program), output_bytes=1 << 22))
        init.wait_until_stuck()
        outcome = init.finish()
    assert outcome.stdout == data
    assert outcome.exit.exit_code == 0


def fill_with_acknowledgements(init: Init, count: int = 600) -> int:
    """Send stdin byte by byte to an init that cannot send, so that its outbox fills up with ACKs."""
    sent = 0
    for _ in range(count):
        if init.untaken():
            break  # init reads no more, as it should
        init.send(protocol.stdin(b"x"))
        sent += 1
        until = time.monotonic() + 0.05
        while init.untaken() and time.monotonic() < until:
            os.sched_yield()
    return sent


@pytest.mark.both_builds
def test_kill_reaches_an_init_that_cannot_send(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(["cat", "/dev/zero"], output_bytes=1 << 30))
        init.wait_until_stuck()
        fill_with_acknowledgements(init)
        init.send(protocol.kill())
        outcome = init.finish()
    assert outcome.exit.signal == signal.SIGKILL
    assert outcome.done


def test_stdin_reaches_a_run_whose_output_nobody_reads(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(sh("head -c 3000000 /dev/zero; cat > got"), output_bytes=1 << 30))
        init.wait_until_stuck()
        sent = fill_with_acknowledgements(init)
        init.send(protocol.stdin(b"end"), protocol.stdin(b""))
        outcome = init.finish()
    assert len(outcome.stdout) == 3_000_000
    assert outcome.files[b"got"].data == b"x" * sent + b"end"
    assert outcome.acknowledged == sent + 3


# --- Much output


def test_output_is_cut_at_the_limit_and_the_rest_is_counted(start: Starter, py: PythonProgram) -> None:
    program = """
import os
for n in range(3000):
    os.write(1, bytes([n % 251]) * 1001)
    os.write(2, bytes([n % 241]) * 77)
"""
    whole = {
        "stdout": b"".join(bytes([n % 251]) * 1001 for n in range(3000)),
        "stderr": b"".join(bytes([n % 241]) * 77 for n in range(3000)),
    }
    outcome = start.run(py(program), output_bytes=100_003)
    assert outcome.stdout == whole["stdout"][:100_003]
    assert outcome.stderr == whole["stderr"][:100_003]
    assert outcome.dropped == {name: len(data) - 100_003 for name, data in whole.items()}


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 131072])
def test_output_of_exactly_the_limit_is_not_cut(start: Starter, size: int) -> None:
    with kept(start) as init:
        outcome = init.run(["head", "-c", str(size), "/dev/zero"], output_bytes=size)
        assert (len(outcome.stdout), outcome.dropped["stdout"]) == (size, 0)
        outcome = init.run(["head", "-c", str(size + 1), "/dev/zero"], output_bytes=size)
        assert (len(outcome.stdout), outcome.dropped["stdout"]) == (size, 1)


@pytest.mark.both_builds
def test_a_flood_costs_init_no_memory_and_is_reported_in_steps(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(sh("cat /dev/zero & cat /dev/zero >&2"), output_bytes=1 << 20))
        events = 0
        while init.outcome.dropped["stdout"] + init.outcome.dropped["stderr"] < 100 << 20:
            init.wait_for(protocol.Dropped)
            events += 1
        if start.binary.name == "init":
            status = Path(f"/proc/{init.pid}/status").read_text()
            (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
            assert int(peak) < 3 * 1024, f"{peak} kB"
        init.send(protocol.kill())
        outcome = init.finish()
    assert events <= 101
    assert len(outcome.stdout) == len(outcome.stderr) == 1 << 20
    assert outcome.exit.signal == signal.SIGKILL


def test_single_bytes_are_gathered_into_few_frames(start: Starter, py: PythonProgram) -> None:
    outcome = start.run(py("import os\nfor n in range(5000): os.write(1, b'.')"))
    assert outcome.stdout == b"." * 5000
    assert outcome.frames < 500


# --- The end


def test_children_that_hold_the_pipes_do_not_delay_the_end(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(sh("sleep 1000 & sleep 1000 & echo done")))
        outcome = init.finish()
    assert outcome.stdout == b"done\n"
    assert outcome.exit.exit_code == 0
    assert outcome.wall_s < scaled(5)


DAEMON = """
import os, signal, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        for fd in (0, 1, 2):
            os.close(fd)
        n = 0
        while True:
            n += 1
            with open('/code/daemon', 'w') as f:
                f.write(str(n))
    os._exit(0)
os.wait()
open('/code/big', 'wb').write(bytes(1 << 20))
while not os.path.exists('/code/daemon'):
    pass
print('main ends', flush=True)
"""


@pytest.mark.both_builds
def test_daemons_are_dead_before_files_are_sent(start: Starter, py: PythonProgram) -> None:
    with start() as init:
        init.send(start_frames(py(DAEMON)))
        init.wait_for(protocol.Exited)
        assert init.processes() == [init.pid]  # which waits for room to send the big file
        outcome = init.finish()
    assert outcome.exit.exit_code == 0
    assert set(outcome.files) == {b"big", b"daemon"}


def test_children_that_ignore_signals_end_by_kill(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(sh("trap '' HUP INT TERM; (trap '' TERM; sleep 1000) & echo ready; wait")))
        init.wait_for_output(b"ready")
        init.send(protocol.kill())
        assert init.finish().exit.signal == signal.SIGKILL


def test_a_stopped_run_ends_by_kill(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(sh("sleep 1000 & kill -STOP $!; kill -STOP $$")))
        init.wait_for(protocol.Ready)
        wait_until(lambda: [state_of(pid) for pid in init.processes()].count("T") == 2, "both are stopped")
        init.send(protocol.kill())
        assert init.finish().exit.signal == signal.SIGKILL


def test_kill_keeps_partial_output_and_files(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(sh("echo part; echo err >&2; echo data > file; echo now; sleep 1000")))
        init.wait_for_output(b"now")
        init.send(protocol.kill())
        outcome = init.finish()
    assert (outcome.stdout, outcome.stderr) == (b"part\nnow\n", b"err\n")
    assert (outcome.exit.exit_code, outcome.exit.signal) == (None, signal.SIGKILL)
    assert outcome.files[b"file"].data == b"data\n"
    assert outcome.done


@pytest.mark.both_builds
def test_a_fork_bomb_ends_by_kill(start: Starter, py: PythonProgram) -> None:
    # A limit of processes for a uid of its own stands for the engine's pids limit.
    uid = 300_000 + os.getpid() % 100_000 * 2 + (start.binary.name == "init")
    with start(uid=uid, processes=100) as init:
        # At the limit it goes on; a shell would give up.
        bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
        init.send(start_frames(py(bomb)))
        init.wait_for(protocol.Ready)
        wait_until(lambda: len(init.processes()) > 60, "the bomb goes off")
        init.send(protocol.kill())
        outcome = init.finish()
    assert outcome.done
    assert outcome.exit.signal == signal.SIGKILL


def test_orphans_are_reaped_while_the_run_goes_on(start: Starter) -> None:
    with start() as init:
        init.send(
            start_frames(
                sh("i=0; while [ $i -lt 200 ]; do (true &) ; i=$((i+1)); done; echo made; sleep 1000")
            )
        )
        init.wait_for_output(b"made")
        wait_until(lambda: len(init.processes()) == 3, "only init, the shell and sleep are left")
        init.send(protocol.kill())
        init.finish()


def test_a_thousand_orphans_at_once_are_reaped(start: Starter, py: PythonProgram) -> None:
    program = """
import os, time
if os.fork() == 0:
    for _ in range(1000):
        if os.fork() == 0: os._exit(0)
    os._exit(0)
os.wait()
print('made', flush=True)
time.sleep(1000)
"""
    with start() as init:
        init.send(start_frames(py(program)))
        init.wait_for_output(b"made")
        wait_until(lambda: len(init.processes()) == 2, "only init and the run are left")
        init.send(protocol.kill())
        init.finish()


def test_the_first_process_decides_how_the_run_ended(start: Starter) -> None:
    with kept(start) as init:
        assert init.run(sh("(exit 9) & (kill -9 $$) & sleep 1000")).exit.signal == signal.SIGKILL
        assert init.run(sh("(sleep 0.01; exit 9) & (kill -9 0) 2>/dev/null & exec sh -c 'exit 4'")).exited
        assert init.run(sh("sh -c 'kill -9 $$' 2>/dev/null; exit 5")).exit.exit_code == 5


# --- The end of the channel


@pytest.mark.parametrize(
    ("frames", "last", "status"),
    [(start_frames(["true"]), protocol.Done, 0), (protocol.kill(), protocol.Failed, 70)],
    ids=["after a run", "after a failure"],
)
def test_init_stays_until_the_host_hangs_up(
    start: Starter, monkeypatch: pytest.MonkeyPatch, frames: bytes, last: type[protocol.Event], status: int
) -> None:
    with start() as init:
        hang_up = init.close_input
        monkeypatch.setattr(init, "close_input", lambda: None)
        init.send(frames)
        init.wait_for(last)
        init.send(protocol.kill())  # as if it had been on its way
        with pytest.raises(AssertionError, match="did not end"):
            init.wait(1.0)
        hang_up()
        assert init.wait() == status


@pytest.mark.parametrize("half", [False, True], ids=["both", "input"])
@pytest.mark.parametrize("stage", ["start", "worker", "file", "running", "flood", "stalled", "collecting"])
def test_everything_is_gone_when_the_channel_closes(
    start: Starter, py: PythonProgram, stage: str, half: bool
) -> None:
    spawn = "trap '' TERM HUP; setsid sleep 1000 & echo up; "
    with start() as init:
        init.wait_for(protocol.Ready)
        match stage:
            case "worker":
                init.send(protocol.command(["sleep", "1000"], {}, "/code"), protocol.worker())
                wait_until(lambda: len(init.processes()) == 2, "the worker is there")
            case "file":
                init.send(protocol.file("half", b"x" * 1000)[:-500])
            case "running":
                init.send(start_frames(sh(spawn + "sleep 1000")))
                init.wait_for_output(b"up")
            case "flood":
                init.send(start_frames(sh(spawn + "cat /dev/zero")))
                init.wait_for(protocol.Dropped)
            case "stalled":
                init.send(start_frames(sh(spawn + "cat /dev/zero"), output_bytes=1 << 40))
                init.wait_until_stuck()
            case "collecting":
                init.send(start_frames(sh("head -c 1000000 /dev/zero > big")))
                init.wait_for(protocol.Exited)
        processes = init.processes()
        if half:
            init.close_input()
        else:
            init.close()
        assert init.wait(scaled(GONE_S)) == 0
        assert [state_of(pid) for pid in processes] == ["gone"] * len(processes)


def test_init_gives_up_at_its_maximum_age(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(["sleep", "1000"], max_age_s=0.3))
        outcome = init.finish()
    assert (outcome.status, outcome.exited) == (FAILED, None)


def test_init_gives_up_at_its_maximum_age_while_nobody_reads(start: Starter) -> None:
    with start() as init:
        init.send(start_frames(["head", "-c", "1000000", "/dev/zero"], max_age_s=0.5))
        assert init.wait() == FAILED


# --- Workers

WORKER = """
import json, os
waiting = len(os.listdir('/proc/self/fd')), os.environ['CODEFORGE_CONTROL_FD']
def read(size):
    piece = os.read(3, size)
    assert piece
    return piece + read(size - len(piece)) if len(piece) < size else piece
header = read(5)
assert header[4:] == b'g'
message = read(int.from_bytes(header[:4], 'little'))
assert os.read(3, 1) == b''
os.close(3)
print(json.dumps([os.getpid(), waiting, message.decode()]), flush=True)
print(os.read(0, 100).decode(), end='')
"""


def start_worker(init: Init, argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Start a worker and wait for it. Returns its PID on the host."""
    init.wait_for(protocol.Ready)
    init.send(protocol.command(argv, env or {}, "/code"), protocol.worker())
    wait_until(lambda: len(init.processes()) >= 2, "the worker is there")
    return min(set(init.processes()) - {init.pid})


@pytest.mark.both_builds
def test_a_worker_waits_for_its_command(start: Starter, py: PythonProgram) -> None:
    with start() as init:
        pid = start_worker(init, py(WORKER))
        wait_until(lambda: state_of(pid) == "S", "the worker waits")
        arguments = ["program", "", "a b", "ü"]
        init.send(
            start_frames(arguments, env={"KEY": "va=lue", "LAST": ""}),
            protocol.stdin(b"typed"),
            protocol.stdin(b""),
        )
        outcome = init.finish()
    line, typed = outcome.stdout.decode().split("\n")
    _, waiting, message = json.loads(line)
    assert waiting == [5, "3"]  # 0 to 3, and the listed directory
    assert message == "\0".join(["4", *arguments, "KEY=va=lue", "LAST=", ""])
    assert typed == "typed"
    assert outcome.exit.exit_code == 0


def test_a_worker_gets_a_command_larger_than_a_pipe(start: Starter, py: PythonProgram) -> None:
    env = {f"V{n}": "x" * 50_000 for n in range(4)}
    with start() as init:
        start_worker(init, py(WORKER))
        init.send(start_frames(["a"], env=env), protocol.stdin(b""))
        outcome = init.finish()
    message = json.loads(outcome.stdout)[2]
    assert message == "\0".join(["1", "a", *(f"{key}={value}" for key, value in env.items()), ""])


def test_a_worker_that_never_takes_its_command_ends_by_kill(start: Starter) -> None:
    with start() as init:
        start_worker(init, ["sleep", "1000"])
        init.send(start_frames(["a"], env={f"V{n}": "x" * 50_000 for n in range(4)}), protocol.kill())
        assert init.finish().exit.signal == signal.SIGKILL


def test_a_fresh_run_replaces_the_worker(start: Starter) -> None:
    with start() as init:
        pid = start_worker(init, sh("echo worker; (setsid sleep 1000 &); exec sleep 1000"))
        init.send(
            start_frames(sh('echo "${CODEFORGE_CONTROL_FD-none}"; ls /proc/self/fd | wc -l'), fresh=True)
        )
        outcome = init.finish()
    assert state_of(pid) == "gone"
    assert outcome.stdout == b"none\n4\n"
    assert outcome.exit.exit_code == 0


def test_a_worker_that_died_is_replaced(start: Starter) -> None:
    with start() as init:
        init.wait_for(protocol.Ready)
        init.send(protocol.command(sh("echo old; : > ran; exit 3"), {}, "/code"), protocol.worker())
        wait_until(lambda: Path(f"/proc/{init.pid}/root/code/ran").exists(), "the worker has run")
        wait_until(lambda: init.processes() == [init.pid], "the worker is gone")
        init.send(start_frames(sh("echo new; exit 4")))
        outcome = init.finish()
    assert outcome.stdout == b"new\n"
    assert outcome.exit.exit_code == 4


def test_what_a_waiting_worker_wrote_belongs_to_the_run(start: Starter) -> None:
    with start() as init:
        start_worker(init, sh("echo booted; cat <&3 >/dev/null; echo went"))
        init.send(start_frames(["a"]))
        assert init.finish().stdout == b"booted\nwent\n"


# --- Files in


def test_files_and_their_modes_are_set_before_the_program_starts(start: Starter) -> None:
    with start() as init:
        init.send(
            protocol.file("a", b"one", 0o600),
            protocol.file("deep/er/b", b"two", 0o755),
            protocol.file("deep/c", b"", 0o4777),
            protocol.file("big", bytes(range(256)) * 1000),
            start_frames(sh("stat -c '%n %a %s' a deep deep/er deep/er/b deep/c big; cksum < big")),
        )
        outcome = init.finish()
    lines = outcome.stdout.decode().splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines[:5]] == [
        "a 600",
        "deep 755",
        "deep/er 755",
        "deep/er/b 755",
        "deep/c 755",
    ]
    assert lines[5] == "big 644 256000"
    cksum = subprocess.run(["cksum"], input=bytes(range(256)) * 1000, capture_output=True).stdout
    assert lines[6].encode() == cksum.strip()
    assert outcome.files == {}
    assert outcome.skipped == {}


def test_a_thousand_files_go_in_and_none_comes_back(start: Starter) -> None:
    files = {f"d{n % 50}/f{n}": b"%d" % n for n in range(1000)}
    outcome = start.run(sh("find . -type f | wc -l; cat d7/f57"), files=files)
    assert outcome.stdout == b"1000\n57"
    assert outcome.files == {}


@pytest.mark.parametrize(
    "path", ["../code/up", "sub/../../code/up", "..", ".", "/code/abs", "sub//x", "sub/", "/", "sub/."]
)
def test_a_path_that_leaves_code_or_is_not_normal_is_refused(start: Starter, path: str) -> None:
    with start() as init:
        init.send(protocol.file("sub/there", b""), protocol.file(path, b"data"), start_frames(["true"]))
        outcome = init.finish()
    assert outcome.failed is not None
    assert outcome.failed.startswith(f"cannot write {path}: ")
    assert outcome.status == FAILED


@pytest.mark.parametrize("path", ["link/x", "file", "fifo"])
def test_a_file_is_never_written_through_what_a_worker_left(start: Starter, path: str) -> None:
    with start() as init:
        pid = start_worker(init, sh("ln -s /tmp link; ln -s /code/none file; mkfifo fifo; cat <&3"))
        wait_until(lambda: Path(f"/proc/{pid}/root/code/fifo").exists(), "the worker has made its files")
        init.send(protocol.file(path, b""))
        outcome = init.finish()
    assert outcome.failed is not None
    assert outcome.failed.startswith(f"cannot write {path}: ")


@pytest.mark.parametrize("second", ["taken", "taken/below"])
def test_a_file_is_never_overwritten(start: Starter, second: str) -> None:
    with start() as init:
        init.send(protocol.file("taken", b"1"), protocol.file(second, b"2"))
        outcome = init.finish()
    assert outcome.failed is not None
    assert outcome.failed.startswith(f"cannot write {second}: ")
    assert outcome.status == FAILED


def test_a_full_disk_is_reported(start: Starter) -> None:
    with start(code="size=64k") as init:
        init.send(protocol.file("big", bytes(100_000)))
        outcome = init.finish()
    assert outcome.failed == "cannot write big: No space left on device"


# --- Files out


@pytest.mark.both_builds
def test_only_what_the_run_wrote_is_sent(start: Starter) -> None:
    script = """
    echo new > new; echo more >> changed; : > emptied; rm gone; mv old renamed; mkdir -p d/e; echo x > d/e/f
    rm again; printf same > again; chmod 700 new; cat unread > /dev/null; chmod 600 mode
    mv a tmp; mv b a; mv tmp b
    """
    names = ("changed", "emptied", "gone", "old", "again", "unread", "mode", "a", "b", "keep/dir/file")
    outcome = start.run(sh(script), files=dict.fromkeys(names, b"same"))
    assert outcome.skipped == {}
    assert {path: file.data for path, file in outcome.files.items()} == {
        b"new": b"new\n",
        b"changed": b"samemore\n",
        b"emptied": b"",
        b"renamed": b"same",
        b"d/e/f": b"x\n",
        b"again": b"same",
        b"a": b"same",
        b"b": b"same",
    }
    assert outcome.modes[b"new"] == 0o700
    assert outcome.modes[b"d/e/f"] == 0o644


def test_a_file_changed_through_a_mapping_is_sent(start: Starter, py: PythonProgram) -> None:
    # tmpfs records the time of the first write fault only; a page that was read before causes none.
    program = """
import mmap
with open('data', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:
    first = m[0]
    m[0] = first + 1
"""
    outcome = start.run(py(program), files={"data": b"a" * 5000})
    assert outcome.files[b"data"].data == b"b" + b"a" * 4999


def test_a_file_changed_and_dated_back_is_sent(start: Starter, py: PythonProgram) -> None:
    program = """
import os
before = os.stat('data')
open('data', 'r+').write('new')
os.utime('data', ns=(before.st_atime_ns, before.st_mtime_ns))
"""
    assert start.run(py(program), files={"data": b"old"}).files[b"data"].data == b"new"


def test_an_input_grown_without_bounds_and_dated_back_is_not_read(start: Starter, py: PythonProgram) -> None:
    program = """
import os
before = os.stat('data')
os.truncate('data', 1 << 50)
os.utime('data', ns=(before.st_atime_ns, before.st_mtime_ns))
"""
    assert start.run(py(program), files={"data": b"old"}).skipped == {b"data": SkipReason.TOO_LARGE}


HOSTILE_FILES = r"""
import os, socket
os.symlink('/etc/passwd', 'link'); os.symlink('/etc', 'dirlink'); os.symlink('nowhere', 'dangling')
os.symlink('plain', 'inlink'); os.symlink('.', 'loop')
open('plain', 'w').write('plain'); os.link('plain', 'hard')
os.link('input', 'input-too')
os.mkfifo('fifo'); s = socket.socket(socket.AF_UNIX); s.bind('socket')
with open('sparse', 'wb') as f: f.truncate(1 << 50)
with open('hole', 'wb') as f: f.truncate(100000)
open('secret', 'w').write('x'); os.chmod('secret', 0)
os.mkdir('closed'); open('closed/f', 'w').close(); os.chmod('closed', 0)
os.mkdir('listable'); open('listable/f', 'w').close(); os.chmod('listable', 0o400)
os.mkdir('empty')
for name in (b'new\nline', b'caf\xe9', b'\xff\xfe', b'-rf', b'...', b' ', b'a' * 255, b'\x1b[31m'):
    open(name, 'wb').write(name)
"""


def test_links_and_special_files_are_reported_and_not_followed(start: Starter, py: PythonProgram) -> None:
    outcome = start.run(py(HOSTILE_FILES), files={"input": b"input"})
    reasons = {
        b"link": SkipReason.NOT_REGULAR,
        b"dirlink": SkipReason.NOT_REGULAR,
        b"dangling": SkipReason.NOT_REGULAR,
        b"inlink": SkipReason.NOT_REGULAR,
        b"loop": SkipReason.NOT_REGULAR,
        b"fifo": SkipReason.NOT_REGULAR,
        b"socket": SkipReason.NOT_REGULAR,
        b"plain": SkipReason.LINKED,
        b"hard": SkipReason.LINKED,
        b"input-too": SkipReason.LINKED,
        b"sparse": SkipReason.TOO_LARGE,
        b"secret": SkipReason.UNREADABLE,
        b"closed": SkipReason.UNREADABLE,
        b"listable/f": SkipReason.UNREADABLE,
    }
    assert outcome.skipped == reasons
    names = {b"new\nline", b"caf\xe9", b"\xff\xfe", b"-rf", b"...", b" ", b"a" * 255, b"\x1b[31m"}
    assert outcome.files.keys() == {*names, b"hole"}
    assert all(outcome.files[name].data == name for name in names)
    assert outcome.files[b"hole"].data == bytes(100_000)


def test_a_tree_that_is_too_deep_is_cut_off(start: Starter, py: PythonProgram) -> None:
    program = """
import os
for n in range(1000):
    if n < 40: open('f%d' % n, 'w').close()
    os.mkdir('d'); os.chdir('d')
os.chdir('/code')
os.mkdir('long'); os.chdir('long')
for n in range(20):
    os.mkdir('n' * 250); os.chdir('n' * 250)
    open('x', 'w').close()
"""
    outcome = start.run(py(program))
    depth = max(path.count(b"/") for path in outcome.files)
    assert depth == 32
    assert outcome.skipped[b"/".join([b"d"] * 33)] is SkipReason.TOO_DEEP
    assert len(outcome.skipped) == 2
    assert all(reason is SkipReason.TOO_DEEP for reason in outcome.skipped.values())
    long = [path for path in outcome.files if path.startswith(b"long")]
    assert len(long) == 16  # 5 + 16 * 251 bytes, and two more, are within the 4095 of a path


def test_no_more_files_than_allowed(start: Starter) -> None:
    script = "i=0; while [ $i -lt 1100 ]; do echo $i > f$i; i=$((i+1)); done"
    outcome = start.run(sh(script))
    assert len(outcome.files) == protocol.MAX_FILES_OUT
    assert list(outcome.skipped.values()) == [SkipReason.TOO_MANY]


@pytest.mark.parametrize("allowed", [0, 1, 5])
def test_links_and_files_share_one_limit(start: Starter, allowed: int) -> None:
    script = "for n in 1 2 3; do echo $n > f$n; ln -s x l$n; done"
    with start() as init:
        limits = frame(b"l", struct.pack("<QQII", 1000, 1000, allowed, 0))
        init.send(limits, protocol.command(sh(script), {}, "/code"), protocol.go(token=TOKEN))
        outcome = init.finish()
    assert len(outcome.files) + len(outcome.skipped) == allowed + 1
    assert list(outcome.skipped.values()).count(SkipReason.TOO_MANY) == 1


def test_no_more_bytes_than_allowed(start: Starter) -> None:
    script = "head -c 600 /dev/zero > a; head -c 600 /dev/zero > b; head -c 400 /dev/zero > c; : > d"
    outcome = start.run(sh(script), files_bytes=1000)
    assert sum(len(file.data) for file in outcome.files.values()) <= 1000
    assert outcome.files.keys() | outcome.skipped.keys() == {b"a", b"b", b"c", b"d"}
    assert set(outcome.skipped.values()) == {SkipReason.TOO_LARGE}
    assert b"d" in outcome.files


def test_large_files_arrive_complete(start: Starter, py: PythonProgram) -> None:
    program = """
import random
for n in (65535, 65536, 65537, 1000000):
    open(f'f{n}', 'wb').write(random.Random(n).randbytes(n))
"""
    outcome = start.run(py(program))
    for size in (65535, 65536, 65537, 1_000_000):
        assert outcome.files[b"f%d" % size].data == random.Random(size).randbytes(size)


def test_an_unreadable_code_directory_is_reported(start: Starter) -> None:
    outcome = start.run(sh("echo x > f; chmod 0 /code"))
    assert outcome.files == {}
    assert list(outcome.skipped.values()) == [SkipReason.UNREADABLE]


# --- A run that attacks init

ATTACK = r"""
import ctypes, errno, json, os, signal
libc = ctypes.CDLL(None, use_errno=True)
result = {}
for number in range(1, 65):
    for call, arguments in ((62, (1, number)), (234, (1, 1, number))):  # kill, tgkill
        sent = libc.syscall(call, *arguments)
        result[f'{call} {number}'] = 'done' if sent == 0 else errno.errorcode[ctypes.get_errno()]
for name in ('mem', 'environ', 'maps', 'syscall', 'auxv', 'fd', 'fd/10', 'fd/11', 'cwd', 'root', 'exe',
             'map_files'):
    path = '/proc/1/' + name
    try:
        if name in ('fd', 'map_files'):
            os.listdir(path)
        elif name in ('cwd', 'root', 'exe'):
            os.readlink(path)
        else:
            open(path, 'rb', 0).read(1)
        result[name] = 'open'
    except OSError as error:
        result[name] = errno.errorcode[error.errno]
for name in ('mem', 'oom_score_adj', 'fd/11', 'coredump_filter', 'comm', 'clear_refs'):
    try:
        os.close(os.open('/proc/1/' + name, os.O_WRONLY))
        result['write ' + name] = 'open'
    except OSError as error:
        result['write ' + name] = errno.errorcode[error.errno]
def call(name, *arguments):
    done = libc.syscall(*(a if isinstance(a, ctypes.Array) else ctypes.c_long(a) for a in arguments))
    result[name] = 'done' if done >= 0 else errno.errorcode[ctypes.get_errno()]
PTRACE = 101
call('attach', PTRACE, 16, 1, 0, 0)
call('seize', PTRACE, 0x4206, 1, 0, 0)
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
call('process_vm_readv', 310, 1, vector, 1, vector, 1, 0)
call('process_vm_writev', 311, 1, vector, 1, vector, 1, 0)
call('pidfd_getfd', 438, os.pidfd_open(1), 10, 0)
print(json.dumps(result), flush=True)
os.kill(-1, signal.SIGTERM)
"""


@pytest.mark.both_builds
def test_a_run_cannot_signal_trace_or_read_init(start: Starter, py: PythonProgram) -> None:
    assert os.uname().machine == "x86_64", "the system calls of the attack are numbered for x86-64"
    with start() as init:
        init.send(start_frames(py(ATTACK)), protocol.stdin(b""))
        outcome = init.finish()
    result = json.loads(outcome.stdout)
    assert outcome.done
    assert {name: got for name, got in result.items() if got not in ("EACCES", "EPERM")} == {}


def test_a_run_cannot_touch_inits_limits(start: Starter, py: PythonProgram) -> None:
    program = """
import resource
for name in sorted(name for name in dir(resource) if name.startswith('RLIMIT_')):
    try:
        resource.prlimit(1, getattr(resource, name), (0, 0))
    except PermissionError:
        print(name)
"""
    limits = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    assert start.run(py(program)).stdout.decode().split() == limits


# --- Violations of the protocol

RUNNING = start_frames(["sleep", "1000"])
SLEEPER = protocol.command(["sleep", "9"], {}, "/code") + protocol.worker()
SLEEPER_TEMPLATE = protocol.command(["sleep", "9"], {}, "/code") + protocol.worker(template=True)
VIOLATIONS: Mapping[str, tuple[bytes, str]] = {
    "unknown": (frame(b"?"), "unknown frame 63"),
    "one of its own": (frame(b"R"), "unknown frame 82"),
    "oversize": (struct.pack("<IB", protocol.PAYLOAD_MAX + 1, ord("a")), "frame of 65537 bytes"),
    "huge": (b"\xff" * 5, "frame of 4294967295 bytes"),
    "go twice": (RUNNING + protocol.go(token=TOKEN), "after GO"),
    "argument after go": (RUNNING + frame(b"a", b"x"), "after GO"),
    "file after go": (RUNNING + protocol.file("x", b""), "after GO"),
    "worker after go": (RUNNING + protocol.worker(), "after GO"),
    "unknown after go": (RUNNING + frame(b"?"), "after GO"),
    "stdin before go": (protocol.stdin(b"x"), "before GO"),
    "preload without a worker": (protocol.preload("x"), "nothing to preload"),
    "preload after go": (RUNNING + protocol.preload("x"), "after GO"),
    "too many steps": (SLEEPER + protocol.preload("x" * 5000), "too many steps"),
    "kill before go": (protocol.kill(), "before GO"),
    "stdin beyond the window": (RUNNING + protocol.stdin(b"x" * 65536) * 3, "stdin beyond its window"),
    "stdin after its end": (RUNNING + protocol.stdin(b"") + protocol.stdin(b"x"), "stdin beyond its window"),
    "second worker": (SLEEPER * 2, "a second worker"),
    "second template": (SLEEPER + SLEEPER_TEMPLATE, "a second worker"),
    "nothing to run": (protocol.go(token=TOKEN), "nothing to run"),
    "no worker to run": (protocol.worker(), "nothing to run"),
    "go without a token": (SLEEPER + frame(b"g", b"\0"), "GO of the wrong size"),
    "go with half a token": (SLEEPER + frame(b"g", b"\0" + TOKEN[:8]), "GO of the wrong size"),
    "nothing for the worker": (
        SLEEPER + protocol.go(token=TOKEN),
        "nothing to run",
    ),
    "short limits": (frame(b"l", bytes(23)), "limits of the wrong size"),
    "long limits": (frame(b"l", bytes(25)), "limits of the wrong size"),
    "argument with NUL": (frame(b"a", b"a\0b"), "NUL"),
    "variable with NUL": (frame(b"e", b"A=a\0b"), "NUL"),
    "variable without value": (frame(b"e", b"A"), "not KEY=VALUE"),
    "variable without name": (frame(b"e", b"=A"), "not KEY=VALUE"),
    "empty variable": (frame(b"e"), "not KEY=VALUE"),
    "directory with NUL": (frame(b"c", b"/\0"), "not usable"),
    "endless directory": (frame(b"c", b"/" * 256), "not usable"),
    "too many arguments": (frame(b"a", b"x") * 4097, "too many"),
    "too long arguments": (frame(b"a", b"x" * 65536) * 4, "too many"),
    "data without file": (frame(b"d", b"x"), "data without a file"),
    "data after something else": (
        protocol.file("x", b"y") + protocol.command([], {}, "/") + frame(b"d", b"x"),
        "data without",
    ),
    "file without name": (frame(b"f", bytes(4)), "file without a name"),
    "file without mode": (frame(b"f", b"abc"), "file without a name"),
    "file with NUL": (frame(b"f", bytes(4) + b"a\0b"), "cannot write"),
    "endless file name": (frame(b"f", bytes(4) + b"a" * 5000), "cannot write"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_of_the_protocol_ends_the_sandbox(start: Starter, name: str) -> None:
    frames, said = VIOLATIONS[name]
    with start() as init:
        init.send(frames)
        outcome = init.finish()
    assert outcome.failed is not None
    assert said in outcome.failed
    assert (outcome.status, outcome.exited) == (FAILED, None)


# --- What a run used


def test_usage_counts_the_whole_run(start: Starter, py: PythonProgram) -> None:
    busy = "import time, os\nwhile time.process_time() < 0.3: pass\n"
    program = f"import os\nif os.fork() == 0:\n    exec({busy!r})\n    os._exit(0)\nos.wait()"
    outcome = start.run(py(program))
    assert 0.3 <= outcome.exit.cpu_s < 2
    assert 0.3 <= outcome.wall_s < scaled(10)


def test_usage_counts_killed_children_too(start: Starter, py: PythonProgram) -> None:
    program = """
import os, time
read, write = os.pipe()
if os.fork() == 0:
    while time.process_time() < 0.2: pass
    os.write(write, b'x')
    while True: pass
os.read(read, 1)
"""
    outcome = start.run(py(program))
    assert 0.2 <= outcome.exit.cpu_s < 2
    assert outcome.wall_s >= 0.2


def test_sleeping_costs_time_and_no_cpu(start: Starter) -> None:
    outcome = start.run(["sleep", "0.3"])
    assert 0.3 <= outcome.wall_s < scaled(10)
    assert outcome.exit.cpu_s < 0.25


# --- Random input


def test_random_frames_never_crash_init(start: Starter) -> None:
    # init reports what is wrong or waits for more.
    rng = random.Random(int(os.environ.get("CODEFORGE_TEST_SEED", "7")))
    kinds = b"laecwpfd?"
    for _ in range(15):
        frames = [
            frame(bytes([rng.choice(kinds)]), rng.randbytes(rng.choice([0, 1, 5, 24, 300]))) for _ in range(8)
        ]
        with start() as init:
            init.send(b"".join(frames))
            init.close_input()
            assert init.finish().status in (0, FAILED)
