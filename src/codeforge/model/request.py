"""Requests: what a caller wants to run. All validation of a caller's input is here and in ``limits``."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from codeforge.errors import InvalidRequest, did_you_mean, quoted
from codeforge.model.languages import CODE_DIR, Language, LanguageTable
from codeforge.model.limits import Limits, MiB, SandboxLimits, format_memory, parse_memory

Stdin: TypeAlias = bytes | AsyncIterable[bytes]

MAX_INPUT_FILES = 1000
MAX_PATH_BYTES = 1024
MAX_PATH_DEPTH = 16
MAX_STRINGS = 1000
"""Of ``args``, and of ``env_vars``. More data belongs in a file."""
MAX_STRING_BYTES = 60 * 1024
MAX_STRINGS_BYTES = 120 * 1024
"""Of argv and environment together. init keeps them in 256 KiB; the kernel allows an eighth of the stack."""
MAX_TMPFS_BYTES = 64 * MiB
PAGE_BYTES = 4096

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED = "CODEFORGE_"


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """One program to run: the arguments of ``execute`` as a value. ``None`` means the executor's default.

    Attributes:
        code: the program's source.
        language: name or alias of a configured language.
        timeout: wall-clock seconds.
        memory_limit: in Docker's notation, ``"512m"``, or in bytes.
        network_enabled: whether the sandbox has a network.
        env_vars: environment variables, on top of the image's.
        stdin: what the program reads; ``None`` is an empty stdin.
        args: the program's arguments.
        files: relative path to content, placed beside the program under /code.
        cpu_quota: microseconds of CPU in each 100 ms.
        type_check: ``False`` skips the type check of a language that has one.
    """

    code: str
    language: str = "python"
    timeout: float | None = None
    memory_limit: str | int | None = None
    network_enabled: bool = False
    env_vars: Mapping[str, str] | None = None
    _: KW_ONLY
    stdin: str | bytes | AsyncIterable[bytes] | None = None
    args: Sequence[str] = ()
    files: Mapping[str, str | bytes] | None = None
    cpu_quota: int | None = None
    type_check: bool = True


REQUEST_FIELDS = tuple(field.name for field in dataclasses.fields(ExecutionRequest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A validated request with all defaults filled in.

    Attributes:
        language: the language's row.
        limits: the limits of this run.
        argv: the whole command line inside the sandbox.
        cwd: directory in which argv starts; the interpreter may change to /code before the program.
        env: the request's environment variables; the sandbox already has the language's.
        files: content of /code at the start, with the program, by relative path.
        stdin: what the program reads.
        fresh: whether the run needs an interpreter that starts with ``env``, instead of a waiting worker.
    """

    language: Language
    limits: Limits
    argv: tuple[str, ...]
    cwd: str = CODE_DIR
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    stdin: Stdin = b""
    fresh: bool = False


