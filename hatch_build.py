"""Compiles the programs of the guest into the package, so that an installed copy needs no compiler.

Where there is none, the package is built without them, and says so: images do not need them, and the
environments of the bubblewrap engine compile them when they are made.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileGuest(BuildHookInterface[Any]):
    """Called by hatchling for a wheel, an editable one too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put what came of it into the wheel, which is for this kind of machine then."""
        package = Path(self.root) / "src/codeforge"
        # By its path: what the package itself needs may not be there yet.
        binaries = SimpleNamespace(**runpy.run_path(str(package / "environments/guest_binaries.py")))
        try:
            binaries.prebuild(package / "guest")
        except binaries.CannotCompile as error:
            self.app.display_warning(f"Without programs of the guest in the package: {error}")
            return
        build_data["artifacts"].append(f"src/codeforge/guest/{binaries.FOLDER}/*")
        build_data["pure_python"] = False
        # They are static: any C library will do.
        build_data["tag"] = f"py3-none-linux_{os.uname().machine}"
