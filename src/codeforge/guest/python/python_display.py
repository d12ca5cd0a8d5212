"""Describes values as data by MIME type, as Jupyter does.

Text types are strings, images are base64 in one line, application/json is the value itself.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Bundle = tuple[dict[str, Any], dict[str, Any]]
    """Data, and metadata, by MIME type."""

GUEST_DIR = os.path.join(os.path.dirname(__file__), "")  # noqa: PTH118, PTH120 - pathlib is the program's
METHODS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
}
NO_REPR = "<{}: its repr failed>"
CANARY = "_ipython_canary_method_should_not_exist_"
"""IPython's name for it. An object that has this attribute has every attribute, so none of them counts."""

JSON_ITEMS, JSON_CHARACTERS = 10_000, 65_536
"""Plain data up to these sizes is also sent as application/json."""

_encode_strictly = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def describe(value: object) -> Bundle:
    """What a value's own methods return, and always text/plain."""
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    if not isinstance(value, type) and not _has(value, CANARY):
        made = _ask(value, "_repr_mimebundle_", include=None, exclude=None)
        if made is not None:
            bundle, more = made if isinstance(made, tuple) else (made, {})
            data.update(bundle)
            metadata.update(more)
        for method, mime in METHODS.items():
            if mime not in data and (made := _ask(value, method)) is not None:
                data[mime], more = made if isinstance(made, tuple) else (made, None)
                if more:
                    metadata[mime] = more
    return with_text(value, data), metadata


def with_text(value: object, data: dict[str, Any]) -> dict[str, Any]:
    """The data, text/plain first."""
    return {"text/plain": text_of(value)} | data


def with_json(value: object, bundle: Bundle) -> Bundle:
    """The bundle, with application/json if the value is plain data."""
    data, metadata = bundle
    return ({"application/json": value} | data if _is_plain(value) else data), metadata


def sendable(bundle: Bundle) -> Bundle:
    """The part of a bundle that a message can carry; bytes become base64 in one line."""
    return _sendable(bundle[0]), _sendable(bundle[1], as_json=True)


def text_of(value: object) -> str:
    """The value's repr, or a text that says that it failed."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - the program's code may raise anything
        show_error()
        return NO_REPR.format(type(value).__name__)


def show_error() -> None:
    """Write the current exception to stderr, without the frames of this program."""
    try:
        kind, error, trace = sys.exc_info()
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(GUEST_DIR):
            trace = trace.tb_next
        sys.stderr.write("".join(traceback.format_exception(kind, error, trace)))
    except Exception:  # noqa: BLE001, S110 - sys.stderr is the program's
        pass


def _has(value: object, name: str) -> bool:
    try:
        return getattr(value, name, None) is not None
    except Exception:  # noqa: BLE001 - the program's code may raise anything
        return False


def _ask(value: object, method: str, **arguments: Any) -> Any:
    try:
        function = getattr(value, method, None)
        return function(**arguments) if callable(function) else None
    except NotImplementedError:
        return None
    except Exception:  # noqa: BLE001 - the program's code may raise anything
        show_error()
        return None


def _is_plain(value: object) -> bool:
    """Whether the value is small, and JSON gives the same value back."""
    left = [JSON_ITEMS, JSON_CHARACTERS]

    def look(items: Iterable[object]) -> bool:
        for item in items:
            left[0] -= 1
            if type(item) is str:
                left[1] -= len(item)
            if min(left) < 0:
                return False
            if type(item) is dict:
                if not all(type(key) is str for key in item) or not look([*item, *item.values()]):
                    return False
            elif type(item) is list:
                if not look(item):
                    return False
            elif type(item) not in (str, int, float, bool, type(None)):
                return False
        return True

    try:
        return value is not None and look([value]) and len(_encode_strictly(value)) <= JSON_CHARACTERS
    # Cycles, NaN, numbers with too many digits; another thread changed it meanwhile.
    except (ValueError, RecursionError, RuntimeError):
        return False


def _sendable(data: dict[str, Any], *, as_json: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mime, item in data.items():
        if isinstance(item, bytes | bytearray | memoryview):
            found[str(mime)] = base64.b64encode(item).decode()
        elif isinstance(item, str) and not as_json:
            found[str(mime)] = str.__str__(item)
        elif item is not None:
            try:
                found[str(mime)] = json.loads(_encode_strictly(item))
            except (TypeError, ValueError, RecursionError):
                if not as_json:
                    found.setdefault("text/plain", text_of(item))
    return found
