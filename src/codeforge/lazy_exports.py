"""Imports what a package offers on first use.

So ``codeforge --version`` imports no HTTP client, and a run on bubblewrap does not import Docker's client.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable


def lazy_exports(package: str, **modules: str) -> Callable[[str], object]:
    """Return a package's ``__getattr__``: it imports a name's module when the name is first used.

    Args:
        package: the package's ``__name__``.
        modules: each module's name, and the names that it defines, separated by spaces.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next use finds it without this function
        return value

    return find
