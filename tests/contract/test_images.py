"""What the images promise: size, contents, user, packages that work, room for more packages.

Programs run in them as ``docker run`` runs them, without anything of AI CodeForge in between.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from codeforge._version import __version__
from codeforge.model.languages import GUEST_DIR, LANGUAGES

pytestmark = pytest.mark.engine("docker")

REPO = Path(__file__).resolve().parents[2]
SAMPLES = REPO / "tests" / "samples"
GUEST = REPO / "src" / "codeforge" / "guest"
GUEST_FILES = {
    "python": sorted(GUEST.glob("python/*.py")),
    "javascript": sorted(GUEST.glob("node/*")),
    "typescript": sorted((*GUEST.glob("node/*"), *GUEST.glob("typescript/*"))),
}

IMAGES = {row.name: row.image for row in LANGUAGES}
NAMES = sorted(IMAGES)
LIMIT_MB = {"python": 200, "javascript": 180, "typescript": 190}

RESTRICTED = ("--read-only", "--network=none", "--memory=512m")
"""The documented flags for running a script directly."""
LOCKED_DOWN = (
    *RESTRICTED,
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--cpu-quota=50000",
    "--tmpfs=/tmp:rw,noexec,nosuid",
)
"""The flags that the executor adds."""

SLOWEST_RUN_S = 120
SLOWEST_BUILD_S = 600


def docker(*arguments: str, timeout: float = SLOWEST_RUN_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def run(name: str, *command: str, flags: tuple[str, ...] = LOCKED_DOWN) -> subprocess.CompletedProcess[str]:
    """Run a command in the image with that name or reference."""
    return docker("run", "--rm", "--pull=never", *flags, IMAGES.get(name, name), *command)


def output(name: str, *command: str, flags: tuple[str, ...] = LOCKED_DOWN) -> str:
    """The output of a command that must succeed without a complaint."""
    outcome = run(name, *command, flags=flags)
    assert (outcome.stderr, outcome.returncode) == ("", 0)
    return outcome.stdout


def inspect(image: str, template: str) -> str:
    outcome = docker("image", "inspect", "--format", template, image)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.strip()


def readable_copy(source: Path, target: Path) -> Path:
    """A copy that the images' user can read, whatever the umask of the checkout was."""
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples: a folder per language."""
    return readable_copy(SAMPLES, tmp_path_factory.mktemp("code") / "samples")


# What an image is made of.


@pytest.mark.parametrize("name", NAMES)
def test_image_is_no_larger_than_documented(name: str) -> None:
    assert int(inspect(IMAGES[name], "{{.Size}}")) <= LIMIT_MB[name] * 1_000_000
    listed = docker("image", "ls", "--format", "{{.Size}}", IMAGES[name]).stdout.strip()
    assert listed.endswith("MB")
    assert float(listed.removesuffix("MB")) <= LIMIT_MB[name]


@pytest.mark.parametrize("name", NAMES)
def test_image_runs_as_runner_and_has_no_entrypoint(name: str) -> None:
    assert inspect(IMAGES[name], "{{.Config.User}}") == "runner:runner"
    assert inspect(IMAGES[name], "{{json .Config.Entrypoint}}") == "null"
    shown = output(name, "sh", "-c", "id -u; id -g; id -un; id -gn; id -G; pwd; echo $HOME")
    assert shown.split() == ["10001", "10001", "runner", "runner", "10001", "/code", "/tmp"]


@pytest.mark.parametrize("name", NAMES)
def test_image_says_what_it_is(name: str) -> None:
    labels = json.loads(inspect(IMAGES[name], "{{json .Config.Labels}}"))
    prefix = "org.opencontainers.image."
    assert labels[prefix + "title"].lower() == f"ai codeforge: {name}"
    assert labels[prefix + "description"]
    assert labels[prefix + "licenses"] == "MIT"
    assert labels[prefix + "version"] == __version__
    base = "python:3.11-slim" if name == "python" else "node:18-slim"
    assert labels[prefix + "base.name"].startswith(base)


@dataclass(frozen=True)
class Inventory:
    """What root finds when it looks for what should not be there."""

    set_id: list[str]
    tools: list[str]
    leftovers: list[str]
    unlinked: list[str]
    guest: list[str]


LOOK = r"""
section() { echo "== $1"; }
section set_id; find / -xdev -perm /6000
section tools
for tool in pip pip3 npm npx yarn corepack apt apt-get dpkg gcc cc g++ clang make ld perl curl wget; do
  command -v $tool
