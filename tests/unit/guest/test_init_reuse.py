"""init with many runs in one sandbox: templates, cleaning after a run, and what a run cannot reach.

There are three ways to start the next run: a template forks it, a worker that was started for it becomes
it, or init starts it afresh. Cleaning must work after all of them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import platform
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import init_template
from busy import scaled
from codeforge import protocol
from codeforge.protocol.frames import SkipReason
from init_harness import (
    Init,
    Outcome,
    PythonProgram,
    Starter,
    start_frames,
    state_of,
    wait_until,
    wait_until_worker_hung_up,
)

FAILED = 70
KINDS = ("template", "worker", "fresh")
TEST_ALL = os.environ.get("CODEFORGE_TEST_ALL") == "1"


# --- A sandbox that is kept


@dataclass(frozen=True)
class Sandbox:
    """An init, and how its runs start."""

    init: Init
    py: PythonProgram
    kind: str
    template_pid: int | None = None

    def prepare(self, *steps: str) -> None:
        """Start the worker, and send it steps."""
        self.init.send(protocol.command(self.py(init_template.SOURCE), {}, "/code"))
        self.init.send(protocol.worker(template=self.kind == "template"), *map(protocol.preload, steps))

    def start(self, source: str, *arguments: str, keep: bool = True, **options: Any) -> None:
        """Send everything up to GO."""
        if self.kind == "worker":
            self.prepare()
        self.init.send(start_frames(self.py(source, *arguments), keep=keep, **options))

    def run(self, source: str, *arguments: str, stdin: bytes = b"", **options: Any) -> Outcome:
        """Run a program to its end."""
        self.start(source, *arguments, **options)
        self.init.feed(stdin)
        return self.init.finish_run()

    def survives(self) -> None:
        """Check that the last run is gone and the next one works."""
        assert self.init.processes() == self.lasting
        outcome = self.run("import sys; print(sys.stdin.read())", stdin=b"still here")
        assert (outcome.stdout, outcome.stderr, outcome.clean) == (b"still here\n", b"", True)

    @property
    def lasting(self) -> list[int]:
        """PIDs, on the host, of the processes that outlast a run."""
        return sorted([self.init.pid, *([self.template_pid] if self.template_pid else [])])


Opener = Callable[..., contextlib.AbstractContextManager[Sandbox]]

NUMBERS = itertools.count()


@pytest.fixture
def pids_cgroup() -> Iterator[Path | None]:
    """A cgroup that counts processes, as every container has. None where the machine does not let us."""
    with make_pids_cgroup() as path:
        yield path


@contextlib.contextmanager
def make_pids_cgroup() -> Iterator[Path | None]:
    path = Path(f"/sys/fs/cgroup/pids/codeforge-test-{os.getpid()}-{next(NUMBERS)}")
    try:
        path.mkdir()
    except OSError:
        yield None
        return
    yield path
    wait_until(lambda: (path / "cgroup.procs").read_text() == "", "the cgroup is empty")
    path.rmdir()


@pytest.fixture(params=["counted", "listed"])
def cgroup(request: pytest.FixtureRequest, pids_cgroup: Path | None) -> Path | None:
    """init counts processes where there is a cgroup, and lists /proc where there is none."""
    return pids_cgroup if request.param == "counted" else None


@pytest.fixture(scope="session")
def sandbox_of(start: Starter, py: PythonProgram) -> Opener:
    @contextlib.contextmanager
    def opened(kind: str = "template", *steps: str, **options: Any) -> Iterator[Sandbox]:
        with start(**options) as init:
            init.wait_for(protocol.Ready)
            sandbox = Sandbox(init, py, kind)
            if kind == "template":
                sandbox.prepare(*steps)
                wait_until(lambda: len(init.processes()) == 2, "the template is there")
                (pid,) = set(init.processes()) - {init.pid}
                sandbox = replace(sandbox, template_pid=pid)
            yield sandbox

    return opened


@pytest.fixture
def template(sandbox_of: Opener) -> Iterator[Sandbox]:
    with sandbox_of() as sandbox:
        yield sandbox


# --- Runs of a template


@pytest.mark.both_builds
def test_runs_follow_one_another(template: Sandbox) -> None:
    source = """
import os, sys
print(sys.argv[1:], os.environ['V'], os.getcwd(), sys.stdin.read(), sorted(os.listdir()))
print('err', file=sys.stderr)
open('made', 'w').write(sys.argv[1])
sys.exit(int(sys.argv[1]))
"""
    for number in range(5):
        outcome = template.run(
            source, str(number), "ü", env={"V": f"v{number}"}, files={"in": b"x"}, stdin=b"in%d" % number
        )
        said = f"['{number}', 'ü'] v{number} /code in{number} ['in']\n"
        assert (outcome.stdout.decode(), outcome.stderr) == (said, b"err\n")
        assert outcome.exit.exit_code == number
        assert {path: file.data for path, file in outcome.files.items()} == {b"made": b"%d" % number}
        assert (outcome.clean, outcome.done) == (True, False)


def test_the_end_of_a_template_run_is_reported_like_any_other(template: Sandbox) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        exited = template.run(f"import os; os.kill(os.getpid(), {int(number)})").exit
        assert (exited.exit_code, exited.signal) == (None, number)
    assert template.run("raise SystemExit(255)").exit.exit_code == 255
    template.survives()


def test_a_template_gets_a_command_of_many_pieces(template: Sandbox) -> None:
    arguments = [chr(ord("a") + n) * 50_000 for n in range(4)]
    env = {"LARGE": "e" * 40_000}
    outcome = template.run("import os, sys; print(*sys.argv[1:], os.environ['LARGE'])", *arguments, env=env)
    assert outcome.stdout.decode() == " ".join([*arguments, env["LARGE"]]) + "\n"
    template.survives()


def test_much_output_of_a_template_run_is_complete(template: Sandbox) -> None:
    for _ in range(3):
        outcome = template.run("import os\nfor n in range(256): os.write(1, bytes([n]) * 4099)")
        assert outcome.stdout == b"".join(bytes([n]) * 4099 for n in range(256))[: 1 << 20]
        assert len(outcome.stdout) + outcome.dropped["stdout"] == 256 * 4099


BUSY = "import time\nend = time.process_time() + {0}\nwhile time.process_time() < end: pass\n"
BUSY_CHILD = f"""
import os
read, write = os.pipe()
if os.fork() == 0:
    exec({BUSY.format(0.2)!r})
    os.write(write, b'x')
    while True: pass
