"""A program finds no secret, and nothing of another run."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codeforge import BlockingCodeExecutor
from contract.support import docker
from hostile.conftest import Attack, Batch, Watch, answer
from hostile.payloads import payload
from observer import DISTRIBUTION


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A secret that lies in the host's environment and in files of the host."""
    token = secrets.token_hex(16)
    monkeypatch.setenv("CODEFORGE_CANARY_KEY", token)
    (tmp_path / "secret").write_text(token)
    (tmp_path / "secret").chmod(0o644)
    shared = Path("/tmp") / f"codeforge-canary-{os.getpid()}"
    shared.write_text(token)
    shared.chmod(0o644)
    yield token
    shared.unlink()


HUNT = """
halves = {halves!r}
token = "".join(halves).encode()  # the whole of it is nowhere in this program
found, looked = [], 0
def search(path, size=4 << 20):
    global looked
    try:
        with open(path, "rb") as file:
            data = file.read(size)
    except OSError:
        return
    looked += 1
    if token in data:
        found.append(path)
for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
    for name in ("environ", "cmdline", "maps", "mounts", "mountinfo"):
        search(f"/proc/{{pid}}/{{name}}")
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys")]
    folders[:] = [name for name in folders if f"{{folder}}/{{name}}" not in {passed!r}]
    for name in names:
        path = f"{{folder}}/{{name}}"
        if os.path.isfile(path):
            search(path, 1 << 16)
report({{"found": found, "looked": looked, "environment": sorted(os.environ),
        "init's": attempt(lambda: open("/proc/1/environ").read()),
        "secrets": [path for path in ("/run/secrets", "/var/run/secrets", "/root/.aws", "/root/.docker")
                    if os.path.exists(path)]}})
"""


@pytest.mark.catalogue("F10")
def test_no_secret_of_the_host_or_of_another_run_is_found(canary: str, watch: Watch) -> None:
    keeps = f"os.environ['MINE'] = {canary!r}; open('/tmp/mine', 'w').write({canary!r}); report(0); input()"
    with BlockingCodeExecutor(max_warm=0) as executor, watch(keeps, env_vars={"API_KEY": canary}):
        hunt = payload(HUNT.format(halves=[canary[:16], canary[16:]], passed=DISTRIBUTION))
        told = answer(executor.execute(hunt, timeout=120, cpu_quota=200_000))
    assert told["looked"] > 1000
    assert told["found"] == []
    assert told["init's"] == "EACCES"
    assert told["secrets"] == []
    allowed = {
        "PATH",
        "LANG",
        "HOME",
        "HOSTNAME",
        "PYTHONDONTWRITEBYTECODE",
        "PYTEST_ADDOPTS",
        "PWD",
        "LC_CTYPE",
    }
    assert {name for name in told["environment"] if not re.match("OPENBLAS|OMP", name)} <= allowed


@pytest.mark.catalogue("F10")
def test_the_hunt_finds_a_secret_that_is_there(executor: BlockingCodeExecutor) -> None:
    """The test above can tell."""
    token = secrets.token_hex(16)
    hunt = payload(HUNT.format(halves=[token[:16], token[16:]], passed=DISTRIBUTION))
    result = executor.execute(hunt, files={"notes.txt": f"key={token}"}, timeout=120, cpu_quota=200_000)
    found = answer(result)["found"]
    assert "/code/notes.txt" in found


@pytest.mark.catalogue("F10")
@pytest.mark.engine("docker")
def test_images_carry_no_secret_in_their_settings() -> None:
    for language in ("python", "javascript", "typescript"):
        image = f"ai-codeforge-{language}:latest"
        settings = docker("inspect", "--format", "{{json .Config.Env}}", image)
        history = docker("history", "--no-trunc", image)
        assert not re.search(
            r"(?i)(api_?key|token|secret|password|passwd|credential)\w*=", settings + history
        )


