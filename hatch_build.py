"""Compiles the guest's programs into the package, so that an installed copy needs no compiler.

If there is no compiler, the package is built without them, with a warning: images do not need them, and
bubblewrap's environments compile them when they are made.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileGuest(BuildHookInterface[Any]):
    """Hatchling calls it for each wheel, including editable ones."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the programs to the wheel, which is then for this machine's architecture."""
        package = Path(self.root) / "src/codeforge"
        # By path, because the package's dependencies may not be installed yet.
        binaries = SimpleNamespace(**runpy.run_path(str(package / "environments/guest_binaries.py")))
        try:
            binaries.prebuild(package / "guest")
        except binaries.CannotCompile as error:
            self.app.display_warning(f"The package is built without the guest's programs: {error}")
            return
        build_data["artifacts"].append(f"src/codeforge/guest/{binaries.FOLDER}/*")
        build_data["pure_python"] = False
        # They are statically linked, so they run with any C library.
        build_data["tag"] = f"py3-none-linux_{os.uname().machine}"
