"""``codeforge languages``: list the languages that programs can be written in."""

from __future__ import annotations

from codeforge.cli.terminal import print_json
from codeforge.model import LANGUAGES, OPTIONAL_LANGUAGES


def perform(*, as_json: bool) -> None:
    """Print the languages."""
    known = (*LANGUAGES, *OPTIONAL_LANGUAGES)
    rows = [
        {"name": row.name, "aliases": list(row.aliases), "file": row.file, "image": row.image}
        for row in known
    ]
    if as_json:
        print_json(rows)
        return
    for row in known:
        print(f"{row.name:<12} {row.file:<9} {row.image:<34} also: {', '.join(row.aliases)}")