def tmpfs_bytes(limits: Limits | SandboxLimits) -> int:
    """Return the size of /code, and of /tmp. What is in them counts against the memory limit."""
    return min(MAX_TMPFS_BYTES, limits.memory_bytes // 4)


def as_request(value: ExecutionRequest | Mapping[str, Any]) -> ExecutionRequest:
    """Return the request itself, or make one of a mapping with its fields.

    Raises:
        InvalidRequest: the value is neither.
    """
    if isinstance(value, ExecutionRequest):
        return value
    if not isinstance(value, Mapping) or "code" not in value:
        raise InvalidRequest(
            "a request must be an ExecutionRequest, or a mapping with 'code' and other fields of it"
        )
    check_fields(value, REQUEST_FIELDS)
    return ExecutionRequest(**value)


def check_fields(fields: Iterable[object], known: Sequence[str]) -> None:
    """Refuse a request's field that is not among the known ones.

    Raises:
        InvalidRequest: with the known names, and the nearest one if one is near.
    """
    for name in fields:
        if name not in known:
            raise InvalidRequest(
                f"unknown field {quoted(name)}; known: {', '.join(known)}{did_you_mean(str(name), known)}"
            )


def resolve(request: ExecutionRequest, languages: LanguageTable, defaults: Limits) -> Run:
    """Validate a request and fill in the defaults.

    Raises:
        InvalidRequest: with the name of the argument, what is wrong with it, and what is allowed.
    """
    language = languages.find(request.language)
    if not isinstance(request.type_check, bool):
        raise InvalidRequest(f"type_check must be True or False, not {quoted(request.type_check)}")
    program = f"{CODE_DIR}/{language.file}"
    flags = () if request.type_check else language.unchecked_flags
    argv = (*language.command, *flags, program, *arguments(request.args))
    code = text_bytes("code", request.code)
    run = make_run(request, language, defaults, argv=argv, program={language.file: code})
    return dataclasses.replace(run, cwd=language.start_dir)


def resolve_session(request: ExecutionRequest, languages: LanguageTable, defaults: Limits) -> Run:
    """Validate the request of a session; its run has no program.

    Raises:
        InvalidRequest: as for ``resolve``, or the language has no sessions.
    """
    language = languages.find(request.language)
    if not language.session:
        able = ", ".join(row.name for row in languages if row.session)
        raise InvalidRequest(f"there are no sessions in {language.name}; there are in {able}")
    run = make_run(request, language, defaults, argv=language.session, program={})
    return dataclasses.replace(run, cwd=language.start_dir)


def make_run(
    request: ExecutionRequest,
    language: Language,
    defaults: Limits,
    *,
    argv: Sequence[str],
    program: Mapping[str, bytes],
) -> Run:
    """Return a run of ``argv``, with ``program`` added to the request's files.

    Args:
        request: everything except the program and the command line.
        language: the language's row.
        defaults: limits for what the request leaves out.
        argv: the whole command line.
        program: files that the run always has, by relative path.

    Raises:
        InvalidRequest: the request is not valid.
    """
    limits = _limits(request, defaults)
    env = _environment(request.env_vars)
    files = _files(request.files, program, tmpfs_bytes(limits), language.tmp_inodes)
    strings = sum(len(s.encode()) + 1 for s in (*argv, *env.keys(), *env.values()))
    if strings > MAX_STRINGS_BYTES:
        raise InvalidRequest(
            f"args and env_vars may have {MAX_STRINGS_BYTES} bytes together, not {strings}; "
            "use files or stdin"
        )
    return Run(
        language=language,
        limits=limits,
        argv=tuple(argv),
        env=env,
        files=files,
        stdin=_stdin(request.stdin),
        fresh=any(key.startswith(language.boot_env) for key in env),
    )


def _limits(request: ExecutionRequest, defaults: Limits) -> Limits:
    return Limits(
        timeout_s=defaults.timeout_s if request.timeout is None else request.timeout,
        memory_bytes=(
            defaults.memory_bytes if request.memory_limit is None else parse_memory(request.memory_limit)
        ),
        cpu_quota_us=defaults.cpu_quota_us if request.cpu_quota is None else request.cpu_quota,
        network=request.network_enabled,
        output_bytes=defaults.output_bytes,
        files_bytes=defaults.files_bytes,
    )


def text_bytes(name: str, value: object) -> bytes:
    """Return the argument ``name`` as UTF-8.

    Raises:
        InvalidRequest: it is not a string, or cannot be encoded (half of a surrogate pair).
    """
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string, not {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} cannot be written as UTF-8: {error}") from None


def _string(name: str, value: object, beside: int = 0) -> str:
    data = text_bytes(name, value)
    if b"\0" in data:
        raise InvalidRequest(f"{name} must not contain a NUL character")
    if len(data) + beside > MAX_STRING_BYTES:
        raise InvalidRequest(
            f"{name} may have {MAX_STRING_BYTES - beside} bytes, not {len(data)}; use files or stdin"
        )
    return str(value)


def arguments(args: object) -> list[str]:
    """Check the arguments of a command line.

    Raises:
        InvalidRequest: they are not a list of strings that the kernel accepts.
    """
    if isinstance(args, str | bytes) or not isinstance(args, Sequence):
        raise InvalidRequest(f"args must be a list of strings, not {type(args).__name__}")
    if len(args) > MAX_STRINGS:
        raise InvalidRequest(f"at most {MAX_STRINGS} args, not {len(args)}; use files or stdin")
    return [_string(f"args[{i}]", arg) for i, arg in enumerate(args)]


def _environment(variables: object) -> Mapping[str, str]:
    if variables is None:
        return MappingProxyType({})
    if not isinstance(variables, Mapping):
        raise InvalidRequest(f"env_vars must be a mapping, not {type(variables).__name__}")
    if len(variables) > MAX_STRINGS:
        raise InvalidRequest(f"at most {MAX_STRINGS} env_vars, not {len(variables)}")
    for key in variables:
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key) or key.startswith(_RESERVED):
            raise InvalidRequest(
                f"env_vars: {quoted(key)} is not a usable name (letters, digits and _; not {_RESERVED}...)"
            )
        # Name and value travel in one frame, and are one string to the kernel.
        _string(f"env_vars[{quoted(key)}]", variables[key], beside=len(key) + 1)
    return MappingProxyType(dict(variables))


