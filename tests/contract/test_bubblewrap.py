"""bubblewrap's sandboxes, seen from outside; and the errors where it cannot make them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import codeforge
from codeforge import BlockingCodeExecutor, Status
from codeforge.engines import cgroups
from codeforge.engines.cgroups import CgroupTree, find_tree
from codeforge.errors import EngineError, EngineUnavailable, EnvironmentNotFound, Unsupported
from codeforge.model.languages import PYTHON
from codeforge.model.limits import CPU_PERIOD_US, Limits
from codeforge.policy import USER_IDS, BubblewrapPlan, bubblewrap_plan
from contract.support import eventually
from observer import DISTRIBUTION, OBSERVER, is_below, processes_of

pytestmark = pytest.mark.engine("bubblewrap")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="looks into, or becomes, other users: needs root")

GONE_WITHIN_S = 5.0
MEMORY = 64 << 20
WAIT = "print('begun', flush=True); import time; time.sleep(110)"
NOBODY = 65534


@dataclass(frozen=True)
class Seen:
    """A sandbox while its program waits: its id, and the host's /proc of its processes, init's first."""

    sandbox: str
    processes: list[Path]

    @property
    def init(self) -> Path:
        return self.processes[0]

    @property
    def program(self) -> Path:
        return self.processes[-1]


@contextmanager
def waiting(language: str = "python", **options: Any) -> Iterator[Seen]:
    """A sandbox in which a program waits until the end of the block."""
    begun = threading.Event()
    code = {"python": WAIT, "javascript": "console.log('begun'); setTimeout(() => {}, 110000)"}[language]
    with BlockingCodeExecutor(max_warm=0) as executor, ThreadPoolExecutor(1) as threads:
        running = threads.submit(
            executor.execute, code, language, 120, on_stdout=lambda text: begun.set(), **options
        )
        assert begun.wait(30)
        (sandbox,) = OBSERVER.of(executor, running=True)
        yield Seen(sandbox, [Path(f"/proc/{pid}") for pid in processes_of(OBSERVER.init(sandbox))])
        OBSERVER.kill(sandbox)
        assert running.exception(timeout=GONE_WITHIN_S) is not None


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    with waiting(memory_limit=MEMORY, cpu_quota=30_000) as sandbox:
        yield sandbox


def tree() -> CgroupTree:
    found = find_tree()
    assert isinstance(found, CgroupTree), found
    return found


def ids_of(process: Path, kind: str) -> set[int]:
    """The user or group ids of a process, as this machine sees them."""
    found = re.search(rf"^{kind}:\s(.*)$", (process / "status").read_text(), re.MULTILINE)
    assert found is not None
    return set(map(int, found[1].split()))


# --- What a sandbox is ----------------------------------------------------------------------------------


@needs_root
def test_each_sandbox_has_its_own_user_id_on_this_machine(seen: Seen) -> None:
    with waiting("javascript") as other:
        users = [
            set().union(*(ids_of(process, "Uid") for process in each.processes)) for each in (seen, other)
        ]
        groups = set().union(*(ids_of(process, "Gid") for process in (*seen.processes, *other.processes)))
    assert [len(each) for each in users] == [1, 1]
    assert users[0] != users[1]
    assert users[0] | users[1] <= set(USER_IDS)
    assert groups == {10001}
    assert all(ids_of(process, "Groups") == set() for process in seen.processes)


@needs_root
def test_it_shares_no_namespace_with_this_machine_except_time(seen: Seen) -> None:
    for process in (seen.init, seen.program):
        shared = {
            entry.name
            for entry in (process / "ns").iterdir()
            if entry.readlink() == (Path("/proc/self/ns") / entry.name).readlink()
        }
        assert shared == {"time", "time_for_children"}


@needs_root
def test_only_what_programs_need_is_mounted(seen: Seen) -> None:
    root = seen.init / "root"
    top = {entry.name for entry in root.iterdir()}
    assert top.isdisjoint({"root", "home", "run", "var", "boot", "media", "mnt", "opt.old", "srv"})
    ours = {"passwd", "group", "hosts", "nsswitch.conf", "resolv.conf"}
    assert {entry.name for entry in (root / "etc").iterdir()} <= ours | {"ld.so.cache", "alternatives"}
    assert "root:x:0:0:root:/:/usr/sbin/nologin" in (root / "etc/passwd").read_text()
    assert (root / "etc/resolv.conf").read_text() == ""
    mounts = [line.split() for line in (seen.init / "mountinfo").read_text().splitlines()]
    disks = {line[4] for line in mounts if line[line.index("-") + 1] not in ("tmpfs", "proc", "devpts")}
    writable = {line[4] for line in mounts if line[4] in disks and "rw" in line[5].split(",")}
    # Devices are bound one by one, to be used or as masks; all else is only read.
    assert all((root / place[1:]).is_char_device() for place in writable), writable
    for place in disks:
        assert not place.startswith(("/root", "/home", "/run", "/var", "/etc/s", "/etc/p")), place
    devices = {
        entry.name for entry in (root / "dev").iterdir() if entry.is_char_device() and not entry.is_symlink()
    }
    assert devices <= {"null", "zero", "full", "random", "urandom", "tty"}


@needs_root
def test_it_sees_no_socket_of_this_machine(seen: Seen) -> None:
    mine = seen.init / "root"
    found, looked = [], 0
    for folder, folders, names in os.walk(mine):
        passed = ("/proc", "/sys", *DISTRIBUTION)
        folders[:] = [name for name in folders if f"/{Path(folder, name).relative_to(mine)}" not in passed]
        looked += len(names)
        found += [name for name in names if Path(folder, name).is_socket()]
    assert looked > 500
    assert found == []
    descriptors = [entry.readlink().name for entry in (seen.program / "fd").iterdir()]
    assert [name for name in descriptors if name.startswith("socket:")] == []


@needs_root
def test_its_environment_has_nothing_from_the_host(seen: Seen) -> None:
    for process in seen.processes:
        names = {line.partition("=")[0] for line in (process / "environ").read_text().split("\0") if line}
        assert names.isdisjoint({"USER", "LOGNAME", "SHELL", "PWD", "CODEFORGE_ENGINE", "XDG_CACHE_HOME"})


def test_the_kernel_enforces_the_limits(seen: Seen) -> None:
    roots, pid = tree().roots, str(OBSERVER.init(seen.sandbox))

    def value(controller: str, name: str) -> str:
        return (roots[controller] / seen.sandbox / name).read_text().strip()

    if tree().version == 2:
        assert value("memory", "memory.max") == str(MEMORY)
        assert value("memory", "memory.swap.max") == "0"
        assert value("cpu", "cpu.max") == f"30000 {CPU_PERIOD_US}"
    else:
        assert value("memory", "memory.limit_in_bytes") == str(MEMORY)
        assert value("memory", "memory.memsw.limit_in_bytes") == str(MEMORY)
        assert value("cpu", "cpu.cfs_quota_us") == "30000"
        assert value("cpu", "cpu.cfs_period_us") == str(CPU_PERIOD_US)
    assert value("pids", "pids.max") == "64"
    for controller in ("memory", "cpu", "pids"):
        inside = value(controller, "cgroup.procs").split()
        assert {process.name for process in seen.processes} == set(inside)
        assert pid in inside


def test_its_processes_and_control_groups_end_with_it() -> None:
    with waiting() as sandbox:
        assert len(sandbox.processes) == 2
    assert not any(process.exists() for process in sandbox.processes)
    assert sandbox.sandbox not in OBSERVER.all()


def test_groups_that_a_killed_process_left_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"""
        from codeforge import BlockingCodeExecutor
        with BlockingCodeExecutor(max_warm=0) as executor:
            executor.execute({WAIT!r}, on_stdout=lambda text: print(text, end="", flush=True))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "begun\n"
        inits = {sandbox: OBSERVER.init(sandbox) for sandbox in OBSERVER.all(running=True)}
        (left,) = (sandbox for sandbox, init in inits.items() if is_below(init, host.pid))
        processes = processes_of(inits[left])
        host.kill()
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), GONE_WITHIN_S)
    # A group with a process in it and a young group are left alone.
    young = tree().make("young", Limits().of_sandbox(PYTHON))
    with waiting() as alive:
        old = next(iter(young.folders)).stat().st_mtime - 2 * cgroups.STALE_S
        for root in set(tree().roots.values()):
            if (root / left).exists():
                os.utime(root / left, (old, old))
            os.utime(root / alive.sandbox, (old, old))
        with BlockingCodeExecutor() as executor:
            assert executor.is_docker_available()
        assert left not in OBSERVER.all()
        assert {"young", alive.sandbox} <= OBSERVER.all()
    assert young.remove()


