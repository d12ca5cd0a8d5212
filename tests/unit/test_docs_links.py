"""The documents match the code: links, error texts, options, fields, frames and posture keys."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from codeforge import (
    ExecutionRequest,
    ExecutionResult,
    Language,
    Status,
    TestOutcome,
    errors,
    policy,
    protocol,
)
from codeforge.cli.app import app
from codeforge.model.limits import Limits
from codeforge.protocol import frames

ROOT = Path(__file__).parents[2]
NAMES = ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG")
DOCUMENTS = sorted([*(ROOT / f"{name}.md" for name in NAMES), *(ROOT / "docs").rglob("*.md")])
INIT = ROOT / "src/codeforge/guest/init"

FENCE = re.compile(r"^(```+)([a-z]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

README_LINES = 200

DOCUMENTED_ERRORS = (
    "Error: Docker is not available. Install Docker to use sandboxed execution.",
    "Error: permission denied while trying to connect to the Docker daemon socket",
    "Error: timeout pulling image",
    "Error: container killed (OOMKilled)",
    "sudo usermod -aG docker $USER",
    "# Then log out and back in",
    'executor.execute(code, memory_limit="1g")',
)

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def python_blocks(text: str) -> Iterator[str]:
    return (body for _, kind, body in FENCE.findall(text) if kind == "python")


def anchors(path: Path) -> set[str]:
    """The names under which headings can be linked to."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named(text: str) -> set[str]:
    """Every word in backticks, alone or among others."""
    code = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return set(code) | {word for span in code for word in re.findall(r"[\w-]+", span)}


