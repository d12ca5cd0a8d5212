"""Policy for bubblewrap: the whole command, as reviewed, and what no option can do to it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from codeforge.model.languages import LANGUAGES, PYTHON, TYPESCRIPT, Language
from codeforge.model.limits import GiB, Limits, MiB
from codeforge.model.request import tmpfs_bytes
from codeforge.policy import SHM_BYTES, BubblewrapPlan, bubblewrap_plan, container_spec

UID = 20_007
GOLDEN = Path(__file__).parent.parent / "golden"
MOUNTS = (("/cache/python/usr-local", "/usr/local"), ("/cache/guest", "/opt/codeforge"))
CGROUPS = (("/sys/fs/cgroup/ai-codeforge/one", "/sys/fs/cgroup"),)
SYSTEM = {"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": None}


def plan(
    language: Language = PYTHON, limits: Limits | None = None, *, as_root: bool = True
) -> BubblewrapPlan:
    return bubblewrap_plan(
        language,
        (limits or Limits()).of_sandbox(language),
        uid=UID,
        as_root=as_root,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"},
        mounts=MOUNTS,
        system=SYSTEM,
        cgroups=CGROUPS,
    )


def values(words: tuple[str, ...], option: str, count: int = 1) -> list[tuple[str, ...]]:
    """What follows each occurrence of an option."""
    return [words[at + 1 : at + 1 + count] for at, word in enumerate(words) if word == option]


def test_the_command_is_exactly_the_reviewed_one() -> None:
    reviewed = json.loads((GOLDEN / "bubblewrap_python.json").read_text())
    made = plan()
    assert {"prefix": made.prefix, "options": made.options, "program": made.program} == {
        key: tuple(words) for key, words in reviewed.items()
    }


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
@pytest.mark.parametrize("memory", [16 * MiB, 512 * MiB, 4 * GiB])
@pytest.mark.parametrize("as_root", [True, False])
def test_nothing_of_the_host_is_writable_whatever_the_options(
    language: Language, memory: int, as_root: bool
) -> None:
    made = plan(language, Limits(memory_bytes=memory), as_root=as_root)
    assert {"--bind", "--bind-try", "--dev-bind", "--dev-bind-try", "--share-net"}.isdisjoint(made.options)
    for namespace in ("user", "pid", "net", "ipc", "uts"):
        assert f"--unshare-{namespace}" in made.options
    assert {"--as-pid-1", "--die-with-parent", "--new-session", "--clearenv"} <= set(made.options)
    seen = {here for here, _ in values(made.options, "--ro-bind", 2)}
    assert seen == {"/usr", "/lib64", *(here for here, _ in (*MOUNTS, *CGROUPS))}
    assert values(made.options, "--ro-bind-try", 2) == [
        ("/etc/ld.so.cache", "/etc/ld.so.cache"),
        ("/etc/alternatives", "/etc/alternatives"),
    ]
    assert values(made.options, "--remount-ro") == [("/dev",), ("/",)]
    assert made.options[-4:] == ("--remount-ro", "/", "--chdir", "/")
    assert made.program[-2:] == ("--", "/opt/codeforge/init")


def test_root_starts_it_as_the_sandboxs_own_user() -> None:
    assert plan().prefix == ("setpriv", f"--reuid={UID}", "--regid=10001", "--clear-groups", "--")
    assert plan(as_root=False).prefix == ()


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
@pytest.mark.parametrize("memory", [16 * MiB, 512 * MiB, 4 * GiB])
def test_it_has_the_same_limits_as_a_container(language: Language, memory: int) -> None:
    limits = Limits(memory_bytes=memory)
    host, program = (
        container_spec(language, limits.of_sandbox(language), owner="o", uid=UID)["HostConfig"],
        plan(language, limits).program,
    )
    assert [(each["Name"], str(each["Hard"])) for each in host["Ulimits"]] == values(program, "--limit", 2)
    assert [path for (path,) in values(program, "--mask")] == host["MaskedPaths"]
    assert [path for (path,) in values(program, "--readonly")] == host["ReadonlyPaths"]
    assert values(program, "--oom-score-adj") == [(str(host["OomScoreAdj"]),)]
    size, inodes = tmpfs_bytes(limits), language.tmp_inodes
    assert values(program, "--tmpfs", 2) == [
        ("/code", f"size={size},nr_inodes={inodes},mode=0700"),
        ("/tmp", f"size={size},nr_inodes={inodes},mode=0700"),
        ("/dev/shm", f"size={SHM_BYTES},nr_inodes={inodes},mode=0700"),
    ]


def test_its_variables_are_those_of_a_container_on_top_of_the_images() -> None:
    limits = Limits(memory_bytes=GiB)
    variables = {pair[0]: pair[1] for pair in values(plan(TYPESCRIPT, limits).options, "--setenv", 2)}
    own = dict(
        each.split("=", 1)
        for each in container_spec(TYPESCRIPT, limits.of_sandbox(TYPESCRIPT), owner="o", uid=UID)["Env"]
    )
    image = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}
    assert variables == {**image, "HOSTNAME": "sandbox", **own}


def test_limits_change_only_the_sizes_of_files() -> None:
    one, other = plan(), plan(limits=Limits(cpu_quota_us=1000, timeout_s=1.0, output_bytes=1))
    assert one == other
    smaller = plan(limits=Limits(memory_bytes=64 * MiB))
    assert smaller.options == one.options
    changed = [(a, b) for a, b in itertools.zip_longest(one.program, smaller.program) if a != b]
    assert len(changed) == 3
    assert all("67108864" in a and "16777216" in b for a, b in changed)
