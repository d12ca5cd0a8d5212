"""init with a session: interpreters that stay, messages to and from them, their forks, their files.

Each interpreter is a small program that executes the code it is sent.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from busy import scaled
from codeforge import protocol
from codeforge.protocol import session_frames
from codeforge.protocol.session_frames import (
    Answer,
    Ended,
    EntryKind,
    MessageData,
    MessageTaken,
    SessionEvent,
    Text,
    parse_entries,
    parse_listing,
)
from init_harness import (
    DEADLINE_S,
    Init,
    PythonProgram,
    Starter,
    frame,
    sh,
    wait_until,
    wait_until_worker_hung_up,
)

FAILED = 70

PROGRAM = r"""
import errno, json, os, signal, socket, struct, sys, time
HEAD = struct.Struct("<IB")
def adopt():
    global control
    control = socket.socket(fileno=3)
    os.set_inheritable(3, False)
def read(size):
    data = b""
    while len(data) < size:
        piece = control.recv(size - len(data))
        if not piece: os._exit(0)
        data += piece
    return data
def receive():
    head, ancillary, _, _ = control.recvmsg(HEAD.size, socket.CMSG_SPACE(12))
    if not head: os._exit(0)
    head += read(HEAD.size - len(head))
    fds = [struct.unpack("3i", data) for _, _, data in ancillary]
    size, kind = HEAD.unpack(head)
    return bytes([kind]), read(size), fds[0] if fds else ()
def say(value):
    data = json.dumps({"is": value}).encode()
    control.sendall(HEAD.pack(len(data), ord("J")) + data)
def become_branch(directory, fds):
    control.detach()
    for standard, fd in zip((1, 2, 3), fds): os.dup2(fd, standard, inheritable=standard < 3)
    for fd in fds: os.close(fd)
    adopt()
    os.setsid()
    os.chdir(directory)
def fork(directory, fds):
    child = os.fork()
    if child == 0:
        if os.fork(): os._exit(0)
        become_branch(directory, fds)
        say("ready")
        return
    os.waitpid(child, 0)
    for fd in fds: os.close(fd)
    say("forked")
adopt()
kind, command, _ = receive()
assert kind == b"s", kind
say("ready")
whole = b""
while True:
    kind, payload, fds = receive()
    if kind == b"f":
        fork(payload.decode(), fds)
        continue
    whole += payload
    if kind == b"J":
        code, whole = json.loads(whole)["code"], b""
        exec(code, globals())
