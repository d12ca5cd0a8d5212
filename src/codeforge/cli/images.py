"""``codeforge images``: provide the images, list them, and examine what they contain."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import importlib.util
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from codeforge import progress
from codeforge.cli.terminal import harmless, print_json
from codeforge.errors import ImageNotFound, InvalidRequest
from codeforge.executor import CodeExecutor
from codeforge.model import LANGUAGES, OPTIONAL_LANGUAGES, Language

if TYPE_CHECKING:
    from codeforge.images import ImageStore
    from codeforge.images.scan import Package

SCAN_EXTRA = ("cvss", "cyclonedx", "packageurl")
"""The modules that the extra ``scan`` installs."""


def _rows(executor: CodeExecutor, names: Iterable[str] | None) -> list[Language]:
    return [executor.languages.find(name) for name in names] if names else list(executor.languages)


def build(names: list[str] | None, packages: list[str], tag: str | None, base: str | None) -> None:
    """Build the images, or one of them with more packages in it."""
    asyncio.run(_build(names, packages, tag, base, update=False))


def update(names: list[str] | None) -> None:
    """Build the images from scratch, on the newest base images."""
    asyncio.run(_build(names, [], None, None, update=True))


async def _images(executor: CodeExecutor) -> ImageStore:
    await executor.engine()  # before "auto" has chosen, there is no engine to have images
    return executor.images


async def _build(
    names: list[str] | None, packages: list[str], tag: str | None, base: str | None, *, update: bool
) -> None:
    async with CodeExecutor() as executor:
        rows = _rows(executor, names)
        if (packages or tag or base) and len(rows) != 1:
            raise InvalidRequest(
                "--with, --tag and --base need one language, as in: images build python --tag custom"
            )
        store = await _images(executor)
        for row in rows:
            with progress.show_steps() as report:
                tagged = await store.build(row, report, packages=packages, tag=tag, base=base, update=update)
            image = await store.find(tagged)
            if image is not None:
                print(f"{tagged}  {image.size / 1e6:.0f} MB  {image.id[7:19]}")


def pull(names: list[str] | None) -> int:
    """Pull or build the images, and return the exit code."""

    async def work() -> dict[str, bool]:
        async with CodeExecutor() as executor:
            return await executor.pull_images(names)

    there = asyncio.run(work())
    for name, ready in there.items():
        print(f"{name}: {'ready' if ready else 'FAILED'}")
    return 0 if all(there.values()) else 1


def print_list(*, as_json: bool) -> None:
    """Print which images are on this machine. Images of optional languages are left out if they are not."""

    async def work() -> list[dict[str, object]]:
        async with CodeExecutor() as executor:
            store = await _images(executor)
            rows = (*executor.languages, *OPTIONAL_LANGUAGES)
            found = [(row, await store.find(row.image)) for row in rows]
        return [
            {
                "language": row.name,
                "image": row.image,
                "present": image is not None,
                "size": image.size if image else None,
                "id": image.id if image else None,
                "created": image.created if image else None,
            }
            for row, image in found
            if image is not None or not row.optional
        ]

    rows = asyncio.run(work())
    if as_json:
        print_json(rows)
        return
    for row in rows:
        size, created = row["size"], row["created"]
        state = f"{size / 1e6:.0f} MB, built {str(created)[:10]}" if isinstance(size, int) else "not here"
        print(f"{row['language']:<12} {row['image']:<34} {state}")


def _require_scan_extra(command: str) -> None:
    if any(importlib.util.find_spec(name) is None for name in SCAN_EXTRA):
        raise InvalidRequest(f"images {command} needs the extra: pip install 'ai-codeforge[scan]'")


def sbom(image: str, output: Path | None) -> None:
    """Write an image's bill of materials to a file, or to stdout."""
    _require_scan_extra("sbom")
    document = asyncio.run(_sbom(image))
    if output is None:
        print(document)
    else:
        try:
            output.write_text(document + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"--output: cannot write {output}: {error.strerror}") from error


async def _sbom(name: str) -> str:
    from codeforge.images.scan import to_cyclonedx

    async with examined(name) as image:
        created = datetime.datetime.now(datetime.UTC)
        return to_cyclonedx(image.packages, image.reference, image.id, created)


def scan(images: list[str] | None, *, severity: str, osv_url: str | None, as_json: bool) -> int:
    """Look up known vulnerabilities, print the reports, and return the exit code."""
    _require_scan_extra("scan")
    from codeforge.images.scan import OSV_URL, ScanReport, Severity, exit_code, render, scan

    known = [level.name.lower() for level in Severity if level.name != "UNKNOWN"]
    if severity.lower() not in known:
        raise InvalidRequest(f"--severity must be one of {', '.join(known)}, not {severity!r}")
    threshold = Severity[severity.upper()]
    url = OSV_URL if osv_url is None else osv_url or None

    async def report(name: str) -> ScanReport:
        async with examined(name) as image:
            return await scan(image.archive, image.packages, severity=threshold, osv_url=url)

    reports = {name: asyncio.run(report(name)) for name in images or [row.name for row in LANGUAGES]}
    if as_json:
        print_json({name: report.to_dict() for name, report in reports.items()})
    else:
        console = Console(highlight=False, soft_wrap=True)
        for name, found in reports.items():
            console.print(escape(harmless(f"{name}:\n{render(found)}")))
    codes = {exit_code(report, threshold) for report in reports.values()}
    # Vulnerabilities in one image outweigh another image that could not be checked.
    return 1 if 1 in codes else max(codes)


@dataclass(frozen=True, slots=True)
class Image:
    """An image, its archive as ``docker save`` writes it, and the packages in it."""

    reference: str
    id: str
    archive: Path
    packages: list[Package]


@contextlib.asynccontextmanager
async def examined(name: str) -> AsyncIterator[Image]:
    """Export an image to a temporary file, and find its packages. ``name`` is a language or a reference."""
    from codeforge.images.scan import read_packages

    async with CodeExecutor() as executor:
        rows = (*executor.languages, *OPTIONAL_LANGUAGES)
        known = {alias: row for row in rows for alias in (row.name, *row.aliases)}
        reference = known[name].image if name in known else name
        store = await _images(executor)
        image = await store.find(reference)
        if image is None:
            advice = (
                f"Build or pull it: codeforge images pull {known[name].name}"
                if name in known
                else f"Pull or build it first, or name a language: {', '.join(row.name for row in rows)}"
            )
            raise ImageNotFound(f"{reference} is not on this machine\n{advice}")
        with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
            async for chunk in store.export(reference):
                archive.write(chunk)
            archive.flush()
            archive.seek(0)
            packages = await asyncio.to_thread(read_packages, archive)
            yield Image(reference, image.id, Path(archive.name), packages)