def _stdin(value: object) -> Stdin:
    if value is None:
        return b""
    if isinstance(value, str):
        return text_bytes("stdin", value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, AsyncIterable):
        return value
    raise InvalidRequest(f"stdin must be a string or bytes, not {type(value).__name__}")


def _files(files: object, program: Mapping[str, bytes], capacity: int, inodes: int) -> Mapping[str, bytes]:
    if files is None:
        files = {}
    if not isinstance(files, Mapping):
        raise InvalidRequest(f"files must map paths to bytes or str, not be a {type(files).__name__}")
    if len(files) > MAX_INPUT_FILES:
        raise InvalidRequest(f"at most {MAX_INPUT_FILES} files, not {len(files)}")
    taken = dict(program)
    for path, content in files.items():
        check_path(path)
        if path in program:
            raise InvalidRequest(f"files: {path!r} is the program itself; give the file another name")
        if not isinstance(content, str | bytes | bytearray | memoryview):
            raise InvalidRequest(f"files[{path!r}] must be bytes or str, not {type(content).__name__}")
        taken[path] = text_bytes(f"files[{path!r}]", content) if isinstance(content, str) else bytes(content)
    directories = {path[: slash.start()] for path in taken for slash in re.finditer("/", path)}
    for path in taken.keys() & directories:
        raise InvalidRequest(f"files: {path!r} cannot be a file and a directory")
    if len(taken) + len(directories) >= inodes:  # /code itself takes an inode
        raise InvalidRequest(f"at most {inodes - 1} files and directories fit into {CODE_DIR}")
    size = sum(-(-len(content) // PAGE_BYTES) * PAGE_BYTES for content in taken.values())
    if size > capacity:
        raise InvalidRequest(
            f"code and files take {size} bytes, in pages of {PAGE_BYTES}; "
            f"{format_memory(capacity)} fit into {CODE_DIR} at this memory limit"
        )
    return MappingProxyType(taken)


def check_path(path: object) -> None:
    """Check that a path is plain and relative.

    Raises:
        InvalidRequest: it is absolute or too long, or has ``.``, ``..``, empty parts or control characters.
    """
    text = _string("files: a path", path)
    parts = text.split("/")
    wrong = (
        "" in parts
        or "." in parts
        or ".." in parts
        or any(unicodedata.category(c) == "Cc" for c in text)
        or any(len(part.encode()) > 255 for part in parts)
        or len(text.encode()) > MAX_PATH_BYTES
        or len(parts) > MAX_PATH_DEPTH
    )
    if wrong:
        raise InvalidRequest(
            f"files: {text[:200]!r} is not a usable path: it must be relative, without '..', empty parts or "
            f"control characters, at most {MAX_PATH_BYTES} bytes and {MAX_PATH_DEPTH} levels"
        )
