"""Languages: each is a row of data. Nothing else in the package knows one from another."""

from __future__ import annotations

import dataclasses
import difflib
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from codeforge.errors import InvalidRequest, UnknownLanguage, quoted
from codeforge.model.limits import MiB

GUEST_DIR = "/opt/codeforge"
"""Where every image carries init and the workers; see docker/*.Dockerfile."""

CODE_DIR = "/code"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRunner:
    """How a language runs tests beside the code, and where the report lies afterwards.

    Attributes:
        test_file: name of the test file; ``{module}`` stands for the module's name.
        command: the runner's argv.
        report: path under /code that the runner writes.
        report_format: ``junit`` (XML, as pytest writes it) or ``jest`` (JSON).
    """

    __test__ = False

    test_file: str
    command: tuple[str, ...]
    report: str
    report_format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a language's environment is made of, for engines that have no images; as its Dockerfile says it.

    Paths are of the build context, or absolute.

    Attributes:
        installer: ``pip``, for packages beside this machine's interpreter, or ``npm``, for Node and packages.
        packages: what is installed, by hash: a file of requirements for ``pip``, a folder with
            ``package.json`` and ``package-lock.json`` for ``npm``.
        commands: programs of npm packages that are to be in PATH.
        root: files that lie in ``/``: name there to path here.
        env: environment of every run.
        keep_declarations: whether the declarations of npm packages, for TypeScript, are kept.
    """

    installer: Literal["pip", "npm"]
    packages: str
    commands: tuple[str, ...] = ()
    root: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    keep_declarations: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """One language.

    Attributes:
        name: what callers write.
        image: reference of the image it runs in.
        file: the program's file name under /code; its suffix is the language's own.
        command: argv up to the program's path.
        unchecked_flags: what ``type_check=False`` puts between ``command`` and the path.
        env: environment of every run; ``{heap_mib}`` becomes three quarters of the memory limit.
        start_dir: where ``command`` starts; the program's own directory is /code in any case.
        scaffold: files that a worker of ours may lay beside the program; they are not its output.
        worker: whether ``command``'s interpreter can be started before the program is there, and
            waits for it (see docs/protocol.md).
        forks: whether that interpreter can also fork a process for each run of a reused sandbox.
        session: argv of the program that keeps a session's state over cells, if there is one; its
            interpreter waits like ``command``'s (see docs/protocol.md).
        branches: whether a session of it can be forked.
        preload: what the worker can do beforehand, one step after another, in its own terms; Python's
            are names of modules.
        preload_named: further steps, which make a worker slower for programs that do not need them: done
            in half of the stock, and meant for programs that name one of their words.
        idle_bytes: what a sandbox that has done so holds of the machine's memory, about.
        boot_env: prefixes of variables that an interpreter reads when it starts: a request that
            sets one gets an interpreter started for it.
        pids: how many processes and threads a run may have.
        tmp_inodes: how many files /tmp, and /code, may hold.
        smoke: a program that prints ``hello``; tests and ``codeforge doctor`` run it.
        dockerfile: path in the build context, if the image is one of ours.
        environment: what stands in for the image on engines that have none, if anything does.
        optional: whether it is there for those alone that name it; what is done for all languages passes
            it over.
    """

    name: str
    image: str
    file: str
    command: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    unchecked_flags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    start_dir: str = CODE_DIR
    scaffold: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    worker: bool = False
    forks: bool = False
    session: tuple[str, ...] = ()
    branches: bool = False
    preload: tuple[str, ...] = ()
    preload_named: tuple[str, ...] = ()
    idle_bytes: int = 64 * MiB
    boot_env: tuple[str, ...] = ()
    pids: int = 64
    tmp_inodes: int = 4096
    smoke: str
    tests: TestRunner | None = None
    dockerfile: str | None = None
    environment: Recipe | None = None
    optional: bool = False

    @property
    def suffix(self) -> str:
        """The file name's suffix, with its dot."""
        return posixpath.splitext(self.file)[1]


