"""The command line starts quickly: each command imports only what it needs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from codeforge.cli import plain_run, run as run_command
from codeforge.cli.app import run as run_with_options

HEAVY = {"aiodocker", "aiohttp", "cvss", "cyclonedx", "defusedxml", "packageurl", "rich", "typer"}
HEAVY |= {"prompt_toolkit", "pygments"}


def imported_by(statement: str) -> set[str]:
    """Return the top-level modules that a statement imports in a fresh interpreter."""
    code = f"import sys\nbefore = {{*sys.modules}}\n{statement}\nprint(*{{*sys.modules}} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_run_imports_no_http_client_parser_or_terminal_library() -> None:
    assert imported_by("import codeforge.cli.run") & HEAVY == set()


def test_run_imports_nothing_that_only_sessions_need() -> None:
    code = "import sys, codeforge.cli.run, codeforge.sandboxes.pool\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("codeforge.")}
    assert "codeforge.sandboxes.verdict" in loaded
    assert not {name for name in loaded if "cell" in name or "session" in name}


def test_help_imports_nothing_that_runs_programs() -> None:
    assert imported_by("import codeforge.cli.app") & ((HEAVY | {"asyncio"}) - {"typer"}) == set()


def test_showing_help_draws_no_tables() -> None:
    statement = "sys.argv = ['codeforge', 'run', '--help']\nfrom codeforge.cli import main\n"
    statement += "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n"
    statement += "    with contextlib.suppress(SystemExit): main()"
    assert imported_by(statement) & ((HEAVY | {"asyncio"}) - {"typer"}) == set()


def test_a_session_without_a_terminal_imports_no_prompt() -> None:
    assert imported_by("import codeforge.cli.repl") & HEAVY == set()


def test_the_version_imports_nothing_else() -> None:
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
def test_only_a_line_without_options_skips_the_parser(line: str, plain: tuple[str, list[str]] | None) -> None:
    assert plain_run(line.split()) == plain


def test_a_line_without_options_means_the_same_with_the_parser() -> None:
    def defaults(of: object) -> dict[str, object]:
        assert callable(of)
        return {name: each.default for name, each in inspect.signature(of).parameters.items()}

    assert defaults(run_command.run) == defaults(run_with_options)
