"""Scans with scripts named trivy and grype on PATH, and with a server that implements OSV's interface."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings, strategies as st

from codeforge.images.scan import osv as osv_client, scanners
from codeforge.images.scan.report import Finding, ScanReport, Severity, exit_code, render
from codeforge.images.scan.run import scan
from codeforge.images.scan.sbom import Package

LIBC = Package("deb", "libc6", "2.36-9", "amd64", "glibc", "2.36-9", "debian-12")
LIBC_BIN = Package("deb", "libc-bin", "2.36-9", "amd64", "glibc", "2.36-9", "debian-12")
JINJA = Package("pypi", "jinja2", "3.1.0")
LODASH = Package("npm", "lodash", "4.17.0")
BABEL = Package("npm", "@babel/core", "7.0.0")
NODE = Package("generic", "node", "18.20.8")
ALL = [LIBC, LIBC_BIN, JINJA, LODASH, BABEL, NODE]
ARCHIVE = Path("/images/a b.tar")
HIGH_VECTOR = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"


@pytest.fixture(autouse=True)
def _empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(osv_client, "_RETRY_SECONDS", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def run(packages: Iterable[Package], url: str | None = None, severity: Severity = Severity.LOW) -> ScanReport:
    return asyncio.run(scan(ARCHIVE, [*packages], severity=severity, osv_url=url))


def not_checked(report: ScanReport) -> bool:
    """Check what every report with an unchecked package must say."""
    text = render(report)
    assert "NOT CHECKED" in text
    assert "No known" not in text
    assert exit_code(report, Severity.CRITICAL) != 0
    return not report.checked


# --- the OSV service


class Osv:
    """A server with the two calls of OSV's interface that a scan makes."""

    def __init__(self) -> None:
        self.vulns: dict[str, Any] = {}
        self.known: dict[tuple[str, str], list[str]] = {}
        self.batches: list[list[dict[str, Any]]] = []
        self.spoil: Callable[[list[dict[str, Any]]], Any] = lambda results: {"results": results}
        self.failures: list[int] = []
        self.asked: list[str] = []

    async def batch(self, request: web.Request) -> web.Response:
        queries = (await request.json())["queries"]
        if self.failures:
            return web.Response(status=self.failures.pop(0), text="later")
        self.batches.append(queries)
        results = [self.result(query) for query in queries]
        body = self.spoil(results)
        if isinstance(body, bytes):
            return web.Response(body=body)
        return web.json_response(body)

    def result(self, query: dict[str, Any]) -> dict[str, Any]:
        ids = self.known.get((query["package"]["ecosystem"], query["package"]["name"]), [])
        page = int(query.get("page_token", "0"))
        row: dict[str, Any] = (
            {"vulns": [{"id": ids[page], "modified": "2026-01-01T00:00:00Z"}]} if ids else {}
        )
        if page + 1 < len(ids):
            row["next_page_token"] = str(page + 1)
        return row

    async def vuln(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        self.asked.append(name)
        if name not in self.vulns:
            return web.json_response({"code": 5, "message": "Bug not found."}, status=404)
        return web.json_response(self.vulns[name])

    def scan(self, packages: Iterable[Package], severity: Severity = Severity.LOW) -> ScanReport:
        async def session() -> ScanReport:
            app = web.Application()
            app.router.add_post("/v1/querybatch", self.batch)
            app.router.add_get("/v1/vulns/{id}", self.vuln)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            try:
                port = runner.addresses[0][1]
                return await scan(
                    ARCHIVE, [*packages], severity=severity, osv_url=f"http://127.0.0.1:{port}/"
                )
            finally:
                await runner.cleanup()

        return asyncio.run(session())


@pytest.fixture
def osv() -> Osv:
    return Osv()


def advisory(identity: str, ecosystem: str, name: str, **more: Any) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "9.9"}]
    affected = {
        "package": {"ecosystem": ecosystem, "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    return {"id": identity, "summary": f"about {name}", "affected": [affected], **more}


def test_osv_is_asked_by_ecosystem_and_source_package(osv: Osv) -> None:
    report = osv.scan(ALL)
    assert report.checked
    assert report.scanner == "OSV"
    assert exit_code(report, Severity.LOW) == 0
    assert "No known vulnerabilities." in render(report)
    asked = [
        (q["package"]["ecosystem"], q["package"]["name"], q["version"])
        for batch in osv.batches
        for q in batch
    ]
    assert sorted(asked) == [
        ("Bitnami", "node", "18.20.8"),
        ("Debian:12", "glibc", "2.36-9"),
        ("PyPI", "jinja2", "3.1.0"),
        ("npm", "@babel/core", "7.0.0"),
        ("npm", "lodash", "4.17.0"),
    ]


def test_osv_findings_over_several_pages(osv: Osv) -> None:
    osv.known = {("npm", "lodash"): ["GHSA-1", "GHSA-2", "GHSA-3"], ("Debian:12", "glibc"): ["DEBIAN-CVE-1"]}
    rated = [{"type": "CVSS_V3", "score": HIGH_VECTOR}]
    osv.vulns = {
        "GHSA-1": advisory("GHSA-1", "npm", "lodash", aliases=["CVE-1"], severity=rated),
        "GHSA-2": advisory("GHSA-2", "npm", "other", database_specific={"severity": "MODERATE"}),
        "GHSA-3": advisory("GHSA-3", "npm", "lodash", withdrawn="2026-01-01T00:00:00Z"),
        "DEBIAN-CVE-1": advisory("DEBIAN-CVE-1", "Debian:12", "glibc", upstream=["CVE-9"]),
    }
    osv.vulns["GHSA-2"]["affected"].append({"ranges": []})  # of a repository: names no package
    osv.vulns["DEBIAN-CVE-1"]["affected"][0]["ecosystem_specific"] = {"urgency": "low"}
    report = osv.scan(ALL, Severity.HIGH)
    assert report.checked
    assert report.findings == (
        Finding(
            package="lodash",
            version="4.17.0",
            id="GHSA-1",
            aliases=("CVE-1",),
            severity=Severity.HIGH,
            fixed_in="9.9",
            summary="about lodash",
        ),
        Finding(
            package="lodash", version="4.17.0", id="GHSA-2", severity=Severity.MEDIUM, summary="about other"
        ),
        Finding(
            package="glibc",
            version="2.36-9",
            id="DEBIAN-CVE-1",
            aliases=("CVE-9",),
            severity=Severity.LOW,
            fixed_in="9.9",
            summary="about glibc",
        ),
    )
    assert [exit_code(report, s) for s in (Severity.LOW, Severity.HIGH, Severity.CRITICAL)] == [1, 1, 0]
    assert "3 known vulnerabilities, 1 of them high or worse or not rated:" in render(report)


MINE = {"ecosystem": "npm", "name": "lodash"}


@pytest.mark.parametrize(
    "details",
    [
        None,
        {},
        [],
        "text",
        {"severity": "high"},
        {"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/nonsense"}]},
        {"affected": [{}]},
        {"affected": [{"package": MINE, "ecosystem_specific": {"urgency": "not yet assigned"}}]},
    ],
)
def test_a_vulnerability_with_missing_or_malformed_details_fails_any_threshold(
    osv: Osv, details: Any
) -> None:
    osv.known = {("npm", "lodash"): ["X-1"]}
    osv.vulns = {} if details is None else {"X-1": details}
    report = osv.scan([LODASH])
    assert [(f.id, f.severity) for f in report.findings] == [("X-1", Severity.UNKNOWN)]
    assert exit_code(report, Severity.CRITICAL) == 1


