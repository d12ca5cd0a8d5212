"""A line of a batch's input: a JSON object with the fields of ``ExecutionRequest`` and an id."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from codeforge.cli.batch_journal import MAX_LINE_BYTES, Line, Scalar
from codeforge.errors import InvalidRequest, quoted
from codeforge.model import REQUEST_FIELDS, ExecutionRequest, check_fields, format_memory

MAX_ID_CHARACTERS = 1000
"""The id is repeated in the record of every line."""

BASE64 = "_base64"
"""Suffix of fields that hold base64, for content that is not text. Results use the same suffix."""

KNOWN = ("id", *REQUEST_FIELDS, f"stdin{BASE64}", f"files{BASE64}")


def read_object(line: Line) -> dict[str, object]:
    """Parse a line.

    Raises:
        InvalidRequest: the line is not a JSON object, or too long.
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
    raise ValueError(f"{constant} is not a value in JSON")


def read_id(fields: Mapping[str, object]) -> Scalar:
    """Return the line's id; ``None`` if it has none.

    Raises:
        InvalidRequest: the id is too long, or not a scalar that JSON can represent.
    """
    value = fields.get("id")
    if not isinstance(value, str | int | float | bool | None):
        raise InvalidRequest(f"id must be a string, a number, a boolean or null, not {quoted(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest("id is a number that JSON cannot represent")
    if isinstance(value, str) and len(value) > MAX_ID_CHARACTERS:
        raise InvalidRequest(f"id may have {MAX_ID_CHARACTERS} characters, not {len(value)}")
    return value


def read_request(fields: Mapping[str, object], defaults: Mapping[str, Any]) -> ExecutionRequest:
    """Return the request of a line; a field that is ``null`` counts as missing.

    ``CodeExecutor.validate`` checks the values of the fields.

    Raises:
        InvalidRequest: a field is unknown, cannot be decoded, or ``code`` is missing.
    """
    check_fields(fields, KNOWN)
    given = {name: value for name, value in fields.items() if name != "id" and value is not None}
    if "code" not in given:
        raise InvalidRequest("code is missing: the program's source")
    return ExecutionRequest(**_decode({**defaults, **given}))


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


def _merge(text: object, encoded: object) -> dict[str, object]:
    text, encoded = _object("files", text), _object(f"files{BASE64}", encoded)
    for path in text.keys() & encoded.keys():
        raise InvalidRequest(f"files and files{BASE64} both have {quoted(path)}")
    return {
        **text,
        **{path: _bytes(f"files{BASE64}[{quoted(path)}]", data) for path, data in encoded.items()},
    }


def _object(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object of paths, not {quoted(value)}")
    return value


def _bytes(name: str, text: object) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidRequest(f"{name} is not base64: {error}") from None
    raise InvalidRequest(f"{name} must be a string of base64, not {quoted(text)}")
