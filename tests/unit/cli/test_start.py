"""The command line starts quickly: each command imports what it needs, and no more."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from codeforge.cli import plain_run
from codeforge.cli import run as run_command
from codeforge.cli.app import run as run_with_options

HEAVY = {"aiodocker", "aiohttp", "cvss", "cyclonedx", "defusedxml", "packageurl", "rich", "typer"}
HEAVY |= {"prompt_toolkit", "pygments"}


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after it, and had not before."""
    code = f"import sys\nbefore = {{*sys.modules}}\n{statement}\nprint(*{{*sys.modules}} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_run_imports_neither_an_http_client_nor_what_draws_and_parses() -> None:
    assert imported_by("import codeforge.cli.run") & HEAVY == set()


def test_help_imports_nothing_that_runs_programs() -> None:
    assert imported_by("import codeforge.cli.app") & ((HEAVY | {"asyncio"}) - {"typer"}) == set()


def test_a_session_without_a_person_needs_no_prompt() -> None:
    assert imported_by("import codeforge.cli.repl") & HEAVY == set()


def test_the_version_needs_no_more_than_itself() -> None:
    statement = "sys.argv = ['codeforge', '--version']\nfrom codeforge.cli import main\nmain()"
    assert imported_by(statement) & (HEAVY | {"asyncio", "dataclasses"}) == set()


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("run hello.py", ("hello.py", [])),
        ("run -", ("-", [])),
        ("run hello.py -- -x --json", ("hello.py", ["-x", "--json"])),
        ("run hello.py --", ("hello.py", [])),
        ("run", None),
        ("run --help", None),
        ("run -h", None),
        ("run --", None),
        ("run hello.py --json", None),
        ("run --json hello.py", None),
        ("run hello.py more", None),
        ("run -- hello.py", None),
        ("doctor", None),
        ("", None),
    ],
)
def test_only_a_line_without_options_goes_past_the_parser(
    line: str, plain: tuple[str, list[str]] | None
) -> None:
    assert plain_run(line.split()) == plain


def test_a_line_without_options_means_what_the_parser_makes_of_it() -> None:
    def defaults(of: object) -> dict[str, object]:
        assert callable(of)
        return {name: each.default for name, each in inspect.signature(of).parameters.items()}

    assert defaults(run_command.run) == defaults(run_with_options)
