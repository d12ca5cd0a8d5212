"""No program gets a privilege: by ids, capabilities, mounts, namespaces, devices or the kernel's knobs."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from codeforge import LANGUAGES, Language
from contract.support import docker
from hostile.conftest import Attack, Watch

ZERO = "0" * 16


def status_of(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


REFUSED = {"EPERM", "EINVAL"}
"""In a user namespace without any other id, there is nobody else to become: EINVAL."""


@pytest.mark.catalogue("P01")
def test_cannot_become_another_user(run: Attack) -> None:
    told = run("""
        before = os.getresuid(), os.getresgid()
        groups = (ctypes.c_int * 1)(0)
        facts = {
            "setuid": call("setuid", 0), "setresuid": call("setresuid", 0, 0, 0),
            "setgid": call("setgid", 0), "setresgid": call("setresgid", 0, 0, 0),
            "setgroups": call("setgroups", 1, groups), "neighbour": call("setuid", os.getuid() + 1),
        }
        report({"calls": facts, "same": before == (os.getresuid(), os.getresgid()), "root": 0 in before[0]})
    """)
    assert set(told["calls"].values()) <= REFUSED
    assert told["same"]
    assert not told["root"]


JS_IDS = """
const errors = [];
for (const become of [() => process.setuid!(0), () => process.setgid!(0), () => process.setgroups!([0])]) {
  try { become(); errors.push("ok"); } catch (error) { errors.push((error as any).code); }
}
console.log(JSON.stringify(errors));
"""


@pytest.mark.catalogue("P01")
@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_node_cannot_become_another_user(run: Attack, language: str) -> None:
    code = (
        JS_IDS if language == "typescript" else JS_IDS.replace("!(", "(").replace("(error as any)", "error")
    )
    assert set(run(code, language)) <= REFUSED


@pytest.mark.catalogue("P01")
@pytest.mark.parametrize("row", LANGUAGES, ids=lambda row: row.name)
@pytest.mark.engine("docker")
def test_images_have_no_set_id_file(row: Language) -> None:
    container = docker("create", row.image, "true").strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            with tarfile.open(fileobj=export.stdout, mode="r|") as files:
                members = [(member.name, member.mode) for member in files if member.isfile()]
    finally:
        docker("rm", container)
    assert len(members) > 1000
    assert [name for name, mode in members if mode & 0o6000] == []


@pytest.mark.catalogue("P01")
def test_cannot_make_a_set_id_file_that_works(run: Attack) -> None:
    told = run("""
        flags = {}
        for place in ("/tmp", "/code", "/dev/shm"):
            path = f"{place}/id"
            open(path, "w").close()
            os.chmod(path, 0o6755)
            flags[place] = bool(os.statvfs(path).f_flag & os.ST_NOSUID)
        report({"nosuid": flags, "chown": attempt(os.chown, "/tmp/id", 0, 0)})
    """)
    assert told["chown"] in REFUSED
    assert told["nosuid"] == {"/tmp": True, "/code": True, "/dev/shm": True}


@pytest.mark.catalogue("P02")
def test_no_process_has_a_capability_seen_from_inside_and_outside(watch: Watch) -> None:
    code = """
        import threading
        threading.Thread(target=time.sleep, args=(0.0,)).start()
        child = os.fork()
        if child == 0:
            time.sleep(60)
        lines = open("/proc/self/status").read().splitlines()
        report(dict(line.split(":\\t", 1) for line in lines if line.startswith(("Cap", "NoNew", "Seccomp"))))
        input()
    """
    with watch(code) as seen:
        processes = seen.processes
        outside = [status_of(task) for process in processes for task in (process / "task").iterdir()]
    assert len(processes) == 3
    for status in (*outside, seen.told):
        sets = {key: status[f"Cap{key}"] for key in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        assert sets == dict.fromkeys(sets, ZERO)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
    for status in outside:
        ids = set(status["Uid"].split()) | set(status["Gid"].split())
        assert all(int(number) >= 10001 for number in ids)


@pytest.mark.catalogue("P02", "P08")
def test_every_process_has_a_filter_on_top_of_the_engines(watch: Watch) -> None:
    with watch("report(0); input()") as seen:
        counts = [int(status_of(process)["Seccomp_filters"]) for process in seen.processes]
    engine, program = counts
    assert engine >= 1
    assert program >= engine
    assert program >= 2


@pytest.mark.catalogue("P02")
@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_node_has_no_capability(run: Attack, language: str) -> None:
    told = run(
        """
        import { readFileSync } from "fs";
        const lines = readFileSync("/proc/self/status", "utf8").split("\\n");
        const sets = lines.filter(line => line.startsWith("Cap"));
        console.log(JSON.stringify(sets.map(line => line.split("\\t")[1])));
        """,
        language,
    )
    assert told == [ZERO] * 5


@pytest.mark.catalogue("P03")
def test_cannot_mount(run: Attack) -> None:
    told = run("""
        root, tmp, kind = b"/", b"/tmp", b"tmpfs"
        attributes = (ctypes.c_uint64 * 4)()
        report({
            "mount": call("mount", kind, tmp, kind, 0, 0),
            "bind": call("mount", root, tmp, 0, 4096, 0),
            "umount2": call("umount2", tmp, 2),
            "pivot_root": call("pivot_root", tmp, tmp),
            "chroot": call("chroot", tmp),
            "fsopen": call("fsopen", kind, 0),
            "fsconfig": call("fsconfig", 0, 6, 0, 0, 0),
            "fsmount": call("fsmount", 0, 0, 0),
            "fspick": call("fspick", -100, root, 0),
            "open_tree": call("open_tree", -100, root, 1),
            "move_mount": call("move_mount", -100, root, -100, tmp, 0),
            "mount_setattr": call("mount_setattr", -100, root, 0, attributes, 32),
        })
    """)
    assert len(told) == 12
    assert set(told.values()) == {"EPERM"}


@pytest.mark.catalogue("P04")
def test_cannot_make_or_enter_a_namespace(run: Attack) -> None:
    told = run("""
        kinds = {"ns": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000,
                 "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000, "time": 0x80}
        def clone(flags):
            child = call("clone", flags | signal.SIGCHLD, 0, 0, 0, 0)
            if child == 0:
                os._exit(0)
            return child
        def enter(name):
            fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY)
            return call("setns", fd, 0)
        report({
            "unshare": [call("unshare", flag) for flag in kinds.values()],
            "unshare user and net": call("unshare", 0x50000000),
            # In clone, the bit of the time namespace is part of the signal's number.
            "clone": [clone(flag) for name, flag in kinds.items() if name != "time"],
            "clone3": call("clone3", (ctypes.c_uint64 * 11)(0x10000000), 88),
            "setns": [enter(name) for name in os.listdir("/proc/self/ns") if "_for_" not in name],
            "setns init": call("setns", call("pidfd_open", 1, 0), 0x10000000),
        })
    """)
    assert told["unshare"] == ["EPERM"] * 8
    assert told["unshare user and net"] == "EPERM"
    assert told["clone"] == ["EPERM"] * 7
    assert told["clone3"] == "ENOSYS"
    assert set(told["setns"]) == {"EPERM"}
    assert told["setns init"] == "EPERM"


@pytest.mark.catalogue("P10")
def test_cannot_write_to_any_knob_of_the_kernel(run: Attack) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    told = run(
        """
        named = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger",
                 "/proc/sys/vm/drop_caches", "/sys/kernel/uevent_helper", "/proc/sys/kernel/ns_last_pid",
                 "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state")
        writable, looked = [], 0
        for top in ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/sys"):
            for folder, _, names in os.walk(top):
                for name in names:
                    looked += 1
                    path = f"{folder}/{name}"
                    if attempt(lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))) == "ok":
                        writable.append(path)
        opened = {path: attempt(lambda: os.close(os.open(path, os.O_WRONLY))) for path in named}
        report({"named": opened, "writable": writable, "looked": looked})
        """,
        timeout=60,
        cpu_quota=200_000,
    )
    assert set(told["named"].values()) <= {"EACCES", "EROFS", "ENOENT"}
    assert told["looked"] > 1000
    assert told["writable"] == []
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


@pytest.mark.catalogue("P11")
def test_cannot_steer_cgroups(run: Attack) -> None:
    told = run("""
        answers, looked = {}, 0
        for folder, folders, names in os.walk("/sys/fs/cgroup"):
            answers[folder + "/new"] = attempt(os.mkdir, folder + "/new")
            for name in (*names, "release_agent", "cgroup.procs", "notify_on_release"):
                looked += 1
                path = f"{folder}/{name}"
                answers[path] = attempt(lambda: os.close(os.open(path, os.O_WRONLY)))
        report({"looked": looked, "answers": sorted(set(answers.values()))})
    """)
    assert told["looked"] > 3
    assert set(told["answers"]) <= {"EACCES", "EROFS", "ENOENT", "EPERM"}


@pytest.mark.catalogue("P12")
def test_cannot_make_or_open_a_device(run: Attack) -> None:
    told = run("""
        made = {}
        for place in ("/tmp", "/code", "/dev/shm"):
            made[place] = [
                attempt(os.mknod, f"{place}/c", stat.S_IFCHR | 0o666, os.makedev(1, 1)),
                attempt(os.mknod, f"{place}/b", stat.S_IFBLK | 0o666, os.makedev(8, 0)),
                call("mknodat", -100, f"{place}/d".encode(), stat.S_IFCHR | 0o666, os.makedev(1, 11)),
            ]
        names = ("mem kmem port kmsg kvm fuse sda vda vsock vhost-vsock vhost-net net/tun loop-control loop0 "
                 "userfaultfd dri/card0 mapper/control rtc0 console").split()
        opened = {name: attempt(lambda: os.open(f"/dev/{name}", os.O_RDONLY)) for name in names}
        report({"made": made, "opened": opened, "dev": sorted(os.listdir("/dev"))})
    """)
    assert told["made"] == dict.fromkeys(["/tmp", "/code", "/dev/shm"], ["EPERM"] * 3)
    assert set(told["opened"].values()) == {"ENOENT"}
    known = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert set(told["dev"]) <= set(known.split())


@pytest.mark.catalogue("P23")
def test_cannot_get_ahead_of_others(run: Attack) -> None:
    told = run("""
        parameter = (ctypes.c_int * 1)(1)
        deadline = (ctypes.c_uint32 * 12)(48, 6, 0, 0, 0, 0, 1000000, 0, 2000000, 0, 2000000, 0)
        megabyte = ctypes.create_string_buffer(1 << 20)
        report({
            "nice": call("setpriority", 0, 0, -20),
            "fifo": call("sched_setscheduler", 0, 1, parameter),
            "round robin": call("sched_setscheduler", 0, 2, parameter),
            "deadline": call("sched_setattr", 0, deadline, 0),
            "io": call("ioprio_set", 1, 0, 1 << 13),
            "mlockall": call("mlockall", 3),
            "mlock": call("mlock", megabyte, 1 << 20),
        })
    """)
    assert told == {
        "nice": "EACCES",
        "fifo": "EPERM",
        "round robin": "EPERM",
        "deadline": "EPERM",
        "io": "EPERM",
        "mlockall": "ENOMEM",
        "mlock": "ENOMEM",
    }