"""


@dataclass
class Host:
    """The host's side of a session, and what came from each branch so far."""

    init: Init
    events: list[SessionEvent] = field(default_factory=list)
    decoders: dict[int, session_frames.MessageDecoder] = field(default_factory=dict)
    said: dict[int, list[Any]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)

    def begin(self, argv: list[str]) -> None:
        self.init.send(protocol.command(argv, {}, "/code"), protocol.worker())
        self.init.wait_for(protocol.Ready)
        self.init._decoder.expect_session()
        limits = protocol.limits(output_bytes=0, files_bytes=0, max_age_s=60.0)
        self.init.send(limits, protocol.command(argv, {}, "/code"), session_frames.start(0))

    def next(self, deadline_s: float = DEADLINE_S) -> SessionEvent:
        event = self.init.read_event(deadline_s)
        assert isinstance(event, protocol.SessionFrame), (event, self.init.outcome, self.events[-5:])
        parsed = session_frames.parse(event)
        self.events.append(parsed)
        if isinstance(parsed, MessageData):
            decoder = self.decoders.setdefault(parsed.branch, session_frames.MessageDecoder())
            self.said.setdefault(parsed.branch, []).extend(
                message.get("is") for message in decoder.feed(parsed.data)
            )
        elif isinstance(parsed, Answer):
            self.answers.append(parsed)
        elif isinstance(parsed, Ended):
            self.decoders.pop(parsed.branch, None)
        return parsed

    def wait_for_message(self, value: object, branch: int = 0) -> None:
        until = time.monotonic() + DEADLINE_S
        while value not in self.said.get(branch, []):
            self.next(until - time.monotonic())
        self.said[branch].remove(value)

    def wait_for_end(self, branch: int = 0) -> Ended:
        while True:
            event = self.next()
            if isinstance(event, Ended) and event.branch == branch:
                return event

    def start_code(self, code: str, branch: int = 0) -> None:
        """Send code to be executed. Each piece goes when the last one was taken."""
        for piece in session_frames.message(branch, {"code": code}):
            self.init.send(piece)
            while not (isinstance(event := self.next(), MessageTaken) and event.branch == branch):
                pass

    def value(self, expression: str, branch: int = 0) -> Any:
        self.start_code(f"say(['value', {expression}])", branch)
        while True:
            for said in self.said.get(branch, []):
                if isinstance(said, list) and said[0] == "value":
                    self.said[branch].remove(said)
                    return said[1]
            self.next()

    def do(self, code: str, branch: int = 0) -> None:
        self.start_code(f"{code}\nsay('done')", branch)
        self.wait_for_message("done", branch)

    def ask(self, request: bytes) -> Answer:
        before = len(self.answers)
        self.init.send(request)
        while len(self.answers) == before:
            self.next()
        return self.answers[-1]

    def fork(self, new: int, branch: int = 0) -> None:
        assert self.ask(session_frames.fork(branch, new)) == Answer(0, b"")
        self.wait_for_message("forked", branch)
        self.wait_for_message("ready", new)

    def read(self, path: str, branch: int = 0) -> bytes | int:
        answer = self.ask(session_frames.read_file(branch, path, 0))
        return answer.error or answer.data

    def write(self, path: str, data: bytes, offset: int = 0, mode: int = 0o644, branch: int = 0) -> int:
        return self.ask(session_frames.write_file(branch, path, offset, data, mode)).error

    def remove(self, path: str, branch: int = 0) -> int:
        return self.ask(session_frames.remove_file(branch, path)).error

    def list(self, path: str = "", branch: int = 0) -> dict[bytes, EntryKind]:
        found: dict[bytes, EntryKind] = {}
        start = 0
        while True:
            answer = self.ask(session_frames.list_files(branch, path, start))
            assert answer.error == 0, answer
            start, entries = parse_listing(answer.data)
            found.update({entry.name: entry.kind for entry in entries})
            if not start:
                return found

    def text(self, branch: int, stream: str) -> bytes:
        return b"".join(
            event.data
            for event in self.events
            if isinstance(event, Text) and (event.branch, event.stream) == (branch, stream)
        )


@contextmanager
def session(start: Starter, py: PythonProgram, **options: Any) -> Iterator[Host]:
    with start(**options) as init:
        host = Host(init)
        host.begin(py(PROGRAM))
        host.wait_for_message("ready")
        yield host


@pytest.fixture
def host(start: Starter, py: PythonProgram) -> Iterator[Host]:
    with session(start, py) as begun:
        yield begun


# --- What is said, and written


