"""Known vulnerabilities in an image's packages: asked of trivy, of grype, else of the OSV service.

Silence is not an answer: a package counts as checked only where a scanner says that it looked at it,
and what one scanner does not know goes to the next. A report that leaves a package unchecked never
passes, and says which and why.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Collection, Iterable

from codeforge.images.scan import osv, scanners
from codeforge.images.scan.answer import Answer, ScannerAbsent, ScannerError, key_of
from codeforge.images.scan.report import Finding, ScanReport, Severity
from codeforge.images.scan.sbom import Package


async def scan(
    sbom_json: str, packages: Iterable[Package], *, severity: Severity, osv_url: str | None = osv.URL
) -> ScanReport:
    """Ask trivy, grype and the OSV service in turn, until each package has been checked by one.

    Args:
        sbom_json: the packages as CycloneDX, see ``sbom.to_cyclonedx``.
        packages: the same packages.
        severity: the threshold that the report names; the report holds what is below it too.
        osv_url: where the OSV service is, without its ``/v1``; None to leave the network alone.

    Returns:
        A report. What fails on the way is a reason in it; nothing is raised.
    """
    left = {package: key_of(package.purl) for package in packages}
    total, known = len(left), set(left.values())
    used: list[str] = []
    reasons: list[str] = []
    absent: list[str] = []
    findings: dict[tuple[str, str, str], Finding] = {}
    asks: dict[str, Callable[[Collection[Package]], Awaitable[Answer]]] = {
        name: functools.partial(scanners.ask, name, sbom_json) for name in scanners.PROGRAMS
    }
    asks["OSV"] = functools.partial(osv.ask, osv_url)
    for name, ask in asks.items():
        if not left:
            break
        try:
            answer = await ask(left)
        except ScannerError as error:
            (absent if isinstance(error, ScannerAbsent) else reasons).append(f"{name}: {error}")
            continue
        reasons += [f"{name}: {reason}" for reason in answer.reasons]
        unsettled = set(left.values())
        for key, finding in answer.findings:
            if key in unsettled or key not in known:  # what an earlier scanner has checked is settled
                findings.setdefault((finding.package, finding.version, finding.id), finding)
        remaining = {package: key for package, key in left.items() if key not in answer.seen}
        if len(remaining) < len(left):
            used.append(name)
        left = remaining
    return ScanReport(
        packages=total,
        scanner=" and ".join(used),
        findings=tuple(findings.values()),
        unchecked=tuple(package.purl for package in left),
        not_checked_reasons=(*reasons, *(absent if left or not total else ())),
        threshold=severity,
    )
