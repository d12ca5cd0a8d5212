"""Checks: what the audit asks, and what came of it. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

EXIT_ALL_HOLD, EXIT_FAILS, EXIT_NOT_TESTED = 0, 1, 2


class Verdict(enum.StrEnum):
    """What a check found."""

    HOLDS = "HOLDS"
    FAILS = "FAILS"
    NOT_AVAILABLE = "NOT-AVAILABLE"
    """It cannot be here: the kernel has no such thing, or this user may not look."""
    UNKNOWN = "UNKNOWN"
    """It could be, and the audit could not tell."""


class Severity(enum.StrEnum):
    """How much a failure matters."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"


class Layer(enum.StrEnum):
    """Where the audit stands when it looks."""

    HOST = "host"
    DAEMON = "daemon"
    OUTSIDE = "outside"
    INSIDE = "inside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question, and its answer on this machine.

    Attributes:
        id: the layer, a dot, and a name; programs may rely on it.
        layer: where it was looked at from.
        verdict: the answer.
        expected: what a machine in order shows.
        got: what this one shows.
        severity: how much a failure matters.
        fix: what to type or set.
        reference: the CIS Docker Benchmark's, NIST SP 800-190's or the catalogue's name for it.
    """

    id: str
    layer: Layer
    verdict: Verdict
    expected: str
    got: str
    severity: Severity
    fix: str
    reference: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A question. ``id`` starts with the layer."""

    id: str
    expected: str
    reference: str
    severity: Severity = Severity.HIGH
    fix: str = "a defect of this package, or an engine that left a restriction out: report it"

    def says(self, verdict: Verdict, got: str) -> Check:
        """The question with that answer."""
        return Check(
            id=self.id,
            layer=Layer(self.id.partition(".")[0]),
            verdict=verdict,
            expected=self.expected,
            got=got,
            severity=self.severity,
            fix="" if verdict is Verdict.HOLDS else self.fix,
            reference=self.reference,
        )

    def holds_if(self, condition: bool, got: object) -> Check:
        """The answer yes or no."""
        return self.says(Verdict.HOLDS if condition else Verdict.FAILS, str(got))

    def unknown(self, why: str) -> Check:
        """The audit could not tell."""
        return self.says(Verdict.UNKNOWN, why)

    def not_available(self, why: str) -> Check:
        """There is nothing to tell."""
        return self.says(Verdict.NOT_AVAILABLE, why)


def matters(check: Check, *, strict: bool) -> bool:
    """Whether this failure is one of the audit as a whole.

    The host and the engine's settings are their owner's: without ``strict``, only what is of high
    severity there counts. What a sandbox itself shows counts always.
    """
    own = check.layer in (Layer.OUTSIDE, Layer.INSIDE)
    return strict or own or check.severity is Severity.HIGH


def exit_code(checks: Iterable[Check], *, strict: bool) -> int:
    """What the command exits with.

    In ``strict``, what could not be told counts as failed; else, in a sandbox, as not tested.
    """
    code = EXIT_ALL_HOLD
    for check in checks:
        unknown = check.verdict is Verdict.UNKNOWN
        if check.verdict is Verdict.FAILS or (unknown and strict):
            if matters(check, strict=strict):
                return EXIT_FAILS
        elif unknown and check.layer in (Layer.OUTSIDE, Layer.INSIDE):
            code = EXIT_NOT_TESTED
    return code


def counts(checks: Iterable[Check]) -> dict[str, int]:
    """How many of each verdict, in a fixed order."""
    found = Counter(check.verdict for check in checks)
    return {verdict.value: found[verdict] for verdict in Verdict}
