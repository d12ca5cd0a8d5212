"""trivy and grype, where they are installed: each examines the archive of an image."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from codeforge.images.scan.answer import MALFORMED, MAX_ANSWER_BYTES, Answer, ScannerError, key_of
from codeforge.images.scan.report import Finding, Severity
from codeforge.images.scan.sbom import Package
from codeforge.programs import running

SECONDS = 300.0
"""How long a scanner may run. Its first run downloads its database."""


def _read_trivy(report: Any, _packages: Sequence[Package]) -> Answer:
    """Read trivy's report, which lists every package it looked up.

    Packages of the distribution count as checked only if trivy has advisories for its release.
    """
    if report["SchemaVersion"] != 2:
        raise ScannerError(f"its report has schema {report['SchemaVersion']!r}, not 2")
    answer = Answer()
    system = (report.get("Metadata") or {}).get("OS") or {}
    for result in report.get("Results") or ():
        known = result.get("Class") != "os-pkgs" or (system.get("Family") and not system.get("EOSL"))
        for row in result.get("Packages") or ():
            purl = (row.get("Identifier") or {}).get("PURL")
            key = key_of(purl)
            if key and known:
                answer.checked.add(key)
            elif key:
                answer.unchecked[str(purl)] = key
        for row in result.get("Vulnerabilities") or ():
            answer.findings.append(
                Finding(
                    package=row["PkgName"],
                    version=row.get("InstalledVersion", ""),
                    id=row["VulnerabilityID"],
                    aliases=tuple(row.get("VendorIDs") or ()),
                    severity=Severity.of(row.get("Severity")),
                    fixed_in=row.get("FixedVersion") or "",
                    summary=row.get("Title") or row.get("Description") or "",
                )
            )
    if system.get("EOSL"):
        answer.reasons.append(f"{system.get('Family')} {system.get('Name')} is out of support: no advisories")
    return answer


def _read_grype(report: Any, packages: Sequence[Package]) -> Answer:
    """Read grype's report, which lists only what it found.

    It looks up all Python and npm packages, and Debian's if it knows the release. Whether it looks up an
    interpreter that was built from source depends on its version, so those do not count as checked.
    """
    if report["descriptor"]["name"] != "grype":
        raise ScannerError("its report does not name grype as its author")
    system = (report.get("distro") or {}).get("name")
    known = (
        package
        for package in packages
        if package.kind in ("pypi", "npm") or (system and package.distro.partition("-")[0] == system)
    )
    answer = Answer(checked={key for package in known if (key := key_of(package.purl))})
    for match in report["matches"]:
        row, artifact = match["vulnerability"], match["artifact"]
        answer.findings.append(
            Finding(
                package=artifact["name"],
                version=artifact.get("version", ""),
                id=row["id"],
                aliases=tuple(other["id"] for other in match.get("relatedVulnerabilities") or ()),
                severity=Severity.of(row.get("severity")),
                fixed_in=", ".join((row.get("fix") or {}).get("versions") or ()),
                summary=row.get("description") or "",
            )
        )
    return answer


async def _run(argv: list[str]) -> bytes:
    """Return what a program prints. If it does not end by itself, its whole process group is killed.

    Raises:
        ScannerError: it cannot be started, fails, takes too long, or prints too much.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            async with running(*argv, stdout=out, stderr=err) as process:
                code = await asyncio.wait_for(process.wait(), SECONDS)
        except TimeoutError:
            raise ScannerError(f"no answer within {SECONDS:g} s") from None
        except OSError as error:
            raise ScannerError(f"cannot be started: {error}") from error
        if code:
            err.seek(max(0, err.seek(0, os.SEEK_END) - 2000))
            raise ScannerError(f"exit code {code}: {err.read().decode('utf-8', 'replace')[-250:]}")
        out.seek(0)
        data = out.read(MAX_ANSWER_BYTES + 1)
    if len(data) > MAX_ANSWER_BYTES:
        raise ScannerError(f"its report is longer than {MAX_ANSWER_BYTES} bytes")
    return data


PROGRAMS: dict[str, tuple[str, Callable[[Any, Sequence[Package]], Answer]]] = {
    "trivy": ("image --no-progress --scanners vuln --list-all-pkgs --format json --input {}", _read_trivy),
    "grype": ("docker-archive:{} --output json", _read_grype),
}
"""Each program's arguments, where ``{}`` stands for the archive, and the function that reads its report."""


def find(name: str) -> str | None:
    """Return the path of a program, or None if it is not installed."""
    return shutil.which(name)


async def ask(name: str, program: str, archive: Path, packages: Sequence[Package]) -> Answer:
    """Let one of ``PROGRAMS`` examine an image.

    Args:
        name: a key of ``PROGRAMS``.
        program: the path that ``find`` returned.
        archive: the image as ``docker save`` writes it.
        packages: what we found in the image.

    Raises:
        ScannerError: it does not answer, or its answer is not understood.
    """
    arguments, read = PROGRAMS[name]
    data = await _run([program, *(word.replace("{}", str(archive)) for word in arguments.split())])
    try:
        return read(json.loads(data), packages)
    except MALFORMED as error:
        raise ScannerError(f"its report is not understood: {error!r}") from error