os.read(read, 1)
"""


def test_cpu_time_is_that_of_the_run_alone(sandbox_of: Opener) -> None:
    with sandbox_of("template", BUSY.format(0.4)) as sandbox:
        sandbox.init.wait_for(protocol.Preloaded)
        assert sandbox.run("pass").exit.cpu_s < 0.3
        assert 0.4 <= sandbox.run(BUSY.format(0.4)).exit.cpu_s < 0.9
        assert sandbox.run("pass").exit.cpu_s < 0.3
        assert 0.2 <= sandbox.run(BUSY_CHILD).exit.cpu_s < 0.9
        assert sandbox.run("pass").exit.cpu_s < 0.3
        sandbox.start(BUSY.format(0.2) + "print('busy', flush=True)\n" + BUSY.format(100))
        sandbox.init.wait_for_output(b"busy")
        sandbox.init.send(protocol.kill())
        assert 0.2 <= sandbox.init.finish_run().exit.cpu_s < 0.9


@pytest.mark.parametrize("kind", ["worker", "fresh"])
def test_cpu_time_of_one_run_does_not_count_for_the_next(sandbox_of: Opener, kind: str) -> None:
    with sandbox_of(kind) as sandbox:
        assert 0.5 <= sandbox.run(BUSY.format(0.5)).exit.cpu_s < 1.1
        assert sandbox.run("pass").exit.cpu_s < 0.4


def test_cpu_time_of_a_sibling_that_only_the_template_can_reap_counts(template: Sandbox) -> None:
    # Its zombie also means that the sandbox is not clean.
    source = """