def test_output_comes_before_a_message_that_was_sent_after_it(host: Host) -> None:
    for number in range(20):
        size = 10 ** (number % 6)
        host.events.clear()
        host.start_code(f"os.write(1, b'o' * {size})\nos.write(2, b'e' * {size // 10})\nsay({number})")
        host.wait_for_message(number)
        assert host.text(0, "stdout") == b"o" * size
        assert host.text(0, "stderr") == b"e" * (size // 10)


def test_a_large_message_goes_in_pieces(host: Host) -> None:
    host.do("filler = '" + "x" * 1_000_000 + "'")
    assert host.value("len(filler)") == 1_000_000
    host.do("big = 'y' * 3_000_000")
    assert host.value("big") == "y" * 3_000_000


def test_an_interpreter_that_does_not_read_does_not_block_init(host: Host) -> None:
    def taken() -> int:
        return sum(isinstance(event, MessageTaken) for event in host.events)

    host.start_code("while not os.path.exists('go'): time.sleep(0.01)\nsay('read')")
    piece = session_frames.message(0, {"code": "#" + "x" * 65000})[0]
    before, sent = taken(), 0
    while taken() == before + sent:  # its socket has room
        host.init.send(piece)
        sent += 1
        assert sent < 50
        with contextlib.suppress(AssertionError):
            host.next(scaled(0.2))
    assert host.write("go", b"") == 0  # init goes on meanwhile
    host.wait_for_message("read")
    while taken() < before + sent:
        host.next()


def test_a_message_before_the_last_one_was_taken_is_a_violation(host: Host) -> None:
    host.start_code("time.sleep(60)")
    piece = session_frames.message(0, {"code": "#" + "x" * 65000})[0]
    with contextlib.suppress(BrokenPipeError):
        host.init.send(*[piece] * 20)
    outcome = host.init.finish()
    assert outcome.failed is not None
    assert "before the last one was taken" in outcome.failed
    assert outcome.status == FAILED


@pytest.mark.both_builds
def test_a_flood_of_messages_and_text_arrives_complete(host: Host) -> None:
    host.start_code("for n in range(2000): say(n); os.write(1, b'%d\\n' % n)\nsay('last')")
    host.wait_for_message("last")
    assert host.said[0] == list(range(2000))
    assert host.text(0, "stdout") == b"".join(b"%d\n" % n for n in range(2000))


def test_a_host_that_does_not_read_pauses_the_program_and_loses_nothing(host: Host) -> None:
    host.start_code("for n in range(300): os.write(1, b'x' * 10_000)\nsay('last')")
    host.init.wait_until_stuck()
    host.wait_for_message("last")
    assert host.text(0, "stdout") == b"x" * 3_000_000


# --- Signals and ends


def test_sigint_also_reaches_the_children_of_the_interpreter(host: Host) -> None:
    host.start_code(
        "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\n"
        "try: say('begun'); time.sleep(60)\nexcept KeyboardInterrupt: say('interrupted')\nsay(child.wait())"
    )
    host.wait_for_message("begun")
    host.init.send(session_frames.signal(0, signal.SIGINT))
    host.wait_for_message("interrupted")
    host.wait_for_message(-signal.SIGINT)


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("os._exit(3)", (3, None)),
        ("os.kill(os.getpid(), 9)", (None, 9)),
        ("os.kill(os.getpid(), 15)", (None, 15)),
        ("os.close(3); os.close(1); os.close(2); os._exit(0)", (0, None)),
        ("control.close(); time.sleep(60)", (None, 9)),
        ("signal.signal(2, signal.SIG_IGN); control.shutdown(2); time.sleep(60)", (None, 9)),
        ("import subprocess; subprocess.Popen(['sleep', '60']); os._exit(4)", (4, None)),
        ("os.fork() or time.sleep(60); os._exit(5)", (5, None)),
        ("os.setpgid(0, 0) if 0 else os.fork() or (os.setsid(), time.sleep(60)); os._exit(6)", (6, None)),
    ],
)
def test_how_an_interpreter_ended_is_reported(host: Host, code: str, ended: tuple[object, object]) -> None:
    host.start_code(f"os.write(1, b'last')\n{code}")
    event = host.wait_for_end()
    assert (event.exit_code, event.signal) == ended
    assert host.text(0, "stdout") == b"last"
    assert host.write("after", b"x") == 0  # its files stay
    host.init.send(session_frames.signal(0, signal.SIGKILL))  # what comes too late is dropped
    host.init.send(session_frames.message(0, {"code": ""})[0])
    assert host.read("after") == b"x"


def test_children_that_write_for_ever_do_not_delay_the_end(host: Host) -> None:
    host.start_code(
        "os.fork() or (os.setsid(), [os.write(1, b'x' * 4096) for _ in iter(int, 1)])\nos._exit(0)"
    )
    assert host.wait_for_end().exit_code == 0


def test_a_restarted_interpreter_finds_its_files(host: Host, py: PythonProgram) -> None:
    for code in ("os._exit(0)", "time.sleep(60)"):
        host.start_code(f"open('kept', 'a').write('x')\nsay('kept')\n{code}")
        host.wait_for_message("kept")
        if code == "time.sleep(60)":
            host.init.send(session_frames.signal(0, signal.SIGKILL))
        host.wait_for_end()
        command = protocol.command(py(PROGRAM), {}, "/code")
        host.init.send(command, protocol.worker(), command, session_frames.start(0))
        host.wait_for_message("ready")
    assert host.value("open('kept').read()") == "xx"


def test_two_interpreters_start_without_a_pause_between_them(host: Host, py: PythonProgram) -> None:
    host.fork(1)
    for branch in (0, 1):
        host.start_code("os._exit(0)", branch)
        host.wait_for_end(branch)
    command = protocol.command(py(PROGRAM), {}, "/code")
    both = [
        piece
        for branch in (0, 1)
        for piece in (command, protocol.worker(), command, session_frames.start(branch))
    ]
    host.init.send(b"".join(both))
    host.wait_for_message("ready", 0)
    host.wait_for_message("ready", 1)
    assert host.value("1", 0) == host.value("1", 1) == 1


