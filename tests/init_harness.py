"""Starts init without a container engine, and plays its host.

init must be PID 1 and needs a /code. Namespaces provide both. A *world*, one for each test session, is a
mount namespace: its root is a tmpfs with the host's directories bound into it and an empty /code. Each
``Init`` is a PID namespace in that world, with a new tmpfs on /code. As root, init runs under its own uid.
Otherwise a user namespace gives the privileges that mounting needs, and init starts in another one, where it
has none.

Everything that init empties between two runs belongs to one ``Init``: /code, /tmp, /dev/shm, /dev/mqueue and
System V IPC. So does the network. A test therefore cannot share files with its sandboxes in /tmp.

The harness reads from init only while a test waits for something: a test that does nothing is a host that
does not read. Every wait has a deadline, and the error says what came until then.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import selectors
import shutil
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from codeforge import protocol

INIT_DIR = Path(__file__).parents[1] / "src" / "codeforge" / "guest" / "init"
RUN_UID = 10001
TOKEN = b"sixteen of these"

DEADLINE_S = 20.0
"""For everything that takes milliseconds on an idle machine."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

SANITIZER_VARIABLE = "ASAN_OPTIONS"
"""Every run inherits it, because init passes its environment on."""

SANITIZER_STATUS = 1
"""UBSan's status as well, which ignores options when ASan is there. init itself never exits with it. unshare
does when init was killed, but then it also writes to stderr."""

_E = TypeVar("_E")

_BUILD_WORLD = r"""
set -e
root=$1
mount -t tmpfs -o mode=755 tmpfs "$root"
for entry in /*; do
    name=${entry#/}
    if [ "$name" = code ]; then
        continue
    elif [ "$name" = dev ]; then
        mkdir "$root/dev" "$root/dev/shm" "$root/dev/mqueue" "$root/dev/pts"
        for node in null zero full random urandom tty ptmx; do
            : > "$root/dev/$node"
            mount --bind "/dev/$node" "$root/dev/$node"
        done
        ln -s /proc/self/fd "$root/dev/fd"
    elif [ -L "$entry" ]; then
        ln -s "$(readlink "$entry")" "$root/$name"
    elif [ -d "$entry" ]; then
        mkdir "$root/$name"
        mount --rbind "$entry" "$root/$name"
    fi
done
mkdir "$root/code" "$root/host"
cd "$root"
pivot_root . host  # not chroot: a process in one may not make user namespaces
umount -l /host 2>/dev/null || :  # another user's mounts may not be taken away
echo ready
exec cat
"""

_START_INIT = r"""
set -e
cd /
options=$1 uid=$2 processes=$3 is_root=$4 cgroup=$5
shift 5
mount -t tmpfs -o "$options" code /code
mount -t tmpfs -o size=32m,nr_inodes=20k,mode=1777 tmp /tmp
mount -t tmpfs -o size=32m,nr_inodes=20k,mode=1777 shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t devpts -o newinstance,ptmxmode=666 pts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
ip link set lo up
if [ -e "$cgroup/cgroup.procs" ]; then
    echo $$ > "$cgroup/cgroup.procs"
    mount --bind "$cgroup" /sys/fs/cgroup/pids
elif [ -n "$cgroup" ]; then
    mount --bind "$cgroup" /sys/fs/cgroup  # made up
fi
if [ "$processes" != 0 ]; then prlimit --pid $$ --nproc="$processes"; fi
if [ "$is_root" = True ]; then
    exec setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs \
        --inh-caps=-all --bounding-set=-all -- "$@"
fi
exec unshare --user --map-user="$uid" --map-group="$uid" -- setpriv --no-new-privs -- "$@"
"""


class CannotIsolate(Exception):
    """Neither root nor user namespaces are available on this machine."""


class SanitizerFinding(AssertionError):
    """init ran into undefined behaviour."""


