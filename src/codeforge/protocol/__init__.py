"""The bytes between the host and init; see docs/protocol.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.protocol.frames import (
        MAX_FILES_OUT as MAX_FILES_OUT,
    )
    from codeforge.protocol.frames import (
        MAX_PATH_OUT as MAX_PATH_OUT,
    )
    from codeforge.protocol.frames import (
        PAYLOAD_MAX as PAYLOAD_MAX,
    )
    from codeforge.protocol.frames import (
        PROTOCOL as PROTOCOL,
    )
    from codeforge.protocol.frames import (
        STDIN_WINDOW as STDIN_WINDOW,
    )
    from codeforge.protocol.frames import (
        TOKEN_BYTES as TOKEN_BYTES,
    )
    from codeforge.protocol.frames import (
        Acknowledged as Acknowledged,
    )
    from codeforge.protocol.frames import (
        Clean as Clean,
    )
    from codeforge.protocol.frames import (
        Decoder as Decoder,
    )
    from codeforge.protocol.frames import (
        Done as Done,
    )
    from codeforge.protocol.frames import (
        Dropped as Dropped,
    )
    from codeforge.protocol.frames import (
        Event as Event,
    )
    from codeforge.protocol.frames import (
        Exited as Exited,
    )
    from codeforge.protocol.frames import (
        Failed as Failed,
    )
    from codeforge.protocol.frames import (
        FileOut as FileOut,
    )
    from codeforge.protocol.frames import (
        Preloaded as Preloaded,
    )
    from codeforge.protocol.frames import (
        Ready as Ready,
    )
    from codeforge.protocol.frames import (
        SessionFrame as SessionFrame,
    )
    from codeforge.protocol.frames import (
        Skipped as Skipped,
    )
    from codeforge.protocol.frames import (
        SkipReason as SkipReason,
    )
    from codeforge.protocol.frames import (
        Wrote as Wrote,
    )
    from codeforge.protocol.frames import (
        command as command,
    )
    from codeforge.protocol.frames import (
        file as file,
    )
    from codeforge.protocol.frames import (
        go as go,
    )
    from codeforge.protocol.frames import (
        kill as kill,
    )
    from codeforge.protocol.frames import (
        limits as limits,
    )
    from codeforge.protocol.frames import (
        preload as preload,
    )
    from codeforge.protocol.frames import (
        stdin as stdin,
    )
    from codeforge.protocol.frames import (
        worker as worker,
    )
    from codeforge.protocol.session_frames import (
        Answer as Answer,
    )
    from codeforge.protocol.session_frames import (
        Ended as Ended,
    )
    from codeforge.protocol.session_frames import (
        EntryKind as EntryKind,
    )
    from codeforge.protocol.session_frames import (
        RawEntry as RawEntry,
    )
else:
    __getattr__ = lazy_exports(
        __name__,
        frames=(
            "Acknowledged Clean Decoder Done Dropped Event Exited Failed FileOut MAX_FILES_OUT "
            "MAX_PATH_OUT PAYLOAD_MAX PROTOCOL Preloaded Ready STDIN_WINDOW SessionFrame SkipReason "
            "Skipped TOKEN_BYTES Wrote command file go kill limits preload stdin worker"
        ),
        session_frames="Answer Ended EntryKind RawEntry",
    )
