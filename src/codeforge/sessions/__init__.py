"""Sessions: interpreters that keep their state from cell to cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.sessions.files import (
        DOWNLOAD_BYTES as DOWNLOAD_BYTES,
        DOWNLOAD_FILES as DOWNLOAD_FILES,
        READ_BYTES as READ_BYTES,
        Download as Download,
        FileEntry as FileEntry,
        SessionFiles as SessionFiles,
    )
    from codeforge.sessions.registry import (
        SessionGroup as SessionGroup,
        SessionRegistry as SessionRegistry,
    )
    from codeforge.sessions.session import Session as Session
else:
    __getattr__ = lazy_exports(
        __name__,
        files="DOWNLOAD_BYTES DOWNLOAD_FILES Download FileEntry READ_BYTES SessionFiles",
        registry="SessionGroup SessionRegistry",
        session="Session",
    )