_NODE = ("node", "--require", f"{GUEST_DIR}/node_worker.cjs")
_JEST_REPORT = ".codeforge-report.json"
_JEST = TestRunner(
    test_file="{module}.test.js",
    command=(
        "node",
        "--experimental-vm-modules",
        "--no-warnings=ExperimentalWarning",
        f"{GUEST_DIR}/jest_runner.cjs",
        "--runInBand",
        "--json",
        f"--outputFile={CODE_DIR}/{_JEST_REPORT}",
    ),
    report=_JEST_REPORT,
    report_format="jest",
)
_MODULE_SCAFFOLD = MappingProxyType({"package.json": b'{"type": "module"}\n'})
_NODE_BOOT_ENV = ("NODE_", "LD_", "LC_", "LANG", "UV_", "SSL_", "OPENSSL_")

_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"}  # noqa: S108 - its own

_PYTHON_RECIPE = Recipe(
    installer="pip",
    packages="docker/python-requirements.lock",
    env=MappingProxyType(
        _ENV
        | {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:anyio",
            "OPENBLAS_NUM_THREADS": "1",
        }
    ),
)

PYTHON = Language(
    name="python",
    aliases=("py", "python3"),
    image="ai-codeforge-python:latest",
    file="main.py",
    command=("python",),
    worker=True,
    forks=True,
    session=("python", f"{GUEST_DIR}/python_session.py"),
    branches=True,
    preload=(
        "json re random datetime collections typing math string dataclasses copy heapq bisect itertools"
        " functools",
        "operator statistics decimal fractions pathlib tempfile hashlib csv threading queue uuid logging time"
        " base64 secrets",
        "numpy",
    ),
    preload_named=("pandas",),
    boot_env=(
        *("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_", "OPENSSL_"),
        # Read when numpy or pandas is imported, which may be before the program.
        *("OPENBLAS_", "GOTO_", "OMP_", "MKL_", "BLIS_", "NPY_", "NUMPY_", "PANDAS_"),
    ),
    smoke="print('hello')\n",
    tests=TestRunner(
        test_file="test_{module}.py",
        command=("python", "-m", "pytest", "-q", f"--junitxml={CODE_DIR}/.codeforge-report.xml"),
        report=".codeforge-report.xml",
        report_format="junit",
    ),
    dockerfile="docker/python.Dockerfile",
    environment=_PYTHON_RECIPE,
)

PYTHON_DATA = dataclasses.replace(
    PYTHON,
    name="python-data",
    aliases=("data", "py-data"),
    image="ai-codeforge-python-data:latest",
    preload=(*PYTHON.preload, "IPython.core.interactiveshell IPython.core.completer IPython.display"),
    preload_named=(*PYTHON.preload_named, "matplotlib.pyplot matplotlib.backends.backend_agg"),
    idle_bytes=96 * MiB,
    boot_env=(*PYTHON.boot_env, "IPYTHON", "JPY_"),
    dockerfile="docker/python-data.Dockerfile",
    environment=dataclasses.replace(
        _PYTHON_RECIPE,
        packages="docker/python-data-requirements.lock",
        # Threads of scikit-learn that stay would also keep a session from branching.
        env=MappingProxyType({**_PYTHON_RECIPE.env, "OMP_NUM_THREADS": "1"}),
    ),
    optional=True,
)

JAVASCRIPT = Language(
    name="javascript",
    aliases=("js", "node"),
    image="ai-codeforge-javascript:latest",
    file="main.js",
    command=_NODE,
    env=MappingProxyType({"NODE_OPTIONS": "--max-old-space-size={heap_mib}"}),
    start_dir=GUEST_DIR,
    scaffold=_MODULE_SCAFFOLD,
    worker=True,
    session=(*_NODE, f"{GUEST_DIR}/node_session.cjs"),
    preload=("console",),
    idle_bytes=32 * MiB,
    boot_env=_NODE_BOOT_ENV,
    smoke="console.log('hello')\n",
    tests=_JEST,
    dockerfile="docker/javascript.Dockerfile",
    environment=Recipe(
        installer="npm",
        packages="docker/javascript",
        commands=("jest", "mocha"),
        root=MappingProxyType({"package.json": "docker/javascript/root-package.json"}),
        env=MappingProxyType(_ENV),
    ),
)

