"""The bytes between the host and init; see docs/protocol.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codeforge.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from codeforge.protocol.frames import (
        MAX_FILES_OUT as MAX_FILES_OUT,
        MAX_PATH_OUT as MAX_PATH_OUT,
        PAYLOAD_MAX as PAYLOAD_MAX,
        PROTOCOL as PROTOCOL,
        STDIN_WINDOW as STDIN_WINDOW,
        TOKEN_BYTES as TOKEN_BYTES,
        Acknowledged as Acknowledged,
        Clean as Clean,
        Decoder as Decoder,
        Done as Done,
        Dropped as Dropped,
        Event as Event,
        Exited as Exited,
        Failed as Failed,
        FileOut as FileOut,
        Preloaded as Preloaded,
        Ready as Ready,
        SessionFrame as SessionFrame,
        Skipped as Skipped,
        SkipReason as SkipReason,
        Wrote as Wrote,
        command as command,
        file as file,
        go as go,
        kill as kill,
        limits as limits,
        preload as preload,
        stdin as stdin,
        worker as worker,
    )
    from codeforge.protocol.session_frames import (
        Answer as Answer,
        Ended as Ended,
        EntryKind as EntryKind,
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
