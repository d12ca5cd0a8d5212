"""Known vulnerabilities in an image's packages: asked of trivy, of grype, else of the OSV service.

Silence is not an answer: a package counts as checked only where a scanner says that it looked at it,
and what one scanner does not know goes to the next. A report that leaves a package unchecked never
passes, and says which and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any
from urllib.parse import quote

import aiohttp
from cvss import CVSS2, CVSS3, CVSS4
from cvss.exceptions import CVSSError
from packageurl import PackageURL

from codeforge.sbom import Package

OSV_URL = "https://api.osv.dev"
SCANNER_SECONDS = 300.0
"""How long a scanner may run; its first run fetches its database."""
OSV_SECONDS = 120.0
"""How long all questions to the OSV service may take together."""
OSV_TRIES = 3
OSV_BATCH = 1000
MAX_ANSWER_BYTES = 64 << 20
_RETRY_SECONDS = 0.5
_MAX_PAGES = 100
_AT_ONCE = 8
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


class Severity(IntEnum):
    """How bad a vulnerability is; unknown counts as bad enough for any threshold."""

    UNKNOWN = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @classmethod
    def of(cls, text: object) -> Severity:
        """The severity that a word or a CVSS vector (versions 2 to 4) stands for, else UNKNOWN."""
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
        same = {
            "MODERATE": "MEDIUM",
            "IMPORTANT": "HIGH",
            "NONE": "LOW",
            "NEGLIGIBLE": "LOW",
            "UNIMPORTANT": "LOW",
        }
        return cls.__members__.get(same.get(word, word), cls.UNKNOWN)


def _clean(text: object, limit: int = 300) -> str:
    """Text from outside as one line without control characters, at most ``limit`` long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One vulnerability of one package; its texts are made fit to print."""

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
    """What a scan found, and what it could not look at.

    Attributes:
        packages: how many packages were to be checked.
        scanner: what checked them; empty if nothing did.
        findings: the worst first.
        unchecked: package URLs of those that nothing checked.
        not_checked_reasons: why, and which scanners failed where another took over.
        threshold: the severity from which on a finding counts.
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
        order = sorted(self.findings, key=lambda f: (-(f.severity or 5), f.package, f.version, f.id))
        object.__setattr__(self, "findings", tuple(order))

    @property
    def checked(self) -> bool:
        """Whether there were packages and every one of them was checked."""
        return self.packages > 0 and bool(self.scanner) and not self.unchecked

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it; severities by name."""
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
    """1 with a finding at or above ``severity`` or of unknown severity, else 3 if not checked, else 0."""
    if _failing(report, severity):
        return 1
    return 0 if report.checked else 3


def render(report: ScanReport) -> str:
    """The report as plain text: a verdict, the reasons, a table; the worst first."""
    if report.checked:
        lines = [f"Checked {report.packages} packages with {report.scanner}."]
    elif report.packages:
        missing = len(report.unchecked) if report.scanner else report.packages
        lines = [f"NOT CHECKED: {missing} of {report.packages} packages."]
        if missing < report.packages:
            shown = ", ".join(report.unchecked[:20]) + (", …" if len(report.unchecked) > 20 else "")
            lines += [f"  {shown}", f"The others were checked with {report.scanner}."]
    else:
        lines = ["NOT CHECKED: no packages were found."]
    lines += [f"  {reason}" for reason in report.not_checked_reasons]
    if report.findings:
        counted = len(_failing(report, report.threshold))
        at = report.threshold.name.lower()
        lines.append(
            f"{len(report.findings)} known vulnerabilities, {counted} of them {at} or worse or not rated:"
        )
        head = ("SEVERITY", "PACKAGE", "VERSION", "ID", "FIXED IN", "SUMMARY")
        rows = [head]
        for f in report.findings:
            rows.append((f.severity.name.lower(), f.package, f.version, f.id, f.fixed_in or "-", f.summary))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines += [
            "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[5]]) for row in rows
        ]
    elif report.checked:
        lines.append("No known vulnerabilities.")
    return "\n".join(line.rstrip() for line in lines) + "\n"


class _ScannerError(Exception):
    """A scanner gave no answer, or none that is understood."""


_Key = tuple[str, str, str]
_Question = tuple[str, str, str]


@dataclass(slots=True)
class _Outcome:
    """What one scanner says: findings with the package each is about, and what it looked at."""

    findings: list[tuple[_Key | None, Finding]] = field(default_factory=list)
    seen: set[_Key] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)


def _key(purl: object) -> _Key | None:
    """Type, name and version of a package URL; None if it is none."""
    try:
        url = PackageURL.from_string(str(purl))
    except ValueError:
        return None
    name = f"{url.namespace}/{url.name}" if url.type == "npm" and url.namespace else url.name
    epoch = url.qualifiers.get("epoch") if isinstance(url.qualifiers, dict) else None
    version = url.version or ""
    return url.type, name, f"{epoch}:{version}" if epoch and ":" not in version else version


def _read_trivy(report: Any, packages: Collection[Package]) -> _Outcome:
    """What trivy says. It lists what it looked at; Debian's packages count only if it knows the release."""
    if report["SchemaVersion"] != 2:
        raise _ScannerError(f"its report has schema {report['SchemaVersion']!r}, not 2")
    outcome = _Outcome()
    system = (report.get("Metadata") or {}).get("OS") or {}
    for result in report.get("Results") or ():
        known = result.get("Class") != "os-pkgs" or (system.get("Family") and not system.get("EOSL"))
        for row in result.get("Packages") or ():
            named = row.get("Identifier") or {}
            keys = {_key(named.get("PURL")), _key(named.get("BOMRef"))} - {None}
            outcome.seen |= {key for key in keys if key and known}
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
            outcome.findings.append((_key(named.get("BOMRef")) or _key(named.get("PURL")), finding))
    if system.get("EOSL"):
        outcome.reasons.append(
            f"{system.get('Family')} {system.get('Name')} is out of support: no advisories"
        )
    return outcome