def test_an_identifier_cannot_change_the_path(osv: Osv) -> None:
    osv.known = {("npm", "lodash"): ["../querybatch?x=1"]}
    report = osv.scan([LODASH])
    assert exit_code(report, Severity.CRITICAL) == 1
    assert osv.asked in ([], ["../querybatch?x=1"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda results: {"results": results[:-1]},
        lambda results: {"results": [*results, {}]},
        lambda results: {"results": []},
        lambda results: {"results": [None] * len(results)},
        lambda results: {"results": [{"vulns": "x"}] * len(results)},
        lambda results: {"results": [{"vulns": [{}]}] * len(results)},
        lambda results: {"results": [{"next_page_token": "0"}] * len(results)},
        lambda results: {},
        lambda results: [],
        lambda results: b"",
        lambda results: b"<html>",
        lambda results: b"\xff",
        lambda results: b"[" * 100_000,
    ],
)
def test_a_malformed_answer_checks_nothing(osv: Osv, spoil: Callable[[Any], Any]) -> None:
    osv.spoil = spoil
    report = osv.scan([JINJA, Package("pypi", "flask", "3.0")])
    assert not_checked(report)
    assert len(report.unchecked) == 2
    assert report.scanner == ""
    assert exit_code(report, Severity.CRITICAL) == 3
    assert any("OSV: PyPI: " in reason for reason in report.not_checked_reasons)


