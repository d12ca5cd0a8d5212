"""Cells: what a session returns. The host decides the verdicts in it."""

from __future__ import annotations

import base64
import binascii
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from codeforge.model.result import KillReason, StreamName
from codeforge.protocol import Ended

MAX_DEPTH = 64
"""How deep JSON in a bundle may be nested: callers may process it recursively."""

VALUE_BYTES = 64
"""About how much memory a value takes on the host besides its text; an empty list takes 56 bytes."""


class CellStatus(enum.StrEnum):
    """How a cell ended."""

    OK = "ok"
    """It ran to its end."""
    ERROR = "error"
    """It raised ``CellResult.error``. The session goes on."""
    INTERRUPTED = "interrupted"
    """``interrupt`` stopped it. The session goes on."""
    TIMEOUT = "timeout"
    """The host's clock ran out. The session goes on if the cell ended when it was interrupted."""
    OUTPUT_LIMIT = "output_limit"
    """It flooded stdout or stderr. The session goes on if the cell ended when it was interrupted."""
    OUT_OF_MEMORY = "out_of_memory"
    """The kernel killed the session's interpreter for lack of memory. The files stay."""
    ENDED = "ended"
    """The session's interpreter ended, by itself or by a signal. The files stay."""


@dataclass(frozen=True, slots=True)
class CellError:
    """What a cell raised, as its interpreter reports it; or what ended it, as the host saw it.

    Attributes:
        name: the name of the exception's class, such as ``ValueError``.
        value: the exception's text.
        traceback: lines; only frames of cells are in it.
    """

    name: str
    value: str
    traceback: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self.traceback) or f"{self.name}: {self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEvidence:
    """What is known about the end of a cell.

    Attributes:
        oom: whether the kernel killed the interpreter because of the memory limit.
        stopped: why the host stopped the cell, if it did.
        interrupted: whether the caller interrupted the cell.
        ended: how the interpreter ended, if it did.
        lost: whether the whole sandbox ended.
        raised: what the cell raised, in its interpreter's words.
    """

    oom: bool = False
    stopped: KillReason | None = None
    interrupted: bool = False
    ended: Ended | None = None
    lost: bool = False
    raised: CellError | None = None

    @property
    def alive(self) -> bool:
        """Whether the interpreter still runs."""
        return self.ended is None and not self.lost


@dataclass(frozen=True, slots=True)
class MimeBundle:
    """One thing to display, in as many forms as it has.

    Attributes:
        data: content by MIME type, as in Jupyter: text, base64 of binary content, or a JSON value.
        metadata: metadata by MIME type.
    """

    data: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def text(self) -> str | None:
        """As plain text."""
        return self._text("text/plain")

    @property
    def html(self) -> str | None:
        """As HTML. The program wrote it: treat it as untrusted."""
        return self._text("text/html")

    @property
    def svg(self) -> str | None:
        """As SVG. The program wrote it, and it may contain scripts."""
        return self._text("image/svg+xml")

    @property
    def png(self) -> bytes | None:
        """As a PNG picture; the content is not checked."""
        return self._binary("image/png")

    @property
    def jpeg(self) -> bytes | None:
        """As a JPEG picture; the content is not checked."""
        return self._binary("image/jpeg")

    @property
    def json(self) -> Any:
        """As a JSON value."""
        return self.data.get("application/json")

    def _text(self, kind: str) -> str | None:
        found = self.data.get(kind)
        return found if isinstance(found, str) else None

    def _binary(self, kind: str) -> bytes | None:
        found = self._text(kind)
        try:
            return None if found is None else base64.b64decode(found)
        except (binascii.Error, ValueError):
            return None

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Display it in a notebook on the host."""
        return dict(self.data), dict(self.metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """What a cell did, and how it ended.

    Attributes:
        status: how it ended, decided by the host.
        stdout, stderr: what was written since the end of the previous cell, up to the limit.
        truncated: whether more was written or displayed than was kept.
        value: the last expression's value as plain text, or ``None``.
        results: what it displayed, in order; the last expression's value comes last.
        error: why the status is not ``ok``; ``None`` if it is.
        execution_time: wall-clock seconds, as the host measured them.
        alive: whether the session still has its variables.
    """

    status: CellStatus
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    value: str | None = None
    results: tuple[MimeBundle, ...] = ()
    error: CellError | None = None
    execution_time: float = 0.0
    alive: bool = True

    @property
    def success(self) -> bool:
        """Whether it ran to its end."""
        return self.status is CellStatus.OK

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that ``json.dumps`` takes."""
        return {
            "success": self.success,
            "status": self.status.value,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "truncated": self.truncated,
            "value": self.value,
            "results": [{"data": dict(r.data), "metadata": dict(r.metadata)} for r in self.results],
            "error": None
            if self.error is None
            else {
                "name": self.error.name,
                "value": self.error.value,
                "traceback": list(self.error.traceback),
            },
            "execution_time": self.execution_time,
            "alive": self.alive,
        }


@dataclass(frozen=True, slots=True)
class CellOutput:
    """A piece of a cell's output, as it came."""

    stream: StreamName
    text: str


CellEvent: TypeAlias = CellOutput | MimeBundle
"""What a cell yields while it runs."""


@dataclass(frozen=True, slots=True)
class Completions:
    """Texts that could replace ``code[start:end]``."""

    start: int
    end: int
    matches: tuple[str, ...]


# --- Values from an interpreter's messages, which may be anything -----------------------------------------


def text_of(value: object) -> str:
    """Return a text or a number as text, and anything else as the empty text."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # replaces lone surrogates, which cannot be encoded
    return str(value) if isinstance(value, int | float) else ""


def bundle_of(value: object) -> MimeBundle | None:
    """Return a bundle with the text and JSON that is in it; ``None`` if it is not a bundle."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
        return None
    return MimeBundle(_contents_of(value["data"]), _contents_of(value.get("metadata")))


def _contents_of(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        return MappingProxyType({})
    return MappingProxyType({text_of(kind): _plain(content) for kind, content in value.items()})


def _plain(content: object) -> object:
    if isinstance(content, str):
        return text_of(content)
    if not _is_shallow(content, MAX_DEPTH):
        return None
    try:
        json.dumps(content, allow_nan=False)
    except ValueError:
        return None
    return content


def _is_shallow(content: object, levels: int) -> bool:
    if not isinstance(content, dict | list):
        return True
    inner = content.values() if isinstance(content, dict) else content
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in inner)


def bundle_bytes(bundle: MimeBundle) -> int:
    """Return about how much of this process's memory a bundle takes."""
    return _bytes_of(dict(bundle.data)) + _bytes_of(dict(bundle.metadata)) + VALUE_BYTES


def _bytes_of(content: object) -> int:
    match content:
        case str():
            return VALUE_BYTES + len(content)
        case dict():
            return VALUE_BYTES + sum(_bytes_of(key) + _bytes_of(value) for key, value in content.items())
        case list():
            return VALUE_BYTES + sum(map(_bytes_of, content))
    return VALUE_BYTES


def error_of(value: object) -> CellError | None:
    """Return an error; ``None`` if it is not one."""
    if not isinstance(value, dict):
        return None
    lines = value.get("traceback")
    return CellError(
        text_of(value.get("name")),
        text_of(value.get("value")),
        tuple(map(text_of, lines)) if isinstance(lines, list) else (),
    )
