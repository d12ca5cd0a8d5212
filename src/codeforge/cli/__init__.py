"""The command line: argv to executor to exit code. Nothing here decides anything about a run."""

from __future__ import annotations

import sys

from codeforge._version import __version__

EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of ``codeforge``."""
    if sys.argv[1:] == ["--version"]:  # at once: the rest of the command line takes its time to import
        print(f"codeforge {__version__}")
        return
    from codeforge.cli.app import app
    from codeforge.cli.terminal import complain
    from codeforge.errors import CodeForgeError

    try:
        app()
    except CodeForgeError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
