"""The command line. It calls the library, and decides nothing about a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from codeforge._version import __version__

EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of ``codeforge``."""
    if sys.argv[1:] == ["--version"]:  # early: the rest of the command line takes time to import
        print(f"codeforge {__version__}")
        return
    from codeforge.errors import CodeForgeError

    try:
        sys.exit(_perform(sys.argv[1:]))
    except CodeForgeError as error:
        from codeforge.cli.terminal import print_error

        print_error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _perform(words: Sequence[str]) -> int:
    plain = plain_run(words)
    if plain is not None:
        from codeforge.cli.run import run

        return run(*plain)
    from codeforge.cli.app import app

    app(prog_name="codeforge")  # exits
    return 0


def plain_run(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Return the program and its arguments if the words are ``run FILE|- [-- ARGS]`` without options.

    Importing the option parser takes longer than starting a sandbox, and this form needs none.
    """
    match words:
        case ["run", program]:
            arguments: list[str] = []
        case ["run", program, "--", *arguments]:
            pass
        case _:
            return None
    return None if program.startswith("-") and program != "-" else (program, arguments)
