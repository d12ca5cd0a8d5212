"""Sandboxes: launch one, run a program in it, keep some warm, and decide how each run ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.sandboxes.kind import (
        SandboxKind as SandboxKind,
    )
    from codeforge.sandboxes.kind import (
        named_steps as named_steps,
    )
    from codeforge.sandboxes.pool import (
        MAX_SANDBOXES as MAX_SANDBOXES,
    )
    from codeforge.sandboxes.pool import (
        MAX_WAITING as MAX_WAITING,
    )
    from codeforge.sandboxes.pool import (
        MAX_WARM as MAX_WARM,
    )
    from codeforge.sandboxes.pool import (
        WARM_MEMORY_BYTES as WARM_MEMORY_BYTES,
    )
    from codeforge.sandboxes.pool import (
        Pool as Pool,
    )
    from codeforge.sandboxes.sandbox import (
        Sandbox as Sandbox,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        kind="SandboxKind named_steps",
        pool="MAX_SANDBOXES MAX_WAITING MAX_WARM Pool WARM_MEMORY_BYTES",
        sandbox="Sandbox",
    )
