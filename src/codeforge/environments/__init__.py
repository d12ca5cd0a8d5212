"""Environments: interpreters and packages for engines that have no images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.environments.maker import EnvironmentMaker as EnvironmentMaker
    from codeforge.environments.store import (
        Environment as Environment,
        EnvironmentFailed as EnvironmentFailed,
        EnvironmentStore as EnvironmentStore,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        maker="EnvironmentMaker",
        store="Environment EnvironmentFailed EnvironmentStore",
    )
