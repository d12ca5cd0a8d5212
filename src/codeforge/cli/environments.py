"""``codeforge environments``: what stands in for images where bubblewrap makes the sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from codeforge.environments import EnvironmentStore

app = typer.Typer(no_args_is_help=True, help="Build, list and remove the environments of bubblewrap.")

Names = Annotated[list[str] | None, typer.Argument(metavar="[LANG]...", help="Languages; default: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for a script to read.")]


@app.command(epilog="Example:  codeforge environments build python")
def build(names: Names = None) -> None:
    """Have the environments ready: what is missing of them is downloaded and installed."""
    import asyncio

    from codeforge import progress
    from codeforge.environments import EnvironmentMaker
    from codeforge.model import LanguageTable

    store = EnvironmentMaker()
    for row in LanguageTable().pick(names or None):
        with progress.show_steps() as report:
            asyncio.run(store.make(row, report))
        found = store.find(row)
        if found is not None:
            print(f"{row.name}  {found.path}")


@app.command("list", epilog="Example:  codeforge environments list --json")
def list_environments(as_json: AsJson = False) -> None:
    """Show what is on this machine, and what of it is in use: the rest is of another version."""
    from codeforge.cli.terminal import print_json
    from codeforge.environments import EnvironmentStore

    store = EnvironmentStore()
    current = _current(store)
    found = [(path, _size(path), path in current) for path in store.installed()]
    if as_json:
        print_json([{"path": str(path), "size": size, "current": used} for path, size, used in found])
        return
    for path, size, used in found:
        print(f"{size / 1e6:>5.0f} MB  {path}{'' if used else '  out of date'}")


@app.command(epilog="Example:  codeforge environments remove --outdated")
def remove(
    outdated: Annotated[bool, typer.Option("--outdated", help="Only what no language uses now.")] = False,
) -> None:
    """Remove them from this machine. Sandboxes that are running lose their files."""
    from codeforge.environments import EnvironmentStore

    store = EnvironmentStore()
    current = _current(store) if outdated else set()
    for path in store.installed():
        if path not in current:
            store.remove(path)
            print(f"removed {path}")


def _current(store: EnvironmentStore) -> set[Path]:
    from codeforge.model import LANGUAGES, OPTIONAL_LANGUAGES

    rows = (*LANGUAGES, *OPTIONAL_LANGUAGES)
    return {path for row in rows if row.environment for path in store.folders(row)}


def _size(path: Path) -> int:
    """Bytes on the disk; a file of several names counts for each folder it is in."""
    return sum(entry.lstat().st_size for entry in path.rglob("*"))
