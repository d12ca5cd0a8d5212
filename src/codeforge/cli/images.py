"""``codeforge images``: have the images, look at them, know what is in them."""

from __future__ import annotations

import asyncio
import datetime
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from codeforge import progress
from codeforge.cli.terminal import harmless, print_json
from codeforge.errors import ImageNotFound, InvalidRequest
from codeforge.executor import CodeExecutor
from codeforge.images.archive import read_packages
from codeforge.images.osv import URL as OSV_URL
from codeforge.images.sbom import Package, to_cyclonedx
from codeforge.images.scan import scan
from codeforge.images.scan_report import Severity, exit_code, render
from codeforge.languages import LANGUAGES, Language

app = typer.Typer(no_args_is_help=True, help="Build, pull, list, update and examine the images.")

Names = Annotated[list[str] | None, typer.Argument(metavar="[LANG]...", help="Languages; default: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for a script to read.")]
Image = Annotated[str, typer.Argument(metavar="LANG|IMAGE", help="A language, or any image's reference.")]


def _rows(executor: CodeExecutor, names: Iterable[str] | None) -> list[Language]:
    return [executor.languages.find(name) for name in names] if names else list(executor.languages)


@app.command(
    epilog="Examples:\n\n  codeforge images build\n\n"
    "  codeforge images build python --with tabulate --with 'polars>=1' --tag custom"
)
def build(
    names: Names = None,
    packages: Annotated[
        list[str] | None, typer.Option("--with", metavar="PACKAGE", help="One more pip or npm package.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Tag or full reference; default: the language's image.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Another base image, such as one pinned by digest.")
    ] = None,
) -> None:
    """Build our images from the Dockerfiles that come with this package."""
    asyncio.run(_build(names, packages or [], tag, base, update=False))


@app.command(epilog="Example:  codeforge images update python")
def update(names: Names = None) -> None:
    """Pull the base images again and rebuild ours from scratch."""
    asyncio.run(_build(names, [], None, None, update=True))


async def _build(
    names: list[str] | None, packages: list[str], tag: str | None, base: str | None, *, update: bool
) -> None:
    async with CodeExecutor() as executor:
        rows = _rows(executor, names)
        if (packages or tag or base) and len(rows) != 1:
            raise InvalidRequest("--with, --tag and --base go with one language, as in: images build python")
        for row in rows:
            with progress.steps() as report:
                tagged = await executor.images.build(
                    row, report, packages=packages, tag=tag, base=base, update=update
                )
            image = await executor.images.find(tagged)
            if image is not None:
                print(f"{tagged}  {image.size / 1e6:.0f} MB  {image.id[7:19]}")


@app.command(epilog="Example:  codeforge images pull python javascript")
def pull(names: Names = None) -> None:
    """Have the images ready: from a registry where it has them, else built here."""

    async def work() -> dict[str, bool]:
        async with CodeExecutor() as executor:
            return await executor.pull_images(names)

    there = asyncio.run(work())
    for name, ready in there.items():
        print(f"{name}: {'ready' if ready else 'FAILED'}")
    raise typer.Exit(0 if all(there.values()) else 1)


@app.command("list", epilog="Example:  codeforge images list --json")
def list_images(as_json: AsJson = False) -> None:
    """Show which images are on this machine."""

    async def work() -> list[dict[str, object]]:
        async with CodeExecutor() as executor:
            found = [(row, await executor.images.find(row.image)) for row in executor.languages]
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
        ]

    rows = asyncio.run(work())
    if as_json:
        print_json(rows)
        return
    for row in rows:
        size, created = row["size"], row["created"]
        state = f"{size / 1e6:.0f} MB, built {str(created)[:10]}" if isinstance(size, int) else "not here"
        print(f"{row['language']:<12} {row['image']:<34} {state}")


@app.command(epilog="Example:  codeforge images sbom python --output python.cdx.json")
def sbom(
    image: Image,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: stdout.")
    ] = None,
) -> None:
    """Write a CycloneDX bill of materials: Debian, pip and npm packages of an image."""
    _, document = asyncio.run(_examine(image))
    if output is None:
        print(document)
    else:
        output.write_text(document + "\n")


@app.command("scan", epilog="Example:  codeforge images scan python --severity high")
def scan_images(
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[LANG|IMAGE]...", help="Default: every language's image.")
    ] = None,
    severity: Annotated[
        str, typer.Option(help="Fail from this severity on: low, medium, high or critical.")
    ] = "high",
    osv_url: Annotated[
        str, typer.Option(help="The OSV service to ask where no scanner is installed.")
    ] = OSV_URL,
    as_json: AsJson = False,
) -> None:
    """Look for known vulnerabilities with trivy, grype or OSV.

    Exit codes: 0 none, 1 some at or above the severity, 3 NOT CHECKED.
    """
    known = [level.name.lower() for level in Severity if level.name != "UNKNOWN"]
    if severity.lower() not in known:
        raise InvalidRequest(f"--severity must be one of {', '.join(known)}, not {severity!r}")
    threshold = Severity[severity.upper()]
    reports = {}
    for image in images or [row.name for row in LANGUAGES]:
        packages, document = asyncio.run(_examine(image))
        reports[image] = asyncio.run(scan(document, packages, severity=threshold, osv_url=osv_url))
    if as_json:
        print_json({image: report.to_dict() for image, report in reports.items()})
    else:
        console = Console(highlight=False, soft_wrap=True)
        for image, report in reports.items():
            console.print(escape(harmless(f"{image}:\n{render(report)}")))
    codes = {exit_code(report, threshold) for report in reports.values()}
    # What was found counts more than what was not looked at; both fail.
    raise typer.Exit(1 if 1 in codes else max(codes))


async def _examine(name: str) -> tuple[list[Package], str]:
    async with CodeExecutor() as executor:
        known = {alias: row.image for row in executor.languages for alias in (row.name, *row.aliases)}
        reference = known.get(name, name)
        image = await executor.images.find(reference)
        if image is None:
            raise ImageNotFound(
                f"{reference} is not on this machine\nBuild or pull it: codeforge images build"
            )
        with tempfile.TemporaryFile() as archive:
            async for chunk in executor.images.export(reference):
                archive.write(chunk)
            archive.seek(0)
            packages = await asyncio.to_thread(read_packages, archive)
    created = datetime.datetime.now(datetime.UTC)
    return packages, to_cyclonedx(packages, reference, image.id, created)
