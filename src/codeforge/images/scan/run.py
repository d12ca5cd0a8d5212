"""Looks up the known vulnerabilities of an image's packages.

The first of trivy and grype that is installed and answers examines the image. The OSV service is asked about
the other packages: all of them if neither program is installed, otherwise those that the program does not
look up, such as an interpreter that was built from source.

A package counts as checked only if a scanner says that it looked it up. A report with an unchecked package
never passes, and it says which packages were not checked and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codeforge.images.scan import osv, scanners
from codeforge.images.scan.answer import Answer, ScannerError, key_of
from codeforge.images.scan.report import ScanReport, Severity
from codeforge.images.scan.sbom import Package


async def scan(
    archive: Path, packages: Sequence[Package], *, severity: Severity, osv_url: str | None = osv.OSV_URL
) -> ScanReport:
    """Scan an image with trivy or grype, and ask the OSV service about the other packages.

    Args:
        archive: the image as ``docker save`` writes it.
        packages: what ``inventory.read_packages`` found in it.
        severity: the threshold that the report names. The report holds findings below it too.
        osv_url: the base URL of the OSV service, without ``/v1``; None sends nothing over the network.

    Returns:
        A report. Scanners that fail are reasons in the report; nothing is raised.
    """
    used: list[str] = []
    reasons: list[str] = []
    absent: list[str] = []
    answer = Answer()
    for name in scanners.PROGRAMS:
        program = scanners.find(name)
        if program is None:
            absent.append(f"{name}: not installed")
            continue
        try:
            answer = await scanners.ask(name, program, archive, packages)
        except ScannerError as error:
            reasons.append(f"{name}: {error}")
            continue
        reasons += [f"{name}: {reason}" for reason in answer.reasons]
        used += [name] if answer.checked else []
        break

    keys = {package.purl: key_of(package.purl) for package in packages}
    ours = set(keys.values())
    keys |= {purl: key for purl, key in answer.unchecked.items() if key not in ours}
    checked = set(answer.checked)
    findings = list(answer.findings)
    rest = [package for package in packages if keys[package.purl] not in checked]
    if rest and osv_url is None:
        absent.append("OSV: not asked")
    elif rest and osv_url is not None:
        second = await osv.ask(osv_url, rest)
        reasons += [f"OSV: {reason}" for reason in second.reasons]
        used += ["OSV"] if second.checked else []
        findings += second.findings
        checked |= second.checked
    left = [purl for purl, key in keys.items() if key not in checked]
    total = len(keys) + len(checked.difference(keys.values()))
    return ScanReport(
        packages=total,
        scanner=" and ".join(used),
        findings=tuple(findings),
        unchecked=tuple(left),
        not_checked_reasons=(*reasons, *(absent if left or not total else ())),
        threshold=severity,
    )