import ctypes, os, time
CLONE_PARENT, SIGCHLD = 0x8000, 17
if ctypes.CDLL(None).syscall(56, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0:
    end = time.process_time() + 0.2
    while time.process_time() < end: pass
    os.mkdir('/tmp/burnt')
    os._exit(0)
while not os.path.exists('/tmp/burnt'): time.sleep(0.01)
"""
    template.start(source)
    outcome = template.init.finish()
    assert (outcome.done, outcome.clean, outcome.exit.exit_code) == (True, False, 0)
    assert 0.2 <= outcome.exit.cpu_s < 1.2


def test_a_dead_template_is_replaced(template: Sandbox) -> None:
    assert template.template_pid
    os.kill(template.template_pid, signal.SIGKILL)
    wait_until(lambda: template.init.processes() == [template.init.pid], "the template is gone")
    assert template.run("print('fresh')").stdout == b"fresh\n"
    assert template.init.processes() == [template.init.pid]


@pytest.mark.parametrize("step", ["os._exit(3)", "control.close(); time.sleep(100)"])
def test_a_template_that_ends_in_a_step_is_replaced(sandbox_of: Opener, step: str) -> None:
    with sandbox_of("fresh") as sandbox:
        sandbox.init.send(protocol.command(sandbox.py(init_template.SOURCE), {}, "/code"))
        step = f"open('ran', 'w').close(); {step}"
        sandbox.init.send(protocol.worker(template=True), protocol.preload(step), protocol.preload("0"))
        wait_until_worker_hung_up(sandbox.init)
        sandbox.init.send(protocol.preload("0"))
        assert sandbox.run("print('fresh')").stdout == b"fresh\n"


@pytest.mark.parametrize("when", ["during", "at the fork"])
def test_a_template_that_dies_with_its_run_is_a_failure(sandbox_of: Opener, when: str) -> None:
    steps = ["fork = lambda: os._exit(0)"] if when == "at the fork" else []
    with sandbox_of("template", *steps) as sandbox:
        assert sandbox.template_pid
        sandbox.start("print('started', flush=True); import time; time.sleep(100)")
        if when == "during":
            sandbox.init.wait_for_output(b"started")
            os.kill(sandbox.template_pid, signal.SIGKILL)
        outcome = sandbox.init.finish()
    assert (outcome.failed, outcome.status) == ("the template ended", FAILED)


def test_a_template_that_cannot_fork_is_a_failure(sandbox_of: Opener) -> None:
    with sandbox_of("template", "def fork(): raise OSError(11, 'no')") as sandbox:
        sandbox.start("pass")
        outcome = sandbox.init.finish()
    assert outcome.failed == f"the template cannot fork: {os.strerror(errno.EAGAIN)}"


UNEXPECTED: Mapping[str, str] = {
    "unknown": "say(b'?')",
    "zero": "say(b'\\0')",
    "long": "say(b'P', b'x')",
    "huge": "control.sendall(b'\\xff' * 5)",
    "started before": "say(b'S', bytes(4))",
    "exited before": "say(b'X', bytes(20))",
    "failed before": "say(b'E', bytes(4))",
    "done too often": "say(b'P'); say(b'P')",
    "exited without a start": "fork = lambda: (say(b'X', bytes(20)), time.sleep(9))",
    "started twice": "fork = lambda: (say(b'S', bytes([9, 0, 0, 0])), say(b'S', bytes(4)), time.sleep(9))",
    "short exit": "fork = lambda: (say(b'S', bytes([9, 0, 0, 0])), say(b'X', bytes(19)), time.sleep(9))",
    "failed after": "fork = lambda: (say(b'S', bytes([9, 0, 0, 0])), say(b'E', bytes(4)), time.sleep(9))",
}


@pytest.mark.parametrize("name", UNEXPECTED)
def test_an_unexpected_frame_from_a_template_ends_the_sandbox(sandbox_of: Opener, name: str) -> None:
    with sandbox_of("fresh") as sandbox:
        template = Sandbox(sandbox.init, sandbox.py, "template")
        template.prepare(UNEXPECTED[name])
        with contextlib.suppress(BrokenPipeError):
            template.start("pass")
        outcome = sandbox.init.finish()
    assert (outcome.failed, outcome.status) == ("unexpected frame from worker", FAILED)


def test_an_exit_reported_in_advance_ends_the_sandbox(sandbox_of: Opener) -> None:
    # Before it has read its command: the rest of the command would go to the next run.
    early = """
def recv(size, true=control.recv):
    say(b'S', bytes([9, 0, 0, 0])); say(b'X', bytes(20)); time.sleep(9)
exactly = lambda size, have=b'': have if len(have) == size else recv(size)
"""
    with sandbox_of("template", early) as sandbox:
        sandbox.start("pass", *["x" * 60_000] * 4)
        assert sandbox.init.finish().failed == "unexpected frame from worker"


@pytest.mark.parametrize("kind", ["template", "worker"])
def test_steps_are_done_in_order_and_before_the_run(sandbox_of: Opener, kind: str) -> None:
    steps = ["said_by = []", *(f"said_by.append({n})" for n in range(20)), "os.environ['S'] = str(said_by)"]
    with sandbox_of("fresh") as sandbox:
        worker = Sandbox(sandbox.init, sandbox.py, kind)
        worker.prepare("time.sleep(0.1)", *steps)
        sandbox.init.send(start_frames(sandbox.py("import os; print(os.environ['S'])"), keep=True))
        sandbox.init.feed(b"")
        outcome = sandbox.init.finish_run()
    assert outcome.stdout.decode() == f"{list(range(20))}\n"
    assert outcome.preloaded == 23
    assert outcome.clean


def test_each_step_is_reported_when_it_is_done(template: Sandbox) -> None:
    for n in range(3):
        template.init.send(protocol.preload("time.sleep(0.01)"))
        template.init.wait_for(protocol.Preloaded)
        assert template.init.outcome.preloaded == n + 1
    assert template.run("pass").clean
    template.init.send(protocol.preload("os.environ['LATE'] = 'step'"))
    template.init.wait_for(protocol.Preloaded)
    assert template.run("import os; print(os.environ['LATE'])").stdout == b"step\n"


def test_a_template_that_hung_up_does_not_keep_a_stuck_init_busy(sandbox_of: Opener) -> None:
    leaving = """
import threading
def leave():
    while not os.path.exists('/tmp/leave'): time.sleep(0.01)
    control.shutdown(socket.SHUT_RDWR)
    os.mkdir('/tmp/left')
threading.Thread(target=leave).start()
"""
    with sandbox_of("template") as sandbox:
        sandbox.init.send(protocol.preload(leaving))
        sandbox.start("import os\nwhile True: os.write(1, bytes(65536))", output_bytes=1 << 40)
        sandbox.init.wait_until_stuck()
        tmp = Path(f"/proc/{sandbox.init.pid}/root/tmp")
        (tmp / "leave").touch()
        wait_until((tmp / "left").exists, "the template has hung up")
        before = ticks(sandbox.init.pid)
        time.sleep(0.3)
        assert ticks(sandbox.init.pid) - before < 10
        sandbox.init.send(protocol.kill())
        assert sandbox.init.finish().done


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


# --- Nothing of a run is left

CENSUS = r"""
import ctypes, json, os, re, resource, signal, sys
libc = ctypes.CDLL(None)
seen = {'stdin': sys.stdin.read()}
for place in ('/code', '/tmp', '/dev/shm', '/dev/mqueue'):
    fs, st = os.statvfs(place), os.stat(place)
    flags = ctypes.c_uint(0)
    dir = os.open(place, os.O_RDONLY)
    libc.ioctl(dir, ctypes.c_ulong(0x80086601), ctypes.byref(flags))
    os.close(dir)
    seen[place] = [os.listdir(place), oct(st.st_mode), st.st_gid, st.st_nlink, st.st_size, fs.f_bfree,
                   fs.f_ffree, flags.value, libc.listxattr(place.encode(), None, 0)]
for kind in ('shm', 'msg', 'sem'):
    seen[kind] = open('/proc/sysvipc/' + kind).read().splitlines()[1:]
seen['processes'] = len([name for name in os.listdir('/proc') if name.isdigit()])
status = dict(re.findall(r'(\w+):[ \t]*(.*)', open('/proc/self/status').read()))
seen['status'] = {key: status.get(key) for key in ('SigBlk', 'SigIgn', 'SigPnd', 'ShdPnd', 'Umask', 'Seccomp',
    'Seccomp_filters', 'Cpus_allowed', 'Mems_allowed', 'Groups', 'CoreDumping', 'NoNewPrivs', 'THP_enabled',
    'Speculation_Store_Bypass', 'CapEff')}
seen['limits'] = open('/proc/self/limits').read()
seen['process'] = {
    'nice': os.getpriority(os.PRIO_PROCESS, 0), 'policy': os.sched_getscheduler(0),
    'ioprio': libc.syscall(252, 1, 0), 'affinity': sorted(os.sched_getaffinity(0)), 'cwd': os.getcwd(),
    'personality': libc.personality(-1), 'dumpable': libc.prctl(3, 0, 0, 0, 0),
    'no new privileges': libc.prctl(39, 0, 0, 0, 0), 'timer': signal.getitimer(signal.ITIMER_REAL),
    'namespaces': {name: os.readlink('/proc/self/ns/' + name) for name in os.listdir('/proc/self/ns')}}
for name in ('oom_score_adj', 'timerslack_ns', 'coredump_filter', 'cgroup'):
    seen[name] = open('/proc/self/' + name).read()
# Others are the host's: such a mount goes when its mount point is removed anywhere.
ours = re.compile('/(code|tmp|dev|proc|sys)?(/|$)')
seen['mounts'] = [line for line in open('/proc/self/mountinfo') if ours.match(line.split()[4])]
seen['environment'] = {key: value for key, value in os.environ.items() if not key.startswith('LC_')}
seen['fds'] = [os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in range(10)
               if os.path.exists(f'/proc/self/fd/{fd}') or os.path.islink(f'/proc/self/fd/{fd}')]
seen['unix'] = re.findall('[@/].*', open('/proc/net/unix').read())
seen['tcp'] = len(open('/proc/net/tcp').readlines()) + len(open('/proc/net/udp').readlines())
seen['keys'] = libc.syscall(250, 0, -5, 0)
subreaper = ctypes.c_int(0)
libc.prctl(37, ctypes.byref(subreaper), 0, 0, 0)
seen['subreaper'] = subreaper.value
print(json.dumps(seen, sort_keys=True))
"""


LEAVES: Mapping[str, str] = {
    "nothing": "pass",
    "files": """
for place in ('/code', '/tmp', '/dev/shm'):
    open(place + '/file', 'w').write('x' * 100000)
    os.makedirs(place + '/a/b/c'); open(place + '/a/b/c/f', 'w').close()
    os.symlink('/code', place + '/link'); os.symlink('nowhere', place + '/dangling')
    os.mkfifo(place + '/fifo')
    s = socket.socket(socket.AF_UNIX); s.bind(place + '/socket')
    os.link(place + '/file', place + '/hard')
    os.open(place + '/.hidden', os.O_CREAT | os.O_RDWR, 0)
""",
    "names": """
for place in ('/code', '/tmp', '/dev/shm'):
    for name in (b'\\n', b'\\xff', b'x' * 255, b'...', b' ', b'-rf', b'.codeforge-0', b'\\x1b[2J'):
        os.mkdir(os.path.join(place.encode(), name))
        open(os.path.join(place.encode(), name, name), 'w').close()
""",
    "taken names": """
for n in range(40):
    for inner in range(40):
        os.makedirs(f'/code/.codeforge-{n}/.codeforge-{inner}/x')
        os.makedirs(f'/tmp/.codeforge-{n}/.codeforge-{inner}/x')
open('/tmp/.codeforge-99', 'w').close(); os.symlink('/tmp', '/tmp/.codeforge-98')
""",
    "deep": """
for place in ('/code', '/tmp', '/dev/shm'):
    os.chdir(place)
    for n in range(4000):
        os.mkdir('d'); open('f', 'w').close(); os.chdir('d')
""",
    "deep and long": """
os.chdir('/tmp')
for n in range(500):
    os.mkdir('d' * 255); os.mkdir('e' * 255); os.chdir('d' * 255)
""",
    "many": """
for n in range(15000): open(f'/tmp/{n}', 'w').close()
for n in range(5000): os.mkdir(f'/code/{n}')
""",
    "unreadable": """
for place in ('/code', '/tmp', '/dev/shm'):
    os.makedirs(place + '/a/b/c/d'); open(place + '/a/f', 'w').close(); os.mkdir(place + '/g')
    for path in ('a/f', 'a/b/c/d', 'a/b/c', 'a/b', 'a', 'g'): os.chmod(place + '/' + path, 0)
""",
    "unreadable place": "os.mkdir('/code/x'); os.chmod('/code', 0)",
    "open place": "os.chmod('/code', 0o7777)",
    "large": """
for place in ('/code', '/tmp', '/dev/shm'):
    with open(place + '/sparse', 'wb') as f: f.truncate(1 << 60)
    try:
        with open(place + '/full', 'wb') as f:
            while True: f.write(bytes(1 << 20))
    except OSError: pass
""",
    "no inodes": """
try:
    for n in range(100000): os.mkdir(f'/tmp/{n}')
except OSError: pass
""",
    "unlinked": """
fds = []
for place in ('/code', '/tmp', '/dev/shm'):
    fd = os.open(place + '/gone', os.O_CREAT | os.O_RDWR)
    os.write(fd, bytes(1 << 20)); os.unlink(place + '/gone'); mmap.mmap(fd, 1 << 20)[0] = 1
    fds.append(os.open(place, os.O_TMPFILE | os.O_RDWR)); os.write(fds[-1], bytes(1 << 20))
if os.fork() == 0: time.sleep(1000)
""",
    "acl": """
acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in
    ((1, 7, 2**32 - 1), (2, 7, 1234), (4, 7, 2**32 - 1), (16, 7, 2**32 - 1), (32, 7, 2**32 - 1)))
