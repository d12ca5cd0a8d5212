"""Runs the audit's programs as any caller would, and judges what they report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import PurePosixPath
from typing import TypedDict

from codeforge.audit.executor import AuditExecutor
from codeforge.audit.model import Check
from codeforge.audit.probes import LANGUAGE_OF, PAYLOADS, PROBES, Probe
from codeforge.errors import CodeForgeError
from codeforge.model import ExecutionResult

PAYLOAD_TIMEOUT_S = 60.0
PAYLOAD_CPU_US = 100_000
"""A whole core: some programs walk the file system."""

HELPER = "observe.py"
HELPER_AT = "codeforge/audit/payloads/observe.py"
"""The path from which the programs import the helper, in the sandbox as on the host."""


class Program(TypedDict):
    """The fields of a request that runs one of the audit's programs."""

    code: str
    language: str
    args: tuple[str, ...]
    files: dict[str, str | bytes]


def program(payload: str, *arguments: str) -> Program:
    """Return a request that runs this program, with the files that it needs."""
    language = language_of(payload)
    return Program(code=source(payload), language=language, args=arguments, files=files_beside(payload))


def source(name: str) -> str:
    """Return the source of a program, or of the helper."""
    return resources.files("codeforge.audit").joinpath("payloads", name).read_text(encoding="utf-8")


def files_beside(payload: str) -> dict[str, str | bytes]:
    """Return the files that the program needs, path to content."""
    return {HELPER_AT: source(HELPER)} if payload.endswith(".py") else {}


def language_of(payload: str) -> str:
    """Return the name of the language that a program is written in."""
    return LANGUAGE_OF[PurePosixPath(payload).suffix]


async def observe(executor: AuditExecutor, payload: str) -> Mapping[str, str] | str:
    """Run a program. Return what it observed, or why it reported nothing."""
    try:
        result = await executor.execute(
            **program(payload), timeout=PAYLOAD_TIMEOUT_S, cpu_quota=PAYLOAD_CPU_US
        )
    except CodeForgeError as error:
        return str(error)
    return parse(result)


def parse(result: ExecutionResult) -> Mapping[str, str] | str:
    """Return what a program reported, or how it ended if it reported nothing."""
    return parse_text(result.stdout) or f"{result.status.value}: {(result.error or result.stdout)[-400:]}"


def parse_text(text: str) -> Mapping[str, str] | None:
    """Return the JSON object of strings in the last line; ``None`` if there is none."""
    try:
        reported = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return None
    well_formed = isinstance(reported, dict) and all(isinstance(value, str) for value in reported.values())
    return reported if well_formed and reported else None


def judge(probe: Probe, observed: Mapping[str, str] | str) -> Check:
    """Check that the probe accepts each of the program's answers."""
    if isinstance(observed, str):
        return probe.rule.unknown(f"the program did not report: {observed}")
    missing = [name for name in probe.answers if name not in observed]
    if missing:
        return probe.rule.unknown(f"no answer about {', '.join(missing)}")
    wrong = {
        name: observed[name] for name, accepted in probe.answers.items() if observed[name] not in accepted
    }
    if wrong:
        return probe.rule.holds_if(False, "; ".join(f"{name}: {answer}" for name, answer in wrong.items()))
    return probe.rule.holds_if(True, ", ".join(dict.fromkeys(observed[name] for name in probe.answers)))


def judge_all(payload: str, observed: Mapping[str, str] | str) -> Iterator[Check]:
    """Yield the checks of every probe that one program answers."""
    return (judge(probe, observed) for probe in PROBES if probe.payload == payload)


def payloads(languages: Iterable[str]) -> list[str]:
    """Return the programs that are written in these languages."""
    present = set(languages)
    return [payload for payload in PAYLOADS if language_of(payload) in present]


def not_sent(languages: Iterable[str]) -> Iterator[Check]:
    """Yield a check for each probe in another language: there is no image to run it in."""
    present = set(languages)
    for probe in PROBES:
        language = language_of(probe.payload)
        if language not in present:
            yield probe.rule.not_available(f"no image: codeforge images build {language}")