done
section leftovers
find /root /tmp /var/tmp /var/cache /var/log /etc/skel /usr/local/include -mindepth 1 2>/dev/null
find / -xdev \( -path '*/lib/node_modules/npm' -o -name 'pip-*.dist-info' -o -name ensurepip \)
find /etc/pip.conf /etc/apt /etc/ssl/offline-build-ca.crt /var/lib/apt 2>/dev/null
section unlinked; find /usr /etc -xdev -xtype l ! -path /etc/mtab
section guest
stat -c '%U:%G %a %n' /opt /opt/codeforge /opt/codeforge/*
"""


@pytest.fixture(scope="module")
def inventories() -> dict[str, Inventory]:
    def look(name: str) -> Inventory:
        found = docker("run", "--rm", "--pull=never", "--user=root", IMAGES[name], "sh", "-c", LOOK)
        assert (found.stderr, found.returncode) == ("", 0)
        sections = dict(part.split("\n", 1) for part in found.stdout.split("== ")[1:])
        return Inventory(**{key: text.splitlines() for key, text in sections.items()})

    with ThreadPoolExecutor() as pool:
        return dict(zip(NAMES, pool.map(look, NAMES), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_image_has_no_set_id_file(name: str, inventories: dict[str, Inventory]) -> None:
    assert inventories[name].set_id == []


@pytest.mark.parametrize("name", NAMES)
def test_image_has_no_package_manager_compiler_or_downloader(
    name: str, inventories: dict[str, Inventory]
) -> None:
    assert inventories[name].tools == []


@pytest.mark.parametrize("name", NAMES)
def test_image_has_no_package_cache_and_nothing_of_the_building_host(
    name: str, inventories: dict[str, Inventory]
) -> None:
    assert inventories[name].leftovers == []
    assert inventories[name].unlinked == []


@pytest.mark.parametrize("name", NAMES)
def test_guest_files_belong_to_root_and_runner_cannot_write_them(
    name: str, inventories: dict[str, Inventory]
) -> None:
    bytecode = [f"root:root 755 {GUEST_DIR}/__pycache__"] if name == "python" else []
    assert inventories[name].guest == [
        "root:root 755 /opt",
        f"root:root 755 {GUEST_DIR}",
        *bytecode,
        f"root:root 755 {GUEST_DIR}/init",
        *(f"root:root 644 {GUEST_DIR}/{file.name}" for file in GUEST_FILES[name]),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_runner_can_write_only_where_everyone_can(name: str) -> None:
    find = r"find / -xdev \( -type f -o -type d \) -writable 2>/dev/null"
    writable = docker("run", "--rm", "--pull=never", IMAGES[name], "sh", "-c", find).stdout.split()
    assert set(writable) <= {"/tmp", "/var/tmp", "/run/lock"}


@pytest.mark.parametrize("name", NAMES)
def test_guest_files_are_those_of_this_tree(name: str) -> None:
    for file in GUEST_FILES[name]:
        assert output(name, "cat", f"{GUEST_DIR}/{file.name}") == file.read_text()


def test_init_is_static() -> None:
    for name in NAMES:
        assert output(name, "ldd", f"{GUEST_DIR}/init") == "\tstatically linked\n"


def test_the_python_worker_is_hooked_in_where_the_interpreter_looks() -> None:
    program = "import sysconfig; print(open(sysconfig.get_path('purelib') + '/codeforge_worker.pth').read())"
    assert output("python", "python", "-c", program).strip() == (
        (GUEST / "python/codeforge_worker.pth").read_text().strip()
    )


def test_python_finds_bytecode_of_what_is_slow_to_import() -> None:
    program = "import numpy, pandas, fastapi, flask, asyncio; print(numpy.__cached__, asyncio.__cached__)"
    for path in output("python", "python", "-c", program).split():
        assert output("python", "test", "-s", path) == ""


# Programs, under the documented flags.

SCRIPTS = {
    "python": ("python", "/code/script.py"),
    "javascript": ("node", "/code/script.js"),
    "typescript": ("ts-node", "/code/script.ts"),
}


@pytest.mark.parametrize("flags", [RESTRICTED, LOCKED_DOWN], ids=["restricted", "locked-down"])
@pytest.mark.parametrize("name", NAMES)
def test_documented_command_runs_a_script(name: str, flags: tuple[str, ...], code: Path) -> None:
    mounted = (*flags, "-v", f"{code / name}:/code:ro")
    assert output(name, *SCRIPTS[name], flags=mounted) == f"hello from {name}\n"


PROGRAMS = sorted(path.relative_to(SAMPLES).with_suffix("") for path in SAMPLES.rglob("*.out"))


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_package_works_in(program: Path, code: Path) -> None:
    name, *rest = program.parts
    mounted = (*RESTRICTED, "-v", f"{code / name}:/code:ro")
    shown = output(name, SCRIPTS[name][0], f"/code/{'/'.join(rest)}", flags=mounted)
    assert shown == (SAMPLES / f"{program}.out").read_text()


def counts(text: str, *patterns: str) -> list[int]:
    """The number that each pattern finds."""
    found = [re.search(pattern, text) for pattern in patterns]
    assert all(found), text
    return [int(match[1]) for match in found if match]


def test_pytest_runs_a_suite_and_reports_its_failure(code: Path) -> None:
    mounted = (*LOCKED_DOWN, "-v", f"{code / 'python'}:/code:ro")
    outcome = run("python", "pytest", "/code/suite", flags=mounted)
    assert outcome.returncode == 1
    assert "assert 10 == 11" in outcome.stdout
    assert "warning" not in outcome.stdout
    assert counts(outcome.stdout, r"(\d+) passed", r"(\d+) failed") == [4, 1]


@pytest.mark.parametrize("command", [("jest",), ("jest", "--rootDir", "/code")], ids=" ".join)
def test_jest_runs_a_suite_and_reports_its_failure(command: tuple[str, ...], code: Path) -> None:
    mounted = (*LOCKED_DOWN, "-v", f"{code / 'javascript' / 'suite'}:/code:ro")
    outcome = run("javascript", *command, flags=mounted)
    assert outcome.returncode == 1
    assert "cart.test.js:13" in outcome.stderr
    assert counts(outcome.stderr, r"Tests: .* (\d+) passed", r"Tests: +(\d+) failed") == [3, 1]


def test_mocha_runs_a_suite_and_reports_its_failure(code: Path) -> None:
    mounted = (*RESTRICTED, "-v", f"{code / 'javascript'}:/code:ro")
    outcome = run("javascript", "mocha", "/code/specs/*.js", flags=mounted)
    assert outcome.returncode == 1
    assert counts(outcome.stdout, r"(\d+) passing", r"(\d+) failing") == [2, 1]


@pytest.mark.parametrize("command", [("jest",), ("jest", "--rootDir", "/code")], ids=" ".join)
def test_jest_runs_typescript_through_ts_jest(command: tuple[str, ...], code: Path) -> None:
    mounted = (*LOCKED_DOWN, "-v", f"{code / 'typescript' / 'suite'}:/code:ro")
    outcome = run("typescript", *command, flags=mounted)
    assert outcome.returncode == 1
    assert "stack.test.ts:16:33" in outcome.stderr
    assert counts(outcome.stderr, r"Tests: .* (\d+) passed", r"Tests: +(\d+) failed") == [2, 1]


WRONG_TYPES = """
const name: string = 7
export const length: number = name.length
console.log('ran', length)
"""


@pytest.fixture
def wrong_types(tmp_path: Path) -> tuple[str, ...]:
    """Flags that mount a program with a type error."""
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "main.ts").write_text(WRONG_TYPES)
    readable_copy(folder, tmp_path / "code")
    return (*LOCKED_DOWN, "-v", f"{tmp_path / 'code'}:/code:ro")


def test_tsc_checks_code_and_its_tests(code: Path) -> None:
    mounted = (*LOCKED_DOWN, "-v", f"{code / 'typescript'}:/code:ro")
    assert output("typescript", "tsc", "--noEmit", "-p", "/tsconfig.json", flags=mounted) == ""


def test_tsc_reports_a_type_error(wrong_types: tuple[str, ...]) -> None:
    outcome = run("typescript", "tsc", "--noEmit", "-p", "/tsconfig.json", flags=wrong_types)
    assert outcome.returncode == 2
    assert "main.ts(2,7): error TS2322" in outcome.stdout


def test_ts_node_refuses_a_type_error_and_runs_it_unchecked(wrong_types: tuple[str, ...]) -> None:
    outcome = run("typescript", "ts-node", "/code/main.ts", flags=wrong_types)
    assert outcome.returncode == 1
    assert "TS2322" in outcome.stderr
    unchecked = output("typescript", "ts-node", "--transpile-only", "/code/main.ts", flags=wrong_types)
    assert unchecked == "ran undefined\n"


def test_types_of_node_and_jest_are_there_and_no_others() -> None:
    assert output("typescript", "ls", "/node_modules/@types").split() == ["jest", "node"]


FROM_ANYWHERE = """
set -e
for folder in / /tmp /code /code/sub; do
  cd $folder
  node -e "console.log(process.cwd(), require('lodash').sum([1, 2]))"
  node --input-type=module -e "import _ from 'lodash'; console.log(process.cwd(), _.sum([1, 2]))"
done
cp /code/sub/require.js /code/esm.mjs /tmp
node /tmp/require.js
node /tmp/esm.mjs
"""


def test_packages_are_found_from_every_folder_by_require_and_import(code: Path) -> None:
    mounted = (*LOCKED_DOWN, "-v", f"{code / 'javascript'}:/code:ro")
    shown = output("javascript", "sh", "-c", FROM_ANYWHERE, flags=mounted).splitlines()
    folders = ["/", "/tmp", "/code", "/code/sub"]
    assert shown == [f"{folder} 3" for folder in folders for _ in range(2)] + ["sum 6", "sum 6"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_can_be_written_outside_of_tmp_and_nothing_there_executed(name: str) -> None:
    attempt = "touch /code/x /x /opt/codeforge/x; cp /usr/bin/true /tmp && /tmp/true"
    outcome = run(name, "sh", "-c", attempt)
    assert outcome.returncode == 126
    assert outcome.stderr.count("Read-only file system") == 3
    assert "/tmp/true: Permission denied" in outcome.stderr


# More packages, in the ways that docs/images.md gives.

HERE = "# Add your packages here:\n"


@dataclass(frozen=True)
class Custom:
    """An image with a package from an added line, and others from the build argument."""

    added_line: str
    extra: str
    program: tuple[str, ...]
    shows: str


NODE_PROGRAM = "console.log(require('left-pad')('7', 3, '0'), require('nanoid').nanoid(5).length)"
CUSTOM = {
    # Unquoted: the shell takes >= for a redirection, as in many Dockerfiles.
    "python": Custom(
        added_line="RUN pip install --no-cache-dir \\\n    tabulate>=0.9.0\n",
        extra="tomli>=2 iniconfig",
        program=(
            "python",
            "-c",
            "import tabulate, tomli, numpy; print(tabulate.tabulate([[1]], tablefmt='plain'))",
        ),
        shows="1\n",
    ),
    "javascript": Custom(
        added_line="RUN npm install left-pad\n",
        extra="nanoid@^3.3 ms",
        program=("node", "-e", NODE_PROGRAM),
        shows="007 5\n",
    ),
    "typescript": Custom(
        added_line="RUN npm install left-pad\n",
        extra="nanoid@^3.3 ms",
        program=("ts-node", "-e", NODE_PROGRAM),
        shows="007 5\n",
    ),
}


def context(folder: Path) -> Path:
    """A copy of the build context."""
    shutil.copytree(REPO / "docker", folder / "docker")
    shutil.copytree(GUEST, folder / "src" / "codeforge" / "guest")
    shutil.copy(REPO / ".dockerignore", folder)
    return folder


def build(folder: Path, name: str, *flags: str) -> str:
    """Build in that context; returns the image's id."""
    dockerfile = str(folder / "docker" / f"{name}.Dockerfile")
    built = docker("build", "-q", "-f", dockerfile, *flags, str(folder), timeout=SLOWEST_BUILD_S)
    assert built.returncode == 0, built.stdout + built.stderr
    return built.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def custom_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    tags = {name: f"codeforge-test-{name}:{uuid.uuid4().hex[:8]}" for name in NAMES}

    def build_custom(name: str) -> None:
        folder = context(tmp_path_factory.mktemp(name) / "context")
        dockerfile = folder / "docker" / f"{name}.Dockerfile"
        text = dockerfile.read_text()
        assert text.count(HERE) == 1
        dockerfile.write_text(text.replace(HERE, HERE + CUSTOM[name].added_line))
        build(folder, name, "-t", tags[name], "--build-arg", f"EXTRA_PACKAGES={CUSTOM[name].extra}")

    try:
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(build_custom, NAMES))
        yield tags
    finally:
        docker("image", "rm", "--force", *tags.values())


@pytest.mark.parametrize("name", NAMES)
def test_packages_can_be_added_by_a_line_and_by_a_build_argument(
    name: str, custom_images: dict[str, str]
) -> None:
    assert output(custom_images[name], *CUSTOM[name].program) == CUSTOM[name].shows


@pytest.mark.parametrize("name", NAMES)
def test_a_customised_image_is_as_tidy_as_the_others(name: str, custom_images: dict[str, str]) -> None:
    program = "id -u; ls -d /=* /tmp/* /root/* /package-lock.json /=*; command -v pip npm; ls -A /tmp"
    outcome = run(custom_images[name], "sh", "-c", program)
    assert outcome.stdout == "10001\n"


def test_a_changed_guest_file_does_not_install_the_packages_again(tmp_path: Path) -> None:
    folder = context(tmp_path / "context")
    before = json.loads(inspect(build(folder, "javascript"), "{{json .RootFS.Layers}}"))
    worker = folder / "src" / "codeforge" / "guest" / "node" / "node_worker.cjs"
    worker.write_text(worker.read_text() + f"// {uuid.uuid4()}\n")
    image = build(folder, "javascript")
    after = json.loads(inspect(image, "{{json .RootFS.Layers}}"))
    docker("image", "rm", image)
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]
