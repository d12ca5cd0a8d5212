"""Test runs: the run of a language's test runner, and the outcomes in its report.

The report is untrusted, because a test runner writes it in the same process as the code under test. It is
parsed as hostile input.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from codeforge.errors import InvalidRequest, quoted
from codeforge.model import (
    ExecutionRequest,
    ExecutionResult,
    Language,
    Limits,
    Run,
    TestOutcome,
    arguments,
    make_run,
    text_bytes,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_MESSAGE_CHARS = 4000
MAX_NAME_CHARS = 500
MAX_TESTS = 10_000

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)


def resolve_tests(
    request: ExecutionRequest, language: Language, defaults: Limits, *, test_code: str, module: str
) -> Run:
    """Return the run of the language's test runner on ``request.code`` and ``test_code``.

    Raises:
        InvalidRequest: the language has no test runner, or the request is not valid.
    """
    if language.tests is None:
        raise InvalidRequest(f"{language.name} has no test runner")
    if not isinstance(module, str) or not _MODULE.fullmatch(module):
        raise InvalidRequest(f"module must be a name such as 'main', not {quoted(module)}")
    program = {
        module + language.suffix: text_bytes("code", request.code),
        language.tests.test_file.format(module=module): text_bytes("test_code", test_code),
    }
    argv = (*language.tests.command, *arguments(request.args))
    run = make_run(request, language, defaults, argv=argv, program=program)
    # The waiting worker would run the program, not the test runner.
    return dataclasses.replace(run, fresh=True)


def with_outcomes(result: ExecutionResult, language: Language) -> ExecutionResult:
    """Move the report of the test runner from the result's ``files`` to its ``tests``."""
    if language.tests is None:
        return result
    files = dict(result.files)
    report = files.pop(language.tests.report, b"")
    outcomes = _PARSERS[language.tests.report_format](report)
    return dataclasses.replace(result, files=MappingProxyType(files), tests=tuple(outcomes)[:MAX_TESTS])


_Outcome = Literal["passed", "failed", "error", "skipped"]


def _junit(report: bytes) -> list[TestOutcome]:
    # Imported here because few runs have an XML report, and a command should start quickly.
    from xml.etree.ElementTree import ParseError

    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(report)
    except (ParseError, DefusedXmlException, ValueError, LookupError):  # LookupError: an unknown encoding
        return []
    return [_junit_case(case) for case in root.iter("testcase")]


def _junit_case(case: Element) -> TestOutcome:
    kinds: dict[str, _Outcome] = {"failure": "failed", "error": "error", "skipped": "skipped"}
    found = next(((kinds[child.tag], child) for child in case if child.tag in kinds), None)
    where, name = case.get("classname", ""), case.get("name", "")
    return TestOutcome(
        name=_name(f"{where}::{name}" if where else name),
        outcome=found[0] if found else "passed",
        duration=_seconds(case.get("time"), 1.0),
        message=_message(found[1].text or found[1].get("message") if found else ""),
    )


def _jest(report: bytes) -> list[TestOutcome]:
    try:
        document = json.loads(report)
    except (ValueError, RecursionError):
        return []
    return list(_jest_outcomes(document))


def _jest_outcomes(document: object) -> Iterator[TestOutcome]:
    kinds: dict[object, _Outcome] = {"passed": "passed", "failed": "failed"}
    for suite in _list(document, "testResults"):
        cases = _list(suite, "assertionResults")
        if not cases and _get(suite, "status") == "failed":  # the file did not load
            yield TestOutcome(_file_name(suite), "error", 0.0, _message(_get(suite, "message")))
        for case in cases:
            status = _get(case, "status")
            yield TestOutcome(
                name=_name(_get(case, "fullName")),
                outcome=kinds.get(status, "skipped") if isinstance(status, str) else "error",
                duration=_seconds(_get(case, "duration"), 1e-3),
                message=_message("\n".join(map(str, _list(case, "failureMessages")))),
            )


def _get(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _list(value: object, key: str) -> list[object]:
    found = _get(value, key)
    return found if isinstance(found, list) else []


def _file_name(suite: object) -> str:
    return _name(str(_get(suite, "name") or "").rpartition("/")[2])


def _name(text: object) -> str:
    return _clean(text)[:MAX_NAME_CHARS]


def _message(text: object) -> str:
    return _clean(text).strip()[:MAX_MESSAGE_CHARS]


def _clean(text: object) -> str:
    """Replace halves of surrogate pairs, which JSON can contain and UTF-8 cannot."""
    return str(text or "").encode("utf-8", "replace").decode()


def _seconds(value: object, unit: float) -> float:
    try:
        seconds = float(str(value)) * unit
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < 1e9 else 0.0


_PARSERS: Mapping[str, Callable[[bytes], list[TestOutcome]]] = MappingProxyType(
    {"junit": _junit, "jest": _jest}
)