os.setxattr('/code', 'system.posix_acl_default', acl)
os.setxattr('/code', 'system.posix_acl_access', acl)
os.mkdir('/code/d'); os.chmod('/code/d', 0)
""",
    "attributes": """
for n in range(10):
    try: os.setxattr('/code', f'user.{n}', b'x' * 100)
    except OSError: pass
""",
    "flags": """
dir = os.open('/code', os.O_RDONLY)
try: fcntl.ioctl(dir, 0x40086602, struct.pack('I', 0x40 | 0x80))
except OSError: pass
os.mkdir('/code/inherits')
""",
    "times": "os.utime('/code', (0, 0))",
    "system v": """
for n in range(20):
    libc.shmget(n, 4096, 0o1000); libc.msgget(n, 0o1000); libc.semget(n, 3, 0o1000)
    libc.shmget(0, 1 << 20, 0o1600); libc.msgget(0, 0o1600); libc.semget(0, 100, 0o1600)
id = libc.shmget(77, 4096, 0o1600)
libc.shmat.restype = ctypes.c_void_p; libc.shmat(id, None, 0); libc.shmctl(id, 0, None)
id = libc.msgget(78, 0o1600); libc.msgsnd(id, ctypes.create_string_buffer(b'\\1' * 100), 50, 0)
""",
    "queues": """
for n in range(5):
    assert libc.syscall(240, f'queue{n}'.encode(), os.O_CREAT | os.O_RDWR, 0, None) == -1
""",
    "posix shm": """
for n in range(5):
    fd = os.open(f'/dev/shm/psm{n}', os.O_CREAT | os.O_RDWR, 0); os.ftruncate(fd, 1 << 20)
    mmap.mmap(fd, 1 << 20)[5] = 1
""",
    "children": "[os.fork() or time.sleep(1000) for _ in range(1)]\nif os.getpid() == 0: pass",
    "daemons": """
for n in range(10):
    if os.fork() == 0:
        os.setsid()
        for number in set(signal.valid_signals()) - {9, 19}: signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if os.fork() == 0:
            while True: time.sleep(1000)
        os._exit(0)
""",
    "stopped": """
for n in range(5):
    if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)
""",
    "subreaper": """
libc.prctl(36, 1, 0, 0, 0)
for n in range(5):
    if os.fork() == 0:
        if os.fork() == 0: time.sleep(1000)
        os._exit(0)
""",
    "threads without a leader": """
import _thread
if os.fork() == 0:
    _thread.start_new_thread(time.sleep, (1000,))
    libc.syscall(60, 0)
time.sleep(0.1)
""",
    "traced": """
if (child := os.fork()) == 0: time.sleep(1000)
if (tracer := os.fork()) == 0:
    libc.ptrace(16, child, 0, 0); time.sleep(1000)
time.sleep(0.1)
""",
    "namespaces": """
if os.fork() == 0:
    libc.unshare(0x10000000 | 0x20000000 | 0x00020000 | 0x08000000)  # user, pid, mount, ipc
    libc.mount(b'none', b'/code', b'tmpfs', 0, None)
    if os.fork() == 0:
        os.fork(); os.setsid(); time.sleep(1000)
    time.sleep(1000)
time.sleep(0.2)
""",
    "itself": """
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)); resource.setrlimit(resource.RLIMIT_NPROC, (50, 50))
os.nice(5); os.sched_setaffinity(0, [0]); os.umask(0o777); os.chdir('/tmp'); libc.personality(0x0040000)
libc.prctl(29, 123456789); os.environ['LEFT'] = 'x'; signal.alarm(1000); libc.prctl(1, 9)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
open('/proc/self/oom_score_adj', 'w').write('900'); open('/proc/self/coredump_filter', 'w').write('7f')
libc.syscall(251, 1, 0, 3 << 13); libc.syscall(238, 1, 0, 0); libc.prctl(8, 0)
""",
    "locks": """
fd = os.open('/etc/passwd', os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX); os.fork() or time.sleep(100)
""",
    "abstract sockets": """
s = socket.socket(socket.AF_UNIX); s.bind('\\0left'); s.listen(); os.fork() or time.sleep(100)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 5000))
l = socket.socket(); l.bind(('127.0.0.1', 8000)); l.listen(5)
""",
    "lookups": "socket.getaddrinfo('localhost', 80); socket.if_nametoindex('lo')",
    "terminal": """
master, slave = os.openpty()
if os.fork() == 0:
    os.setsid(); fcntl.ioctl(slave, 0x540E, 0); os.tcsetpgrp(slave, os.getpid()); time.sleep(100)
""",
    "output of a dead run": """
if os.fork() == 0:
    while True: os.write(1, b'late'); os.write(2, b'late')
time.sleep(0.01)
""",
    "timers": """
