"""The executor and its sessions for code that does not use asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.blocking.executor import (
        BlockingCodeExecutor as BlockingCodeExecutor,
        DockerCodeExecutor as DockerCodeExecutor,
    )
    from codeforge.blocking.session import BlockingSession as BlockingSession
else:
    __getattr__ = lazy_exports(
        __name__,
        executor="BlockingCodeExecutor DockerCodeExecutor",
        session="BlockingSession",
    )