LEAVE = """
import builtins
mark = "{mark}"
for place in ("/tmp", "/code", "/dev/shm", os.path.expanduser("~"), "/code/__pycache__", "/tmp/.hidden/deep"):
    attempt(os.makedirs, place)
    attempt(lambda: open(f"{{place}}/{{mark}}", "w").write(mark))
attempt(lambda: open("/dev/mqueue/" + mark, "w"))
facts = {{"shm": call("shmget", 0x1234, 4096, 0o1600),
         "key": call("add_key", b"user", mark.encode(), b"x", 1, -4)}}
builtins.MARK = mark
os.environ["MARK"] = mark
json.MARK = mark
abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
abstract.bind("\\0" + mark)
server = socket.create_server(("127.0.0.1", 45678))
os.umask(0o777)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        try:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", mark])
        finally:
            os._exit(1)
    os._exit(0)
facts["uid"] = os.getuid()
report(facts)
"""
LOOK = """
import builtins
mark = "{mark}"[:16] + "{mark}"[16:]
found = [name for name in ("/tmp", "/code", "/dev/shm", "/dev/mqueue", "/code/__pycache__", "/tmp/.hidden")
         if os.path.isdir(name) and any(mark in entry or ".hidden" in entry for entry in os.listdir(name))]
lines = open("/proc/net/unix").read()
pids = [name for name in os.listdir("/proc") if name.isdigit()]
commands = "".join(open(f"/proc/{{pid}}/cmdline").read() for pid in pids)
found += [what for what, there in {{
    "builtins": hasattr(builtins, "MARK"), "json": hasattr(json, "MARK"), "environment": "MARK" in os.environ,
    "abstract socket": mark in lines, "process": mark in commands,
    "port": attempt(lambda: socket.create_server(("127.0.0.1", 45678))) != "ok",
    "shared memory": len(open("/proc/sysvipc/shm").readlines()) > 1,
    "umask": os.umask(0o22) != 0o22,
}}.items() if there]
report({{"found": found, "uid": os.getuid()}})
"""


@pytest.mark.catalogue("F11")
def test_the_next_run_with_the_same_user_id_finds_nothing() -> None:
    mark = secrets.token_hex(16)
    with BlockingCodeExecutor(max_warm=0, max_sandboxes=1) as executor:
        first = executor.execute(payload(LEAVE.format(mark=mark)))
        uid = answer(first)["uid"]
        seen, found = {first.container_id}, []
        for _ in range(100):
            result = executor.execute(payload(LOOK.format(mark=mark)))
            told = answer(result)
            found += told["found"]
            assert result.container_id not in seen
            seen.add(result.container_id)
            if told["uid"] == uid:
                break
        else:
            pytest.fail("no user id came twice")
    assert found == []


@pytest.mark.catalogue("F11")
def test_the_next_run_of_a_reused_sandbox_finds_nothing(run_in_turn: Batch) -> None:
    mark = secrets.token_hex(16)
    first, second = run_in_turn(LEAVE.format(mark=mark), LOOK.format(mark=mark))
    assert answer(first)["shm"] == answer(first)["key"] == "EPERM"
    assert answer(second)["found"] == []
    assert second.container_id == first.container_id


@pytest.mark.catalogue("F11")
def test_the_search_finds_what_a_run_leaves_while_it_lasts(run: Attack) -> None:
    """The tests above can tell."""
    mark = secrets.token_hex(16)
    told: dict[str, Any] = run(LEAVE.format(mark=mark) + "time.sleep(0.3)\n" + LOOK.format(mark=mark))
    expected = {
        "/tmp",
        "/code",
        "/dev/shm",
        "builtins",
        "json",
        "environment",
        "abstract socket",
        "process",
        "port",
    }
    assert expected <= set(told["found"])


@pytest.mark.catalogue("F11", "F12")
def test_two_runs_share_no_namespace_but_user_and_time(watch: Watch) -> None:
    code = """
        names = os.listdir("/proc/self/ns")
        report({name: os.stat(f"/proc/self/ns/{name}").st_ino for name in names})
        input()
    """
    with watch(code) as one, watch(code) as other:
        assert one.container != other.container
        uids = [(seen.init / "status").read_text().partition("Uid:")[2].split()[0] for seen in (one, other)]
        ours = {entry.name: entry.stat().st_ino for entry in Path("/proc/self/ns").iterdir()}
    common = {name for name in one.told if one.told[name] == other.told[name]}
    with_host = {name for name in one.told if one.told[name] == ours[name]}
    # Docker's share the machine's user namespace; others have one each.
    assert common == with_host
    assert {"time", "time_for_children"} <= common <= {"user", "time", "time_for_children"}
    assert len(set(uids)) == 2