class World:
    """The mount namespace in which init is started."""

    def __init__(self) -> None:
        self.is_root = os.geteuid() == 0
        self.dir = Path(tempfile.mkdtemp(prefix="codeforge-init-", dir="/var/tmp"))
        self.dir.chmod(0o755)
        (self.dir / "root").mkdir()
        user = [] if self.is_root else ["--user", "--map-root-user"]
        self._holder = subprocess.Popen(
            ["unshare", "--mount", *user, "sh", "-c", _BUILD_WORLD, "sh", str(self.dir / "root")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PATH},
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"ready\n":
            said = self._holder.stderr.read().decode(errors="replace").strip()
            self.close()
            raise CannotIsolate(f"needs root, or user namespaces that may mount: {said}")

    def close(self) -> None:
        """End the namespace and remove its directory."""
        self._holder.kill()
        self._holder.communicate()
        shutil.rmtree(self.dir)

    def build(self, name: str) -> Path:
        """The sanitized or the static init, compiled once for this world."""
        goal, binary = {"sanitized": ("check", "init-asan"), "static": (f"{self.dir}/init", "init")}[name]
        make(self.dir, goal)
        return self.dir / binary

    def command(self, *, code: str, uid: int, processes: int, cgroup: Path | None) -> list[str]:
        """The start of a command line that runs a program as PID 1 of a new namespace in this world."""
        user = [] if self.is_root else ["--user", "--preserve-credentials"]
        return [
            *("nsenter", "--target", str(self._holder.pid), *user, "--mount", "--wd"),
            *("unshare", "--fork", "--pid", "--ipc", "--net", "--mount", "--mount-proc", "--kill-child"),
            *("sh", "-c", _START_INIT, "sh"),
            f"{code},uid={uid if self.is_root else 0}",
            *(str(uid), str(processes), str(self.is_root), str(cgroup or "")),
            *("env", "-i"),
        ]


@dataclass(slots=True)
class Outcome:
    """Everything that init sent during one run."""

    stdout: bytes = b""
    stderr: bytes = b""
    frames: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {"stdout": 0, "stderr": 0})
    acknowledged: int = 0
    exited: protocol.Exited | None = None
    failed: str | None = None
    files: dict[bytes, protocol.FileOut] = field(default_factory=dict)
    skipped: dict[bytes, protocol.SkipReason] = field(default_factory=dict)
    preloaded: int = 0
    clean: bool = False
    done: bool = False
    status: int | None = None
    wall_s: float = 0.0
    modes: dict[bytes, int] = field(default_factory=dict)

    @property
    def exit(self) -> protocol.Exited:
        """How the run ended. Fails if it has not."""
        assert self.exited is not None, self
        return self.exited

    def add(self, event: protocol.Event) -> None:
        """Add one event."""
        match event:
            case protocol.Wrote(stream, data):
                self.frames += 1
                if stream == "stdout":
                    self.stdout += data
                else:
                    self.stderr += data
            case protocol.Dropped(stream, size):
                self.dropped[stream] += size
            case protocol.Acknowledged(size):
                self.acknowledged += size
            case protocol.Exited():
                self.exited = event
            case protocol.FileOut(path):
                assert path not in self.files
                self.files[path] = event
            case protocol.Skipped(path, reason):
                assert path not in self.skipped
                self.skipped[path] = reason
            case protocol.Failed(message):
                self.failed = message
            case protocol.Preloaded():
                self.preloaded += 1
            case protocol.Clean():
                self.clean = True
            case protocol.Done():
                self.done = True
            case protocol.Ready():
                pass


class _Decoder(protocol.Decoder):
    """Also keeps what init reports and the host does not use: the run's wall-clock time, and files' modes."""

    def __init__(self) -> None:
        super().__init__()
        self.wall_s = 0.0
        self.modes: dict[bytes, int] = {}

    def _event(self, kind: bytes, payload: bytes) -> Iterator[protocol.Event]:
        if kind == b"W":
            self.wall_s = int.from_bytes(payload[2:10], "little") / 1e6
        elif kind == b"F":
            self.modes[payload[4:]] = int.from_bytes(payload[:4], "little")
        return super()._event(kind, payload)


