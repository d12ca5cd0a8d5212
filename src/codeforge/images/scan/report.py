"""The report of a scan: findings and unchecked packages, as values, as text and as an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from cvss import CVSS2, CVSS3, CVSS4
from cvss.exceptions import CVSSError


class Severity(IntEnum):
    """How bad a vulnerability is. An unknown severity reaches every threshold."""

    UNKNOWN = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @classmethod
    def of(cls, text: object) -> Severity:
        """Return the severity that a word or a CVSS vector (versions 2 to 4) stands for, else UNKNOWN."""
        word = text.strip() if isinstance(text, str) and len(text) <= 500 else ""
        try:
            if word.startswith("CVSS:4"):
                word = CVSS4(word).severity
            elif word.startswith("CVSS:3"):
                word = CVSS3(word).severities()[0]
            elif "AV:" in word:
                word = CVSS2(word).severities()[0]
        except (CVSSError, ArithmeticError, LookupError, ValueError):
            return cls.UNKNOWN
        word = word.upper()
        return cls.__members__.get(_SYNONYMS.get(word, word), cls.UNKNOWN)


_SYNONYMS = {
    "MODERATE": "MEDIUM",
    "IMPORTANT": "HIGH",
    "NONE": "LOW",
    "NEGLIGIBLE": "LOW",
    "UNIMPORTANT": "LOW",
}


def _clean(text: object, limit: int = 300) -> str:
    """Return untrusted text as one line of at most ``limit`` characters, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One vulnerability of one package. Its texts are made safe to print."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...] = ()
    severity: Severity = Severity.UNKNOWN
    fixed_in: str = ""
    summary: str = ""

    def __post_init__(self) -> None:
        for name in ("package", "version", "id", "fixed_in", "summary"):
            object.__setattr__(self, name, _clean(getattr(self, name)))
        object.__setattr__(self, "aliases", tuple(_clean(alias) for alias in self.aliases))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """What a scan found, and what it could not check.

    Attributes:
        packages: how many packages the image has.
        scanner: the scanners that checked them; empty if none did.
        findings: each one once, the worst first.
        unchecked: the package URLs of the packages that no scanner checked.
        not_checked_reasons: why they were not checked, and why a scanner failed if another replaced it.
        threshold: the lowest severity that counts.
    """

    packages: int
    scanner: str = ""
    findings: tuple[Finding, ...] = ()
    unchecked: tuple[str, ...] = ()
    not_checked_reasons: tuple[str, ...] = ()
    threshold: Severity = Severity.UNKNOWN

    def __post_init__(self) -> None:
        reasons = dict.fromkeys(_clean(reason) for reason in self.not_checked_reasons)
        object.__setattr__(self, "not_checked_reasons", tuple(reasons))
        object.__setattr__(self, "unchecked", tuple(_clean(purl) for purl in self.unchecked))
        order = sorted(
            dict.fromkeys(self.findings), key=lambda f: (-(f.severity or 5), f.package, f.version, f.id)
        )
        object.__setattr__(self, "findings", tuple(order))

    @property
    def checked(self) -> bool:
        """Whether there are packages and each of them was checked."""
        return self.packages > 0 and bool(self.scanner) and not self.unchecked

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a value for JSON, with severities by name."""
        rows = [{f.name: getattr(row, f.name) for f in fields(row)} for row in self.findings]
        for row in rows:
            row |= {"severity": row["severity"].name.lower(), "aliases": list(row["aliases"])}
        return {
            "checked": self.checked,
            "packages": self.packages,
            "scanner": self.scanner,
            "threshold": self.threshold.name.lower(),
            "findings": rows,
            "unchecked": list(self.unchecked),
            "not_checked_reasons": list(self.not_checked_reasons),
        }


def _failing(report: ScanReport, severity: Severity) -> list[Finding]:
    return [f for f in report.findings if f.severity is Severity.UNKNOWN or f.severity >= severity]


def exit_code(report: ScanReport, severity: Severity) -> int:
    """Return 1 if a finding reaches ``severity`` or has none, else 3 if a package is unchecked, else 0."""
    if _failing(report, severity):
        return 1
    return 0 if report.checked else 3


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def render(report: ScanReport) -> str:
    """Return the report as plain text: the verdict, the reasons and a table with the worst first."""
    if report.checked:
        lines = [f"Checked {_count(report.packages, 'package', 'packages')} with {report.scanner}."]
    elif report.packages:
        missing = len(report.unchecked) if report.scanner else report.packages
        lines = [f"NOT CHECKED: {missing} of {_count(report.packages, 'package', 'packages')}."]
        if missing < report.packages:
            shown = ", ".join(report.unchecked[:20]) + (", …" if len(report.unchecked) > 20 else "")
            lines += [f"  {shown}", f"The others were checked with {report.scanner}."]
    else:
        lines = ["NOT CHECKED: no packages were found."]
    lines += [f"  {reason}" for reason in report.not_checked_reasons]
    if report.findings:
        counted = len(_failing(report, report.threshold))
        at = report.threshold.name.lower()
        total = _count(len(report.findings), "known vulnerability", "known vulnerabilities")
        lines.append(f"{total}, {counted} of them {at} or worse or not rated:")
        lines += _table(report.findings)
    elif report.checked:
        lines.append("No known vulnerabilities.")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _table(findings: Iterable[Finding]) -> list[str]:
    rows = [("SEVERITY", "PACKAGE", "VERSION", "ID", "FIXED IN", "SUMMARY")]
    for f in findings:
        rows.append((f.severity.name.lower(), f.package, f.version, f.id, f.fixed_in or "-", f.summary))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
