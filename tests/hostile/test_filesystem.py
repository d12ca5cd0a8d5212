"""A program writes in its own places only, finds no secret, and leaves nothing for the next."""

from __future__ import annotations

import pytest

from codeforge import BlockingCodeExecutor, InvalidRequest
from hostile.conftest import Attack, Watch

pytestmark = pytest.mark.core

WRITABLE = ["/code", "/dev/shm", "/tmp"]


@pytest.mark.catalogue("F01")
def test_exactly_three_places_can_be_written_to(run: Attack) -> None:
    told = run("""
        writable, looked = [], 0
        for folder, folders, names in os.walk("/"):
            if folder == "/":
                folders.remove("sys")
            if folder == "/proc":  # its own entries are processes and knobs; see the tests of these
                folders[:] = ["self", "sys"]
            looked += 1
            path = f"{folder}/mark"
            for make in (lambda: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)),
                         lambda: os.mkdir(path), lambda: os.symlink("x", path), lambda: os.mkfifo(path)):
                if attempt(make) == "ok":
                    writable.append(folder)
                    os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        report({"writable": sorted(set(writable)), "looked": looked})
    """)
    assert told["looked"] > 300
    assert told["writable"] == WRITABLE


@pytest.mark.catalogue("F01")
def test_no_file_of_the_image_can_be_opened_for_writing(run: Attack) -> None:
    told = run("""
        opened, looked, devices = [], 0, {os.stat("/").st_dev, os.stat("/opt/codeforge").st_dev}
        for folder, folders, names in os.walk("/"):
            folders[:] = [n for n in folders if os.lstat(f"{folder}/{n}").st_dev in devices]
            for name in names:
                looked += 1
                path = f"{folder}/{name}"
                if os.path.islink(path) or not os.path.isfile(path):  # Podman masks one with /dev/null
                    continue
                if attempt(lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))) == "ok":
                    opened.append(path)
        report({"opened": opened, "looked": looked})
    """)
    assert told["looked"] > 1000
    assert told["opened"] == []


@pytest.mark.catalogue("F01")
@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_node_writes_in_the_same_places_only(run: Attack, language: str) -> None:
    told = run(
        """
        import { readdirSync, mkdirSync, rmdirSync } from "fs";
        const writable = [];
        const visit = (folder) => {
          try { mkdirSync(folder + "/mark"); rmdirSync(folder + "/mark"); writable.push(folder); } catch {}
          let entries = [];
          try { entries = readdirSync(folder, { withFileTypes: true }); } catch {}
          for (const entry of entries)
            if (entry.isDirectory() && !["proc", "sys", "node_modules"].includes(entry.name))
              visit((folder === "/" ? "" : folder) + "/" + entry.name);
        };
        visit("/");
        console.log(JSON.stringify(writable.sort()));
        """,
        language,
        type_check=False,
    )
    assert [place for place in told if not place.startswith("/tmp/")] == WRITABLE


@pytest.mark.catalogue("F01", "P24")
@pytest.mark.engine("docker", "podman", "bubblewrap")  # gVisor: docs/engines.md
def test_seen_from_outside_all_that_is_writable_is_memory_and_may_not_execute(watch: Watch) -> None:
    with watch("report(0); input()") as seen:
        lines = [line.split() for line in (seen.init / "mountinfo").read_text().splitlines()]
        writable = {}
        for line in lines:
            kind = line[line.index("-") + 1]
            device = (seen.init / "root" / line[4][1:]).is_char_device()  # one by one, or a mask
            if "rw" in line[5].split(",") and kind not in ("proc", "devpts") and not device:
                writable[line[4]] = (kind, set(line[5].split(",")))
    # /dev itself, and with cgroup v1 the folder of its hierarchies, belong to root.
    others = set(writable) - {"/code", "/tmp", "/dev/shm"}
    assert others <= {"/dev", "/dev/mqueue", "/sys/fs/cgroup"}
    assert {kind for kind, _ in writable.values()} <= {"tmpfs", "mqueue"}
    for place in WRITABLE:
        assert {"noexec", "nosuid", "nodev"} <= writable[place][1]
    (root,) = [line for line in lines if line[4] == "/"]
    assert "ro" in root[5].split(",")


@pytest.mark.catalogue("F02")
def test_cannot_remount(run: Attack) -> None:
    told = run("""
        remount, bind = 32, 4096
        points = [line.split()[4] for line in open("/proc/self/mountinfo")]
        answers = {str(call("mount", 0, point.encode(), 0, remount | how, 0))
                   for point in points for how in (0, bind)}
        plain = (ctypes.c_uint64 * 4)(0, 1, 0, 0)  # take the read-only attribute away
        answers.add(call("mount_setattr", -100, b"/", 0, plain, 32))
        report({"answers": sorted(answers), "points": len(points), "after": attempt(open, "/mark", "w")})
    """)
    assert told["points"] > 8
    assert told["answers"] == ["EPERM"]
    assert told["after"] in ("EROFS", "EACCES")


HOSTILE_PATHS = [
    "../../x",
    "/etc/passwd",
    "a/../../x",
    "./x",
    "a//b",
    "",
    "a/",
    "x\n",
    "x\0",
    "..",
    "a" * 256,
    "a/" * 17 + "b",
]


@pytest.mark.catalogue("F09")
@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=lambda path: ascii(path)[:20])
def test_a_path_that_leads_elsewhere_is_refused(executor: BlockingCodeExecutor, path: str) -> None:
    with pytest.raises(InvalidRequest, match=r"not a usable path|NUL"):
        executor.execute("print(1)", files={path: "x"})


@pytest.mark.catalogue("F09")
def test_too_many_files_are_refused(executor: BlockingCodeExecutor) -> None:
    with pytest.raises(InvalidRequest, match="at most 1000 files"):
        executor.execute("print(1)", files={f"f{n}": "" for n in range(100_000)})


@pytest.mark.catalogue("F09")
def test_files_named_for_what_an_interpreter_loads_do_not_run_before_the_program(
    executor: BlockingCodeExecutor,
) -> None:
    mark = "import os; os.write(1, b'LOADED\\n')\n"
    files = {
        "sitecustomize.py": mark,
        "usercustomize.py": mark,
        "evil.pth": mark,
        "_evil.pth": mark,
        "python311._pth": mark,
        "pyvenv.cfg": "home = /code\n",
        "encodings/__init__.py": mark,
        "conftest.py": mark,
    }
    for variables in ({}, {"PYTHONHASHSEED": "1"}):  # in a waiting interpreter, and in a new one
        result = executor.execute("import os; print(sorted(os.listdir()))", files=files, env_vars=variables)
        assert (result.status, result.stderr) == ("ok", "")
        assert result.stdout == f"{sorted({'main.py', *(name.split('/')[0] for name in files)})}\n"


@pytest.mark.catalogue("F09")
def test_nodes_files_of_that_kind_do_not_run_before_the_program(executor: BlockingCodeExecutor) -> None:
    mark = "require('fs').writeSync(1, 'LOADED\\n')\n"
    files = {
        "node_modules/fs/index.js": mark,
        "node_modules/ts-node/index.js": mark,
        "node_modules/typescript/lib/typescript.js": mark,
        ".node_repl_history": mark,
        "node_worker.cjs": mark,
        ".npmrc": "node-options=--require ./node_worker.cjs\n",
    }
    for language in ("javascript", "typescript"):
        result = executor.execute("console.log('mine')", language, files=files, timeout=90, cpu_quota=100_000)
        assert (result.status, result.stdout) == ("ok", "mine\n"), result.stderr
