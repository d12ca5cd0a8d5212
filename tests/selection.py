"""Which tests run."""

from __future__ import annotations

import os

TEST_ALL = os.environ.get("CODEFORGE_TEST_ALL") == "1"
"""Whether every test runs on every engine, with every build and a warm stock: ``make test-all``."""
