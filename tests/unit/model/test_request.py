"""Requests: every mistake of a caller is refused by name, before anything is started."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from codeforge import protocol
from codeforge.errors import InvalidRequest, UnknownLanguage
from codeforge.model.languages import JAVASCRIPT, LANGUAGES, PYTHON, TYPESCRIPT, Language, LanguageTable
from codeforge.model.limits import GiB, Limits, MiB
from codeforge.model.request import (
    MAX_INPUT_FILES,
    MAX_PATH_BYTES,
    MAX_PATH_DEPTH,
    MAX_STRING_BYTES,
    MAX_STRINGS,
    MAX_STRINGS_BYTES,
    MAX_TMPFS_BYTES,
    ExecutionRequest,
    Run,
    check_path,
    resolve,
    tmpfs_bytes,
)

TABLE = LanguageTable()
DEFAULTS = Limits()
SURROGATE = "\ud800"


def run(code: Any = "", **fields: Any) -> Run:
    return resolve(ExecutionRequest(code=code, **fields), TABLE, DEFAULTS)


def refusal(code: Any = "", **fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        run(code, **fields)
    return str(caught.value)


# --- Languages and command lines ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "argv"),
    [
        (PYTHON, ("python", "/code/main.py")),
        (JAVASCRIPT, ("node", "--require", "/opt/codeforge/node_worker.cjs", "/code/main.js")),
        (
            TYPESCRIPT,
            (
                "node",
                "--require",
                "/opt/codeforge/node_worker.cjs",
                "/usr/local/bin/ts-node",
                "/code/main.ts",
            ),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Language) else "",
)
def test_argv_is_the_command_the_program_and_the_arguments(language: Language, argv: tuple[str, ...]) -> None:
    made = run("x", language=language.name, args=["-v", "a b", ""])
    assert made.argv == (*argv, "-v", "a b", "")
    assert made.language is language
    assert made.cwd == language.start_dir
    assert made.files == {language.file: b"x"}


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
def test_type_check_off_goes_between_the_command_and_the_program(language: Language) -> None:
    checked = run(language=language.name, args=["--transpile-only"]).argv
    unchecked = run(language=language.name, args=["--transpile-only"], type_check=False).argv
    split = len(language.command)
    assert unchecked == (*checked[:split], *language.unchecked_flags, *checked[split:])


def test_a_language_is_found_by_alias() -> None:
    assert run(language="TS").language is TYPESCRIPT


def test_an_unknown_language_names_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(
        UnknownLanguage, match=r"known: python, javascript, typescript\. Did you mean 'python'\?"
    ):
        run(language="pyhton")


def test_an_empty_request_runs_with_the_defaults() -> None:
    made = run("")
    assert (made.limits, made.env, made.files, made.stdin, made.fresh) == (
        DEFAULTS,
        {},
        {"main.py": b""},
        b"",
        False,
    )


# --- Code and stdin -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [None, b"print()", 1, ["print()"], True])
def test_code_that_is_not_a_string_is_refused(code: Any) -> None:
    assert refusal(code) == f"code must be a string, not {type(code).__name__}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", SURROGATE),
        ("stdin", f"a{SURROGATE}"),
        ("args", [SURROGATE]),
        ("env_vars", {"A": SURROGATE}),
        ("env_vars", {SURROGATE: "a"}),
        ("files", {"a": SURROGATE}),
        ("files", {SURROGATE: "a"}),
    ],
)
def test_a_lone_surrogate_is_refused_with_a_printable_message(field: str, value: Any) -> None:
    message = refusal(**{field: value})
    assert message.startswith(field)
    assert message.encode("utf-8")


def test_code_may_contain_any_character() -> None:
    text = "\ufeff\0\r\n\x1b é 😀 \u202e"
    assert run(text).files["main.py"] == text.encode()


@pytest.mark.parametrize(
    ("stdin", "sent"),
    [(None, b""), ("", b""), ("é\n", "é\n".encode()), (b"\xff\0", b"\xff\0"), (bytearray(b"a"), b"a"),
     (memoryview(b"b"), b"b")],
)  # fmt: skip
def test_stdin_is_text_bytes_or_none(stdin: Any, sent: bytes) -> None:
    made = run(stdin=stdin)
    assert made.stdin == sent
    assert type(made.stdin) is bytes


def test_stdin_may_be_an_async_iterable() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"

    source = pieces()
    assert run(stdin=source).stdin is source


@pytest.mark.parametrize("stdin", [1, ["a"], True, object(), iter([b"a"])])
def test_any_other_stdin_is_refused(stdin: Any) -> None:
    assert refusal(stdin=stdin) == f"stdin must be a string or bytes, not {type(stdin).__name__}"


# --- Arguments and environment ------------------------------------------------------------------------


@pytest.mark.parametrize("args", ["-x", b"-x", 3, None, {"a": "b"}, {"a"}])
def test_arguments_that_are_not_a_list_are_refused(args: Any) -> None:
    assert refusal(args=args) == f"args must be a list of strings, not {type(args).__name__}"


@pytest.mark.parametrize("arg", [1, None, b"x", ["x"], True])
def test_an_argument_that_is_not_a_string_is_refused_with_its_index(arg: Any) -> None:
    assert refusal(args=["fine", arg]) == f"args[1] must be a string, not {type(arg).__name__}"


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"args": ["a", "b\0c"]}, "args[1]"), ({"env_vars": {"KEY": "\0"}}, "env_vars['KEY']")],
)
def test_a_nul_character_is_refused(fields: dict[str, Any], name: str) -> None:
    assert refusal(**fields) == f"{name} must not hold a NUL character"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"args": ["é" * (MAX_STRING_BYTES // 2) + "x"]}, "args[0]"),
        ({"env_vars": {"KEY": "x" * (MAX_STRING_BYTES + 1)}}, "env_vars['KEY']"),
    ],
)
def test_a_string_that_is_too_long_is_refused_with_an_alternative(fields: dict[str, Any], name: str) -> None:
    message = refusal(**fields)
    assert message.startswith(f"{name} may have ")
    assert message.endswith(f" bytes, not {MAX_STRING_BYTES + 1}; use files or stdin")


def test_a_string_of_exactly_the_limit_is_accepted() -> None:
    assert len(run(args=["x" * MAX_STRING_BYTES]).argv[-1]) == MAX_STRING_BYTES


@pytest.mark.parametrize(
    "fields",
    [{"args": ["x"] * (MAX_STRINGS + 1)}, {"env_vars": {f"V{i}": "" for i in range(MAX_STRINGS + 1)}}],
    ids=["args", "env_vars"],
)
def test_too_many_strings_are_refused(fields: dict[str, Any]) -> None:
    assert refusal(**fields).startswith(f"at most {MAX_STRINGS} {next(iter(fields))}, not {MAX_STRINGS + 1}")


def test_arguments_and_variables_share_one_limit() -> None:
    half = "x" * (MAX_STRINGS_BYTES // 2 - 100)
    assert run(args=[half]).argv[-1] == half
    message = refusal(args=[half], env_vars={"A": half, "B": "x" * 200})
    assert message.startswith(f"args and env_vars may have {MAX_STRINGS_BYTES} bytes together, not ")


@pytest.mark.parametrize(
    "key", ["", "A=B", "A B", "1A", "A-B", "A\0", "A\n", "é", "A.B", "=", " A", SURROGATE, 1, None, b"A"],
)  # fmt: skip
def test_a_variable_name_that_a_shell_rejects_is_refused(key: Any) -> None:
    assert f"{key!r} is not a usable name" in refusal(env_vars={key: "x"})


@pytest.mark.parametrize("key", ["CODEFORGE_", "CODEFORGE_X"])
def test_reserved_variable_names_are_refused(key: str) -> None:
    assert refusal(env_vars={key: "x"}).endswith("not CODEFORGE_...)")


@pytest.mark.parametrize(
    "key", ["A", "_", "a1_B", "codeforge_x", "XCODEFORGE_", "PATH", "HOME", "LD_PRELOAD"],
)  # fmt: skip
def test_every_other_variable_name_is_accepted(key: str) -> None:
    assert run(env_vars={key: " a=b\n"}).env == {key: " a=b\n"}


@pytest.mark.parametrize("variables", ["A=b", ["A=b"], [("A", "b")], 1])
def test_variables_that_are_not_a_mapping_are_refused(variables: Any) -> None:
    assert refusal(env_vars=variables) == f"env_vars must be a mapping, not {type(variables).__name__}"


@pytest.mark.parametrize("value", [1, None, b"x", True])
def test_a_variable_that_is_not_a_string_is_refused(value: Any) -> None:
    assert refusal(env_vars={"A": value}) == f"env_vars['A'] must be a string, not {type(value).__name__}"


@given(
    key=st.integers(1, MAX_STRING_BYTES + 1), value=st.integers(0, MAX_STRING_BYTES + 1), arg=st.integers(0,
    MAX_STRING_BYTES)
)  # fmt: skip
def test_accepted_strings_fit_into_their_frames(key: int, value: int, arg: int) -> None:
    try:
        made = run(env_vars={"K" * key: "v" * value}, args=["a" * arg])
    except InvalidRequest:
        return
    assert protocol.command(made.argv, made.env, made.cwd)


@pytest.mark.parametrize(
    "variables", [{"K" * (MAX_STRING_BYTES - 100): "v" * MAX_STRING_BYTES}, {"K" * 40_000: "v" * 40_000}],
)  # fmt: skip
def test_a_variable_too_long_for_its_frame_is_refused(variables: dict[str, str]) -> None:
    assert "env_vars" in refusal(env_vars=variables)


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
def test_a_variable_that_the_interpreter_reads_at_start_needs_a_fresh_interpreter(language: Language) -> None:
    assert not run(language=language.name, env_vars={"MY_OWN": "1", "HTTP_PROXY": ""}).fresh
    for prefix in language.boot_env:
        assert run(language=language.name, env_vars={"MY_OWN": "1", f"{prefix}X": ""}).fresh
        assert run(language=language.name, env_vars={prefix: ""}).fresh


def test_another_languages_variables_do_not_need_a_fresh_interpreter() -> None:
    assert not run(language="python", env_vars={"NODE_OPTIONS": ""}).fresh
    assert not run(language="javascript", env_vars={"PYTHONPATH": ""}).fresh


def test_later_changes_to_the_callers_objects_have_no_effect() -> None:
    variables, files = {"A": "1"}, {"a": bytearray(b"1")}
    made = run(env_vars=variables, files=files)
    variables["A"] = "2"
    files["a"][0] = 0
    files["b"] = bytearray()
    assert (made.env, made.files) == ({"A": "1"}, {"main.py": b"", "a": b"1"})


# --- Limits -------------------------------------------------------------------------------------------


def test_a_request_overrides_only_the_defaults_that_it_names() -> None:
    defaults = Limits(
        timeout_s=5, memory_bytes=64 * MiB, cpu_quota_us=20_000, output_bytes=10, files_bytes=20
    )
    request = ExecutionRequest(code="")
    assert resolve(request, TABLE, defaults).limits == defaults
    request = ExecutionRequest(
        code="", timeout=1.5, memory_limit="1g", cpu_quota=100_000, network_enabled=True
    )
    assert resolve(request, TABLE, defaults).limits == Limits(
        timeout_s=1.5, memory_bytes=GiB, cpu_quota_us=100_000, network=True, output_bytes=10, files_bytes=20
    )


def test_no_default_gives_a_network_to_a_request_without_one() -> None:
    assert not resolve(ExecutionRequest(code=""), TABLE, Limits(network=True)).limits.network


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "30"}, "timeout"),
        ({"timeout": False}, "timeout"),
        ({"memory_limit": ""}, "memory_limit"),
        ({"memory_limit": 0}, "memory_limit"),
        ({"memory_limit": "512"}, "memory_limit"),
        ({"cpu_quota": 0}, "cpu_quota"),
        ({"cpu_quota": 0.5}, "cpu_quota"),
        ({"network_enabled": "no"}, "network_enabled"),
        ({"network_enabled": None}, "network_enabled"),
    ],
)
def test_a_wrong_limit_is_refused_by_the_callers_name_for_it(fields: dict[str, Any], name: str) -> None:
    assert refusal(**fields).startswith(f"{name} must ")


@given(st.integers(16 * MiB, 1024 * GiB))
def test_the_writable_space_is_limited_and_leaves_half_of_the_memory_to_the_program(memory: int) -> None:
    size = tmpfs_bytes(Limits(memory_bytes=memory))
    assert 4 * MiB <= size <= MAX_TMPFS_BYTES
    assert 2 * size <= memory / 2  # /code and /tmp


@pytest.mark.parametrize(("memory", "capacity"), [("16m", 4 * MiB), ("64m", 16 * MiB)])
def test_code_and_files_are_limited_by_the_size_of_code_directory(memory: str, capacity: int) -> None:
    full = "#" * (capacity // 2)
    assert run(full, files={"a": full}, memory_limit=memory)
    message = refusal(full + "#", files={"a": full}, memory_limit=memory)
    assert re.fullmatch(
        rf"code and files .*; {capacity // MiB}m fit into /code at this memory limit", message
    )


def test_code_of_a_hundred_megabytes_is_refused_before_anything_starts() -> None:
    assert "; 64m fit into /code" in refusal("#" * 100_000_000)


def test_files_are_counted_in_whole_pages() -> None:
    page_and_a_byte = bytes(4097)  # two pages
    files = {f"f{i}": page_and_a_byte for i in range(511)}
    assert run("#", files=files, memory_limit="16m")
    files["f511"] = page_and_a_byte
    assert "; 4m fit into /code" in refusal("#", files=files, memory_limit="16m")


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
def test_files_and_directories_are_limited_by_the_file_systems_inodes(language: Language) -> None:
    files = {f"{i}/" + "d/" * (MAX_PATH_DEPTH - 2) + "f": b"" for i in range(MAX_INPUT_FILES)}
    few = dict(list(files.items())[: language.tmp_inodes // MAX_PATH_DEPTH - 1])
    assert run(files=few, language=language.name)
    if len(files) * MAX_PATH_DEPTH > language.tmp_inodes:
        assert "directories" in refusal(files=files, language=language.name)


# --- Files and their paths ----------------------------------------------------------------------------


def test_files_are_placed_beside_the_program() -> None:
    files = {
        "data.bin": b"\xff\0",
        "pkg/__init__.py": "",
        "pkg/a/b.txt": "é",
        "c": bytearray(b"c"),
        "d": memoryview(b"d"),
    }
    assert run("x", files=files).files == {
        "main.py": b"x",
        "data.bin": b"\xff\0",
        "pkg/__init__.py": b"",
        "pkg/a/b.txt": "é".encode(),
        "c": b"c",
        "d": b"d",
    }


@pytest.mark.parametrize("files", ["a", ["a"], [("a", b"")], 1, {"a"}])
def test_files_that_are_not_a_mapping_are_refused(files: Any) -> None:
    assert refusal(files=files) == f"files must map paths to bytes or str, not be a {type(files).__name__}"


@pytest.mark.parametrize("content", [None, 1, ["a"], {"a": 1}, True])
def test_content_that_is_neither_bytes_nor_text_is_refused(content: Any) -> None:
    assert refusal(files={"a": content}) == f"files['a'] must be bytes or str, not {type(content).__name__}"


def test_too_many_files_are_refused() -> None:
    assert run(files={f"f{i}": b"" for i in range(MAX_INPUT_FILES)})
    message = refusal(files={f"f{i}": b"" for i in range(MAX_INPUT_FILES + 1)})
    assert message == f"at most {MAX_INPUT_FILES} files, not {MAX_INPUT_FILES + 1}"


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda row: row.name)
def test_a_file_cannot_replace_the_program(language: Language) -> None:
    message = refusal(language=language.name, files={language.file: b""})
    assert message == f"files: {language.file!r} is the program itself; give the file another name"


@pytest.mark.parametrize(
    ("files", "path"),
    [
        ({"a": b"", "a/b": b""}, "a"),
        ({"a/b/c": b"", "a/b": b""}, "a/b"),
        ({"a/b/c/d": b"", "a": b""}, "a"),
        ({"main.py/x": b""}, "main.py"),
    ],
)
def test_a_path_cannot_be_a_file_and_a_directory(files: dict[str, bytes], path: str) -> None:
    assert refusal(files=files) == f"files: {path!r} cannot be a file and a directory"


def test_a_common_prefix_is_not_a_conflict() -> None:
    assert run(files={"a": b"", "ab/c": b"", "a.d/e": b"", "main.pyc": b""})


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "//", "/etc/passwd", "/code/main.py", "//x",
        ".", "..", "../x", "a/../b", "a/..", "a/../../etc/passwd", "./a", "a/.", "a/./b", "./main.py",
        "a//b", "a/", "a/b/", "/a/",
        "a\nb", "a\rb", "\x1b[2J", "a\x7f", "\x01", "a\tb", "\n",
        "\x9b2J", "a\x85b", "\x80",
        "x" * 256, "é" * 128, "a/" + "x" * 256 + "/b",
        "/".join(["d"] * (MAX_PATH_DEPTH + 1)),
        "/".join(["x" * 100] * 11),
        "x" * 100_000, "a/" * 50_000 + "b",
    ],
    ids=lambda path: ascii(path)[:40],
)  # fmt: skip
def test_an_unsafe_path_is_refused(path: str) -> None:
    message = refusal(files={path: b""})
    assert message.startswith("files: ")
    assert len(message) < 2000
    assert message.isprintable()


def test_a_nul_in_a_path_is_refused() -> None:
    assert refusal(files={"a\0b": b""}) == "files: a path must not hold a NUL character"


@pytest.mark.parametrize("path", [1, None, b"a", ("a",), True])
def test_a_path_that_is_not_a_string_is_refused(path: Any) -> None:
    assert refusal(files={path: b""}) == f"files: a path must be a string, not {type(path).__name__}"


@pytest.mark.parametrize(
    "path",
    [
        "a", "a.b", "...", "..a", "a..", ".hidden", "-rf", "--", "~", "$HOME", "a b", " ", "a\\b", "C:", "*",
        "é/日本/😀",
        "x" * 255, "é" * 127, "/".join(["d"] * MAX_PATH_DEPTH), "/".join(["x" * 203] * 5) + "/" + "x" * 4,
    ],
    ids=lambda path: ascii(path)[:40],
)  # fmt: skip
def test_a_plain_path_is_accepted_however_odd_it_looks(path: str) -> None:
    assert len(path.encode()) <= MAX_PATH_BYTES
    assert path in run(files={path: b""}).files


PARTS = st.sampled_from(["", ".", "..", "a", "...", "\0", "\n", "\x85", "é", "-", "x" * 256]) | st.text(
    max_size=5
)


@given(st.lists(PARTS, max_size=MAX_PATH_DEPTH + 2).map("/".join) | st.text(max_size=40))
def test_an_accepted_path_is_normal_and_stays_inside(path: str) -> None:
    try:
        check_path(path)
    except InvalidRequest:
        return
    assert posixpath.normpath(path) == path
    assert os.path.commonpath(["/code", posixpath.normpath(f"/code/{path}")]) == "/code"
    assert posixpath.normpath(f"/code/{path}") == f"/code/{path}" != "/code"
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in path)
    assert len(path.encode()) <= MAX_PATH_BYTES
    assert protocol.file(path, b"")


@given(st.dictionaries(PARTS | st.lists(PARTS, max_size=3).map("/".join), st.binary(max_size=3), max_size=5))
def test_accepted_files_can_all_be_created(files: dict[str, bytes]) -> None:
    try:
        made = run(files=files).files
    except InvalidRequest:
        return
    assert made == {"main.py": b"", **files}
    parents = {posixpath.dirname(path) for path in made}
    assert not parents & made.keys()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "code",
    "language",
    "timeout",
    "memory_limit",
    "network_enabled",
    "env_vars",
    "stdin",
    "args",
    "files",
    "cpu_quota",
]


@given(st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=3))
def test_any_junk_becomes_a_run_or_an_invalid_request(fields: dict[str, Any]) -> None:
    try:
        made = resolve(ExecutionRequest(**{"code": "", **fields}), TABLE, DEFAULTS)
        said = repr(made.argv)
    except InvalidRequest as error:
        said = str(error)
    assert said.encode("utf-8")