def test_an_interpreter_is_killed_right_after_its_start(host: Host, py: PythonProgram) -> None:
    host.start_code("os._exit(0)")
    host.wait_for_end()
    command = protocol.command(py(PROGRAM), {}, "/code")
    kill = session_frames.signal(0, signal.SIGKILL)
    host.init.send(b"".join([command, protocol.worker(), command, session_frames.start(0), kill]))
    assert host.wait_for_end().signal == signal.SIGKILL


@pytest.mark.parametrize("script", ["exit 3", "exec 3>&-; exec sleep 60", "kill -9 $$"])
def test_a_worker_that_ended_before_start(start: Starter, script: str) -> None:
    with start() as init:
        host = Host(init)
        init.send(protocol.command(sh(f": > ran; {script}"), {}, "/code"), protocol.worker())
        init.wait_for(protocol.Ready)
        init._decoder.expect_session()
        wait_until_worker_hung_up(init)
        init.send(protocol.command(sh(script), {}, "/code"), session_frames.start(0))
        event = host.wait_for_end()
        assert (event.exit_code, event.signal) == ((3, None) if script == "exit 3" else (None, 9))
        assert host.list() == {b"ran": EntryKind.FILE}


def test_init_exits_when_the_channel_closes(host: Host) -> None:
    host.fork(1)
    host.start_code("[os.fork() for _ in range(3)]; time.sleep(60)", 1)
    host.init.close_input()
    assert host.init.wait() == 0


# --- Copies


@pytest.mark.both_builds
def test_a_fork_has_its_own_state_files_and_streams(host: Host) -> None:
    host.do(
        "x = 1\nos.makedirs('d/deep'); open('d/deep/f', 'w').write('f' * 200_000); "
        "os.chmod('d/deep/f', 0o640)\n"
        "os.chmod('d/deep', 0o711); os.utime('d/deep/f', (1e9, 1e9)); os.symlink('/etc/passwd', 'd/link')\n"
        "os.mkfifo('d/pipe'); os.link('d/deep/f', 'd/same')"
    )
    host.fork(1)
    host.do("x = 2; open('d/deep/f', 'w').write('1'); os.write(1, b'one')", 1)
    host.do("os.write(1, b'zero')")
    assert host.value("[x, len(open('d/deep/f').read())]") == [1, 200_000]
    assert (host.text(0, "stdout"), host.text(1, "stdout")) == (b"zero", b"one")
    assert host.list("d", 1) == {
        b"deep": EntryKind.DIRECTORY,
        b"link": EntryKind.LINK,
        b"same": EntryKind.FILE,
    }
    assert host.value("os.readlink('d/link')", 1) == "/etc/passwd"
    assert host.value("[oct(os.stat(n).st_mode & 0o777) for n in ('d/deep', 'd/same')]", 1) == [
        "0o711",
        "0o640",
    ]
    assert host.value("os.stat('d/same').st_mtime", 1) == 1e9
    host.fork(2, 1)
    assert host.value("[x, open('d/deep/f').read()]", 2) == [2, "1"]


def test_forgetting_a_branch_removes_its_files_only(host: Host) -> None:
    host.fork(1)
    host.do("open('f', 'w').write('1'); os.makedirs('a/b/c')", 1)
    host.fork(2, 1)
    host.init.send(session_frames.forget(1))
    assert host.ask(session_frames.read_file(1, "f", 0)).error == errno.ESRCH
    assert host.value("os.listdir('/tmp/.branches')", 2) == ["2"]
    host.init.send(session_frames.forget(2))
    host.init.send(session_frames.forget(2))
    assert host.value("os.listdir('/tmp/.branches')") == []
    host.fork(1)
    assert host.list("", 1) == {}
    host.do("os.makedirs('a/b'); open('f', 'w').close()")
    host.init.send(session_frames.forget(0))
    assert host.value("[os.getcwd(), os.listdir('/code')]", 1) == ["/tmp/.branches/1", []]


