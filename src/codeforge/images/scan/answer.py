"""A scanner's answer: what it found, which packages it checked, and which it could not check."""

from __future__ import annotations

from dataclasses import dataclass, field

from packageurl import PackageURL

from codeforge.images.scan.report import Finding

MAX_ANSWER_BYTES = 64 << 20
"""Longest answer that is read. Scanners are other people's programs and services."""
MALFORMED = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What code that reads an answer raises if the answer does not have the expected form."""

Key = tuple[str, str, str]
"""Type, name and version from a package URL. Scanners write the other parts in different ways."""


class ScannerError(Exception):
    """A scanner did not answer, or its answer is not understood."""


@dataclass(slots=True)
class Answer:
    """What one scanner says.

    Attributes:
        findings: the vulnerabilities, in any order.
        checked: the packages that it looked up.
        unchecked: package URLs that it lists but has no advisories for.
        reasons: why it could not check some packages.
    """

    findings: list[Finding] = field(default_factory=list)
    checked: set[Key] = field(default_factory=set)
    unchecked: dict[str, Key] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def key_of(purl: object) -> Key | None:
    """Return the key of a package URL, or None if ``purl`` is not one."""
    try:
        url = PackageURL.from_string(str(purl))
    except ValueError:
        return None
    name = f"{url.namespace}/{url.name}" if url.type == "npm" and url.namespace else url.name
    epoch = url.qualifiers.get("epoch") if isinstance(url.qualifiers, dict) else None
    version = url.version or ""
    return url.type, name, f"{epoch}:{version}" if epoch and ":" not in version else version
