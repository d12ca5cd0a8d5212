"""The options of ``codeforge images``. What the commands do is in images.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeforge.cli.options import AsJson, Names, below

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Build, pull, list, update and examine images."
)

Image = Annotated[str, typer.Argument(metavar="LANG|IMAGE", help="A language, or an image's reference.")]


@app.command(
    epilog=below(
        "codeforge images build",
        "codeforge images build python --with tabulate --tag custom",
    )
)
def build(
    names: Names = None,
    packages: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="PACKAGE", help="Add a pip or npm package. Repeatable."),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="Tag or full reference (default: the language's image)."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Use another base image, such as one pinned by digest."),
    ] = None,
) -> None:
    """Build our images from their Dockerfiles."""
    from codeforge.cli import images as command

    command.build(names, packages or [], tag, base)


@app.command(epilog=below("codeforge images update python"))
def update(names: Names = None) -> None:
    """Pull the base images again, and rebuild ours from scratch."""
    from codeforge.cli import images as command

    command.update(names)


@app.command(
    epilog=below("codeforge images pull python javascript", exit_codes="0 all are here, 1 one is missing.")
)
def pull(names: Names = None) -> None:
    """Pull images from their registry, or build them here."""
    from codeforge.cli import images as command

    raise typer.Exit(command.pull(names))


@app.command("list", epilog=below("codeforge images list --json"))
def list_images(as_json: AsJson = False) -> None:
    """List the images on this machine."""
    from codeforge.cli import images as command

    command.print_list(as_json=as_json)


@app.command(
    epilog=below(
        "codeforge images sbom python --output python.cdx.json",
        exit_codes="0 written; 2 bad usage, 65 unreadable image, 66 image missing, 69 no engine, "
        "77 no permission.",
    )
)
def sbom(
    image: Image,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write (default: stdout).")
    ] = None,
) -> None:
    """Write a CycloneDX bill of materials.

    It lists an image's Debian, pip and npm packages. Needs the extra ai-codeforge[scan].
    """
    from codeforge.cli import images as command

    command.sbom(image, output)


@app.command(
    "scan",
    epilog=below(
        "codeforge images scan python",
        "codeforge images scan --severity critical --json",
        exit_codes="0 no vulnerabilities, 1 some at or above the severity, 3 NOT CHECKED; 2 bad usage, "
        "65 unreadable image, 66 image missing, 69 no engine, 77 no permission.",
    ),
)
def scan_images(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="LANG|IMAGE", help="Languages or references (default: all languages)."),
    ] = None,
    severity: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            show_default=False,
            help="Fail from this severity on: low, medium, high or critical (default: high).",
        ),
    ] = "high",
    osv_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Base URL of the OSV service (default: https://api.osv.dev). An empty one sends nothing.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look up known vulnerabilities.

    If trivy or grype is installed, it examines the image. The OSV service is asked about the remaining
    packages. Needs the extra ai-codeforge[scan].
    """
    from codeforge.cli import images as command

    raise typer.Exit(command.scan(images, severity=severity, osv_url=osv_url, as_json=as_json))