def test_files_that_the_program_put_into_a_future_branch_directory_are_removed(host: Host) -> None:
    host.do(
        "os.makedirs('/tmp/.branches/1/d'); open('/tmp/.branches/1/f', 'w').close(); "
        "open('mine', 'w').close()"
    )
    host.fork(1)
    assert host.list("", 1) == {b"mine": EntryKind.FILE}


@pytest.mark.parametrize(
    "laid",
    [
        "os.symlink('/code', '/tmp/.branches')",
        "os.mkdir('/tmp/.branches'); os.symlink('/code', '/tmp/.branches/1')",
        "open('/tmp/.branches', 'w').close()",
    ],
)
def test_something_else_in_the_place_of_a_branch_directory_is_an_error(host: Host, laid: str) -> None:
    host.do(f"open('kept', 'w').close()\n{laid}")
    assert host.ask(session_frames.fork(0, 1)).error in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT)
    assert host.list() == {b"kept": EntryKind.FILE}
    assert host.value("1") == 1


@pytest.mark.parametrize(
    ("filling", "error"),
    [
        (
            "open('large', 'wb').write(bytes(20 << 20)); open('/tmp/large', 'wb').write(bytes(20 << 20))",
            errno.ENOSPC,
        ),
        ("[(os.mkdir('d'), os.chdir('d')) for _ in range(40)]; os.chdir('/code')", errno.ENAMETOOLONG),
        ("os.mkdir('closed', 0)", errno.EACCES),
    ],
)
def test_files_that_cannot_be_copied_are_an_error_and_leave_nothing(
    start: Starter, py: PythonProgram, filling: str, error: int
) -> None:
    with session(start, py) as host:
        host.do(filling)
        assert host.ask(session_frames.fork(0, 1)).error == error
        assert host.value("os.listdir('/tmp/.branches')") == []
        host.do(
            "import shutil\nfor n in os.listdir(): os.path.isdir(n) and (os.chmod(n, 0o700), "
            "shutil.rmtree(n)) or os.path.isfile(n) and os.remove(n)"
        )
        host.fork(1)


def test_a_hole_is_copied_as_a_hole(host: Host) -> None:
    host.do(
        "fd = os.open('hole', os.O_CREAT | os.O_RDWR); os.truncate(fd, 1 << 33)\n"
        "os.pwrite(fd, b'middle', 1 << 32); os.close(fd)"
    )
    host.fork(1)
    assert host.value("os.stat('hole').st_size", 1) == 1 << 33
    assert host.ask(session_frames.read_file(1, "hole", 1 << 32)).data[:8] == b"middle\0\0"


def test_errors_of_fork(host: Host) -> None:
    host.fork(1)
    assert host.ask(session_frames.fork(0, 1)).error == errno.EEXIST
    assert host.ask(session_frames.fork(5, 6)).error == errno.ESRCH
    host.start_code("os._exit(0)", 1)
    host.wait_for_end(1)
    assert host.ask(session_frames.fork(1, 2)).error == errno.ESRCH
    assert host.value("os.listdir('/tmp/.branches')") == ["1"]


def test_a_fork_that_the_interpreter_refuses_is_forgotten(host: Host) -> None:
    host.do("def fork(directory, fds): [os.close(fd) for fd in fds]; say('no')")
    for _ in range(3):
        assert host.ask(session_frames.fork(0, 1)).error == 0
        host.wait_for_message("no")
        host.init.send(session_frames.forget(1))
        assert host.value("os.listdir('/tmp/.branches')") == []


