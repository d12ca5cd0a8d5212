"""Files that come with the package, installed or in a checkout: docker/ and the guest's sources."""

from __future__ import annotations

from pathlib import Path

PACKAGE_DIR = Path(__file__).parent


def guest_dir() -> Path:
    """The sources of what runs inside sandboxes."""
    return PACKAGE_DIR / "guest"


def worker_hook() -> Path:
    """The file that makes an interpreter start as a worker; it belongs in site-packages."""
    return guest_dir() / "python/codeforge_worker.pth"


def path_of(name: str) -> Path:
    """A file of the build context, such as ``docker/node``: in the installed package, or in the checkout."""
    installed = PACKAGE_DIR / "_image_context" / name
    return installed if installed.exists() else PACKAGE_DIR.parent.parent / name


def is_left_by_a_build(path: Path) -> bool:
    """Whether it is an artefact of a build on the host, which make would consider up to date.

    .dockerignore excludes the same files.
    """
    return (
        not {"__pycache__", "build", "bin"}.isdisjoint(path.parts)
        or path.suffix == ".o"
        or path in (Path("init/init"), Path("enter/enter"))
    )
