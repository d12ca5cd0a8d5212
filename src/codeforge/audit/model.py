"""Rules and checks: what the audit asks, and the answers on this machine. Pure values."""

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
    """There is nothing to check: the kernel has no such thing, or this user may not look."""
    UNKNOWN = "UNKNOWN"
    """There is something to check, and the audit could not find out."""


class Severity(enum.StrEnum):
    """How much a failure matters."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"


class Layer(enum.StrEnum):
    """Where a check looks from."""

    HOST = "host"
    DAEMON = "daemon"
    OUTSIDE = "outside"
    INSIDE = "inside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question, and its answer on this machine.

    Attributes:
        id: the layer, a dot, and a name; programs may rely on it.
        layer: where it looks from.
        verdict: the answer.
        expected: what a correctly configured machine shows.
        got: what this machine shows.
        severity: how much a failure matters.
        fix: what to type or to set.
        reference: sections of the CIS Docker Benchmark and NIST SP 800-190, and ids of attacks.
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
    """A question, without its answer. ``id`` starts with the layer."""

    id: str
    expected: str
    reference: str
    severity: Severity = Severity.HIGH
    fix: str = "report it: this is a defect of this package, or the engine left out a restriction"

    def says(self, verdict: Verdict, got: str) -> Check:
        """Return the check with this verdict."""
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
        """Return a check: HOLDS or FAILS."""
        return self.says(Verdict.HOLDS if condition else Verdict.FAILS, str(got))

    def unknown(self, why: str) -> Check:
        """Return a check with the verdict UNKNOWN: the audit could not find out."""
        return self.says(Verdict.UNKNOWN, why)

    def not_available(self, why: str) -> Check:
        """Return a check with the verdict NOT-AVAILABLE: there is nothing to check."""
        return self.says(Verdict.NOT_AVAILABLE, why)


def matters(check: Check, *, strict: bool) -> bool:
    """Whether the audit as a whole fails if this check does.

    A sandbox's checks always count. The host and the engine serve other purposes as well: without ``strict``,
    only their failures of high severity count.
    """
    own = check.layer in (Layer.OUTSIDE, Layer.INSIDE)
    return strict or own or check.severity is Severity.HIGH


def exit_code(checks: Iterable[Check], *, strict: bool) -> int:
    """Return the exit code of the command.

    With ``strict``, UNKNOWN counts as failed; without it, UNKNOWN about a sandbox counts as not tested.
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
    """Return the number of checks with each verdict, in a fixed order."""
    found = Counter(check.verdict for check in checks)
    return {verdict.value: found[verdict] for verdict in Verdict}
