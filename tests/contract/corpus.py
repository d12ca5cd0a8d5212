"""The corpus of small programs, and the output of each under plain Docker.

A program is a file under ``tests/corpus/<language>/``. A JSON file of the same name may hold its ``args``,
``stdin`` (or ``stdin_base64``), ``stdin_repeat``, ``env`` and ``files``. A JavaScript program named ``.mjs``
is an ES module, which plain node recognises by that suffix.

The reference for a program is ``docker run IMAGE python /code/main.py ARGS`` (or ``node``, or ``ts-node``),
with the sandbox's own restrictions and ``--init``. Without ``--init`` the program would be PID 1, and the
kernel drops signals for PID 1 that have no handler: a program that kills itself would not die.
"""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import pytest

from codeforge.model.languages import CODE_DIR, LANGUAGES, Language

CORPUS = Path(__file__).resolve().parents[1] / "corpus"

MEMORY_MIB = 512
CPU_QUOTA_US = 200_000
"""Two cores instead of half a core, on both sides: the comparison stays the same and takes less time."""

REFERENCE_TIMEOUT_S = 120.0
REFERENCE_WORKERS = 2

_DOCKER_FAILED = 125
"""``docker run`` exits with this code if Docker itself failed."""

_COMMANDS: Mapping[str, str] = MappingProxyType(
    {"python": "python", "javascript": "node", "typescript": "ts-node"}
)
_ROWS: Mapping[str, Language] = MappingProxyType({row.name: row for row in LANGUAGES})
_META_KEYS = {"args", "stdin", "stdin_base64", "stdin_repeat", "env", "files"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program and its input."""

    language: str
    name: str
    path: Path
    code: str
    args: tuple[str, ...] = ()
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    esm: bool = False

    @property
    def id(self) -> str:
        """The name, unique across languages."""
        return f"{self.language}-{self.name}"


@dataclass(frozen=True, slots=True)
class Reference:
    """The output and exit code of a program."""

    stdout: bytes
    stderr: bytes
    exit_code: int


def load_corpus() -> tuple[Program, ...]:
    """Return every program of the corpus, ordered by language and name."""
    found = []
    for row in LANGUAGES:
        suffixes = {row.suffix, ".mjs"} if row.suffix == ".js" else {row.suffix}
        for path in sorted((CORPUS / row.name).iterdir()):
            if path.suffix in suffixes:
                found.append(_load(row.name, path))
            elif path.suffix != ".json" or not any(path.with_suffix(suffix).exists() for suffix in suffixes):
                raise ValueError(f"{path}: no program of that name")
    return tuple(found)


def _load(language: str, path: Path) -> Program:
    beside = path.with_suffix(".json")
    meta = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    unknown = meta.keys() - _META_KEYS
    if unknown:
        raise ValueError(f"{beside}: unknown {sorted(unknown)}")
    stdin = base64.b64decode(meta.get("stdin_base64", "")) or meta.get("stdin", "").encode()
    return Program(
        language=language,
        name=path.stem,
        path=path,
        code=path.read_bytes().decode("utf-8"),  # read_text would change line ends
        args=tuple(meta.get("args", ())),
        stdin=stdin * meta.get("stdin_repeat", 1),
        env=MappingProxyType(meta.get("env", {})),
        files=MappingProxyType(meta.get("files", {})),
        esm=path.suffix == ".mjs",
    )


def reference(program: Program) -> Reference:
    """Run a program under plain Docker.

    Raises:
        RuntimeError: Docker itself failed, or the program did not end in time.
    """
    row = _ROWS[program.language]
    main = "main.mjs" if program.esm else row.file
    name = f"codeforge-reference-{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory(prefix="codeforge-reference-", ignore_cleanup_errors=True) as folder:
        _lay_out(Path(folder), {**program.files, main: program.code})
        try:
            done = subprocess.run(
                _docker_run(name, folder, row, program.env, [f"{CODE_DIR}/{main}", *program.args]),
                input=program.stdin,
                capture_output=True,
                timeout=REFERENCE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
            raise RuntimeError(f"{program.id} did not end within {REFERENCE_TIMEOUT_S:g} s") from None
    if done.returncode == _DOCKER_FAILED:
        raise RuntimeError(f"docker run failed: {done.stderr.decode(errors='replace')}")
    found = Reference(done.stdout, done.stderr, done.returncode)
    return _renamed(found, main, row.file) if program.esm else found


def _lay_out(folder: Path, files: Mapping[str, str]) -> None:
    folder.chmod(0o777)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        path.chmod(0o666)
        for parent in path.relative_to(folder).parents:
            (folder / parent).chmod(0o777)


def _docker_run(
    name: str, folder: str, row: Language, env: Mapping[str, str], args: Iterable[str]
) -> list[str]:
    heap_mib = MEMORY_MIB * 3 // 4
    variables = {key: value.format(heap_mib=heap_mib) for key, value in row.env.items()} | dict(env)
    return [
        *("docker", "run", "--rm", "--interactive", "--init", "--pull=never", f"--name={name}"),
        *("--read-only", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *(f"--memory={MEMORY_MIB}m", f"--memory-swap={MEMORY_MIB}m", f"--cpu-quota={CPU_QUOTA_US}"),
        *("--pids-limit=128", "--tmpfs=/tmp:rw,noexec,nosuid,mode=1777"),
        *(f"--volume={folder}:{CODE_DIR}", f"--workdir={CODE_DIR}"),
        *(f"--env={key}={value}" for key, value in variables.items()),
        *(row.image, _COMMANDS[row.name], *args),
    ]


def _renamed(found: Reference, old: str, new: str) -> Reference:
    before, after = f"{CODE_DIR}/{old}".encode(), f"{CODE_DIR}/{new}".encode()
    return Reference(
        found.stdout.replace(before, after), found.stderr.replace(before, after), found.exit_code
    )


def selected(session: pytest.Session, parameter: str, path: Path) -> list[Any]:
    """Return the values of one parameter in the tests of one file that this session runs, in order."""
    found = []
    for item in session.items:
        if item.path == path and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            found += [value for name, value in item.callspec.params.items() if name == parameter]
    return found


class References:
    """Runs references in the background before they are needed, a few at a time, each once."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self._pool = ThreadPoolExecutor(REFERENCE_WORKERS, thread_name_prefix="reference")
        self._made: dict[str, Future[Reference]] = {}
        for program in programs:
            self._made[program.id] = self._pool.submit(reference, program)

    def __enter__(self) -> References:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def of(self, program: Program) -> Reference:
        """Return the program's reference; wait if it still runs."""
        if program.id not in self._made:
            self._made[program.id] = self._pool.submit(reference, program)
        return self._made[program.id].result()
