"""What the command line prints, compared exactly with the files in ``snapshots``.

``CODEFORGE_SNAPSHOTS=update`` writes the files instead. Their changes are reviewed like any other.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from codeforge import cli, errors
from codeforge.cli import doctor, environments
from codeforge.cli.app import app
from codeforge.cli.doctor import Check
from codeforge.environments import EnvironmentStore

SNAPSHOTS = Path(__file__).parent / "snapshots"
UPDATE = "CODEFORGE_SNAPSHOTS=update .venv/bin/python -m pytest tests/unit/cli/test_snapshots.py"

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs a command in this process, and returns what a terminal would show."""
    for name, value in {
        "COLUMNS": "80",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "CODEFORGE_ENGINE": "docker",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("FORCE_COLOR", "CODEFORGE_RUNTIME", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["codeforge", *words])
        code: Any = 0
        with Path(os.devnull).open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
        out, err = capsys.readouterr()
        shown = "".join(f"{line.rstrip()}\n" for line in (out + err).splitlines())
        return f"$ {' '.join(('codeforge', *words))}\n{shown}exit code {code}\n"

    return run


def matches(name: str, text: str) -> None:
    """Compare with a snapshot, or write it if the environment says so.

    Raises:
        AssertionError: they differ. The message has the differences and the command that accepts them.
    """
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("CODEFORGE_SNAPSHOTS") == "update":
        path.write_text(text)
        return
    old = path.read_text() if path.exists() else ""
    if old != text:
        diff = difflib.unified_diff(
            old.splitlines(), text.splitlines(), f"snapshots/{name}.txt", "now", "", "", 3, ""
        )
        raise AssertionError("\n".join(["the text has changed", *diff, f"If that is intended: {UPDATE}"]))


def all_commands(group: Any = None, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    group = group or typer.main.get_command(app)
    yield above, group
    for name, command in getattr(group, "commands", {}).items():
        yield from all_commands(command, (*above, name))


COMMANDS = dict(all_commands())


@pytest.mark.parametrize("words", [*COMMANDS], ids=lambda words: "-".join(words) or "codeforge")
def test_help(words: tuple[str, ...], run: Run) -> None:
    matches("-".join(("help", *words)), run(*words, "--help"))


def test_no_option_is_cut_in_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for words, command in COMMANDS.items():
        options = {name for param in command.params for name in param.opts if name.startswith("-")}
        assert options <= {word.strip(",[]") for word in run(*words, "--help").split()}, words


def test_usage_errors(run: Run) -> None:
    lines = [["nonsense"], ["run"], ["run", "a.py", "--nonsense"], ["bench", "--seconds", "many"]]
    lines += [["batch", "in.jsonl", "out.jsonl", "--concurrency", "0"], ["images", "sbom"]]
    matches("errors-usage", "\n".join(run(*line) for line in lines))


def test_errors_in_a_request(run: Run) -> None:
    Path("notes.txt").write_text("not a program")
    Path("hello.py").write_text("print('hello')")
    lines = [
        ["run", "missing.py"],
        ["run", "notes.txt"],
        ["run", "hello.py", "--language", "pyton"],
        ["run", "hello.py", "--memory", "lots"],
        ["run", "hello.py", "--timeout", "-1"],
        ["run", "hello.py", "--env", "NO_SUCH_VARIABLE"],
        ["run", "hello.py", "--file", "missing.csv"],
        ["run", "hello.py", "--out", "hello.py"],
        ["run", "hello.py", "--engine", "vmware"],
        ["batch", "missing.jsonl", "out.jsonl"],
        ["bench", "--seconds", "0"],
        ["bench", "--chart", "hello.png"],
        ["images", "build", "cobol"],
        ["images", "build", "--tag", "custom"],
        ["images", "scan", "python", "--severity", "bad"],
    ]
    matches("errors-request", "\n".join(run(*line) for line in lines))


def test_errors_without_an_engine(run: Run) -> None:
    Path("hello.py").write_text("print('hello')")
    lines = [["run", "hello.py"], ["run", "hello.py", "--json"], ["images", "list"], ["doctor"]]
    matches("errors-no-engine", "\n".join(run(*line) for line in lines))


CHECKS = [
    Check("engine", "ok", "Docker 29.1.0 (API 1.52), overlay2"),
    Check("swap limit", "problem", "not accounted for by the kernel", "boot with swapaccount=1"),
    Check("LSM", "note", "neither AppArmor nor SELinux", "one more layer where the kernel has one"),
    Check("python image", "ok", "ai-codeforge-python:latest, 131 MB"),
    Check("typescript environment", "ok", "/var/cache/ai-codeforge/environments/typescript-276287e2c771804b"),
    Check("python run", "ok", "31 ms, 12 MB", posture={"no_new_privs": "1", "seccomp": "2"}),
]


@pytest.mark.parametrize("healthy", [True, False])
def test_doctor(healthy: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def checks(executor: object) -> list[Check]:
        return [check for check in CHECKS if check.verdict != "problem" or not healthy]

    monkeypatch.setattr(doctor, "_check", checks)
    options: tuple[list[str], ...] = ([], ["--posture"], ["--json"])
    shown = "\n".join(run("doctor", *each) for each in options)
    matches(f"doctor-{'healthy' if healthy else 'problem'}", shown)


def test_environments_list(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Path("/cache/python-0123"), Path("/cache/python-4567")
    monkeypatch.setattr(EnvironmentStore, "installed", lambda _: [old, new])
    monkeypatch.setattr(environments, "_current", lambda _: {new})
    monkeypatch.setattr(environments, "_size", lambda _: 129_400_000)
    matches("environments-list", run("environments", "list") + "\n" + run("environments", "list", "--json"))


def test_languages(run: Run) -> None:
    matches("languages", run("languages") + "\n" + run("languages", "--json"))


def test_exit_codes_and_http_statuses() -> None:
    found = [errors.CodeForgeError]
    for each in found:
        found += each.__subclasses__()
    ours = sorted(
        (each for each in found if each.__module__ == errors.__name__), key=lambda each: each.__name__
    )
    rows = (f"{each.__name__:<22} {each.exit_code:>3} {each.http_status}\n" for each in ours)
    matches("exit-codes", f"{'error':<22} exit code, HTTP status\n" + "".join(dict.fromkeys(rows)))


def test_every_snapshot_belongs_to_a_test() -> None:
    names = {"-".join(("help", *words)) for words in COMMANDS}
    names |= {"errors-usage", "errors-request", "errors-no-engine", "doctor-healthy", "doctor-problem"}
    names |= {"environments-list", "languages", "exit-codes"}
    assert {path.stem for path in SNAPSHOTS.iterdir()} == names