def _read_grype(report: Any, packages: Collection[Package]) -> _Outcome:
    """What grype says. It names only what it found; what it looked at follows from the kind of package.

    Python's and npm's it always matches, Debian's where it knew the release, runtimes not surely.
    """
    if report["descriptor"]["name"] != "grype":
        raise _ScannerError("its report does not say that it is grype's")
    system = (report.get("distro") or {}).get("name")
    kinds = {"pypi", "npm"}
    seen = (p for p in packages if p.kind in kinds or (system and p.distro.partition("-")[0] == system))
    outcome = _Outcome(seen={key for p in seen if (key := _key(p.purl))})
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
        outcome.findings.append((_key(artifact.get("purl")), finding))
    return outcome


async def _run(argv: list[str], seconds: float) -> bytes:
    """What a program prints; where it does not end by itself, its whole process group is killed.

    Raises:
        _ScannerError: it cannot be started, fails, takes longer, or prints too much.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        null = asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=null, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            raise _ScannerError(f"cannot be started: {error}") from error
        try:
            code = await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            raise _ScannerError(f"no answer within {seconds:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code:
            err.seek(max(0, err.seek(0, os.SEEK_END) - 2000))
            raise _ScannerError(f"exit code {code}: {_clean(err.read().decode('utf-8', 'replace')[-250:])}")
        out.seek(0)
        data = out.read(MAX_ANSWER_BYTES + 1)
    if len(data) > MAX_ANSWER_BYTES:
        raise _ScannerError(f"its report is longer than {MAX_ANSWER_BYTES} bytes")
    return data


_TOOLS: dict[str, tuple[list[str], Callable[[Any, Collection[Package]], _Outcome]]] = {
    "trivy": (["sbom", "--no-progress", "--format", "json", "--list-all-pkgs", "{}"], _read_trivy),
    "grype": (["sbom:{}", "--output", "json"], _read_grype),
}


async def _ask_tool(name: str, sbom_json: str, packages: Collection[Package]) -> _Outcome:
    program = shutil.which(name)
    if program is None:
        raise _ScannerError("not installed")
    arguments, read = _TOOLS[name]
    with tempfile.NamedTemporaryFile("w", suffix=".cdx.json", encoding="utf-8") as file:
        file.write(sbom_json)
        file.flush()
        data = await _run([program, *(a.replace("{}", file.name) for a in arguments)], SCANNER_SECONDS)
    try:
        return read(json.loads(data), packages)
    except _UNREADABLE as error:
        raise _ScannerError(f"its report is not understood: {error!r}") from error


def _question(package: Package) -> _Question | None:
    """Ecosystem, name and version as the OSV service calls them; None where it has no such ecosystem."""
    system, _, release = package.distro.partition("-")
    if package.kind == "deb":
        known = system == "debian" and release
        return (f"Debian:{release}", package.source, package.source_version) if known else None
    ecosystem = {"pypi": "PyPI", "npm": "npm", "generic": "Bitnami"}[package.kind]
    return ecosystem, package.name, package.version


class _Osv:
    """One scan's conversation with an OSV service."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._end = asyncio.get_running_loop().time() + OSV_SECONDS
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def call(self, path: str, question: object = None) -> Any:
        """The service's answer; GET without a question.

        Raises:
            _ScannerError: there is none after the tries, or not in time, or it is no JSON.
        """
        try:
            async with asyncio.timeout_at(self._end):
                for attempt in range(OSV_TRIES):
                    await asyncio.sleep(_RETRY_SECONDS * attempt)
                    status, text = await self._once(path, question)
                    if status == 200:
                        return json.loads(text)
                    if status and status < 500 and status != 429:
                        break
        except TimeoutError:
            raise _ScannerError(f"no answer within {OSV_SECONDS:g} s") from None
        except (ValueError, RecursionError) as error:
            raise _ScannerError(f"its answer is not understood: {error!r}") from error
        raise _ScannerError(f"it answers {status}: {text[:200]!r}" if status else f"not reached: {text}")

    async def _once(self, path: str, question: object) -> tuple[int, str]:
        """Status and body; status 0 and the reason where nothing answers."""
        method = "GET" if question is None else "POST"
        try:
            async with (
                self._turns,
                self._session.request(
                    method, self._url + path, json=question, allow_redirects=False
                ) as answer,
            ):
                data = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 16):
                    data += chunk
                    if len(data) > MAX_ANSWER_BYTES:
                        raise _ScannerError(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
                return answer.status, data.decode()
        except (aiohttp.ClientError, OSError) as error:
            return 0, str(error) or type(error).__name__

    async def ids(self, questions: list[_Question]) -> list[set[str]]:
        """For each question the ids of the vulnerabilities known, whatever number of pages that takes."""
        found: list[set[str]] = [set() for _ in questions]
        pending: list[tuple[int, dict[str, Any]]] = [
            (i, {"package": {"ecosystem": e, "name": n}, "version": v})
            for i, (e, n, v) in enumerate(questions)
        ]
        for _ in range(_MAX_PAGES):
            if not pending:
                return found
            answer = await self.call("/v1/querybatch", {"queries": [query for _, query in pending]})
            following = []
            try:
                results = answer["results"]
                if len(results) != len(pending):
                    raise _ScannerError(f"{len(results)} answers to {len(pending)} questions")
                for (i, query), result in zip(pending, results, strict=True):
                    found[i].update(str(row["id"]) for row in result.get("vulns") or ())
                    if token := result.get("next_page_token"):
                        following.append((i, {**query, "page_token": str(token)}))
            except _UNREADABLE as error:
                raise _ScannerError(f"its answer is not understood: {error!r}") from error
            pending = following
        raise _ScannerError(f"more than {_MAX_PAGES} pages")

    async def finding(self, question: _Question, identity: str) -> Finding | None:
        """A vulnerability's details; None if it was withdrawn. Without details its severity is unknown."""
        bare = Finding(package=question[1], version=question[2], id=identity)
        try:
            row = await self.call(f"/v1/vulns/{quote(identity, safe='')}")
            return None if row.get("withdrawn") else _details(bare, question, row)
        except _UNREADABLE as error:
            return replace(bare, summary=f"details are not understood: {error!r}")
        except _ScannerError as error:
            return replace(bare, summary=f"no details: {error}")


def _details(bare: Finding, question: _Question, row: dict[str, Any]) -> Finding:
    ours = {"ecosystem": question[0], "name": question[1]}
    mine = [a for a in row.get("affected") or () if ours.items() <= (a.get("package") or {}).items()]
    scored = [*(row.get("severity") or ()), *(s for a in mine for s in a.get("severity") or ())]
    words = [(row.get("database_specific") or {}).get("severity")]
    words += [(a.get("ecosystem_specific") or {}).get("urgency") for a in mine]
    events = [e for a in mine for r in a.get("ranges") or () for e in r.get("events") or ()]
    fixes = dict.fromkeys(str(event["fixed"]) for event in events if "fixed" in event)
    return replace(
        bare,
        aliases=(*(row.get("aliases") or ()), *(row.get("upstream") or ())),
        severity=max((Severity.of(s.get("score")) for s in scored), default=Severity.UNKNOWN)
        or max(Severity.of(word) for word in words),
        fixed_in=", ".join(fixes),
        summary=row.get("summary") or row.get("details") or "",
    )


async def _ask_osv(url: str | None, packages: Collection[Package]) -> _Outcome:
    """Ask by ecosystem, so that one that the service does not know costs only its own packages."""
    if url is None:
        raise _ScannerError("not asked")
    outcome = _Outcome()
    keys: dict[_Question, list[_Key]] = {}
    for package in packages:
        question, key = _question(package), _key(package.purl)
        if question and key:
            keys.setdefault(question, []).append(key)
        else:
            outcome.reasons.append(
                f"no ecosystem for {package.kind} packages of {package.distro or 'unknown origin'}"
            )
    async with aiohttp.ClientSession(trust_env=True) as session:
        service = _Osv(session, url)
        hits: list[tuple[_Question, str]] = []
        for ecosystem in dict.fromkeys(question[0] for question in keys):
            asked = [question for question in keys if question[0] == ecosystem]
            for start in range(0, len(asked), OSV_BATCH):
                batch = asked[start : start + OSV_BATCH]
                try:
                    ids = await service.ids(batch)
                except _ScannerError as error:
                    outcome.reasons.append(f"{ecosystem}: {error}")
                    continue
                outcome.seen.update(key for question in batch for key in keys[question])
                hits += [
                    (question, i) for question, found in zip(batch, ids, strict=True) for i in sorted(found)
                ]
        details = await asyncio.gather(*(service.finding(question, identity) for question, identity in hits))
    outcome.findings = [(keys[hit[0]][0], row) for hit, row in zip(hits, details, strict=True) if row]
    return outcome


async def scan(
    sbom_json: str, packages: Iterable[Package], *, severity: Severity, osv_url: str | None = OSV_URL
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
    left = {package: _key(package.purl) for package in packages}
    total, known = len(left), set(left.values())
    used: list[str] = []
    reasons: list[str] = []
    absent: list[str] = []
    findings: dict[tuple[str, str, str], Finding] = {}
    asks: dict[str, Callable[[Collection[Package]], Awaitable[_Outcome]]] = {
        name: functools.partial(_ask_tool, name, sbom_json) for name in _TOOLS
    }
    asks["OSV"] = functools.partial(_ask_osv, osv_url)
    for name, ask in asks.items():
        if not left:
            break
        try:
            outcome = await ask(left)
        except _ScannerError as error:
            (absent if str(error) in ("not installed", "not asked") else reasons).append(f"{name}: {error}")
            continue
        reasons += [f"{name}: {reason}" for reason in outcome.reasons]
        open_keys = set(left.values())
        for key, row in outcome.findings:
            if key in open_keys or key not in known:  # what an earlier scanner has checked is settled
                findings.setdefault((row.package, row.version, row.id), row)
        remaining = {package: key for package, key in left.items() if key not in outcome.seen}
        used += [name] if len(remaining) < len(left) else []
        left = remaining
    return ScanReport(
        packages=total,
        scanner=" and ".join(used),
        findings=tuple(findings.values()),
        unchecked=tuple(package.purl for package in left),
        not_checked_reasons=(*reasons, *(absent if left or not total else ())),
        threshold=severity,
    )
