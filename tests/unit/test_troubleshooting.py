"""docs/troubleshooting.md quotes texts that the code has, and has an entry for each text that it raises."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from codeforge import errors
from codeforge.errors import CodeForgeError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/codeforge"
TEXT = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")

VARIES = "..."
"""In a quoted text: anything. In a text of the code: a value that is filled in."""

LEAST_LETTERS = 8
"""A text with fewer fixed letters, such as ``{name}: {error}``, has nothing to search for."""

BY_CLASS = {
    "InvalidRequest": "each text names the argument, and what it may be",
    "ProtocolViolation": "the cure is the same, whatever the text is",
    "UnreadableImage": "the cure is the same, whatever the text is",
    "FileError": "the text is the operating system's",
}
"""Classes with an entry as a whole, and why their texts need none."""

NOT_OURS = {"No such image: ai-codeforge-python:latest": "Docker's"}
"""Quoted texts that another program writes."""


class Template(NamedTuple):
    """A text in the code, on one line; values that are filled in are ``VARIES``."""

    text: str
    where: str


def template(node: ast.expr | None) -> str | None:
    """The text that an expression makes, as far as it is written there."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(template(part) or VARIES for part in parts)
        case ast.BinOp(op=ast.Add()):
            return (template(node.left) or VARIES) + (template(node.right) or VARIES)
        case ast.Call(func=ast.Attribute(attr="join"), args=[ast.List(elts=[first, *_])]):
            return template(first)  # the first line, and a log
    return None


@functools.cache
def trees() -> dict[str, ast.Module]:
    files = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in files}


@functools.cache
def written() -> dict[str, str]:
    """Each line of each text in the Python code, and where it is."""
    return {
        line: f"{file}:{node.lineno}"
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.expr) and (text := template(node))
        for line in text.splitlines()
        if letters(line) >= LEAST_LETTERS
    }


@functools.cache
def other_sources() -> list[str]:
    """The lines of what is not Python: init, the guest's JavaScript, and the scripts."""
    files = [path for kind in ("*.c", "*.h", "*.cjs") for path in sorted(PACKAGE.rglob(kind))]
    files += (ROOT / "scripts").glob("*.sh")
    return [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]


@functools.cache
def pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.split(VARIES)), re.DOTALL)


def letters(text: str) -> int:
    return sum(character.isalpha() for character in text)


def matches(quoted: str, text: str) -> bool:
    """Whether the document's text is the code's: word for word, or with values filled in."""
    return bool(pattern(quoted).fullmatch(text) or (VARIES in text and pattern(text).fullmatch(quoted)))


def quoted_texts() -> list[str]:
    """Lines of fences without a language, and the first column of tables that is headed ``text``."""
    fenced = [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S) if not kind]
    lines = [line.removeprefix("Error: ") for body in fenced for line in body.splitlines()]
    tables = re.findall(r"^\| text \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    first_cells = [row.split(" | ")[0] for table in tables for row in table.splitlines()]
    return lines + [text for cell in first_cells for text in re.findall(r"`([^`]+)`", cell)]


QUOTED = list(dict.fromkeys(quoted_texts()))

EXCEPTIONS = [
    name
    for name, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, CodeForgeError) and value.__module__ == errors.__name__
]


def raised() -> Iterator[tuple[str, Template]]:
    """Each error text that the package raises with one of its own exception classes, and that class.

    Of a text with several lines it is the first with at least ``LEAST_LETTERS``.
    """
    kinds = set(EXCEPTIONS)
    for tree in trees().values():  # and the subclasses that other modules define
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(
                getattr(base, "id", "") in kinds for base in node.bases
            ):
                kinds.add(node.name)
    for file, tree in trees().items():
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds and node.args:
                first = node.args[0]
                text = template(constants.get(first.id) if isinstance(first, ast.Name) else first) or ""
                line = next((line for line in text.splitlines() if letters(line) >= LEAST_LETTERS), None)
                if line is not None:
                    yield ast.unparse(node.func), Template(line, f"{file}:{node.lineno}")


RAISED = list(raised())


def test_there_are_texts_on_both_sides() -> None:
    assert len(QUOTED) > 60
    assert len(RAISED) > 150


@pytest.mark.parametrize("text", QUOTED)
def test_every_quoted_text_is_in_the_code(text: str) -> None:
    assert letters(text) >= LEAST_LETTERS, f"{text!r} is too short to look for"
    if text in NOT_OURS or any(pattern(text).search(line) for line in other_sources()):
        return
    if any(matches(text, line) for line in written()):
        return
    near = difflib.get_close_matches(text, written(), n=3, cutoff=0.4)
    places = ", ".join(f"{line!r} ({written()[line]})" for line in near)
    pytest.fail(f"docs/troubleshooting.md quotes {text!r}, which is not in the code. Near it: {places}")


@pytest.mark.parametrize(("kind", "found"), RAISED, ids=[f"{kind}-{found.where}" for kind, found in RAISED])
def test_every_raised_text_has_an_entry(kind: str, found: Template) -> None:
    if kind in BY_CLASS or any(matches(text, found.text) for text in QUOTED):
        return
    pytest.fail(
        f"{found.where} raises {kind}({found.text!r}): docs/troubleshooting.md has no entry for it. "
        f"Add a row to a table that is headed 'text': | `{found.text}` | cause and cure |"
    )


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_is_explained(name: str) -> None:
    assert f"`{name}`" in TEXT, f"docs/troubleshooting.md does not name {name}"


def test_classes_without_entries_for_each_text_are_real() -> None:
    assert BY_CLASS.keys() <= {kind for kind, _ in RAISED} | {"FileError"}