signal.setitimer(signal.ITIMER_REAL, 1000); libc.timerfd_create(1, 0); libc.inotify_init(); libc.eventfd(0, 0)
""",
}
PRELUDE = """
import ctypes, fcntl, mmap, os, resource, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
"""


@dataclass
class Kept:
    """One sandbox of each kind for many tests, replaced when a test fails, and how the first run found it."""

    sandbox_of: Opener
    open: dict[str, tuple[Sandbox, Any]] = field(default_factory=dict)
    stacks: dict[str, contextlib.ExitStack] = field(default_factory=dict)

    def get(self, kind: str) -> tuple[Sandbox, Any]:
        if kind not in self.open:
            stack = self.stacks[kind] = contextlib.ExitStack()
            cgroup = stack.enter_context(make_pids_cgroup())
            sandbox = stack.enter_context(self.sandbox_of(kind, cgroup=cgroup))
            sandbox.run("pass")
            self.open[kind] = sandbox, take_census(sandbox)
        return self.open[kind]

    def drop(self, kind: str) -> None:
        del self.open[kind]
        self.stacks.pop(kind).close()


@pytest.fixture(scope="session")
def kept(sandbox_of: Opener) -> Iterator[Kept]:
    kept = Kept(sandbox_of)
    yield kept
    for kind in list(kept.open):
        kept.drop(kind)


def take_census(sandbox: Sandbox) -> Any:
    """Everything that a run can see of an earlier one."""
    outcome = sandbox.run(CENSUS)
    assert (outcome.stderr, outcome.dropped) == (b"", {"stdout": 0, "stderr": 0})
    assert (outcome.files, outcome.skipped, outcome.clean) == ({}, {}, True)
    return json.loads(outcome.stdout)


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_run_is_left(kept: Kept, kind: str, leave: str) -> None:
    sandbox, before = kept.get(kind)
    try:
        outcome = sandbox.run(PRELUDE + LEAVES[leave], stdin=b"typed and never read")
        assert outcome.stderr in (b"", b"late" * (len(outcome.stderr) // 4)), outcome.stderr
        assert (outcome.exit.exit_code, outcome.clean) == (0, True)
        assert sandbox.init.processes() == sandbox.lasting
        assert take_census(sandbox) == before
    except BaseException:
        kept.drop(kind)
        raise


IN_TRANSIT = 5 if TEST_ALL else 2
"""How often to try where the result depends on when the kernel collects unreachable descriptors."""


def test_what_a_descriptor_in_transit_holds_is_free_for_the_next_run(sandbox_of: Opener) -> None:
    # Until the kernel has collected it, the sandbox is not clean.
    source = """
a, b = socket.socketpair()
named = socket.socket(socket.AF_UNIX); named.bind('\\0taken')
locked = os.open('/etc/passwd', os.O_RDONLY); fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
for n in range(100): socket.send_fds(a, [b'x'], [a.fileno(), b.fileno(), named.fileno(), locked])
"""
    for _ in range(IN_TRANSIT):
        with sandbox_of() as sandbox:
            for _ in range(IN_TRANSIT + 1):
                outcome = sandbox.run(PRELUDE + source)
                assert (outcome.stderr, outcome.exit.exit_code) == (b"", 0)
                if outcome.done:
                    break


def test_descriptors_in_transit_are_gone_or_end_the_sandbox(sandbox_of: Opener) -> None:
    source = """
a, b = socket.socketpair()
held = os.open('/tmp/held', os.O_CREAT | os.O_RDWR); os.write(held, bytes(1 << 20)); os.unlink('/tmp/held')
for n in range(20): socket.send_fds(a, [b'x'], [a.fileno(), b.fileno(), 1, 2, held])
"""
    for _ in range(IN_TRANSIT):
        with sandbox_of() as sandbox:
            before = take_census(sandbox)
            outcome = sandbox.run(PRELUDE + source)
            assert (outcome.exit.exit_code, outcome.clean or outcome.done) == (0, True)
            if outcome.clean:
                assert take_census(sandbox) == before


NOT_CLEAN: Mapping[str, str] = {
    "a port that stays taken": """
l = socket.socket(); l.bind(('127.0.0.1', 8000)); l.listen()
c = socket.create_connection(('127.0.0.1', 8000)); s, _ = l.accept(); s.close(); c.close()
""",
    "attributes without end": """
try:
    for n in range(100): os.setxattr('/code', f'user.{n:0240}', b'x')
except OSError: pass
assert len(os.listxattr('/code')) > 50
""",
}


@pytest.mark.parametrize("leave", NOT_CLEAN)
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_removed_ends_the_sandbox(sandbox_of: Opener, kind: str, leave: str) -> None:
    with sandbox_of(kind) as sandbox:
        sandbox.start(PRELUDE + NOT_CLEAN[leave])
        outcome = sandbox.init.finish()
    assert (outcome.exit.exit_code, outcome.stderr) == (0, b"")
    assert (outcome.done, outcome.clean) == (True, False)


BOMBS: Mapping[str, str] = {
    "every process forks": "while True:\n    try: os.fork()\n    except OSError: pass",
    "a chain": "while True:\n    if os.fork(): os._exit(0)",
    "chains": """
for _ in range(8):
    if os.fork() == 0:
        os.setsid()
        while True:
            try:
                if os.fork(): os._exit(0)
            except OSError: pass
""",
    "orphans": """
for _ in range(8):
    if os.fork() == 0:
        while True:
            try:
                if os.fork() == 0:
                    if os.fork() == 0: os._exit(0)
                    os._exit(0)
                os.wait()
            except OSError: pass
