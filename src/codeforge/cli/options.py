"""Options that several commands share, and the text below their help."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="LANG", help="Languages (default: all).")]

Timeout = Annotated[float | None, typer.Option(metavar="SECONDS", help="Time limit (default: 30).")]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Memory limit, such as 512m or 1g (default: 512m).")
]
CpuQuota = Annotated[
    int | None,
    typer.Option(metavar="MICROSECONDS", help="CPU time in each 100 ms (default: 50000, half a core)."),
]
Network = Annotated[bool, typer.Option("--network", help="Allow network access.")]
Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        "-e",
        metavar="KEY[=VALUE]",
        help="Set an environment variable; KEY alone copies this shell's. Repeatable.",
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Option(
        "--file", "-f", metavar="PATH[:NAME]", help="Copy a file into the working directory. Repeatable."
    ),
]

Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="docker, podman, bubblewrap, or auto: the first that answers (default: CODEFORGE_ENGINE).",
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Docker's OCI runtime, such as runsc (default: CODEFORGE_RUNTIME)."),
]
Unenforced = Annotated[
    bool,
    typer.Option("--allow-unenforced-limits", help="Run even if bubblewrap cannot enforce the limits."),
]


def below(*examples: str, exit_codes: str = "") -> str:
    """Return a command's epilog: its examples, one a line, then its exit codes."""
    heading = "Example" if len(examples) == 1 else "Examples"
    # A paragraph that begins with \b is not wrapped.
    shown = "\n".join(("\b", f"{heading}:", *(f"  {example}" for example in examples)))
    return f"{shown}\n\nExit codes: {exit_codes}" if exit_codes else shown
