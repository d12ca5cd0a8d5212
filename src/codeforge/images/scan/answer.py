"""What one scanner answers: findings, and which packages it looked at; or an error where it cannot."""

from __future__ import annotations

from dataclasses import dataclass, field

from packageurl import PackageURL

from codeforge.images.scan.report import Finding

MAX_ANSWER_BYTES = 64 << 20
"""Longest answer that is read; a scanner is a program or a service that others wrote."""
MALFORMED = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What reading an answer raises where it has another form than is expected."""

Key = tuple[str, str, str]
"""Type, name and version of a package URL: what a package has in common wherever it is named."""


class ScannerError(Exception):
    """A scanner gave no answer, or none that is understood."""


class ScannerAbsent(ScannerError):
    """There is no such scanner to be asked, which is no failure of it."""


@dataclass(slots=True)
class Answer:
    """What one scanner says: findings with the package each is about, and what it looked at."""

    findings: list[tuple[Key | None, Finding]] = field(default_factory=list)
    seen: set[Key] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)


def key_of(purl: object) -> Key | None:
    """The key in a package URL; None if it is none."""
    try:
        url = PackageURL.from_string(str(purl))
    except ValueError:
        return None
    name = f"{url.namespace}/{url.name}" if url.type == "npm" and url.namespace else url.name
    epoch = url.qualifiers.get("epoch") if isinstance(url.qualifiers, dict) else None
    version = url.version or ""
    return url.type, name, f"{epoch}:{version}" if epoch and ":" not in version else version
