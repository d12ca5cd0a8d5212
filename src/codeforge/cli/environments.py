"""``codeforge environments``: what bubblewrap uses instead of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from codeforge.cli.options import AsJson, Names, below

if TYPE_CHECKING:
    from pathlib import Path

    from codeforge.environments import EnvironmentStore

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Build, list and remove bubblewrap's environments."
)


@app.command(epilog=below("codeforge environments build python"))
def build(names: Names = None) -> None:
    """Download and install what is missing in the environments."""
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


@app.command("list", epilog=below("codeforge environments list --json"))
def list_environments(as_json: AsJson = False) -> None:
    """List the environments, in use and left over.

    This version of codeforge uses those "in use". Those "left over" belong to other versions.
    """
    import sys

    from codeforge.cli.terminal import print_json
    from codeforge.environments import EnvironmentStore

    store = EnvironmentStore()
    current = _current(store)
    found = [(path, _size(path), path in current) for path in store.installed()]
    if as_json:
        print_json([{"path": str(path), "size": size, "current": used} for path, size, used in found])
        return
    for path, size, used in found:
        print(f"{'in use' if used else 'left over':<9}  {size / 1e6:>5.0f} MB  {path}")
    if not all(used for _, _, used in found):
        print("Remove those left over: codeforge environments remove --outdated", file=sys.stderr)


@app.command(epilog=below("codeforge environments remove --outdated"))
def remove(
    outdated: Annotated[bool, typer.Option("--outdated", help="Remove only those left over.")] = False,
) -> None:
    """Remove environments. Sandboxes that are running lose their files."""
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
    """Return the size in bytes. A hard-linked file counts in each environment that has it."""
    return sum(entry.lstat().st_size for entry in path.rglob("*"))
