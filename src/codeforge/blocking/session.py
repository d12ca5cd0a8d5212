"""Sessions for code that does not use asyncio: a thin layer over ``Session``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from codeforge.blocking.loop_thread import LoopThread
from codeforge.errors import ExecutorClosed
from codeforge.model import (
    CellOutput,
    CellResult,
    Completions,
    MimeBundle,
    OnDisplay,
    OnText,
    call_listener,
    wait_for_result,
)
from codeforge.sessions import (
    DOWNLOAD_BYTES,
    DOWNLOAD_FILES,
    READ_BYTES,
    Download,
    FileEntry,
    Session,
    SessionFiles,
)


class BlockingSession:
    """A live interpreter, with the methods of ``Session``. Safe to share between threads.

    Example::

        with executor.session() as session:
            session.run("x = 20")
            print(session.run("x + 1").value)
    """

    def __init__(self, session: Session, loop: LoopThread) -> None:
        self._session = session
        self._loop = loop
        self.files = BlockingSessionFiles(session.files, loop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ExecutorClosed):
            self.close()

    @property
    def closed(self) -> bool:
        """See ``Session.closed``."""
        return self._session.closed

    @property
    def alive(self) -> bool:
        """See ``Session.alive``."""
        return self._session.alive

    @property
    def container_id(self) -> str:
        """See ``Session.container_id``."""
        return self._session.container_id

    @property
    def posture(self) -> Mapping[str, str]:
        """See ``Session.posture``."""
        return self._session.posture

    def start(self) -> None:
        """See ``Session.start``."""
        self._loop.wait_for(self._session.start())

    def run(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        on_display: OnDisplay | None = None,
    ) -> CellResult:
        """See ``Session.run``. The callbacks run in the calling thread; Ctrl-C interrupts the cell."""
        return wait_for_result(
            self.stream(code, timeout=timeout),
            lambda event: call_listener(event, on_stdout, on_stderr, on_display),
        )

    def stream(
        self, code: str, *, timeout: float | None = None
    ) -> Generator[CellOutput | MimeBundle | CellResult, None, None]:
        """See ``Session.stream``."""
        return self._loop.iterate(self._session.stream(code, timeout=timeout))

    def interrupt(self) -> None:
        """See ``Session.interrupt``. Call it from another thread than the one that runs the cell."""
        self._loop.wait_for(self._session.interrupt())

    def restart(self) -> None:
        """See ``Session.restart``."""
        self._loop.wait_for(self._session.restart())

    def fork(self, n: int = 1) -> list[BlockingSession]:
        """See ``Session.fork``."""
        copies = self._loop.wait_for(self._session.fork(n))
        return [BlockingSession(copy, self._loop) for copy in copies]

    def complete(self, code: str, at: int | None = None) -> Completions:
        """See ``Session.complete``."""
        return self._loop.wait_for(self._session.complete(code, at))

    def is_complete(self, code: str) -> bool:
        """See ``Session.is_complete``."""
        return self._loop.wait_for(self._session.is_complete(code))

    def close(self) -> None:
        """See ``Session.close``."""
        self._loop.wait_for(self._session.close())


class BlockingSessionFiles:
    """The files of a session, with the methods of ``SessionFiles``."""

    def __init__(self, files: SessionFiles, loop: LoopThread) -> None:
        self._files = files
        self._loop = loop

    def write(self, path: str, content: str | bytes | Path) -> int:
        """See ``SessionFiles.write``."""
        return self._loop.wait_for(self._files.write(path, content))

    def read(self, path: str, *, max_bytes: int = READ_BYTES) -> bytes:
        """See ``SessionFiles.read``."""
        return self._loop.wait_for(self._files.read(path, max_bytes=max_bytes))

    def stream(self, path: str) -> Generator[bytes, None, None]:
        """See ``SessionFiles.stream``."""
        return self._loop.iterate(self._files.stream(path))

    def list(self, path: str = "", *, recursive: bool = False) -> list[FileEntry]:
        """See ``SessionFiles.list``."""
        return self._loop.wait_for(self._files.list(path, recursive=recursive))

    def exists(self, path: str) -> bool:
        """See ``SessionFiles.exists``."""
        return self._loop.wait_for(self._files.exists(path))

    def remove(self, path: str) -> None:
        """See ``SessionFiles.remove``."""
        self._loop.wait_for(self._files.remove(path))

    def download(
        self,
        directory: str | os.PathLike[str],
        path: str = "",
        *,
        max_bytes: int = DOWNLOAD_BYTES,
        max_files: int = DOWNLOAD_FILES,
    ) -> Download:
        """See ``SessionFiles.download``."""
        downloading = self._files.download(directory, path, max_bytes=max_bytes, max_files=max_files)
        return self._loop.wait_for(downloading)
