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
    from codeforge.sandboxes.output_buffer import (
        OutputBuffer as OutputBuffer,
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
    from codeforge.sandboxes.verdict import (
        OOM_EVENT_WAIT_S as OOM_EVENT_WAIT_S,
    )
    from codeforge.sandboxes.verdict import (
        decide_cell as decide_cell,
    )
    from codeforge.sandboxes.verdict import (
        explain_cell as explain_cell,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        kind="SandboxKind named_steps",
        output_buffer="OutputBuffer",
        pool="MAX_SANDBOXES MAX_WAITING MAX_WARM Pool WARM_MEMORY_BYTES",
        sandbox="Sandbox",
        verdict="OOM_EVENT_WAIT_S decide_cell explain_cell",
    )
