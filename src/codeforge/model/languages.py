"""Languages. Each one is a row of data: no other module contains the name of a language."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from codeforge.errors import InvalidRequest, UnknownLanguage, nearest, quoted
from codeforge.model.limits import MiB

GUEST_DIR = "/opt/codeforge"
"""The directory of init and the workers in every image and environment."""

CODE_DIR = "/code"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRunner:
    """How a language runs tests, and where the test runner writes its report.

    Attributes:
        test_file: name of the test file; ``{module}`` is replaced by the module's name.
        command: the test runner's command line.
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
    """How to build a language's environment, for engines without images.

    It does what the language's Dockerfile does. Paths are relative to the build context, or absolute.

    Attributes:
        installer: ``pip`` installs packages for this machine's Python; ``npm`` installs Node and packages.
        packages: the packages to install, pinned by hash: a requirements file for ``pip``, a directory with
            ``package.json`` and ``package-lock.json`` for ``npm``.
        commands: programs from npm packages to link into PATH.
        root: files to copy into ``/``, from name there to path in the build context.
        env: environment variables of every run.
        keep_declarations: whether to keep the ``.d.ts`` files of npm packages, which TypeScript reads.
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

    An image's *worker* is an interpreter that starts before the program arrives and waits for it, so that a
    run does not pay for the interpreter's start (docs/protocol.md). While it waits it *preloads*: it imports
    or compiles what programs are likely to need.

    Attributes:
        name: what callers write.
        image: reference of the image it runs in.
        file: the program's file name under /code; its suffix is the language's suffix.
        command: command line, up to the program's path.
        aliases: other names that callers may write.
        unchecked_flags: flags that ``type_check=False`` adds between ``command`` and the path.
        env: environment variables of every run; ``{heap_mib}`` becomes three quarters of the memory limit.
        start_dir: directory in which ``command`` starts; the program itself always starts in /code.
        scaffold: files that the worker may create beside the program, by name; unless the program changes
            them, they are not part of the result.
        worker: whether the image has a worker for ``command``.
        forks: whether that worker can fork a new process for each run of a reused sandbox.
        session: command line of the program that runs a session's cells; its interpreter waits as a worker
            does. Empty: the language has no sessions.
        branches: whether a session can be forked.
        preload: what a worker preloads, one step after another. The worker decides what a
            step means; for Python it is a list of modules, separated by spaces.
        preload_named: more steps, which help only programs that import what a step names and slow down all
            others. Half of the warm sandboxes of a kind take them; programs that name one of their words in
            an import get these sandboxes.
        idle_bytes: memory that a waiting, preloaded sandbox takes on the host, roughly.
        boot_env: prefixes of environment variables that the interpreter reads when it starts. A request that
            sets one does not get the waiting worker but an interpreter started for it.
        pids: how many processes and threads a run may have.
        tmp_inodes: how many files and directories /tmp, and /code, may hold.
        smoke: a program that prints ``hello``; tests and ``codeforge doctor`` run it.
        tests: how it runs tests, if it can.
        dockerfile: path of the image's Dockerfile in the build context; ``None`` if it is not ours.
        environment: how to build what replaces the image on engines without images; ``None`` if they cannot
            run the language.
        optional: whether callers get it only by naming it; operations on all languages skip it.
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
        """The suffix of the file name, with its dot."""
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

_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"}  # noqa: S108 - a path in the sandbox, not on the host

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
        # Read when numpy or pandas is imported, which the worker may do before the program starts.
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
        # One thread, because a session whose scikit-learn left threads running cannot be forked.
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
"""The documented languages: what is built, tested and warmed where no language is named."""

OPTIONAL_LANGUAGES: tuple[Language, ...] = (PYTHON_DATA,)
"""Languages that must be named. A table with all of ``LANGUAGES`` has these as well."""


class LanguageTable:
    """The languages that one executor knows, by name and alias. Iteration skips optional ones."""

    def __init__(self, languages: Iterable[Language] = LANGUAGES) -> None:
        self._rows = {row.name: row for row in languages}
        if all(row.name in self._rows for row in LANGUAGES):
            self._rows = {row.name: row for row in OPTIONAL_LANGUAGES} | self._rows
        # Later entries win: the caller's names take precedence over those of optional languages.
        optional_first = sorted(self._rows.values(), key=lambda row: not row.optional)
        self._names = {alias.lower(): row for row in optional_first for alias in (*row.aliases, row.name)}

    def __iter__(self) -> Iterator[Language]:
        return (row for row in self._rows.values() if not row.optional)

    @property
    def names(self) -> list[str]:
        """The names of the languages, in the table's order, without optional ones."""
        return [row.name for row in self]

    def find(self, name: object) -> Language:
        """Return the language of that name or alias; upper and lower case are the same.

        Raises:
            UnknownLanguage: there is none; the message has the known names and the nearest one.
        """
        if not isinstance(name, str):
            raise InvalidRequest(f"language must be a string, not {type(name).__name__}")
        row = self._names.get(name.strip().lower())
        if row is None:
            near = nearest(name.strip().lower(), self._names)
            hint = "" if near is None else f" Did you mean {self._names[near].name!r}?"
            raise UnknownLanguage(f"unknown language {quoted(name)}; known: {', '.join(self.names)}.{hint}")
        return row

    def pick(self, names: Iterable[str] | None) -> list[Language]:
        """Return the languages of those names; for ``None`` all except optional ones.

        Raises:
            InvalidRequest: a name is unknown, or ``names`` is a string instead of a list.
        """
        if isinstance(names, str):
            raise InvalidRequest(f"languages must be a list of names, such as [{names!r}]")
        return list(self) if names is None else [self.find(name) for name in names]

    def with_images(self, images: Mapping[str, str]) -> LanguageTable:
        """Return a table in which the named languages have other images: language name to reference."""
        named = {self.find(name).name: image for name, image in images.items()}
        return LanguageTable(
            dataclasses.replace(row, image=named.get(row.name, row.image)) for row in self._rows.values()
        )
