"""``codeforge audit``: whether this machine keeps what docs/security.md promises, and its self-test."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from codeforge import progress
from codeforge.audit import (
    EXIT_ALL_HOLD,
    EXIT_FAILS,
    EXIT_NOT_TESTED,
    MUTATIONS,
    Check,
    Layer,
    Outcome,
    Verdict,
    audit,
    counts,
    exit_code,
    expected_count,
    self_test,
)
from codeforge.cli.terminal import harmless, print_error, print_json
from codeforge.errors import HostFailure

_COLOURS = {
    Verdict.HOLDS: "green",
    Verdict.FAILS: "bold red",
    Verdict.NOT_AVAILABLE: "dim",
    Verdict.UNKNOWN: "yellow",
}
_TITLES = {
    Layer.HOST: "The host",
    Layer.DAEMON: "The engine",
    Layer.OUTSIDE: "A sandbox, seen from outside",
    Layer.INSIDE: "A sandbox, seen from inside",
}
MAX_TEXT_CHARS = 300
FILE_WIDTH = 160


def perform(*, full: bool, strict: bool, as_json: bool) -> int:
    """Run the audit and print what it found. Returns the exit code."""
    return asyncio.run(_perform(full=full, strict=strict, as_json=as_json))


async def _perform(*, full: bool, strict: bool, as_json: bool) -> int:
    checks: list[Check] = []
    with progress.show_count(lambda: expected_count(full=full)) as tell:
        async for check in audit(full=full):
            checks.append(check)
            tell(len(checks), check.id)
    if as_json:
        print_json({"checks": [asdict(check) for check in checks], "counts": counts(checks)})
    else:
        _print(checks, strict=strict)
    return exit_code(checks, strict=strict)


def perform_self_test(*, as_json: bool) -> int:
    """Run the self-test and print what was caught. Returns the exit code."""
    return asyncio.run(_perform_self_test(as_json=as_json))


async def _perform_self_test(*, as_json: bool) -> int:
    outcomes: list[Outcome] = []
    try:
        with progress.show_count(lambda: len(MUTATIONS) + 1) as tell:
            async for outcome in self_test(MUTATIONS):
                outcomes.append(outcome)
                tell(len(outcomes), outcome.name)
    except HostFailure as error:
        print_error(str(error))
        return EXIT_NOT_TESTED
    if as_json:
        print_json({"mutations": [{**asdict(each), "caught": each.caught} for each in outcomes]})
    else:
        _print_outcomes(outcomes)
    return EXIT_ALL_HOLD if all(outcome.caught for outcome in outcomes) else EXIT_FAILS


def _print(checks: Sequence[Check], *, strict: bool) -> None:
    console = _console()
    for layer, title in _TITLES.items():
        table = _table()
        for check in (check for check in checks if check.layer is layer):
            table.add_row(*_row(check))
        if table.row_count:
            console.print(f"[bold]{title}[/]")
            console.print(table)
            console.print()
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts(checks).items()))
    fails = any(check.verdict is Verdict.FAILS for check in checks)
    if fails and exit_code(checks, strict=strict) == EXIT_ALL_HOLD:
        console.print("What FAILS is about host or engine, and below high severity; --strict counts it too")


def _row(check: Check) -> tuple[str, str, str]:
    text = _plain(check.got)
    if check.verdict is not Verdict.HOLDS:
        text += f"\nexpected: {_plain(check.expected)} ({check.severity.value}; {_plain(check.reference)})"
        text += f"\n[dim]-> {_plain(check.fix)}[/]" if check.verdict is not Verdict.NOT_AVAILABLE else ""
    return f"[{_COLOURS[check.verdict]}]{check.verdict.value}[/]", check.id, text


def _print_outcomes(outcomes: Sequence[Outcome]) -> None:
    table = _table()
    for outcome in outcomes:
        verdict = "[green]caught[/]" if outcome.caught else "[bold red]MISSED[/]"
        by = _plain(", ".join(outcome.caught_by))
        missed = "".join(f"\n[bold red]missed by {_plain(name)}[/]" for name in outcome.missed)
        blind = f"\n[yellow]cannot look here: {_plain(', '.join(outcome.blind))}[/]" if outcome.blind else ""
        table.add_row(verdict, _plain(outcome.name), f"{by}{missed}{blind}")
    console = _console()
    console.print(table)
    caught = sum(outcome.caught for outcome in outcomes)
    console.print(
        f"\n{caught} of {len(outcomes)} weakened sandboxes were caught by every check that must notice"
    )


def _console() -> Console:
    """A console as wide as the terminal; a file has no width of its own."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=FILE_WIDTH)


def _table() -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for least in (len(Verdict.NOT_AVAILABLE), 0):
        table.add_column(no_wrap=True, min_width=least)
    table.add_column(overflow="fold")
    return table


def _plain(text: str) -> str:
    """Text from a sandbox, cut and made harmless: it may be hostile."""
    return escape(harmless(text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}..."))