def test_every_branch_number_works(start: Starter, py: PythonProgram) -> None:
    with session(start, py) as host:
        last = session_frames.MAX_BRANCHES - 1
        for number in range(1, last + 1):
            host.fork(number, number // 2)
        for number in range(last + 1):
            host.do(f"open('f', 'w').write('{number}'); os.write(1, b'{number}')", number)
        assert [host.read("f", n) for n in range(last + 1)] == [b"%d" % n for n in range(last + 1)]
        for number in range(last + 1):
            host.init.send(session_frames.forget(number))
        assert host.ask(session_frames.read_file(0, "f", 0)).error == errno.ESRCH


def test_a_fork_whose_first_sender_is_gone_can_still_be_killed(host: Host) -> None:
    """Its first message comes from a child that is gone by then; the socket stays open."""
    host.do(
        "def fork(directory, fds):\n"
        "    global held\n"
        "    held = fds\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        copy = socket.socket(fileno=os.dup(fds[2]))\n"
        '        data = b\'{"is": "ready"}\'\n'
        "        copy.sendall(HEAD.pack(len(data), ord('J')) + data)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    say('forked')"
    )
    host.fork(1)
    host.init.send(session_frames.signal(1, signal.SIGKILL))
    assert host.wait_for_end(1).signal == signal.SIGKILL
    host.init.send(session_frames.forget(1))
    assert host.value("1") == 1


@pytest.mark.parametrize("branch", [0, 1])
def test_init_keeps_no_descriptors_that_a_program_sends(host: Host, branch: int) -> None:
    host.fork(1)
    held = Path(f"/proc/{host.init.pid}/fd")
    before = len(list(held.iterdir()))
    host.do(
        "sent = os.memfd_create('sent')\n"
        "def say(value):\n"
        "    data = json.dumps({'is': value}).encode()\n"
        "    frame = HEAD.pack(len(data), ord('J')) + data\n"
        "    socket.send_fds(control, [frame], [sent] * 4)\n"
        "for number in range(100): say(number)",
        branch,
    )
    assert len(list(held.iterdir())) == before


def test_an_interpreter_that_speaks_for_its_fork_is_killed_with_it(host: Host) -> None:
    """To kill the fork then kills both, and nothing waits for ever."""
    host.do(
        "def fork(directory, fds):\n"
        "    copy = socket.socket(fileno=fds[2])\n"
        '    data = b\'{"is": "ready"}\'\n'
        "    copy.sendall(HEAD.pack(len(data), ord('J')) + data)\n"
        "    globals()['held'] = copy\n"
        "    say('forked')"
    )
    host.fork(1)
    host.init.send(session_frames.forget(1))
    host.wait_for_end(0)
    assert host.list() == {}


# --- Files


@pytest.mark.both_builds
def test_files_are_read_written_listed_and_removed(host: Host) -> None:
    assert host.write("a/b/c", b"one") == 0
    assert host.write("a/b/c", b"two", 3) == 0
    assert host.read("a/b/c") == b"onetwo"
    assert host.write("a/b/c", b"", mode=0o755) == 0
    assert host.read("a/b/c") == b""
    assert host.value("oct(os.stat('a/b/c').st_mode & 0o777)") == "0o755"
    assert host.write("a/new", b"x", 5) == errno.ENOENT  # a piece of what is not there
    (entry,) = parse_entries(host.ask(session_frames.stat_file(0, "a/b/c")).data)
    assert (entry.kind, entry.size, entry.mode, entry.name) == (EntryKind.FILE, 0, 0o755, b"")
    assert host.list("a") == {b"b": EntryKind.DIRECTORY}
    assert host.remove("a") == 0
    assert host.list() == {}
    assert host.ask(session_frames.read_file(0, "a", 1 << 63)).error == errno.ENOENT
    host.write("f", b"abc")
    assert host.ask(session_frames.read_file(0, "f", 1)).data == b"bc"
    assert host.ask(session_frames.read_file(0, "f", 1 << 62)) == Answer(0, b"")
    assert host.ask(session_frames.read_file(0, "f", (1 << 64) - 1)).error == errno.EINVAL
    assert host.write("f", b"x", (1 << 63) - 1) in (errno.EFBIG, errno.EINVAL)


def test_no_link_is_followed_and_no_pipe_blocks(host: Host) -> None:
    host.do(
        "os.mkdir('d'); open('d/f', 'w').write('f'); open('/tmp/outside', 'w').write('out'); "
        "os.mkdir('/tmp/away')\n"
        "os.symlink('/tmp/outside', 'link'); os.symlink('/tmp', 'folder'); os.symlink('d', 'near')\n"
        "os.symlink('/proc/self/root', 'root'); os.symlink('loop', 'loop'); os.mkfifo('pipe')\n"
        "held = socket.socket(socket.AF_UNIX); held.bind('socket'); os.symlink('/dev/zero', 'zero')"
    )
    for path in (
        "link",
        "folder/outside",
        "near/f",
        "root/tmp/outside",
        "loop",
        "loop/x",
        "pipe",
        "socket",
        "zero",
    ):
        assert host.read(path) in (errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.ENXIO), path
        assert host.write(path, b"in") in (errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.ENXIO), path
    for path in (
        "../tmp/outside",
        "d/../../tmp/outside",
        "..",
        "/tmp/outside",
        "d/..",
        "/",
        "//tmp",
        "d//../f",
    ):
        for request in (
            session_frames.read_file(0, path, 0),
            session_frames.write_file(0, path, 0, b"in"),
            session_frames.list_files(0, path, 0),
            session_frames.stat_file(0, path),
            session_frames.remove_file(0, path),
        ):
            assert host.ask(request).error in (errno.EINVAL, errno.ENOENT, errno.EISDIR), path
    for path in ("folder", "root", "near"):
        assert host.ask(session_frames.list_files(0, path, 0)).error in (errno.ELOOP, errno.ENOTDIR)
        assert host.ask(session_frames.list_files(0, f"{path}/", 0)).error in (errno.ELOOP, errno.ENOTDIR)
        assert host.remove(f"{path}/outside") in (errno.ELOOP, errno.ENOTDIR)
        assert host.remove(path) == 0  # the link itself
    assert host.value("[open('/tmp/outside').read(), os.listdir('/tmp/away'), os.listdir('d')]") == [
        "out",
        [],
        ["f"],
    ]
    assert (host.remove("f\0"), host.remove(""), host.read("")) == (errno.EINVAL, errno.EINVAL, errno.ENOENT)
    assert host.read("x" * 5000) == errno.EINVAL
    assert host.write("d" * 300, b"") == errno.ENAMETOOLONG


@pytest.mark.parametrize("target", ["/proc/1", "/", "/tmp/outside"])
def test_a_directory_that_is_swapped_for_a_link_is_not_left(
    start: Starter, py: PythonProgram, target: str
) -> None:
    with session(start, py) as host:
        host.do(
            "os.mkdir('d'); os.mkdir('/tmp/outside'); open('/tmp/outside/status', 'w').write('out')\n"
            "open('d/status', 'w').write('mine')\n"
            f"swap = [(os.rename, 'd', 'real'), (os.symlink, {target!r}, 'd'),\n"
            "        (os.unlink, 'd'), (os.rename, 'real', 'd')]\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    while True:\n"
            "        for step, *paths in swap:\n"
            "            try: step(*paths)\n"
            "            except OSError: pass  # the host made a directory of that name\n"
        )
        seen: set[object] = set()
        until = time.monotonic() + DEADLINE_S
        for number in itertools.count():
            if number >= 400 and len(seen) > 1:
                break
            assert time.monotonic() < until, "the race was never met"
            read = host.read("d/status")
            assert read in (b"mine", errno.ELOOP, errno.ENOTDIR, errno.ENOENT), read
            assert host.write(f"d/new{number}", b"new") in (
                0,
                errno.ELOOP,
                errno.ENOTDIR,
                errno.ENOENT,
                errno.EEXIST,
            )
            answer = host.ask(session_frames.list_files(0, "d", 0))
            if answer.error == 0:
                names = {entry.name for entry in parse_listing(answer.data)[1]}
                assert all(re.fullmatch(rb"status|new\d+", name) for name in names), names
            host.remove(f"d/new{number}")
            seen.add(read)
        assert host.value("os.listdir('/tmp/outside')") == ["status"]


def test_a_directory_is_removed_while_a_program_changes_it(start: Starter, py: PythonProgram) -> None:
    with session(start, py) as host:
        host.do(
            "os.makedirs('/tmp/outside'); open('/tmp/outside/f', 'w').close()\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    while True:\n"
            "        try:\n"
            "            os.makedirs('d/e/f', exist_ok=True); os.rename('d/e', 'away'); "
            "os.symlink('/tmp/outside', 'd/e')\n"
            "        except OSError: pass\n"
            "        try: os.rmdir('away/f'); os.rmdir('away')\n"
            "        except OSError: pass\n"
        )
        for _ in range(300):
            assert host.remove("d") in (0, errno.ENOENT, errno.ENOTEMPTY, errno.ENOTDIR)
        assert host.value("os.listdir('/tmp/outside')") == ["f"]


def test_removing_ends_even_if_programs_go_on_making_entries(start: Starter, py: PythonProgram) -> None:
    with session(start, py) as host:
        host.do(
            "os.mkdir('d')\n"
            "for number in range(16):\n"
            "    if os.fork() == 0:\n"
            "        os.setsid()\n"
            "        for n in range(10**9):\n"
            "            try: os.mkdir(f'd/{number}-{n % 100}')\n"
            "            except OSError: os.makedirs('d', exist_ok=True)\n"
        )
        wait_until(lambda: len(host.list("d")) > 300, "all of them make directories")
        assert host.remove("d") == errno.ENOTEMPTY
        assert host.value("1") == 1


def test_more_names_than_fit_one_answer_and_deep_trees(host: Host) -> None:
    host.do("os.mkdir('many')\nfor n in range(1500): open(f'many/{n:0200}', 'w').close()")
    assert len(host.list("many")) == 1500
    assert host.remove("many") == 0
    host.do(
        "os.mkdir('deep'); os.chdir('deep')\n"
        "for _ in range(2500): os.mkdir('d'); os.chdir('d')\nos.chdir('/code')"
    )
    assert host.read("deep/" + "d/" * 2000 + "f") == errno.ENOENT
    assert host.read("deep/" + "d/" * 3000 + "f") == errno.EINVAL
    assert host.remove("deep") == 0
    assert host.list() == {}


def test_names_of_any_bytes(host: Host) -> None:
    host.do(r"[open(n, 'w').close() for n in (b'\xff', b'a\nb', b'-', b'x' * 255)]")
    assert set(host.list()) == {b"\xff", b"a\nb", b"-", b"x" * 255}


def test_a_full_directory_is_an_error(start: Starter, py: PythonProgram) -> None:
    with session(start, py, code="size=1m,nr_inodes=20,mode=755") as host:
        assert host.write("f", b"x" * 60_000) == 0
        at, error = 60_000, 0
        while not error:
            error = host.write("f", b"x" * 60_000, at)
            at += 60_000
        assert error == errno.ENOSPC
        assert host.remove("f") == 0
        errors = [host.write(f"many/{n}", b"") for n in range(30)]
        assert errors[-1] == errno.ENOSPC
        assert host.remove("many") == 0
        assert host.write("f", b"x") == 0


MALFORMED = [
    b"", b"?", b"r", b"r" + bytes(11), b"w" + bytes(12), b"w" + bytes(12) + b"\xff\xff", b"l",
    b"l" + bytes(7), b"w" + bytes(12) + b"\1\0", b"w" + bytes(12) + b"\1\0\0", b"d",
    b"r" + bytes(12) + b"a\0b",
]  # fmt: skip


def test_malformed_requests_are_errors(host: Host) -> None:
    for request in MALFORMED:
        assert host.ask(frame(b"q", bytes(4) + request)).error == errno.EINVAL, request


# --- Violations


@pytest.mark.parametrize(
    "violation",
    [
        frame(b"s", b"\0\0\0\0"),  # no worker
        frame(b"m", b"\0\0\0\0"),
        frame(b"m", b"\0\0\0"),
        frame(b"m", b"\x40\0\0\0J{}"),
        frame(b"b", b"\0\0\0\0\x40\0\0\0"),
        frame(b"b", b"\0\0\0\0\0\0\0\0"),
        frame(b"b", b"\0\0\0\0\1\0\0"),
        frame(b"n", b"\0\0\0\0\x0f"),
        frame(b"n", b"\0\0\0\0"),
        frame(b"x", b"\xff\xff\xff\xff"),
        frame(b"g", b"\0\0\0\0"),
        frame(b"i", b"\0\0\0\0"),
        frame(b"k", b"\0\0\0\0"),
        frame(b"f", b"\0\0\0\0name"),
        frame(b"?", b"\0\0\0\0"),
        frame(b"e", b"no equals sign"),
        frame(b"w") + frame(b"w"),
    ],
)
def test_violations_end_the_sandbox(start: Starter, violation: bytes) -> None:
    with start() as init:
        Host(init).begin(["sleep", "1000"])  # init needs no answer from it
        assert os.write(init._in, violation) == len(violation)  # send() would expect a run after GO
        outcome = init.finish()
    assert outcome.failed is not None
    assert outcome.failed.startswith("protocol: ")
    assert outcome.status == FAILED