def cells(text: str, heading: str) -> set[str]:
    """The words in backticks in the first column of the tables under a heading, up to the next one."""
    level = heading.partition(" ")[0]
    part = re.split(rf"\n#{{2,{len(level)}}} ", text.partition(f"\n{heading}\n")[2], maxsplit=1)[0]
    rows = re.findall(r"^\| (`[^|]*) \|", part, re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


@each_document
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(linked), f"{target}: no such heading"


@each_document
def test_every_python_block_compiles(path: Path) -> None:
    for block in python_blocks(path.read_text(encoding="utf-8")):
        compile(textwrap.dedent(block), str(path), "exec")


@each_document
def test_documents_are_plain_text_with_closed_fences(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "```" not in FENCE.sub("", text)
    assert text.isascii(), [line for line in text.splitlines() if not line.isascii()]
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_every_file_that_design_md_names_is_there() -> None:
    files = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.*")]
    there = [f"/{path.relative_to(ROOT).as_posix()}" for path in files]
    told = set(re.findall(r"`([\w./]+\.(?:py|c|cjs|pth))`", read("docs/design.md")))
    assert len(told) > 20
    assert not {name for name in told if not any(file.endswith(f"/{name}") for file in there)}
    guest = {f"{path.parent.name}/{path.name}" for path in (ROOT / "src/codeforge/guest").rglob("*.c")}
    assert guest - told == set(), "docs/design.md, 'Inside the sandbox': a row is missing for each of these"


def tree(text: str) -> Iterator[str]:
    """The files in the fenced tree of design.md: two spaces of indent a level, folders end with a slash."""
    (block,) = (body for _, kind, body in FENCE.findall(text) if body.startswith("src/") and not kind)
    folders: list[str] = []
    for line in block.splitlines():
        name = line.split()[0]
        del folders[(len(line) - len(line.lstrip())) // 2 :]
        if name.endswith("/"):
            folders.append(name)
        else:
            yield "".join(folders) + name


def test_design_md_has_every_module_in_its_tree() -> None:
    told = set(tree(read("docs/design.md")))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.py")}
    there = {name for name in modules if not re.search(r"/(guest|payloads)/|/__init__\.py$", name)}
    assert there - told == set(), "docs/design.md, 'Every file': a line is missing for each of these"
    assert told - there == set(), "docs/design.md, 'Every file': these files are not there"


def test_readme_leads_to_every_document() -> None:
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in LINK.findall(read("README.md"))}
    decisions = {path for path in DOCUMENTS if re.match(r"\d", path.name)}
    assert {*DOCUMENTS} - decisions - {ROOT / "README.md"} <= linked
    index = read("docs/decisions/README.md")
    assert decisions == {ROOT / "docs/decisions" / name for name in LINK.findall(index)}


def test_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= README_LINES


@pytest.mark.parametrize("text", DOCUMENTED_ERRORS)
def test_every_documented_text_is_explained(text: str) -> None:
    assert text in read("docs/troubleshooting.md")


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command's full name, and its options as written."""
    found = [("codeforge", get_command(app))]
    for name, command in found:
        yield (
            name,
            [option for parameter in command.params for option in parameter.opts + parameter.secondary_opts],
        )
        found += [(f"{name} {sub}", each) for sub, each in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize(("command", "options"), [pytest.param(*each, id=each[0]) for each in commands()])
def test_every_command_and_option_is_in_cli_md(command: str, options: list[str]) -> None:
    words = named(read("docs/cli.md"))
    assert command in words
    assert {option for option in options if option.startswith("-")} <= words | {"-h"}


def test_cli_md_names_no_option_that_is_not_there() -> None:
    real = {option for _, options in commands() for option in options} | {"--help", "-h"}
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", read("docs/cli.md")))
    assert told <= real | {"--year"}


def test_every_field_and_argument_is_in_api_md() -> None:
    names = {
        *(
            field.name
            for kind in (ExecutionResult, ExecutionRequest, TestOutcome)
            for field in dataclasses.fields(kind)
        ),
        *(
            name
            for name, _ in inspect.getmembers(ExecutionResult, lambda member: isinstance(member, property))
        ),
        *(status.name for status in Status),
    }
    assert names <= named(read("docs/api.md"))


def test_every_status_is_in_api_md() -> None:
    assert {status.value for status in Status} <= cells(read("docs/api.md"), "## Status")


def test_every_exception_is_in_api_md_with_its_codes() -> None:
    text = read("docs/api.md")
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.CodeForgeError):
            codes, base = rf"\| {kind.exit_code} \| {kind.http_status} \|", kind.__bases__[0].__name__
            assert re.search(rf"\| `{name}` \| .*`{base}`.* {codes}", text), f"{name}: {codes}"


def test_every_field_of_a_language_is_in_languages_md() -> None:
    assert {field.name for field in dataclasses.fields(Language)} <= named(read("docs/languages.md"))


def test_the_frames_of_both_implementations_are_those_in_protocol_md() -> None:
    header = (INIT / "frame.h").read_text(encoding="utf-8")
    to_init, to_host = header.split("/* Init to host. */")
    letters = re.compile(r"F_[A-Z]+ = '(.)'")
    text = read("docs/protocol.md")
    directions = [
        ("## Host to init", "### Host to init, of sessions"),
        ("## Init to host", "### Init to host, of sessions"),
    ]
    told_init, told = (
        {cell for heading in headings for cell in cells(text, heading) if len(cell) == 1}
        for headings in directions
    )
    assert told_init == set(letters.findall(to_init))
    assert told == set(letters.findall(to_host))
    assert told == {chr(letter) for allowed in frames._ALLOWED.values() for letter in allowed}
    sizes = {"LIMITS": frames._LIMITS.size, "EXIT": frames._EXIT.size + protocol.TOKEN_BYTES}
    for name, size in sizes.items():
        assert re.search(rf"\| {name} \| .*: {size} bytes \|", text)


def posture_faults() -> list[str]:
    """Every fault there is: the kernel told nothing."""
    nothing = Language(name="x", image="x", file="x", command=(), smoke="")
    return policy.posture_faults({}, Limits().of_sandbox(nothing), uid=20_000)


def test_the_posture_keys_are_those_in_protocol_md() -> None:
    checked = set()
    for fault in posture_faults():
        subject = fault.split()[0]
        checked |= {"swap_max", "memsw_max"} if subject == "swap" else {subject}
        checked |= {f"{subject}_bytes"} if "capped" in fault else set()
    told = cells(read("docs/protocol.md"), "## Posture keys")
    assert checked <= told
    source = (INIT / "posture.c").read_text(encoding="utf-8")
    said = set(re.findall(r'(?:"|\\n)([a-z_]+)(?:"|=)', source))  # in a table or call, or in a format
    mounts = {key.removesuffix(unit) for unit in ("_bytes", "_inodes") for key in told if key.endswith(unit)}
    by_init = {key for key in told if key in said or key.rpartition("_")[0] in mounts & said}
    # What the engines see from outside, and init cannot know.
    by_host = {"kernel"}
    files = (ROOT / "src/codeforge/engines").glob("*.py")
    engines = "".join(path.read_text(encoding="utf-8") for path in files)
    assert all(f'{{"{key}":' in engines for key in by_host)
    assert by_init.isdisjoint(by_host)
    assert told == by_init | by_host


def test_troubleshooting_has_posture_faults_in_their_own_words() -> None:
    told = re.findall(r"^\| `(swap is [^`]*)`", read("docs/troubleshooting.md"), re.MULTILINE)
    assert told
    assert set(told) <= set(posture_faults())


def test_api_md_has_the_limits_of_the_code() -> None:
    defaults, text = Limits(), read("docs/api.md")
    assert f"{defaults.memory_bytes >> 20} MiB, no swap" in text
    assert f"a quota of {defaults.cpu_quota_us} us in each 100000 us" in text
    assert f"{defaults.timeout_s:g} s of wall clock" in text
    assert f"{defaults.output_bytes >> 20} MiB of stdout" in text
    assert f"{defaults.files_bytes >> 20} MiB and {protocol.MAX_FILES_OUT} files" in text