def test_an_ecosystem_that_fails_is_named(osv: Osv) -> None:
    osv.failures = [400]
    report = osv.scan([JINJA, LODASH])
    assert not_checked(report)
    assert report.unchecked == ("pkg:pypi/jinja2@3.1.0",)
    text = render(report)
    assert (
        "NOT CHECKED: 1 of 2 packages.\n  pkg:pypi/jinja2@3.1.0\nThe others were checked with OSV.\n" in text
    )
    assert "OSV: PyPI: it answers with status 400: 'later'" in text


def test_packages_without_an_osv_ecosystem_are_unchecked(osv: Osv) -> None:
    unknown = [
        Package("deb", "bash", "5", "amd64", "bash", "5", distro) for distro in ("", "debian", "ubuntu-24.04")
    ]
    report = osv.scan([*unknown, JINJA])
    assert not_checked(report)
    assert len(report.unchecked) == 3
    assert "OSV: no ecosystem for deb packages of ubuntu-24.04" in report.not_checked_reasons
    assert len(osv.batches) == 1


def test_large_images_are_asked_in_batches(osv: Osv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osv_client, "BATCH", 10)
    report = osv.scan(Package("npm", f"p{i}", "1.0.0") for i in range(25))
    assert report.checked
    assert report.packages == 25
    assert [len(batch) for batch in osv.batches] == [10, 10, 5]


def test_osv_is_asked_again_a_few_times(osv: Osv) -> None:
    osv.failures = [503, 429]
    assert osv.scan([JINJA]).checked
    osv.failures = [500] * 9
    report = osv.scan([JINJA])
    assert not_checked(report)
    assert len(osv.failures) == 6


def test_osv_does_not_answer_in_time(osv: Osv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osv_client, "SECONDS", 0.2)
    monkeypatch.setattr(osv_client, "_RETRY_SECONDS", 30.0)
    osv.failures = [500] * 9
    started = time.monotonic()
    report = osv.scan([JINJA])
    assert time.monotonic() - started < 5
    assert not_checked(report)
    assert "no answer within 0.2 s" in render(report)


def test_an_endless_answer(osv: Osv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osv_client, "MAX_ANSWER_BYTES", 100)
    osv.spoil = lambda results: b" " * 1000
    report = osv.scan([JINJA])
    assert not_checked(report)
    assert "longer than 100 bytes" in render(report)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "", "http://", "file:///etc/passwd"])
def test_osv_cannot_be_reached(url: str) -> None:
    report = run([JINJA], url)
    assert not_checked(report)
    assert exit_code(report, Severity.LOW) == 3


def test_the_public_service_is_asked_over_https() -> None:
    assert osv_client.OSV_URL.startswith("https://")


