"""Environments: what they are made of, and that they are complete or do not exist."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from codeforge import package_data
from codeforge.environments import build, fingerprint, guest_binaries
from codeforge.environments.build import Build
from codeforge.environments.fingerprint import interpreter
from codeforge.environments.maker import EnvironmentMaker
from codeforge.environments.store import EnvironmentFailed
from codeforge.errors import Unsupported
from codeforge.model.languages import LANGUAGES, OPTIONAL_LANGUAGES, PYTHON, Language, Recipe
from codeforge.progress.steps import Step

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with its guest's programs compiled: that takes seconds, so once for all tests."""
    package = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns("bin", "__pycache__")
    shutil.copytree(ROOT / "src/codeforge/guest", package / "guest", ignore=ignored)
    shutil.copytree(ROOT / "docker", package / "_image_context/docker")
    guest_binaries.prebuild(package / "guest")
    return package


@pytest.fixture(autouse=True)
def package(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package under test: that copy."""
    monkeypatch.setattr(package_data, "PACKAGE_DIR", compiled)
    return compiled


@pytest.fixture
def cache() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def language(lock: Path) -> Language:
    """Python with the packages of a lock file."""
    return replace(PYTHON, environment=Recipe(installer="pip", packages=str(lock)))


@pytest.fixture
def bare(tmp_path: Path) -> Language:
    """Python without packages: it takes little time and no network to make."""
    lock = tmp_path / "none.lock"
    lock.write_text("# no packages\n")
    return language(lock)


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "environments").iterdir() if path.is_dir())


def make(cache: Path, row: Language) -> list[Step]:
    steps: list[Step] = []
    asyncio.run(EnvironmentMaker(cache).make(row, steps.append))
    return steps


# --- What they are made of ----------------------------------------------------------------------------


@pytest.mark.parametrize("row", [*LANGUAGES, *OPTIONAL_LANGUAGES], ids=lambda row: row.name)
def test_an_environment_is_what_the_dockerfile_says(row: Language) -> None:
    assert row.dockerfile is not None
    recipe = row.environment
    assert recipe is not None
    text = (ROOT / row.dockerfile).read_text()
    _, _, final = text.partition("FROM scratch")
    block = re.search(r"^ENV ((?:.*\\\n)*.*)$", final, re.MULTILINE)
    assert block is not None
    assert recipe.env == {
        name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', block[1])
    }
    linked = re.search(r"for command in ([^;]*); do", text)
    assert recipe.commands == (tuple(linked[1].split()) if linked else ())
    assert set(re.findall(r"docker/\w+/(?:root-package|tsconfig)\.json", text)) == set(recipe.root.values())
    assert f"COPY {recipe.packages}" in text
    assert ("trim-node-modules.sh &&" in text) == recipe.keep_declarations


def test_the_node_is_the_one_of_the_images() -> None:
    script = (ROOT / "docker/offline/make-base-images.sh").read_text()
    version = re.search(r"^NODE_VERSION=(\S+)$", script, re.MULTILINE)
    assert version is not None
    assert (ROOT / "docker/node/package.json").read_text().count(f'"{version[1]}"') == 2


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["python3.11", "python3.13", "python3 -> python3.13"], "python3.11"),
        (["python3.12", "python3.13", "python3 -> python3.13"], "python3.13"),
        (["python3.9", "python3.12", "python3 -> python3.9", "python3.14"], "python3.12"),
        (["python3.9", "python3.12-config", "python3 -> python3.9"], None),
        ([], None),
    ],
)
def test_the_interpreter_is_the_images_version_else_the_systems(
    tmp_path: Path, there: list[str], chosen: str | None
) -> None:
    for entry in there:
        name, _, target = entry.partition(" -> ")
        (tmp_path / name).symlink_to(target) if target else (tmp_path / name).touch()
    assert interpreter(tmp_path) == (tmp_path / chosen if chosen else None)


def test_the_modules_that_make_environments_are_part_of_the_digest() -> None:
    made_by = {path.name for path in Path(fingerprint.__file__).parent.glob("*.py")}
    assert set(fingerprint.MAKERS) <= made_by


def test_the_error_for_a_language_without_a_recipe_names_engines_that_can_run_it(cache: Path) -> None:
    with pytest.raises(Unsupported, match=r"docker.*podman"):
        EnvironmentMaker(cache).find(replace(PYTHON, environment=None))


# --- Making one ---------------------------------------------------------------------------------------


def test_an_environment_is_found_once_it_is_made(cache: Path, bare: Language) -> None:
    store = EnvironmentMaker(cache)
    assert store.find(bare) is None
    assert make(cache, bare)[-1].text == "ready"
    found = store.find(bare)
    assert found is not None
    assert [there for _, there in found.mounts] == ["/usr/local", "/opt/codeforge", "/etc"]
    (usr_local, _), (guest, _), (etc, _) = found.mounts
    assert etc == guest / "etc"
    assert "root:x:0:0:root:/:/usr/sbin/nologin\n" in (etc / "passwd").read_text()
    assert (guest / "init").read_bytes()[:4] == b"\x7fELF"
    assert (guest / "python_worker.py").exists()
    program = "import sys; print(sys.prefix, sys.base_prefix)"
    said = subprocess.run(
        [usr_local / "bin/python", "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout == f"{usr_local} /usr\n"
    before = folders(cache)
    assert [step.text for step in make(cache, bare)] == ["ready"]
    assert folders(cache) == before


def test_every_user_may_read_it_and_only_its_owner_write_it(cache: Path, bare: Language) -> None:
    mask = os.umask(0o077)
    try:
        make(cache, bare)
    finally:
        os.umask(mask)
    for path in (cache / "environments").rglob("[!.]*"):
        mode = path.lstat().st_mode
        assert path.is_symlink() or (mode & 0o044 == 0o044 and not mode & 0o022), path
        assert not stat.S_ISDIR(mode) or mode & 0o011 == 0o011, path


def test_other_packages_make_another_environment(cache: Path, bare: Language, tmp_path: Path) -> None:
    make(cache, bare)
    (tmp_path / "none.lock").write_text("# something else\n")
    assert EnvironmentMaker(cache).find(bare) is None


def make_wheel(folder: Path, code: str) -> Path:
    """A package of one module."""
    wheel = folder / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing.py", code)
        archive.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        archive.writestr(
            "thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("thing-1.dist-info/RECORD", "")
    return wheel


def locked(wheel: Path) -> Path:
    """A lock file of that one package."""
    lock = wheel.with_name("one.lock")
    lock.write_text(f"{wheel} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    return lock


def test_a_package_with_the_wrong_hash_fails_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "")
    lock = wheel.with_name("one.lock")
    lock.write_text(f"{wheel} --hash=sha256:{'0' * 64}\n")
    with pytest.raises(EnvironmentFailed, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        make(cache, language(lock))
    assert [name for name in folders(cache) if "python" in name] == []
    locked(wheel)
    make(cache, language(lock))
    assert EnvironmentMaker(cache).find(language(lock)) is not None


def test_a_failure_is_reported_as_a_step(cache: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    row = language(tmp_path / "no-such.lock")
    (tmp_path / "no-such.lock").write_text("no-such-thing\n")
    assert not asyncio.run(EnvironmentMaker(cache).provide(row, steps.append))
    assert steps[-1].failed
    assert steps[-1].text.startswith("python environment: ")


PROGRAM = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from codeforge.environments.maker import EnvironmentMaker
from codeforge.model.languages import PYTHON, Recipe
row = replace(PYTHON, environment=Recipe(installer="pip", packages=sys.argv[2]))
store = EnvironmentMaker(Path(sys.argv[1]))
asyncio.run(store.make(row, lambda step: print(step.text, flush=True)))
"""


def start(cache: Path, row: Language) -> subprocess.Popen[str]:
    assert row.environment is not None
    words = [sys.executable, "-c", PROGRAM, str(cache), row.environment.packages]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(process: subprocess.Popen[str], sign: str) -> None:
    assert process.stdout is not None
    assert any(sign in line for line in process.stdout)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_installer_that_was_killed_leaves_nothing_that_looks_complete(
    cache: Path, bare: Language, tmp_path: Path, number: signal.Signals
) -> None:
    make(cache, bare)  # has the guest, so that the process need not compile it
    bare_folder = EnvironmentMaker(cache).packages(bare).name
    # Compiling this module takes a second or two, however busy the machine is: the signal comes meanwhile.
    row = language(locked(make_wheel(tmp_path, "thing = 1\n" * 200_000)))
    with start(cache, row) as process:
        wait_for(process, "compiling bytecode")
        process.send_signal(number)
    assert EnvironmentMaker(cache).find(row) is None
    if number == signal.SIGINT:
        assert [name for name in folders(cache) if "python" in name] == [bare_folder]
    make(cache, row)
    assert EnvironmentMaker(cache).find(row) is not None
    assert [name for name in folders(cache) if "partial" in name] == []


def test_a_second_process_waits_while_one_makes_it(cache: Path, bare: Language) -> None:
    make(cache, bare)
    store = EnvironmentMaker(cache)
    packages, *_ = store.folders(bare)
    aside = packages.rename(cache / "aside")
    with (store.path / ".python.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(cache, bare)
        wait_for(process, "waiting: another process is making it")
        aside.rename(packages)
    said, _ = process.communicate()
    assert process.returncode == 0
    assert "compiling bytecode" not in said


def test_a_folder_that_others_may_write_is_not_trusted(cache: Path, bare: Language) -> None:
    make(cache, bare)
    (cache / "environments").chmod(0o777)
    with pytest.raises(EnvironmentFailed, match="other users may write"):
        EnvironmentMaker(cache).find(bare)


def test_a_cache_that_sandboxes_cannot_enter_is_refused(cache: Path, bare: Language) -> None:
    cache.chmod(0o700)
    if os.geteuid() == 0:  # only root's sandboxes run as other users
        with pytest.raises(EnvironmentFailed, match="XDG_CACHE_HOME"):
            make(cache, bare)
    else:
        make(cache, bare)


def test_an_environment_that_was_removed_is_not_found(cache: Path, bare: Language) -> None:
    make(cache, bare)
    store = EnvironmentMaker(cache)
    assert set(store.installed()) == set(store.folders(bare))
    for path in store.installed():
        # As an interrupted removal would leave it.
        (path.with_name(f".{path.name}.removed") / "left").mkdir(parents=True)
        store.remove(path)
    assert folders(cache) == []
    assert store.find(bare) is None


# --- Programs that a build runs -----------------------------------------------------------------------


def run(path: Path, *command: str) -> list[str]:
    async def work() -> list[str]:
        with (path / "lock").open("w") as lock:
            return await Build("it", path, lock.fileno(), lambda step: None).run(*command)

    return asyncio.run(work())


def test_pip_ignores_the_callers_python_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert run(tmp_path, "sh", "-c", 'echo "$PYTHONPATH,$PYTHONHOME"') == [","]


def test_the_error_of_a_failed_program_ends_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match=r"(?s)exited with 3:\nfirst\nlast$"):
        run(tmp_path, "sh", "-c", "echo first; echo last >&2; exit 3")


def test_a_silent_program_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "STALL_S", 0.3)
    began = time.monotonic()
    with pytest.raises(EnvironmentFailed, match=r"sh -c wrote nothing for 0\.3 s"):
        run(tmp_path, "sh", "-c", "echo now; sleep 60")
    assert time.monotonic() - began < 10


