"""Inside: the catalogue's programs, sent through the public interface, and what they came back with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import PurePosixPath

from codeforge.audit.executor import AuditExecutor
from codeforge.audit.model import Check
from codeforge.audit.probes import LANGUAGE_OF, PAYLOADS, PROBES, Probe
from codeforge.errors import CodeForgeError
from codeforge.model import ExecutionResult

PAYLOAD_TIMEOUT_S = 60.0
PAYLOAD_CPU_US = 100_000
"""A whole core: the programs walk the file system."""

HELPER = "observe.py"
HELPER_AT = "codeforge/audit/payloads/observe.py"
"""Where the programs import it from, in the sandbox as here."""


def source(name: str) -> str:
    """The text of a program, or of the helper."""
    return resources.files("codeforge.audit").joinpath("payloads", name).read_text(encoding="utf-8")


def beside(name: str) -> dict[str, str | bytes]:
    """What must lie beside that program."""
    return {HELPER_AT: source(HELPER)} if name.endswith(".py") else {}


def language_of(name: str) -> str:
    """Which language a program is in."""
    return LANGUAGE_OF[PurePosixPath(name).suffix]


async def observe(executor: AuditExecutor, payload: str) -> Mapping[str, str] | str:
    """What a program observed; or why there is nothing."""
    try:
        result = await executor.execute(
            source(payload),
            language_of(payload),
            timeout=PAYLOAD_TIMEOUT_S,
            files=beside(payload),
            cpu_quota=PAYLOAD_CPU_US,
        )
    except CodeForgeError as error:
        return str(error)
    return parse(result)


def parse(result: ExecutionResult) -> Mapping[str, str] | str:
    """What a program said, or how it ended without."""
    return parse_text(result.stdout) or f"{result.status.value}: {(result.error or result.stdout)[-400:]}"


def parse_text(text: str) -> Mapping[str, str] | None:
    """An object of strings in the last line."""
    try:
        said = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return None
    fine = isinstance(said, dict) and all(isinstance(value, str) for value in said.values())
    return said if fine and said else None


def judge(probe: Probe, observed: Mapping[str, str] | str) -> Check:
    """Whether each of the probe's answers is one of those that it may be."""
    if isinstance(observed, str):
        return probe.rule.unknown(f"the program did not get to answer: {observed}")
    missing = [name for name in probe.answers if name not in observed]
    if missing:
        return probe.rule.unknown(f"no answer about {', '.join(missing)}")
    odd = {name: observed[name] for name, fine in probe.answers.items() if observed[name] not in fine}
    if odd:
        return probe.rule.holds_if(False, "; ".join(f"{name}: {what}" for name, what in odd.items()))
    return probe.rule.holds_if(True, ", ".join(dict.fromkeys(observed[name] for name in probe.answers)))


def judge_all(payload: str, observed: Mapping[str, str] | str) -> Iterator[Check]:
    """All that one program was sent to find out."""
    return (judge(probe, observed) for probe in PROBES if probe.payload == payload)


def payloads(languages: Iterable[str]) -> list[str]:
    """Those for languages whose image is here."""
    there = set(languages)
    return [payload for payload in PAYLOADS if language_of(payload) in there]


def not_sent(languages: Iterable[str]) -> Iterator[Check]:
    """What cannot be asked because a language's image is not here."""
    there = set(languages)
    for probe in PROBES:
        if language_of(probe.payload) not in there:
            yield probe.rule.not_available(f"no image: codeforge images build {language_of(probe.payload)}")
