"""Asks the OSV service which vulnerabilities are known for which package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp

from codeforge.images.scan.answer import MALFORMED, MAX_ANSWER_BYTES, Answer, Key, ScannerError, key_of
from codeforge.images.scan.report import Finding, Severity
from codeforge.images.scan.sbom import Package

OSV_URL = "https://api.osv.dev"
SECONDS = 120.0
"""How long all requests to the OSV service may take together."""
TRIES = 3
BATCH = 1000
"""How many questions the service accepts in one request."""
_RETRY_SECONDS = 0.5
_MAX_PAGES = 100
_AT_ONCE = 8


class _Question(NamedTuple):
    """A package by the names that the OSV service uses."""

    ecosystem: str
    name: str
    version: str


def _question(package: Package) -> _Question | None:
    """Return the question about a package, or None if the service does not have its ecosystem."""
    system, _, release = package.distro.partition("-")
    if package.kind == "deb":
        known = system == "debian" and release
        return _Question(f"Debian:{release}", package.source, package.source_version) if known else None
    ecosystem = {"pypi": "PyPI", "npm": "npm", "generic": "Bitnami"}[package.kind]
    return _Question(ecosystem, package.name, package.version)


class _Service:
    """A client of an OSV service, for one scan."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._end = asyncio.get_running_loop().time() + SECONDS
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def call(self, path: str, body: object = None) -> Any:
        """Return the service's answer, as JSON holds it. The method is GET without a body, else POST.

        Raises:
            ScannerError: no answer after ``TRIES`` tries or in time, or the answer is not JSON.
        """
        try:
            async with asyncio.timeout_at(self._end):
                for attempt in range(TRIES):
                    await asyncio.sleep(_RETRY_SECONDS * attempt)
                    status, text = await self._once(path, body)
                    if status == 200:
                        return json.loads(text)
                    if status and status < 500 and status != 429:
                        break
        except TimeoutError:
            raise ScannerError(f"no answer within {SECONDS:g} s") from None
        except (ValueError, RecursionError) as error:
            raise ScannerError(f"its answer is not understood: {error!r}") from error
        raise ScannerError(
            f"it answers with status {status}: {text[:200]!r}" if status else f"cannot be reached: {text}"
        )

    async def _once(self, path: str, body: object) -> tuple[int, str]:
        """Return the status and the body, or status 0 and the reason if there is no response."""
        method = "GET" if body is None else "POST"
        try:
            async with (
                self._turns,
                self._session.request(method, self._url + path, json=body, allow_redirects=False) as answer,
            ):
                data = bytearray()
                async for chunk in answer.content.iter_chunked(1 << 16):
                    data += chunk
                    if len(data) > MAX_ANSWER_BYTES:
                        raise ScannerError(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
                return answer.status, data.decode()
        except (aiohttp.ClientError, OSError) as error:
            return 0, str(error) or type(error).__name__

    async def ids(self, questions: list[_Question]) -> list[set[str]]:
        """Return the ids of the known vulnerabilities for each question, from all pages of the answer."""
        found: list[set[str]] = [set() for _ in questions]
        pending: list[tuple[int, dict[str, Any]]] = [
            (i, {"package": {"ecosystem": q.ecosystem, "name": q.name}, "version": q.version})
            for i, q in enumerate(questions)
        ]
        for _ in range(_MAX_PAGES):
            if not pending:
                return found
            answer = await self.call("/v1/querybatch", {"queries": [query for _, query in pending]})
            following = []
            try:
                results = answer["results"]
                if len(results) != len(pending):
                    raise ScannerError(f"{len(results)} answers to {len(pending)} questions")
                for (i, query), result in zip(pending, results, strict=True):
                    found[i].update(str(row["id"]) for row in result.get("vulns") or ())
                    if token := result.get("next_page_token"):
                        following.append((i, {**query, "page_token": str(token)}))
            except MALFORMED as error:
                raise ScannerError(f"its answer is not understood: {error!r}") from error
            pending = following
        raise ScannerError(f"more than {_MAX_PAGES} pages")

    async def finding(self, question: _Question, identity: str) -> Finding | None:
        """Return a vulnerability's details, or None if it was withdrawn. Without any, it has no severity."""
        bare = Finding(package=question.name, version=question.version, id=identity)
        try:
            row = await self.call(f"/v1/vulns/{quote(identity, safe='')}")
            return None if row.get("withdrawn") else _details(bare, question, row)
        except MALFORMED as error:
            return replace(bare, summary=f"its details are not understood: {error!r}")
        except ScannerError as error:
            return replace(bare, summary=f"no details: {error}")


def _details(bare: Finding, question: _Question, row: dict[str, Any]) -> Finding:
    ours = {"ecosystem": question.ecosystem, "name": question.name}
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


def _batches(questions: Collection[_Question]) -> Iterator[list[_Question]]:
    """Split by ecosystem, so that an ecosystem the service does not know costs only its own packages."""
    for ecosystem in dict.fromkeys(question.ecosystem for question in questions):
        asked = [question for question in questions if question.ecosystem == ecosystem]
        for start in range(0, len(asked), BATCH):
            yield asked[start : start + BATCH]


async def ask(url: str, packages: Collection[Package]) -> Answer:
    """Ask the service at ``url`` about packages. Each part that fails is a reason in the answer."""
    answer = Answer()
    keys: dict[_Question, set[Key]] = {}
    for package in packages:
        question, key = _question(package), key_of(package.purl)
        if question and key:
            keys.setdefault(question, set()).add(key)
        else:
            answer.reasons.append(
                f"no ecosystem for {package.kind} packages of {package.distro or 'an unknown distribution'}"
            )
    async with aiohttp.ClientSession(trust_env=True) as session:
        service = _Service(session, url)
        hits: list[tuple[_Question, str]] = []
        for batch in _batches(keys):
            try:
                ids = await service.ids(batch)
            except ScannerError as error:
                answer.reasons.append(f"{batch[0].ecosystem}: {error}")
                continue
            answer.checked.update(*(keys[question] for question in batch))
            hits += [(question, i) for question, some in zip(batch, ids, strict=True) for i in sorted(some)]
        found = await asyncio.gather(*(service.finding(question, identity) for question, identity in hits))
    answer.findings = [finding for finding in found if finding]
    return answer
