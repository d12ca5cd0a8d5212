"""``python -m codeforge``."""

from codeforge.cli import main

main()