class Init:
    """One init, as the host sees it: bytes in, events out. A context manager that cleans up after itself."""

    def __init__(
        self,
        world: World,
        binary: Path,
        *,
        env: Mapping[str, str] | None = None,
        code: str = "size=32m,nr_inodes=20k,mode=755",
        uid: int = RUN_UID,
        processes: int = 0,
        cgroup: Path | None = None,
        wrapper: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.outcome = Outcome()
        self._log_dir = Path(tempfile.mkdtemp(prefix="sanitizer-", dir=world.dir))
        self._log_dir.chmod(0o777)
        # Runs inherit this; log_path is the only way out, since init's own stderr is /dev/null.
        variables = {
            "PATH": PATH,
            SANITIZER_VARIABLE: f"log_path={self._log_dir}/log:exitcode=1",
            **(env or {}),
        }
        self._process = subprocess.Popen(
            [
                *world.command(code=code, uid=uid, processes=processes, cgroup=cgroup),
                *(f"{key}={value}" for key, value in variables.items()),
                *wrapper,
                str(binary),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            env={"PATH": PATH},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._decoder = _Decoder()
        self._is_idle = self._is_running = False
        self._pending: list[protocol.Event] = []
        self._window = protocol.STDIN_WINDOW
        self._at_eof = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
        self._process.kill()  # and --kill-child ends init
        self._process.wait()
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace")
        self._process.stderr.close()
        if error is not None and said:
            error.add_note(f"stderr: {said}")
        reports = "\n".join(log.read_text(errors="replace") for log in sorted(self._log_dir.iterdir()))
        if reports or (self._process.returncode == SANITIZER_STATUS and not said):
            raise SanitizerFinding(
                reports or "init ended as UBSan ends it, which writes its report to stderr"
            )

    # --- Host to init

    def send(self, *frames: bytes) -> None:
        """Write frames, within the deadline, without reading anything."""
        whole = b"".join(frames)
        if b"g" in _kinds(whole):
            self._expect_run()
        data = memoryview(whole)
        with selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_WRITE)
            until = time.monotonic() + DEADLINE_S
            while data:
                if not selector.select(until - time.monotonic()):
                    raise AssertionError(f"init does not take {len(data)} more bytes; got {self.outcome}")
                data = data[os.write(self._in, data[:65536]) :]

    def _expect_run(self) -> None:
        until = time.monotonic() + DEADLINE_S
        while not (self._is_idle or self._at_eof or self._is_running):
            self._receive(until)
        if self._is_idle:
            self._decoder.expect_run(files_bytes=1 << 40, token=TOKEN)
            self._window = protocol.STDIN_WINDOW
            self._is_idle, self._is_running = False, True

    def close(self) -> None:
        """Close both directions, as if the host process had died."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def wait_until_stuck(self) -> None:
        """Wait until init has filled the channel, which nothing reads.

        How many bytes fit depends on how init writes them, so wait until their number stops growing.
        """
        unread, since = 0, time.monotonic()

        def stuck() -> bool:
            nonlocal unread, since
            before, unread = unread, _bytes_in_pipe(self._out)
            if unread != before:
                since = time.monotonic()
            return unread > 0 and time.monotonic() - since > 0.1

        wait_until(stuck, "the channel is full")

    def untaken(self) -> int:
        """How many bytes init has not read yet."""
        return _bytes_in_pipe(self._in)

    def close_input(self) -> None:
        """Close only the direction to init."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    # --- Init to host

    def read_event(self, deadline_s: float = DEADLINE_S) -> protocol.Event | None:
        """The next event; ``None`` when init closed the channel."""
        until = time.monotonic() + deadline_s
        while not self._pending and not self._at_eof:
            self._receive(until)
        if not self._pending:
            return None
        event = self._pending.pop(0)
        self.outcome.add(event)
        return event

    def _receive(self, until: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            if not selector.select(max(0.0, until - time.monotonic())):
                raise AssertionError(f"nothing more from init in time; got {self.outcome}")
        data = os.read(self._out, 65536)
        self._at_eof = not data
        events = self._decoder.feed(data)
        self.outcome.wall_s, self.outcome.modes = self._decoder.wall_s, self._decoder.modes
        if any(isinstance(event, protocol.Ready | protocol.Clean) for event in events):
            self._is_idle, self._is_running = True, False
        if self._decoder.over:  # as the host does: init waits for that
            self.close_input()
        self._pending += events

    def wait_for(self, kind: type[_E], deadline_s: float = DEADLINE_S) -> _E:
        """The next event of a kind. Adds those before it to the outcome."""
        until = time.monotonic() + deadline_s
        while (event := self.read_event(until - time.monotonic())) is not None:
            if isinstance(event, kind):
                return event
        raise AssertionError(f"init ended ({self.wait()}) without {kind.__name__}; got {self.outcome}")

    def wait_for_output(self, text: bytes, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the run's stdout contains ``text``."""
        until = time.monotonic() + deadline_s
        while text not in self.outcome.stdout:
            assert self.read_event(until - time.monotonic()) is not None, self.outcome

    def finish(self, deadline_s: float = DEADLINE_S) -> Outcome:
        """Read to the end, and wait for init's exit."""
        until = time.monotonic() + deadline_s
        while self.read_event(until - time.monotonic()) is not None:
            pass
        self.wait(max(0.1, until - time.monotonic()))
        return self.outcome

    def finish_run(self, deadline_s: float = DEADLINE_S) -> Outcome:
        """Read to the end of a run, after which another may follow, and return its outcome."""
        until = time.monotonic() + deadline_s
        while not (self.outcome.clean or self.outcome.done):
            assert self.read_event(until - time.monotonic()) is not None, self.outcome
        outcome, self.outcome = self.outcome, Outcome()
        return outcome

    def run(self, argv: Sequence[str], stdin: bytes = b"", **options: Any) -> Outcome:
        """Run a command to its end, so that another run may follow."""
        self.send(start_frames(argv, keep=True, **options))
        self.feed(stdin)
        return self.finish_run()

    def feed(self, data: bytes) -> None:
        """Send stdin within the window, and its end, reading events whenever the window is full."""
        rest = memoryview(data)
        while rest:
            taken = self.outcome.acknowledged
            while self._window == 0:
                self.wait_for(protocol.Acknowledged)
                self._window += self.outcome.acknowledged - taken
                taken = self.outcome.acknowledged
            piece, rest = rest[: self._window], rest[self._window :]
            self._window -= len(piece)
            self.send(protocol.stdin(bytes(piece)))
        self.send(protocol.stdin(b""))

    # --- The process

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for init's exit code. The whole PID namespace is gone by then."""
        try:
            self.outcome.status = self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"init did not end within {deadline_s} s; got {self.outcome}") from None
        return self.outcome.status

    @property
    def pid(self) -> int:
        """init's PID on the host."""
        wrapper = self._process.pid
        (child,) = Path(f"/proc/{wrapper}/task/{wrapper}/children").read_text().split()
        return int(child)

    def processes(self) -> list[int]:
        """PIDs, on the host, of every process in the sandbox."""
        namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        return [pid for pid in _all_pids() if _namespace_of(pid) == namespace]


def _kinds(frames: bytes) -> set[bytes]:
    """The types of all well-formed frames."""
    kinds, at = set(), 0
    while at + 5 <= len(frames):
        size, kind = struct.unpack_from("<Ic", frames, at)
        kinds.add(kind)
        at += 5 + size
    return kinds


def _bytes_in_pipe(fd: int) -> int:
    size = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return size[0]


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _namespace_of(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return None


def wait_until(holds: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll until a condition holds that sends no event."""
    until = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        time.sleep(0.005)


def wait_until_worker_hung_up(init: Init) -> None:
    """Wait until the worker has made /code/ran, and has closed its socket since or is gone."""

    def hung_up() -> bool:
        workers = set(init.processes()) - {init.pid}
        ran = Path(f"/proc/{init.pid}/root/code/ran").exists()
        return ran and not any(Path(f"/proc/{pid}/fd/3").is_symlink() for pid in workers)

    wait_until(hung_up, "the worker has closed its socket, or is gone")


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """A frame of any type, including types that the host never sends."""
    return struct.pack("<IB", len(payload), kind[0]) + payload


def start_frames(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    cwd: str = "/code",
    output_bytes: int = 1 << 20,
    files_bytes: int = 1 << 24,
    max_age_s: float = 60.0,
    fresh: bool = False,
    keep: bool = False,
) -> bytes:
    """All frames that start a run, up to GO."""
    return b"".join(
        [
            protocol.limits(output_bytes=output_bytes, files_bytes=files_bytes, max_age_s=max_age_s),
            protocol.command(argv, env or {}, cwd),
            *(protocol.file(path, data) for path, data in (files or {}).items()),
            protocol.go(token=TOKEN, fresh=fresh, keep=keep),
        ]
    )


@contextlib.contextmanager
def open_world() -> Iterator[World]:
    """A world for as long as the context lasts."""
    world = World()
    try:
        yield world
    finally:
        world.close()


def make(out: Path, *arguments: str) -> None:
    built = subprocess.run(
        ["make", "-s", "-j2", "-C", str(INIT_DIR), f"OUT={out}", *arguments], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr


@dataclass(frozen=True)
class Starter:
    """Starts one build of init."""

    world: World
    binary: Path

    def __call__(self, **options: Any) -> Init:
        return Init(self.world, self.binary, **options)

    def run(self, argv: Sequence[str], stdin: bytes | None = None, **options: Any) -> Outcome:
        """Run a command to its end in a new sandbox. Fails unless init exits in order."""
        init_options = {key: options.pop(key) for key in ("code", "wrapper") if key in options}
        inherited = options.pop("inherited", None)
        with self(env=inherited, **init_options) as init:
            init.send(start_frames(argv, **options))
            if stdin is not None:
                init.feed(stdin)
            outcome = init.finish()
        assert outcome.done, outcome
        assert outcome.status == 0, outcome
        return outcome


@dataclass(frozen=True)
class PythonProgram:
    python: str

    def __call__(self, source: str, *arguments: str) -> list[str]:
        return [self.python, "-IS", "-c", source, *arguments]


def sh(script: str, *arguments: str) -> list[str]:
    return ["sh", "-c", script, "sh", *arguments]


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
