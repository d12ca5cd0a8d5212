"""The options of ``codeforge images``; what the commands do is in images.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Build, pull, list, update and examine the images.")

Names = Annotated[list[str] | None, typer.Argument(metavar="[LANG]...", help="Languages; default: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for a script to read.")]
Image = Annotated[str, typer.Argument(metavar="LANG|IMAGE", help="A language, or any image's reference.")]


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
    from codeforge.cli import images as command

    command.build(names, packages or [], tag, base)


@app.command(epilog="Example:  codeforge images update python")
def update(names: Names = None) -> None:
    """Pull the base images again and rebuild ours from scratch."""
    from codeforge.cli import images as command

    command.update(names)


@app.command(epilog="Example:  codeforge images pull python javascript")
def pull(names: Names = None) -> None:
    """Have the images ready: from a registry where it has them, else built here."""
    from codeforge.cli import images as command

    raise typer.Exit(command.pull(names))


@app.command("list", epilog="Example:  codeforge images list --json")
def list_images(as_json: AsJson = False) -> None:
    """Show which images are on this machine."""
    from codeforge.cli import images as command

    command.print_list(as_json=as_json)


@app.command(epilog="Example:  codeforge images sbom python --output python.cdx.json")
def sbom(
    image: Image,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: stdout.")
    ] = None,
) -> None:
    """Write a CycloneDX bill of materials: Debian, pip and npm packages of an image."""
    from codeforge.cli import images as command

    command.sbom(image, output)


@app.command(
    "scan",
    epilog="Examples:\n\n  codeforge images scan python\n\n"
    "  codeforge images scan --severity critical --json\n\n"
    "Exit codes: 0 no vulnerabilities, 1 some at or above the severity, 3 NOT CHECKED; 2 bad usage, "
    "65 unreadable image, 66 image missing, 69 no engine, 77 no permission.",
)
def scan_images(
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[LANG|IMAGE]...", help="Default: every language's image.")
    ] = None,
    severity: Annotated[
        str, typer.Option(help="Fail from this severity on: low, medium, high or critical.")
    ] = "high",
    osv_url: Annotated[
        str | None,
        typer.Option(
            help="Base URL of the OSV service; an empty one sends nothing over the network.",
            show_default="OSV's own",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look up known vulnerabilities with trivy, grype or the OSV service."""
    from codeforge.cli import images as command

    raise typer.Exit(command.scan(images, severity=severity, osv_url=osv_url, as_json=as_json))
