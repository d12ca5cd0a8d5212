"""The scanners that are programs on this machine: trivy and grype run on a bill of materials."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Collection
from typing import Any

from codeforge.images.scan.answer import (
    MALFORMED,
    MAX_ANSWER_BYTES,
    Answer,
    ScannerAbsent,
    ScannerError,
    key_of,
)
from codeforge.images.scan.report import Finding, Severity
from codeforge.images.scan.sbom import Package

SECONDS = 300.0
"""How long a scanner may run; its first run fetches its database."""


def _read_trivy(report: Any, _packages: Collection[Package]) -> Answer:
    """What trivy says. It lists what it looked at; Debian's packages count only if it knows the release."""
    if report["SchemaVersion"] != 2:
        raise ScannerError(f"its report has schema {report['SchemaVersion']!r}, not 2")
    answer = Answer()
    system = (report.get("Metadata") or {}).get("OS") or {}
    for result in report.get("Results") or ():
        known = result.get("Class") != "os-pkgs" or (system.get("Family") and not system.get("EOSL"))
        for row in result.get("Packages") or ():
            named = row.get("Identifier") or {}
            keys = {key_of(named.get("PURL")), key_of(named.get("BOMRef"))}
            answer.seen |= {key for key in keys if key and known}
        for row in result.get("Vulnerabilities") or ():
            named = row.get("PkgIdentifier") or {}
            finding = Finding(
                package=row["PkgName"],
                version=row.get("InstalledVersion", ""),
                id=row["VulnerabilityID"],
                aliases=tuple(row.get("VendorIDs") or ()),
                severity=Severity.of(row.get("Severity")),
                fixed_in=row.get("FixedVersion") or "",
                summary=row.get("Title") or row.get("Description") or "",
            )
            answer.findings.append((key_of(named.get("BOMRef")) or key_of(named.get("PURL")), finding))
    if system.get("EOSL"):
        answer.reasons.append(f"{system.get('Family')} {system.get('Name')} is out of support: no advisories")
    return answer


def _read_grype(report: Any, packages: Collection[Package]) -> Answer:
    """What grype says. It names only what it found; what it looked at follows from the kind of package.

    Python's and npm's it always matches, Debian's where it knew the release, runtimes not surely.
    """
    if report["descriptor"]["name"] != "grype":
        raise ScannerError("its report does not say that it is grype's")
    system = (report.get("distro") or {}).get("name")
    kinds = {"pypi", "npm"}
    seen = (p for p in packages if p.kind in kinds or (system and p.distro.partition("-")[0] == system))
    answer = Answer(seen={key for p in seen if (key := key_of(p.purl))})
    for match in report["matches"]:
        row, artifact = match["vulnerability"], match["artifact"]
        finding = Finding(
            package=artifact["name"],
            version=artifact.get("version", ""),
            id=row["id"],
            aliases=tuple(other["id"] for other in match.get("relatedVulnerabilities") or ()),
            severity=Severity.of(row.get("severity")),
            fixed_in=", ".join((row.get("fix") or {}).get("versions") or ()),
            summary=row.get("description") or "",
        )
        answer.findings.append((key_of(artifact.get("purl")), finding))
    return answer


async def _run(argv: list[str]) -> bytes:
    """What a program prints; where it does not end by itself, its whole process group is killed.

    Raises:
        ScannerError: it cannot be started, fails, takes longer, or prints too much.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        null = asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=null, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            raise ScannerError(f"cannot be started: {error}") from error
        try:
            code = await asyncio.wait_for(process.wait(), SECONDS)
        except TimeoutError:
            raise ScannerError(f"no answer within {SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code:
            err.seek(max(0, err.seek(0, os.SEEK_END) - 2000))
            raise ScannerError(f"exit code {code}: {err.read().decode('utf-8', 'replace')[-250:]}")
        out.seek(0)
        data = out.read(MAX_ANSWER_BYTES + 1)
    if len(data) > MAX_ANSWER_BYTES:
        raise ScannerError(f"its report is longer than {MAX_ANSWER_BYTES} bytes")
    return data


PROGRAMS: dict[str, tuple[list[str], Callable[[Any, Collection[Package]], Answer]]] = {
    "trivy": (["sbom", "--no-progress", "--format", "json", "--list-all-pkgs", "{}"], _read_trivy),
    "grype": (["sbom:{}", "--output", "json"], _read_grype),
}
"""Arguments, where ``{}`` stands for the bill of materials, and what reads the report."""


async def ask(name: str, sbom_json: str, packages: Collection[Package]) -> Answer:
    """What one of the programs says about packages, of which ``sbom_json`` is the bill of materials.

    Raises:
        ScannerError: nothing that is understood.
    """
    program = shutil.which(name)
    if program is None:
        raise ScannerAbsent("not installed")
    arguments, read = PROGRAMS[name]
    with tempfile.NamedTemporaryFile("w", suffix=".cdx.json", encoding="utf-8") as file:
        file.write(sbom_json)
        file.flush()
        data = await _run([program, *(a.replace("{}", file.name) for a in arguments)])
    try:
        return read(json.loads(data), packages)
    except MALFORMED as error:
        raise ScannerError(f"its report is not understood: {error!r}") from error