# --- The guest's programs -----------------------------------------------------------------------------


@pytest.fixture
def guest(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guest in another copy of the package, for tests that change it."""
    shutil.copytree(package, tmp_path / "package")
    monkeypatch.setattr(package_data, "PACKAGE_DIR", tmp_path / "package")
    return tmp_path / "package/guest"


def test_compiled_programs_are_used_as_long_as_their_sources_are_unchanged(
    guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("PATH", "/nowhere")
    guest_binaries.prebuild(guest)
    guest_binaries.copy(guest, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(guest_binaries.PROGRAMS)
    (guest / "init/run.h").write_text((guest / "init/run.h").read_text() + "\n")
    with pytest.raises(guest_binaries.CannotCompile, match="apt-get install gcc libc6-dev make"):
        guest_binaries.copy(guest, out)


def test_without_a_compiler_the_error_says_what_to_install(
    guest: Path, cache: Path, bare: Language, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(guest / "bin")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentFailed, match="apt-get install gcc libc6-dev make"):
        make(cache, bare)
    assert folders(cache) == []


def test_a_change_of_the_guest_makes_a_new_folder_for_the_guest_alone(
    guest: Path, cache: Path, bare: Language
) -> None:
    make(cache, bare)
    before = set(folders(cache))
    (guest / "python/python_worker.py").write_text("# changed\n")
    assert EnvironmentMaker(cache).find(bare) is None
    make(cache, bare)
    assert [name.partition("-")[0] for name in set(folders(cache)) - before] == ["guest"]
