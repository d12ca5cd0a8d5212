"""A request as a line of JSON: the fields of ``ExecutionRequest``, and an id of the caller's own."""

from __future__ import annotations

import base64
import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from codeforge.cli.batch_journal import MAX_LINE_BYTES, Line, Scalar
from codeforge.errors import InvalidRequest, quoted
from codeforge.model import ExecutionRequest, format_memory

MAX_ID_CHARACTERS = 1000
"""It names a line, and is written again with every result."""

BASE64 = "_base64"
"""What follows a field's name where its bytes need not be text, as in a result."""

_FIELDS = tuple(field.name for field in dataclasses.fields(ExecutionRequest))
KNOWN = ("id", *_FIELDS, f"stdin{BASE64}", f"files{BASE64}")


def read_object(line: Line) -> dict[str, Any]:
    """The JSON object that a line is.

    Raises:
        InvalidRequest: it is none, or too long.
    """
    if line.data is None:
        raise InvalidRequest(f"at most {format_memory(MAX_LINE_BYTES)} fit on a line, not {line.size} bytes")
    try:
        text = line.data.decode("utf-8-sig" if line.number == 1 else "utf-8")
        value = json.loads(text, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"not UTF-8: {error}") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"not JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:
        raise InvalidRequest(f"not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("not a request: nested too deeply") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"a line must be a JSON object, not {quoted(value)}")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no value of JSON")


def read_id(fields: Mapping[str, Any]) -> Scalar:
    """The caller's name for the line; ``None`` if there is none.

    Raises:
        InvalidRequest: it is not a scalar that JSON can write, or too long.
    """
    value = fields.get("id")
    if not isinstance(value, str | int | float | bool | None):
        raise InvalidRequest(f"id must be a string, a number, a boolean or null, not {quoted(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest("id is a number beyond what JSON can write")
    if isinstance(value, str) and len(value) > MAX_ID_CHARACTERS:
        raise InvalidRequest(f"id may have {MAX_ID_CHARACTERS} characters, not {len(value)}")
    return value


def read_request(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> ExecutionRequest:
    """The request that the fields of a line describe; ``null`` says nothing.

    What it says is not checked: ``CodeExecutor.validate`` does that.

    Raises:
        InvalidRequest: a field is unknown, cannot be decoded, or ``code`` is missing.
    """
    for name in fields:
        if name not in KNOWN:
            near = difflib.get_close_matches(name[:100], KNOWN, n=1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise InvalidRequest(f"unknown field {quoted(name)}; known: {', '.join(KNOWN)}{hint}")
    said = {name: value for name, value in fields.items() if name != "id" and value is not None}
    if "code" not in said:
        raise InvalidRequest("code is missing: the source of the program")
    return ExecutionRequest(**_decode({**defaults, **said}))


def _decode(fields: dict[str, Any]) -> dict[str, Any]:
    stdin = fields.pop(f"stdin{BASE64}", None)
    if stdin is not None:
        if "stdin" in fields:
            raise InvalidRequest(f"stdin and stdin{BASE64}: give one of them")
        fields["stdin"] = _bytes(f"stdin{BASE64}", stdin)
    files = fields.pop(f"files{BASE64}", None)
    if files is not None:
        fields["files"] = _merge(fields.get("files", {}), files)
    return fields


def _merge(text: Any, encoded: Any) -> dict[str, Any]:
    for name, value in (("files", text), (f"files{BASE64}", encoded)):
        if not isinstance(value, dict):
            raise InvalidRequest(f"{name} must be an object of paths, not {quoted(value)}")
    for path in text.keys() & encoded.keys():
        raise InvalidRequest(f"files and files{BASE64} both have {quoted(path)}")
    return {
        **text,
        **{path: _bytes(f"files{BASE64}[{quoted(path)}]", data) for path, data in encoded.items()},
    }


def _bytes(name: str, text: object) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidRequest(f"{name} is not base64: {error}") from None
    raise InvalidRequest(f"{name} must be a string of base64, not {quoted(text)}")
