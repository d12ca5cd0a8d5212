"""Sandboxes: launch one, run a program in it, keep some warm, and decide how each run ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.sandboxes.kind import (
        SandboxKind as SandboxKind,
        named_steps as named_steps,
    )
    from codeforge.sandboxes.output_buffer import OutputBuffer as OutputBuffer
    from codeforge.sandboxes.pool import (
        MAX_SANDBOXES as MAX_SANDBOXES,
        MAX_WAITING as MAX_WAITING,
        MAX_WARM as MAX_WARM,
        WARM_MEMORY_BYTES as WARM_MEMORY_BYTES,
        Pool as Pool,
    )
    from codeforge.sandboxes.sandbox import Sandbox as Sandbox
    from codeforge.sandboxes.verdict import (
        OOM_EVENT_WAIT_S as OOM_EVENT_WAIT_S,
        decide_cell as decide_cell,
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