""",
}


GOES_OFF = """
while int(open('/proc/loadavg').read().split()[-1]) < 50: time.sleep(0.01)
print('bang', flush=True)
"""
"""Waits until the sandbox has had 50 processes."""


@pytest.mark.parametrize("end", ["exits", "is killed"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_run_that_goes_on_forking_is_gone_or_ends_the_sandbox(
    sandbox_of: Opener, cgroup: Path | None, bomb: str, end: str
) -> None:
    uid = 400_000 + os.getpid() % 100_000
    for _ in range(3 if TEST_ALL else 1):
        with sandbox_of(cgroup=cgroup, uid=uid, processes=60) as sandbox:
            source = f"{PRELUDE}\nif os.fork() == 0:\n    exec({BOMBS[bomb]!r})\n    os._exit(0)\n{GOES_OFF}"
            sandbox.start(source + ("time.sleep(1000)" if end == "is killed" else ""))
            sandbox.init.wait_for_output(b"bang")
            if end == "is killed":
                sandbox.init.send(protocol.kill())
            started = time.monotonic()
            outcome = sandbox.init.finish_run()
            assert time.monotonic() - started < scaled(5)
            assert not (end == "is killed" and outcome.clean)
            if outcome.clean:
                assert sandbox.init.processes() == sandbox.lasting
                assert sandbox.run("print('next')").stdout == b"next\n"
            else:
                sandbox.init.wait()


def test_init_hears_the_host_in_a_storm_of_orphans(sandbox_of: Opener) -> None:
    source = PRELUDE + "print('storm', flush=True)\n" + BOMBS["orphans"] + "\nos.wait()"
    with sandbox_of("fresh", uid=500_000 + os.getpid() % 100_000, processes=200) as sandbox:
        sandbox.start(source)
        sandbox.init.wait_for_output(b"storm")
        wait_until(lambda: len(sandbox.init.processes()) > 10, "the storm has begun")
        sandbox.init.send(protocol.kill())
        assert sandbox.init.finish_run().exit.signal == signal.SIGKILL


def test_init_hears_the_host_in_a_storm_of_signals(sandbox_of: Opener) -> None:
    source = PRELUDE + "print('storm', flush=True)\nos.fork(); os.fork()\nwhile True: libc.kill(1, 17)"
    with sandbox_of("fresh") as sandbox:
        sandbox.start(source)
        sandbox.init.wait_for_output(b"storm")
        sandbox.init.send(protocol.kill())
        assert sandbox.init.finish_run().exit.signal == signal.SIGKILL


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_is_the_last_one(sandbox_of: Opener, kind: str) -> None:
    with sandbox_of(kind) as sandbox:
        assert sandbox.run("pass").clean
        sandbox.start("print('up', flush=True); import time; time.sleep(1000)")
        sandbox.init.wait_for_output(b"up")
        sandbox.init.send(protocol.kill())
        outcome = sandbox.init.finish()
    assert (outcome.done, outcome.clean, outcome.exit.signal) == (True, False, signal.SIGKILL)
    assert outcome.status == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_without_keep_is_the_last_one(sandbox_of: Opener, kind: str) -> None:
    with sandbox_of(kind) as sandbox:
        assert sandbox.run("pass").clean
        sandbox.start("pass", keep=False)
        outcome = sandbox.init.finish()
    assert (outcome.done, outcome.clean, outcome.status) == (True, False, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_run_of_a_kept_sandbox(sandbox_of: Opener, kind: str) -> None:
    with sandbox_of(kind) as sandbox:
        outcome = sandbox.run("import os; print(os.getppid())", fresh=True)
        assert (outcome.stdout, outcome.clean) == (b"1\n", True)
        assert sandbox.init.processes() == [sandbox.init.pid]
        assert sandbox.run("print('next')").stdout == b"next\n"


@pytest.mark.parametrize("kind", KINDS)
def test_late_frames_for_a_run_do_not_reach_the_next_one(sandbox_of: Opener, kind: str) -> None:
    with sandbox_of(kind) as sandbox:
        outcome = sandbox.run("pass", stdin=b"never read" * 1000)
        assert outcome.clean
        sandbox.init.send(
            protocol.stdin(b"late" * 10_000), protocol.stdin(b""), protocol.stdin(b"x"), protocol.kill()
        )
        outcome = sandbox.run("import sys; print(len(sys.stdin.read()))", stdin=b"y" * 65_536 * 2)
        assert (outcome.stdout, outcome.clean) == (b"131072\n", True)
        assert outcome.acknowledged == 131_072
        outcome = sandbox.run("pass")
        assert (outcome.clean, outcome.acknowledged) == (True, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_one_run_are_not_inputs_of_the_next(sandbox_of: Opener, kind: str) -> None:
    with sandbox_of(kind) as sandbox:
        for _ in range(5 if kind == "template" else 1):  # init has room for 4096 inputs of a run
            assert sandbox.run("pass", files={f"f{n}": b"" for n in range(1000)}).files == {}
            assert sandbox.run("pass", files={"a": b"same", "d/b": b"x"}).files == {}
            # Written by the run, perhaps with the inode that the input had.
            outcome = sandbox.run("for n in range(50): open(f'f{n}', 'w'); open('a', 'w').write('same')")
            assert outcome.files[b"a"].data == b"same"
            assert len(outcome.files) == 51


@pytest.mark.parametrize("kind", KINDS)
def test_every_run_has_its_full_limits(sandbox_of: Opener, kind: str) -> None:
    source = "import os\nos.write(1, b'o' * 3000); os.write(2, b'e' * 3000); open('f', 'w').write('f' * 800)"
    with sandbox_of(kind) as sandbox:
        for _ in range(3):
            outcome = sandbox.run(source, output_bytes=2000, files_bytes=1000)
            assert (outcome.stdout, outcome.stderr) == (b"o" * 2000, b"e" * 2000)
            assert outcome.dropped == {"stdout": 1000, "stderr": 1000}
            assert outcome.files.keys() == {b"f"}
        outcome = sandbox.run(source, output_bytes=4000, files_bytes=100)
        assert outcome.dropped == {"stdout": 0, "stderr": 0}
        assert outcome.skipped == {b"f": SkipReason.TOO_LARGE}


@pytest.mark.parametrize("victim", ["template", "other"])
def test_a_sandbox_that_ran_out_of_memory_is_not_used_again(sandbox_of: Opener, victim: str) -> None:
    cgroup = Path(tempfile.mkdtemp(dir="/var/tmp"))
    cgroup.chmod(0o755)
    events = cgroup / "memory.events"
    events.write_text("low 0\noom 0\noom_kill 0\n")
    with sandbox_of(cgroup=cgroup) as sandbox:
        assert sandbox.run("pass").clean
        sandbox.start("import sys; print('up', flush=True); sys.stdin.read()")
        sandbox.init.wait_for_output(b"up")
        events.write_text("low 0\noom 1\noom_kill 1\n")
        if victim == "template":
            assert sandbox.template_pid
            os.kill(sandbox.template_pid, signal.SIGKILL)
        sandbox.init.feed(b"")
        outcome = sandbox.init.finish()
    shutil.rmtree(cgroup)
    assert (outcome.done, outcome.clean, outcome.exit.oom_kills) == (True, False, 1)
    assert outcome.exit.signal == (signal.SIGKILL if victim == "template" else None)


def fds_of(pid: int) -> list[str]:
    return [entry.name for entry in Path(f"/proc/{pid}/fd").iterdir()]


@pytest.mark.both_builds
@pytest.mark.parametrize("kind", KINDS)
def test_many_runs_cost_nothing_and_each_is_clean(
    sandbox_of: Opener, pids_cgroup: Path | None, kind: str
) -> None:
    source = (
        PRELUDE
        + """
os.makedirs('/tmp/d/e'); open('/tmp/d/e/f', 'w').write(sys.stdin.read()); open('/dev/shm/s', 'w').write('x')
if int(sys.argv[1]) % 7 == 0: os.fork() or time.sleep(100)
print(sys.argv[1])
"""
    )
    with sandbox_of(kind, cgroup=pids_cgroup) as sandbox:
        sandbox.run("pass")
        before = [len(fds_of(pid)) for pid in sandbox.lasting]
        for number in range(200 if TEST_ALL else 60 if kind == "template" else 10):
            outcome = sandbox.run(source, str(number), stdin=b"typed", files={f"in{number}": b"x"})
            assert (outcome.stdout, outcome.clean) == (b"%d\n" % number, True), number
        assert [len(fds_of(pid)) for pid in sandbox.lasting] == before


def test_everything_is_gone_when_the_channel_closes_between_runs(template: Sandbox) -> None:
    assert template.run("pass").clean
    processes = template.init.processes()
    template.init.close()
    assert template.init.wait() == 0
    assert [state_of(pid) for pid in processes] == ["gone"] * 2


def test_the_maximum_age_counts_from_each_go(template: Sandbox) -> None:
    for _ in range(2):
        assert template.run("import time; time.sleep(0.8)", max_age_s=1.5).clean
    time.sleep(0.8)  # the time between runs does not count
    template.start("import time; time.sleep(1000)", max_age_s=0.3)
    assert template.init.finish().status == FAILED


# --- What a run cannot reach

REACH = (
    PRELUDE
    + r"""
