"""The modules of init include each other in one direction only."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

from init_harness import INIT_DIR

INCLUDE = re.compile(r'^#include "(\w+)\.h"$', re.MULTILINE)


def test_no_modules_of_init_include_each_other_in_a_circle() -> None:
    includes: dict[str, set[str]] = {}
    for path in INIT_DIR.glob("*.[ch]"):
        found = set(INCLUDE.findall(path.read_text(encoding="utf-8"))) - {path.stem}
        includes.setdefault(path.stem, set()).update(found)
    assert len(includes) > 15
    tuple(TopologicalSorter(includes).static_order())  # CycleError names the circle