# --- What it does not support ---------------------------------------------------------------------------


def test_a_network_is_refused_before_anything_is_started() -> None:
    with BlockingCodeExecutor() as executor:
        with pytest.raises(Unsupported, match="no network; use engine='docker' or 'podman'") as caught:
            executor.execute("print(1)", network_enabled=True)
        assert caught.value.exit_code == 2
        assert executor.execute("print(1)").status is Status.OK


def test_without_an_environment_the_error_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with BlockingCodeExecutor() as executor, pytest.raises(EnvironmentNotFound) as caught:
        executor.execute("print(1)")
    assert "codeforge environments build python" in str(caught.value)


def test_without_bubblewrap_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with BlockingCodeExecutor() as executor, pytest.raises(EngineUnavailable) as caught:
        executor.execute("print(1)")
    assert "apt-get install bubblewrap" in str(caught.value)
    assert caught.value.exit_code == 69


# --- Without privileges ---------------------------------------------------------------------------------

RUN = """
import json
from codeforge import BlockingCodeExecutor, CodeForgeError
told = {}
try:
    with BlockingCodeExecutor(allow_unenforced_limits=ALLOWED, max_warm=0) as executor:
        for language, code in (("python", "import os; print(os.getuid())"),
                               ("javascript", "console.log(process.getuid())")):
            result = executor.execute(code, language, timeout=60)
            told[language] = [result.status, result.stdout, result.error, dict(result.posture)]
        result = executor.execute("import time; time.sleep(60)", timeout=1)
        told["timeout"] = result.status
except CodeForgeError as error:
    told["error"] = [type(error).__name__, str(error)]
print(json.dumps(told))
"""


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a process of another user: with the package and the cache where it can read them."""
    folder = Path("/var/tmp") / f"codeforge-test-{os.getpid()}"
    source = Path(codeforge.__file__).parents[1]
    shutil.copytree(source, folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(source.parent / "docker", folder / "docker")
    packages = Path(pytest.__file__).parents[1]
    folder.chmod(0o755)
    cache = Path(os.environ.get("XDG_CACHE_HOME", "/var/cache"))
    try:
        yield {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{folder / 'src'}:{packages}",
            "XDG_CACHE_HOME": str(cache),
            "CODEFORGE_ENGINE": "bubblewrap",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
    finally:
        shutil.rmtree(folder)


def as_nobody(elsewhere: dict[str, str], *, allowed: bool, first: tuple[str, ...] = ()) -> dict[str, Any]:
    """The report of a process without privileges."""
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
    done = subprocess.run(
        [*first, *drop, sys.executable, "-c", RUN.replace("ALLOWED", str(allowed))],
        capture_output=True, text=True, env=elsewhere, cwd="/", timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


@contextmanager
def user_namespace() -> Iterator[tuple[str, ...]]:
    """The command that enters a user namespace with all users, and with settings that affect only itself."""
    with subprocess.Popen(["unshare", "--user", "sleep", "600"]) as holder:
        own = Path(f"/proc/{holder.pid}")
        assert eventually(lambda: (own / "ns/user").readlink() != Path("/proc/self/ns/user").readlink(), 5)
        for name in ("uid_map", "gid_map"):
            (own / name).write_text("0 0 4294967295")
        yield ("nsenter", f"--user={own}/ns/user", "--")
        holder.kill()


def test_the_error_quotes_bwrap_if_its_setup_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(*arguments: Any, **options: Any) -> BubblewrapPlan:
        made = bubblewrap_plan(*arguments, **options)
        return replace(made, options=(*made.options, "--ro-bind", "/nowhere", "/x"))

    monkeypatch.setattr("codeforge.engines.bubblewrap.bubblewrap_plan", plan)
    for _ in range(5):
        with (
            BlockingCodeExecutor(max_warm=0) as executor,
            pytest.raises(EngineError, match="source path /nowhere"),
        ):
            executor.execute("print(1)")


@needs_root
def test_a_user_who_cannot_make_control_groups_is_refused(elsewhere: dict[str, str]) -> None:
    told = as_nobody(elsewhere, allowed=False)
    kind, message = told["error"]
    assert kind == "EngineUnavailable"
    assert "memory, CPU and processes cannot be limited here" in message
    assert "allow_unenforced_limits" in message


@needs_root
def test_if_allowed_it_runs_without_limits_and_the_posture_shows_that(elsewhere: dict[str, str]) -> None:
    told = as_nobody(elsewhere, allowed=True)
    assert "error" not in told, told["error"]
    for language in ("python", "javascript"):
        status, stdout, error, posture = told[language]
        assert (status, error) == ("ok", None), told
        assert int(stdout) in USER_IDS
        assert posture["cap_eff"] == "0" * 16
        assert posture["seccomp"] == "2"
        assert posture["no_new_privs"] == "1"
        for key in ("memory_max", "pids_max", "cpu_quota_us"):
            assert not posture.get(key, "").isdigit() or int(posture[key]) > 1 << 40
    assert told["timeout"] == "timeout"


@needs_root
def test_if_user_namespaces_are_forbidden_the_error_says_how_to_allow_them(elsewhere: dict[str, str]) -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    with user_namespace() as entered:
        kind, message = as_nobody(elsewhere, allowed=True, first=(*entered, "sh", "-c", forbid, "sh"))[
            "error"
        ]
    assert kind == "EngineUnavailable"
    assert "This system allows no user namespaces" in message
    assert "sysctl -w user.max_user_namespaces" in message


def test_a_program_that_is_killed_leaves_nothing() -> None:
    with BlockingCodeExecutor(max_warm=0) as executor:
        result = executor.execute("import os; os.kill(os.getpid(), 9)")
        assert (result.status, result.signal) == (Status.KILLED, signal.SIGKILL)
        assert eventually(lambda: result.container_id not in OBSERVER.all(), GONE_WITHIN_S)