import errno, json, platform
template = int(sys.argv[1]) or os.getppid()
result = {}
libc.mmap.restype = ctypes.c_void_p
def attempt(name, call):
    ctypes.set_errno(0)
    try:
        done = call()
        failed = ctypes.get_errno() if isinstance(done, int) and done < 0 else 0
    except OSError as error:
        failed = error.errno
    result[name] = errno.errorcode[failed] if failed else 'done'
def syscall(number, *arguments):
    return libc.syscall(*(a if hasattr(a, '_b_base_') or not isinstance(a, int) else ctypes.c_long(a)
                          for a in (number, *arguments)))
sched_attr = ctypes.create_string_buffer(struct.pack('<IIQiIQQQ', 48, 3, 0, 0, 0, 0, 0, 0))
mask = ctypes.create_string_buffer(b'\1' + bytes(7))
one = ctypes.create_string_buffer(8)
limit = ctypes.create_string_buffer(struct.pack('<QQ', 0, 0))
vector = (ctypes.c_void_p * 2)(ctypes.addressof(one), 8)
info = ctypes.create_string_buffer(struct.pack('<iii', 9, 0, -1) + bytes(116))
HIGH = 1 << 32
for who, pid in (('template', template), ('init', 1)):
    for resource_ in range(16):
        attempt(f'{who} prlimit {resource_}', lambda: syscall(302, pid, resource_, limit, 0))
    attempt(f'{who} prlimit high', lambda: syscall(302, pid + HIGH, 7, limit, 0))
    attempt(f'{who} affinity', lambda: syscall(203, pid, 8, mask))
    attempt(f'{who} scheduler', lambda: syscall(144, pid, 3, one))
    attempt(f'{who} param', lambda: syscall(142, pid, one))
    attempt(f'{who} attr', lambda: syscall(314, pid, sched_attr, 0))
    attempt(f'{who} priority', lambda: syscall(141, 0, pid, 19))
    attempt(f'{who} priority high', lambda: syscall(141, HIGH, pid + HIGH, 19))
    attempt(f'{who} group priority', lambda: syscall(141, 1, pid, 19))
    attempt(f'{who} ioprio', lambda: syscall(251, 1, pid, 3 << 13))
    attempt(f'{who} group ioprio', lambda: syscall(251, 2, pid, 3 << 13))
    attempt(f'{who} attach', lambda: syscall(101, 16, pid, 0, 0))
    attempt(f'{who} seize', lambda: syscall(101, 0x4206, pid, 0, 0))
    attempt(f'{who} read', lambda: syscall(310, pid, vector, 1, vector, 1, 0))
    attempt(f'{who} write', lambda: syscall(311, pid, vector, 1, vector, 1, 0))
    attempt(f'{who} getfd', lambda: syscall(438, os.pidfd_open(pid), 3, 0))
    attempt(f'{who} move pages', lambda: syscall(279, pid, 1, vector, one, one, 2))
    attempt(f'{who} migrate pages', lambda: syscall(256, pid, 64, one, one))
    attempt(f'{who} kcmp', lambda: syscall(312, pid, os.getpid(), 0, 0, 0))
    attempt(f'{who} madvise', lambda: syscall(440, os.pidfd_open(pid), vector, 1, 21, 0))
    attempt(f'{who} core scheduling', lambda: 0 if libc.prctl(62, 2, pid, 0, 0) < 0 else 1 / 0)
    attempt(f'{who} robust list', lambda: syscall(274, pid, one, one))
    attempt(f'{who} perf', lambda: syscall(298, ctypes.create_string_buffer(128), pid, -1, -1, 0))
    attempt(f'{who} setpgid', lambda: syscall(109, pid, 0))
    for name in ('mem', 'environ', 'maps', 'auxv', 'fd', 'fd/3', 'map_files', 'cwd', 'exe', 'root', 'ns/pid',
                 'io', 'syscall', 'stack', 'personality', 'pagemap', 'timers'):
        path = f'/proc/{pid}/{name}'
        attempt(f'{who} proc {name}', lambda: os.close(os.open(path, os.O_RDONLY)))
    for root in (f'/proc/{pid}', f'/proc/{pid}/task/{pid}'):
        for name in os.listdir(root):
            if os.path.isfile(f'{root}/{name}'):
                def write(path=f'{root}/{name}', name=name):
                    fd = os.open(path, os.O_WRONLY)
                    try:
                        os.write(fd, b'0')
                    finally:
                        os.close(fd)
                attempt(f'{who} write {root}/{name}', write)
attempt('join group', lambda: syscall(109, 0, template))
for who in (0, os.getuid()):
    attempt(f'user priority {who}', lambda: syscall(141, 2, who, 19))
    attempt(f'user ioprio {who}', lambda: syscall(251, 3, who, 3 << 13))
attempt('traceme', lambda: syscall(101, 0, 0, 0, 0))
for name, number in (('add_key', 248), ('request_key', 249), ('keyctl', 250)):
    attempt(name, lambda: syscall(number, b'user', b'x', b'y', 1, -3))