TYPESCRIPT = Language(
    name="typescript",
    aliases=("ts",),
    image="ai-codeforge-typescript:latest",
    file="main.ts",
    command=(*_NODE, "/usr/local/bin/ts-node"),
    unchecked_flags=("--transpile-only",),
    env=MappingProxyType({"NODE_OPTIONS": "--max-old-space-size={heap_mib}"}),
    start_dir=GUEST_DIR,
    scaffold=_MODULE_SCAFFOLD,
    worker=True,
    session=(*_NODE, f"{GUEST_DIR}/node_session.cjs", "--typescript"),
    preload=("console", "typescript", "libraries", "types", "check"),
    idle_bytes=144 * MiB,
    boot_env=(*_NODE_BOOT_ENV, "TS_NODE_"),
    pids=128,
    tmp_inodes=16384,
    smoke="const greeting: string = 'hello'\nconsole.log(greeting)\n",
    tests=TestRunner(
        test_file="{module}.test.ts",
        command=_JEST.command,
        report=_JEST.report,
        report_format=_JEST.report_format,
    ),
    dockerfile="docker/typescript.Dockerfile",
    environment=Recipe(
        installer="npm",
        packages="docker/typescript",
        commands=("jest", "tsc", "ts-node", "ts-node-transpile-only"),
        root=MappingProxyType(
            {
                "package.json": "docker/typescript/root-package.json",
                "tsconfig.json": "docker/typescript/tsconfig.json",
            }
        ),
        env=MappingProxyType(_ENV),
        keep_declarations=True,
    ),
)

LANGUAGES: tuple[Language, ...] = (PYTHON, JAVASCRIPT, TYPESCRIPT)
"""The documented ones: what is made, tested and kept ready where no language is named."""

OPTIONAL_LANGUAGES: tuple[Language, ...] = (PYTHON_DATA,)
"""More that can be named: every table that has all the documented ones has these as well."""


class LanguageTable:
    """The languages that one executor knows, by name and alias. To iterate is to pass over optional ones."""

    def __init__(self, languages: Iterable[Language] = LANGUAGES) -> None:
        self._rows = {row.name: row for row in languages}
        if all(row.name in self._rows for row in LANGUAGES):
            self._rows = {row.name: row for row in OPTIONAL_LANGUAGES} | self._rows
        # Names that the caller gave count more than ours.
        optional_first = sorted(self._rows.values(), key=lambda row: not row.optional)
        self._names = {alias.lower(): row for row in optional_first for alias in (*row.aliases, row.name)}

    def __iter__(self) -> Iterator[Language]:
        return (row for row in self._rows.values() if not row.optional)

    @property
    def names(self) -> list[str]:
        """The languages' names, in the table's order, without optional ones."""
        return [row.name for row in self]

    def find(self, name: object) -> Language:
        """The row of that name or alias, in any case.

        Raises:
            UnknownLanguage: there is none; the message names the known ones and the nearest.
        """
        if not isinstance(name, str):
            raise InvalidRequest(f"language must be a string, not {type(name).__name__}")
        row = self._names.get(name.strip().lower())
        if row is None:
            near = difflib.get_close_matches(name[:100].strip().lower(), self._names, n=1)
            hint = f" Did you mean {self._names[near[0]].name!r}?" if near else ""
            raise UnknownLanguage(f"unknown language {quoted(name)}; known: {', '.join(self.names)}.{hint}")
        return row

    def pick(self, names: Iterable[str] | None) -> list[Language]:
        """The rows of those names; for ``None`` all but optional ones.

        Raises:
            InvalidRequest: one is not known, or it is one name and not a list.
        """
        if isinstance(names, str):
            raise InvalidRequest(f"languages must be a list of names, such as [{names!r}]")
        return list(self) if names is None else [self.find(name) for name in names]

    def with_images(self, images: Mapping[str, str]) -> LanguageTable:
        """The same languages, some with another image: name to reference."""
        named = {self.find(name).name: image for name, image in images.items()}
        return LanguageTable(
            dataclasses.replace(row, image=named.get(row.name, row.image)) for row in self._rows.values()
        )