# --- programs on PATH


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def printing(folder: Path, name: str, report: object) -> None:
    """A scanner that writes down its arguments, one a line, and prints a report."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps(report))
    program(folder, name, f'printf "%s\\n" "$@" > {folder}/{name}.args\n/bin/cat {file}')


def trivy_row(package: Package) -> dict[str, Any]:
    named = {"PURL": package.purl, "UID": "1"}
    return {"Name": package.name, "Identifier": named, "Version": package.version}


def trivy_report(packages: Iterable[Package] = ALL[:5], **system: Any) -> dict[str, Any]:
    rows = list(packages)
    debian = [trivy_row(p) for p in rows if p.kind == "deb"]
    vulnerability = {
        "VulnerabilityID": "CVE-2026-1",
        "VendorIDs": ["DSA-1"],
        "PkgName": "libc6",
        "PkgIdentifier": {"PURL": LIBC.purl, "UID": "1"},
        "InstalledVersion": "2.36-9",
        "FixedVersion": "2.36-10",
        "Title": "an \x1b[31moverflow\u202e",
        "Severity": "HIGH",
    }
    results: list[dict[str, Any]] = [
        {
            "Target": "x (debian 12)",
            "Class": "os-pkgs",
            "Type": "debian",
            "Packages": debian,
            "Vulnerabilities": [vulnerability],
        },
        {
            "Target": "Python",
            "Class": "lang-pkgs",
            "Packages": [trivy_row(p) for p in rows if p.kind == "pypi"],
        },
        {
            "Target": "Node.js",
            "Class": "lang-pkgs",
            "Packages": [trivy_row(p) for p in rows if p.kind == "npm"],
        },
    ]
    operating_system = {"Family": "debian", "Name": "12"} | system
    return {"SchemaVersion": 2, "Metadata": {"OS": operating_system}, "Results": results}


def grype_report(**more: Any) -> dict[str, Any]:
    match = {
        "vulnerability": {
            "id": "GHSA-x",
            "severity": "Critical",
            "description": "a\nb",
            "fix": {"versions": ["4.18.1"]},
        },
        "relatedVulnerabilities": [{"id": "CVE-2026-2"}],
        "artifact": {"name": "lodash", "version": "4.17.0", "type": "npm", "purl": LODASH.purl},
    }
    descriptor = {"name": "grype", "version": "0.90.0"}
    return {
        "matches": [match],
        "descriptor": descriptor,
        "distro": {"name": "debian", "version": "12"},
    } | more


def test_trivy(tmp_path: Path) -> None:
    printing(tmp_path, "trivy", trivy_report())
    report = run(ALL[:5])
    assert report.checked
    assert report.scanner == "trivy"
    assert report.findings == (
        Finding(
            package="libc6",
            version="2.36-9",
            id="CVE-2026-1",
            aliases=("DSA-1",),
            severity=Severity.HIGH,
            fixed_in="2.36-10",
            summary="an [31moverflow",
        ),
    )
    assert [exit_code(report, s) for s in (Severity.HIGH, Severity.CRITICAL)] == [1, 0]
    arguments = (tmp_path / "trivy.args").read_text().splitlines()
    assert arguments[0] == "image"
    assert arguments[-4:] == ["--format", "json", "--input", str(ARCHIVE)]


def test_a_package_that_trivy_does_not_list_is_unchecked(tmp_path: Path) -> None:
    printing(tmp_path, "trivy", trivy_report())
    report = run(ALL)
    assert not_checked(report)
    assert report.unchecked == ("pkg:generic/node@18.20.8",)
    assert exit_code(report, Severity.CRITICAL) == 3
    printing(tmp_path, "trivy", {"SchemaVersion": 2, "Results": None})
    report = run(ALL)
    assert not_checked(report)
    assert len(report.unchecked) == 6


def test_trivy_may_write_a_package_url_differently(tmp_path: Path) -> None:
    package = Package("deb", "bsdutils", "1:2.38-5", "amd64", "util-linux", "2.38-5", "debian-12")
    row = {"Identifier": {"PURL": "pkg:deb/debian/bsdutils@2.38-5?epoch=1&arch=amd64"}}
    results = [
        {"Class": "os-pkgs", "Packages": [row]},
        {"Class": "lang-pkgs", "Packages": [{}, {"Identifier": {}}]},
    ]
    printing(tmp_path, "trivy", trivy_report() | {"Results": results})
    assert run([package]).checked


@pytest.mark.parametrize("system", [{"EOSL": True}, {"Family": ""}, {"Family": None}])
def test_debian_packages_need_a_release_that_trivy_has_advisories_for(
    tmp_path: Path, system: dict[str, Any]
) -> None:
    printing(tmp_path, "trivy", trivy_report(**system))
    report = run(ALL[:5])
    assert not_checked(report)
    assert len(report.unchecked) == 2
    assert len(report.findings) == 1


def test_grype(tmp_path: Path) -> None:
    printing(tmp_path, "grype", grype_report())
    report = run(ALL[:5])
    assert report.checked
    assert report.scanner == "grype"
    assert [(f.package, f.severity, f.aliases, f.fixed_in, f.summary) for f in report.findings] == [
        ("lodash", Severity.CRITICAL, ("CVE-2026-2",), "4.18.1", "a b")
    ]
    assert (tmp_path / "grype.args").read_text().splitlines()[0] == f"docker-archive:{ARCHIVE}"
    printing(tmp_path, "grype", grype_report(distro={"name": "", "version": ""}, matches=[]))
    assert {purl.split("/")[0] for purl in run(ALL[:5]).unchecked} == {"pkg:deb"}


def test_osv_is_asked_about_what_the_scanner_does_not_look_up(tmp_path: Path, osv: Osv) -> None:
    printing(tmp_path, "trivy", trivy_report())
    printing(tmp_path, "grype", grype_report())
    osv.known = {("Bitnami", "node"): ["BIT-node-1"]}
    osv.vulns = {
        "BIT-node-1": advisory("BIT-node-1", "Bitnami", "node", database_specific={"severity": "Low"})
    }
    report = osv.scan(ALL)
    assert report.checked
    assert report.scanner == "trivy and OSV"
    assert [f.id for f in report.findings] == ["CVE-2026-1", "BIT-node-1"]
    assert [[q["package"]["name"] for q in batch] for batch in osv.batches] == [["node"]]
    assert not (tmp_path / "grype.args").exists()


def test_packages_that_only_trivy_knows_count_too(tmp_path: Path) -> None:
    row = {"Identifier": {"PURL": "pkg:apk/alpine/musl@1.2.4-r2?distro=3.18"}}
    results = [{"Class": "os-pkgs", "Packages": [row]}]
    alpine = {"Family": "alpine", "Name": "3.18"}
    report_of = {"SchemaVersion": 2, "Metadata": {"OS": alpine}, "Results": results}
    printing(tmp_path, "trivy", report_of)
    report = run([])
    assert report.checked
    assert report.packages == 1
    printing(tmp_path, "trivy", report_of | {"Metadata": {"OS": alpine | {"EOSL": True}}})
    report = run([])
    assert not_checked(report)
    assert report.unchecked == ("pkg:apk/alpine/musl@1.2.4-r2?distro=3.18",)


def test_a_finding_is_reported_once(tmp_path: Path) -> None:
    printing(tmp_path, "grype", grype_report(matches=grype_report()["matches"] * 3))
    assert len(run(ALL[:5]).findings) == 1


BROKEN = [
    "exit 1",
    "echo 'FATAL no database' >&2; exit 1",
    "true",
    "echo garbage",
    "echo '[]'",
    "echo '{}'",
    "echo null",
    """echo '{"SchemaVersion": 3, "Results": []}'""",
    """echo '{"SchemaVersion": 2, "Results": [7]}'""",
    """echo '{"SchemaVersion": 2, "Results": [{"Packages": [{"Identifier": 3}]}]}'""",
    """echo '{"SchemaVersion": 2, "Results": [{"Vulnerabilities": [{}]}]}'""",
    """echo '{"descriptor": {"name": "other"}, "matches": []}'""",
    """echo '{"descriptor": {"name": "grype"}}'""",
    """echo '{"descriptor": {"name": "grype"}, "matches": [{}]}'""",
    "printf '\\377'",
    "kill -9 $$",
]


@pytest.mark.parametrize("script", BROKEN)
@pytest.mark.parametrize("name", ["trivy", "grype"])
def test_a_scanner_that_fails_checks_nothing(tmp_path: Path, name: str, script: str) -> None:
    program(tmp_path, name, script)
    report = run(ALL)
    assert not_checked(report)
    assert len(report.unchecked) == 6
    assert exit_code(report, Severity.CRITICAL) == 3
    assert any(reason.startswith(f"{name}: ") for reason in report.not_checked_reasons)


def test_a_scanner_that_fails_is_named_although_another_replaces_it(tmp_path: Path) -> None:
    program(tmp_path, "trivy", "echo 'no database' >&2; exit 1")
    printing(tmp_path, "grype", grype_report(matches=[]))
    report = run(ALL[:5])
    assert report.checked
    assert report.not_checked_reasons == ("trivy: exit code 1: no database",)
    assert "trivy: exit code 1: no database" in render(report)
    assert exit_code(report, Severity.LOW) == 0


def test_a_scanner_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanners, "SECONDS", 1.5)
    program(tmp_path, "trivy", f"/bin/sleep 60 &\necho $! > {tmp_path}/pid\nwait")
    report = run(ALL)
    assert not_checked(report)
    assert "trivy: no answer within 1.5 s" in report.not_checked_reasons
    child = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    end = time.monotonic() + 5
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < end:
        time.sleep(0.01)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_a_scanner_that_prints_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanners, "MAX_ANSWER_BYTES", 1000)
    program(tmp_path, "grype", "/usr/bin/head -c 5000 /dev/zero")
    assert "grype: its report is longer than 1000 bytes" in run(ALL).not_checked_reasons


def test_a_scanner_that_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "trivy").write_text("#!/does/not/exist\n")
    (tmp_path / "trivy").chmod(0o755)
    report = run(ALL)
    assert not_checked(report)
    assert any(reason.startswith("trivy: cannot be started") for reason in report.not_checked_reasons)


def test_cancelling_kills_the_scanner(tmp_path: Path) -> None:
    program(tmp_path, "trivy", f"echo $$ > {tmp_path}/pid\nexec /bin/sleep 60")

    def started() -> bool:
        return (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text())

    async def cancelled() -> None:
        task = asyncio.create_task(scan(ARCHIVE, ALL, severity=Severity.LOW, osv_url=None))
        for _ in range(1000):
            if started():
                break
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# --- the report


def test_nothing_to_check_and_nothing_to_check_with(osv: Osv) -> None:
    assert not_checked(run(ALL))
    assert render(run(ALL)) == (
        "NOT CHECKED: 6 of 6 packages.\n  trivy: not installed\n  grype: not installed\n  OSV: not asked\n"
    )
    empty = osv.scan([])
    assert not_checked(empty)
    assert exit_code(empty, Severity.CRITICAL) == 3
    assert "no packages were found" in render(empty)


@pytest.mark.parametrize(
    "report",
    [
        ScanReport(packages=0),
        ScanReport(packages=0, scanner="trivy"),
        ScanReport(packages=3),
        ScanReport(packages=3, scanner="trivy", unchecked=("pkg:npm/a@1",)),
    ],
)
def test_no_report_can_say_checked_without_a_check(report: ScanReport) -> None:
    assert not_checked(report)
    assert report.to_dict()["checked"] is False


def test_to_dict_is_json() -> None:
    finding = Finding(package="a", version="1", id="X", aliases=("Y",), severity=Severity.HIGH)
    report = ScanReport(packages=1, scanner="trivy", findings=(finding,), threshold=Severity.MEDIUM)
    assert json.loads(json.dumps(report.to_dict())) == {
        "checked": True,
        "packages": 1,
        "scanner": "trivy",
        "threshold": "medium",
        "findings": [
            {
                "package": "a",
                "version": "1",
                "id": "X",
                "aliases": ["Y"],
                "severity": "high",
                "fixed_in": "",
                "summary": "",
            }
        ],
        "unchecked": [],
        "not_checked_reasons": [],
    }


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("CRITICAL", Severity.CRITICAL),
        ("Moderate", Severity.MEDIUM),
        (" low ", Severity.LOW),
        ("Negligible", Severity.LOW),
        ("unimportant", Severity.LOW),
        ("", Severity.UNKNOWN),
        ("7.5", Severity.UNKNOWN),
        (None, Severity.UNKNOWN),
        (9, Severity.UNKNOWN),
        (HIGH_VECTOR, Severity.HIGH),
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", Severity.LOW),
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", Severity.CRITICAL),
        ("AV:N/AC:L/Au:N/C:C/I:C/A:C", Severity.HIGH),
        ("CVSS:3.1/AV:N", Severity.UNKNOWN),
        ("CVSS:4.0/x", Severity.UNKNOWN),
        ("x" * 1000, Severity.UNKNOWN),
    ],
)
def test_severities(text: object, severity: Severity) -> None:
    assert Severity.of(text) is severity


@settings(deadline=None)
@given(st.text() | st.text("AVCSNLHPRUI:/.0134", max_size=60).map(lambda t: "CVSS:3.1/" + t))
def test_any_text_has_a_severity(text: str) -> None:
    assert Severity.of(text) in Severity


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.text(), st.text(), st.text(), st.text()), max_size=4),
    st.lists(st.text(), max_size=3),
)
def test_a_report_contains_no_control_characters(
    rows: list[tuple[str, str, str, str]], reasons: list[str]
) -> None:
    findings = tuple(Finding(package=p, version=v, id=i, summary=s, aliases=(s,)) for p, v, i, s in rows)
    report = ScanReport(
        packages=2, findings=findings, unchecked=tuple(reasons), not_checked_reasons=tuple(reasons)
    )
    text = render(report)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert text.count("\n") <= 3 + len(reasons) + 2 + len(rows)
    assert all(alias.isprintable() for finding in report.findings for alias in finding.aliases)