if sys.argv[2] == 'template':
    for number in (9, 15, 19, 18, 17, 64):
        attempt(f'kill {number}', lambda: syscall(62, template, number))
        attempt(f'kill high {number}', lambda: syscall(62, template + HIGH, number))
        attempt(f'killpg {number}', lambda: syscall(62, -template, number))
        attempt(f'kill all {number}', lambda: syscall(62, -1, number))
        attempt(f'tkill {number}', lambda: syscall(200, template, number))
        attempt(f'tgkill {number}', lambda: syscall(234, template, template, number))
        attempt(f'sigqueue {number}', lambda: syscall(129, template, number, info))
        attempt(f'tgsigqueue {number}', lambda: syscall(297, template, template, number, info))
        attempt(f'pidfd {number}', lambda: syscall(424, os.pidfd_open(template), number, 0, 0))
        by_proc = os.open(f'/proc/{template}', os.O_RDONLY)
        attempt(f'proc fd {number}', lambda: syscall(424, by_proc, number, 0, 0))
    a, b = socket.socketpair()
    fcntl.fcntl(a, 10, 9)  # F_SETSIG, SIGKILL
    for owner in (template, -template):
        attempt(f'F_SETOWN {owner > 0}', lambda: syscall(72, a.fileno(), 8, owner))
        for kind in (0, 1, 2):
            attempt(f'F_SETOWN_EX {kind}', lambda: fcntl.fcntl(a, 15, struct.pack('ii', kind, template)))
        for request in (0x8901, 0x8902):
            attempt(f'ioctl {request} {owner > 0}', lambda: fcntl.ioctl(a, request, struct.pack('i', owner)))
            attempt(f'ioctl high {request} {owner > 0}', lambda: syscall(16, a.fileno(), request + HIGH,
                    ctypes.create_string_buffer(struct.pack('i', owner))))
    fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK); b.send(b'x')
    if os.fork() == 0:
        attempt('x32', lambda: syscall(0x40000000 + 62, template, 9))
        os._exit(0)
    result['x32'] = {31: 'SIGSYS'}.get(os.wait()[1], 'done')
    attempt('timer', lambda: syscall(222, 0, ctypes.create_string_buffer(
        struct.pack('<QiiiI', 0, 9, 4, template, 0) + bytes(40)), one))
    if os.fork() == 0:
        address = libc.mmap(None, 4096, 7, 0x22, -1, 0)
        code = b'\x53\xb8' + struct.pack('<I', 37) + b'\xbb' + struct.pack('<I', template)
        code += b'\xb9' + struct.pack('<I', 9) + b'\xcd\x80\x5b\xc3'
        ctypes.memmove(address, code, len(code))
        os._exit(-ctypes.CFUNCTYPE(ctypes.c_int)(address)() & 0xff)
    result['int 0x80'] = {31: 'SIGSYS', 11: 'SIGSEGV'}.get(os.wait()[1], 'done')
print(json.dumps(result))
"""
)

HARMLESS = {"setpgid": "ESRCH", "timer": "EINVAL", "x32": "SIGSYS", "core scheduling": "done"}
REFUSALS = {"EPERM", "EACCES", "ENOSYS", "ESRCH", "EINVAL", "SIGSEGV", "SIGSYS"}


def look_of(pid: int) -> dict[str, Any]:
    """Everything about a process that another one could have changed, seen from outside."""
    root = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (root / "status").read_text().splitlines())
    keys = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Cpus_allowed", "Mems_allowed", "TracerPid")
    stat = (root / "stat").read_text().rpartition(") ")[2].split()
    files = ("limits", "oom_score_adj", "timerslack_ns", "comm", "coredump_filter")
    return {
        **{key: status[key] for key in keys},
        **{name: (root / name).read_text() for name in files},
        "ids, nice, priority, policy": [stat[n] for n in (1, 2, 3, 15, 16, 37, 38)],
        "ioprio": ioprio_of(pid),
    }


def ioprio_of(pid: int) -> int:
    import ctypes

    return int(ctypes.CDLL(None).syscall(252, 1, pid))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the system calls are numbered for x86-64")
@pytest.mark.both_builds
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_can_reach_neither_init_nor_the_template(sandbox_of: Opener, kind: str) -> None:
    with sandbox_of(kind) as sandbox:
        sandbox.run("pass")
        before = [look_of(pid) for pid in sandbox.lasting]
        outcome = sandbox.run(REACH, "0" if kind == "template" else "1", kind)
        assert outcome.stderr == b""
        result = json.loads(outcome.stdout)
        assert len(result) > 100
        expected = {name for name in result if name.endswith("core scheduling")}
        assert {name: said for name, said in result.items() if said not in REFUSALS} == dict.fromkeys(
            expected, "done"
        )
        assert [look_of(pid) for pid in sandbox.lasting] == before
        assert outcome.clean
        sandbox.survives()


OWN = (
    PRELUDE
    + """
signal.signal(signal.SIGUSR1, lambda *_: got.append(1)); got = []
me = os.getpid()
nicer = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 1)  # the tests themselves may be nice
child = os.fork() or time.sleep(100)
os.kill(me, signal.SIGUSR1); os.kill(0, 0); signal.raise_signal(signal.SIGUSR1); os.kill(-os.getpgrp(), 0)
signal.pthread_kill(__import__('threading').get_ident(), signal.SIGUSR1)
info = ctypes.create_string_buffer(struct.pack('<iii', 10, 0, -1) + bytes(116))
assert libc.syscall(129, me, 10, info) == 0 and libc.syscall(297, me, me, 10, info) == 0
assert len(got) == 5, got
for pid in (0, me, child):
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (100, 100))
    os.sched_setaffinity(pid, os.sched_getaffinity(pid)); os.setpriority(os.PRIO_PROCESS, pid, nicer)
    os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0)); os.setpriority(os.PRIO_PGRP, 0, nicer)
    assert libc.syscall(251, 1, pid, 2 << 13 | 7) == 0
a, b = socket.socketpair()
fcntl.fcntl(a, 10, signal.SIGUSR1); fcntl.fcntl(a, fcntl.F_SETOWN, me)
fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC); b.send(b'x')
assert fcntl.fcntl(a, fcntl.F_GETOWN) == me
import array, termios
size = array.array('i', [0]); fcntl.ioctl(a, termios.FIONREAD, size); assert size[0] == 1
assert libc.syscall(101, 16, child, 0, 0) == -1  # PTRACE_ATTACH
os.kill(child, signal.SIGKILL); os.kill(child, 0)
assert os.waitpid(child, 0)[1] == 9
assert len(got) == 6, got
"""
)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the system calls are numbered for x86-64")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_may_do_anything_with_its_own_processes(sandbox_of: Opener, kind: str) -> None:
    with sandbox_of(kind) as sandbox:
        outcome = sandbox.run(OWN)
        assert (outcome.stderr, outcome.exit.exit_code) == (b"", 0)
        assert outcome.clean
        sandbox.survives()


@pytest.mark.parametrize("kind", ["worker", "fresh"])
def test_a_run_without_a_template_may_signal_every_process(sandbox_of: Opener, kind: str) -> None:
    with sandbox_of(kind) as sandbox:
        source = "import os, time\nif os.fork() == 0: time.sleep(100)\nos.kill(-1, 15); print(os.wait()[1])"
        outcome = sandbox.run(source)
        assert (outcome.stdout, outcome.clean) == (b"15\n", True)


# --- The end of output


def test_descriptors_in_transit_do_not_delay_the_end(start: Starter, py: PythonProgram) -> None:
    # The kernel closes descriptors with a delay if only a socket in its own queue holds them.
    source = """
import socket
for _ in range(200):
    a, b = socket.socketpair()
    socket.send_fds(a, [b'x'], [a.fileno(), b.fileno(), 1, 2])
print('sent')
"""
    for _ in range(IN_TRANSIT):
        started = time.monotonic()
        assert start.run(py(source)).stdout == b"sent\n"
        assert time.monotonic() - started < scaled(3)
